"""The context manager that puts an intervention on a model."""

import warnings
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Any

from jaxtyping import Float
from torch import Tensor, cat

from clas_lens.corpus.arguments import given_model
from clas_lens.given import given_flag, in_a_row, named
from clas_lens.models.decoding import continues_cache
from clas_lens.models.hooking import HeldExit, HookBlock, HookFunction, WithHold, hooked
from clas_lens.models.sites import LensModel, Site, check_mlp_hooks
from clas_lens.models.units import flat
from clas_lens.steering.intervention import Edit, Intervention, SteeringError, given_intervention
from clas_lens.steering.prompt_strengths import PromptStrengths, unsteered_first
from clas_lens.vocabulary import Positions


class Steering:
    """An intervention while it is on a model; `with steer(...) as steering` gives it to you.

    `steering.rows([...])` says for a while which of the languages the batch rows are, for code that reorders or drops rows.
    """

    def __init__(
        self, model: LensModel, intervention: Intervention, languages: Sequence[str], *, per_row: bool
    ) -> None:
        given_intervention(intervention)
        if not in_a_row(languages):
            raise SteeringError(f"a list of languages is needed, got {named(languages)}")
        self.languages = tuple(languages)
        if not self.languages:
            raise SteeringError("no languages given")
        self._positions = intervention.positions
        self._edits = dict(intervention.edits(given_model(model), self.languages))
        self._names = {site: site.hook_name(model) for site in self._edits}
        self._per_row = per_row
        self._rows: tuple[int, ...] = tuple(range(len(self.languages)))
        self._examples: tuple[int, ...] | None = None
        self._continues_cache = False
        self._is_reading = False
        held = [
            strengths for edit in self._edits.values() if (strengths := getattr(edit, "strengths", None)) is not None
        ]
        self._strengths: PromptStrengths | None = held[0] if held else None
        self.fired = dict.fromkeys(self._edits, 0)

    def check_rows(self, count: int) -> None:
        """Raise unless there is one language for each of `count` rows (or one for all)."""
        if self._per_row and len(self._rows) != count:
            raise SteeringError(
                f"steer was given {len(self._rows)} languages, one a batch row, but there are {count} rows: "
                f"{[self.languages[row] for row in self._rows]}"
            )

    @contextmanager
    def rows(self, indices: Sequence[int]) -> Iterator[None]:
        """For the forward passes inside, batch row i is in language `languages[indices[i]]`."""
        before = self._rows, self._examples
        if self._per_row:
            self._rows = tuple(self._rows[index] for index in indices)
        self._examples = tuple(indices if self._examples is None else (self._examples[index] for index in indices))
        try:
            yield
        finally:
            self._rows, self._examples = before

    def hooks(self) -> list[tuple[str, HookFunction]]:
        """The hook functions to attach, by hook point."""
        return [(self._names[site], self._hook(site, edit)) for site, edit in self._edits.items()]

    @property
    def watches_cache(self) -> bool:
        """Whether it has to know which forward passes continue a KV cache."""
        return self._positions in ("generated", "prompt_last") or self._strengths is not None

    @property
    def reads_prompts_first(self) -> bool:
        """Whether each prompt is run once without steering before it is run with it."""
        return self._strengths is not None and self._strengths.of_logits is not None

    @property
    def strengths(self) -> Tensor | None:
        """Of an intervention whose strength adapts: that of each row of the last forward pass; else None."""
        return None if self._strengths is None else self._strengths.current()

    @contextmanager
    def attached(self, model: LensModel, block: HookBlock) -> Iterator[None]:
        """What this needs beside its hooks, while they are on the model."""
        reading = unsteered_first(model, block, self) if self.reads_prompts_first else nullcontext()
        with self._watching_cache(model, block), reading:
            yield

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Forward passes inside are not steered."""
        self._is_reading = True
        try:
            yield
        finally:
            self._is_reading = False

    def see_prompts(self, logits: Float[Tensor, "row d_vocab"]) -> None:
        """Take the unsteered logits after the prompts that are about to be run."""
        assert self._strengths is not None
        assert self._strengths.of_logits is not None
        self._strengths.now(self._examples_of(len(logits)), continues=False)
        self._strengths.hold(self._strengths.of_logits(logits, self._rows_for(len(logits))))

    def silent(self) -> list[str]:
        """The hook points where nothing was edited yet."""
        return [self._names[site] for site, count in self.fired.items() if count == 0]

    @contextmanager
    def _watching_cache(self, model: LensModel, block: HookBlock) -> Iterator[None]:
        """Where positions hang on it, passes inside say whether they continue a KV cache, before the first edit of each."""
        if not self.watches_cache:
            yield
            return
        layer = min(self._edits).layer
        watched: Any = model.blocks[layer]

        def watch(module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            if module is watched and block.acts_here():  # not a copy's, and not after an interrupted clean-up
                self._continues_cache = continues_cache((*inputs, *options.values()), layer)

        handle = watched.register_forward_pre_hook(watch, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def _hook(self, site: Site, edit: Edit) -> HookFunction:
        observes = getattr(edit, "observes", False)

        def hook(activation: Tensor, hook: object) -> Tensor | None:
            if self._is_reading or (self._passes_over() and not observes):
                return None
            rows = self._rows_for(activation.shape[0])
            if self._strengths is not None:
                self._strengths.now(self._examples_of(len(rows)), continues=self._continues_cache)
            self.fired[site] += 1
            units = flat(activation)
            if self._positions in ("last", "prompt_last"):
                changed = cat([units[:, :-1], edit(units[:, -1:], rows)], dim=1)
            else:
                changed = edit(units, rows)
            return activation if changed is units else changed.reshape(activation.shape)

        return hook

    def _passes_over(self) -> bool:
        """Whether this forward pass has no position to steer: a prompt's, or one that continues a KV cache."""
        match self._positions:
            case "generated":
                return not self._continues_cache
            case "prompt_last":
                return self._continues_cache
            case "all" | "last":
                return False

    def _rows_for(self, batch: int) -> tuple[int, ...]:
        self.check_rows(batch)
        return self._rows if self._per_row else (0,) * batch

    def _examples_of(self, batch: int) -> Sequence[int]:
        return range(batch) if self._examples is None else self._examples


_on_model: "weakref.WeakKeyDictionary[Any, list[tuple[Steering, HookBlock]]]" = weakref.WeakKeyDictionary()


def steerings_on(model: LensModel) -> list[Steering]:
    """The interventions that steer `model` in this thread now, outermost first."""
    return [steering for steering, block in _on_model.get(given_model(model), ()) if block.acts_here()]


def steer(
    model: LensModel, intervention: Intervention, language: str | Sequence[str], *, must_fire: bool = True
) -> "SteeringBlock":
    """Steer every forward pass inside: `model(...)`, `run_with_cache`, `run_with_hooks`, `generate`.

    It nests, with itself and with your own hooks, and leaves nothing behind, whatever is raised inside. `run_with_cache`
    sees the steered activations. Copies of the model made inside, and other threads that call it, are not steered.

    Args:
        language: of the whole batch, or one a batch row.
        must_fire: False lets an intervention pass that never fired, such as one on generated tokens when none was generated.

    Raises:
        SteeringError: categories of another model, a batch of another size than the list of languages; at the end, an
            intervention that never fired.
        ValueError: an unknown language.
    """
    hold = WithHold()
    return SteeringBlock(_steered(model, intervention, language, must_fire, hold), hold)


class SteeringBlock:
    """What `steer` returns: it steers from `with` on, and warns when it is thrown away before."""

    def __init__(self, block: Any, hold: WithHold) -> None:
        self._block = block
        self.hold = hold
        self._is_used = False

    def __enter__(self) -> Steering:
        if self._is_used:
            raise SteeringError("this steer(...) was entered already: write a new one for each `with`")
        self._is_used = True
        return self._block.__enter__()

    def leave(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """The end of the `with` block."""
        return self._block.__exit__(kind, error, trace)

    __exit__ = HeldExit()

    def __del__(self) -> None:
        if not getattr(self, "_is_used", True):  # absent where the constructor was interrupted
            warnings.warn("steer(...) does nothing by itself: write `with steer(model, ...):`", stacklevel=2)


@contextmanager
def _steered(
    model: LensModel, intervention: Intervention, language: str | Sequence[str], must_fire: bool, hold: WithHold
) -> Iterator[Steering]:
    given_model(model)
    given_intervention(intervention)
    check_mlp_hooks(model)
    intervention.check(model)
    _check_padding(model, intervention)
    per_row = not isinstance(language, str)
    given_flag("must_fire", must_fire, error=SteeringError)
    if per_row and not in_a_row(language):
        raise SteeringError(f"a language or a list of languages is needed, one a batch row; got {language!r}")
    steering = Steering(model, intervention, [language] if isinstance(language, str) else language, per_row=per_row)
    active = _on_model.setdefault(model, [])
    with hooked(model, steering.hooks(), hold) as block:
        active[:] = [entry for entry in active if entry[1].is_open]  # an interrupted block may have left its own
        active.append((steering, block))
        try:
            with steering.attached(model, block):
                yield steering
        finally:
            active[:] = [entry for entry in active if entry[0] is not steering]
    if must_fire and steering.silent():
        raise SteeringError(_why_silent(steering.silent(), intervention.positions))


def _check_padding(model: LensModel, intervention: Intervention) -> None:
    """The last column is every row's last real token only if padding is on the left."""
    side = getattr(getattr(model, "tokenizer", None), "padding_side", "left")
    positions = intervention.positions
    adapts = getattr(intervention, "reads_prompts", False)
    if (adapts or positions in ("last", "prompt_last")) and side != "left":
        what = "a strength that adapts" if adapts else f"positions={positions!r}"
        raise SteeringError(
            f"{what} needs left padding; this model's tokenizer pads on the {side}. "
            "Set model.tokenizer.padding_side = 'left'."
        )


def _why_silent(silent: Sequence[str], positions: Positions) -> str:
    reason = {
        "generated": "positions='generated' steers only forward passes that continue a KV cache",
        "prompt_last": "positions='prompt_last' steers only forward passes that continue no KV cache",
    }.get(positions, "no forward pass of this model, in this thread and not of a copy, reached it inside the block")
    return f"steering never fired at {', '.join(silent)}: {reason}"
