"""The context manager that puts an intervention on a model, and what an intervention is."""

import math
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, cat

from clas_lens.artifacts import neuron_fingerprint
from clas_lens.sites import HookFunction, LensModel, check_mlp_hooks, hooked, pattern_name

Positions = Literal["all", "last", "generated"]


class SteeringError(ValueError):
    """An intervention that does not fit the model, the batch or the moment."""


@runtime_checkable
class Edit(Protocol):
    """A change of one activation tensor; `rows` are the batch rows' places in the list of languages."""

    def __call__(self, activation: Float[Tensor, "batch pos width"], rows: Sequence[int]) -> Tensor: ...


@runtime_checkable
class Intervention(Protocol):
    """What `steer` puts on a model: at which hook points, and which edit for which languages.

    Those of this toolkit are frozen dataclasses with a `from_pretrained(folder)` beside `save_pretrained`, so that
    `dataclasses.replace(intervention, alpha=...)` gives every method the same search over its strength.
    """

    @property
    def positions(self) -> Positions: ...

    @property
    def anchor(self) -> str:
        """The language whose rows stay bit-identical to the unsteered model."""
        ...

    @property
    def alpha(self) -> float:
        """Strength; 0 is bit-identical to no steering."""
        ...

    @property
    def source(self) -> Mapping[str, Any]:
        """What it was measured on; examples named in `source["example_keys"]` are not reported on (`leakage.py`)."""
        ...

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` if this intervention was not made for `model`."""
        ...

    def edits(self, languages: Sequence[str]) -> Mapping[str, Edit]:
        """One edit a hook point, for rows in these languages."""
        ...

    def settings(self) -> dict[str, Any]:
        """Everything but the tensors, JSON-able, for manifests."""
        ...

    def fingerprint(self) -> str:
        """A hash of everything that this intervention does."""
        ...

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write one self-contained file into `folder`."""
        ...


def check_layers(layers: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """These layers in order, or `SteeringError` if one is out of range or twice, or there are none."""
    chosen = tuple(sorted(int(layer) for layer in layers))
    outside = [layer for layer in chosen if not 0 <= layer < n_layers]
    if outside or not chosen or len(set(chosen)) != len(chosen):
        raise SteeringError(f"layers must be different ones among 0..{n_layers - 1}, at least one; got {list(chosen)}")
    return chosen


def check_numbers(**numbers: float) -> None:
    """Raise `SteeringError` for one that is not finite."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise SteeringError(f"{name} must be finite, got {value}")


def check_choice(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise `SteeringError` for a value that is not one of those allowed."""
    if value not in allowed:
        raise SteeringError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")


def check_neurons(model: LensModel, described: Mapping[str, Any], n_layers: int, n_neurons: int) -> None:
    """Raise `SteeringError` unless these neurons, measured on the model `described`, are those of `model`."""
    shape, expected = (model.cfg.n_layers, model.cfg.d_mlp), (n_layers, n_neurons)
    if shape != expected:
        raise SteeringError(
            f"these neurons are of {described.get('name')!r} with {expected[0]} layers x {expected[1]} neurons; "
            f"{model.cfg.model_name!r} has {shape[0]} x {shape[1]}. Collect and categorise this model."
        )
    check_weights(model, described)


def check_weights(model: LensModel, described: Mapping[str, Any]) -> None:
    """Raise `SteeringError` unless `described` (see `describe_model`) is this model, in any float32 or bfloat16 copy."""
    measured = described.get("neurons")
    if measured is not None and measured != neuron_fingerprint(model):
        raise SteeringError(
            f"this intervention was measured on {described.get('name')!r} with other weights than "
            f"{model.cfg.model_name!r} has now (float16 copies count as other weights). Measure this model."
        )


class Steering:
    """An intervention while it is on a model; `with steer(...) as steering` gives it to you.

    `steering.rows([...])` says for a while which of the languages the batch rows are, for code that reorders or drops rows.
    """

    def __init__(self, intervention: Intervention, languages: Sequence[str], *, per_row: bool) -> None:
        self.languages = tuple(languages)
        self.fired: dict[str, int] = {}
        self._positions = intervention.positions
        self._edits = dict(intervention.edits(self.languages))
        self._per_row = per_row
        self._rows: tuple[int, ...] = tuple(range(len(self.languages)))
        self._continues_cache = False
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
        before = self._rows
        if self._per_row:
            self._rows = tuple(before[index] for index in indices)
        try:
            yield
        finally:
            self._rows = before

    def hooks(self, model: LensModel) -> list[tuple[str, HookFunction]]:
        """The hook functions to attach."""
        hooks: list[tuple[str, HookFunction]] = [(name, self._hook(name, edit)) for name, edit in self._edits.items()]
        if self._positions == "generated":
            first = min(int(name.split(".")[1]) for name in self._edits)
            hooks.insert(0, (pattern_name(first), self._watch_cache))
        return hooks

    def _watch_cache(self, pattern: Tensor, hook: object) -> None:
        self._continues_cache = pattern.shape[-1] > pattern.shape[-2]

    def _hook(self, name: str, edit: Edit) -> HookFunction:
        def hook(activation: Tensor, hook: object) -> Tensor | None:
            if self._positions == "generated" and not self._continues_cache:
                return None
            rows = self._rows_for(activation.shape[0])
            self.fired[name] += 1
            if self._positions == "last":
                last = edit(activation[:, -1:], rows)
                return cat([activation[:, :-1], last], dim=1)
            return edit(activation, rows)

        return hook

    def _rows_for(self, batch: int) -> tuple[int, ...]:
        self.check_rows(batch)
        return self._rows if self._per_row else (0,) * batch


_on_model: "weakref.WeakKeyDictionary[Any, list[Steering]]" = weakref.WeakKeyDictionary()


def steerings_on(model: LensModel) -> list[Steering]:
    """The interventions that are on `model` now, outermost first."""
    return list(_on_model.get(model, ()))


@contextmanager
def steer(
    model: LensModel, intervention: Intervention, language: str | Sequence[str], *, must_fire: bool = True
) -> Iterator[Steering]:
    """Steer every forward pass inside: `model(...)`, `run_with_cache`, `run_with_hooks`, `generate`.

    It nests, with itself and with your own hooks, and leaves nothing behind, whatever is raised inside. `run_with_cache`
    sees the steered activations.

    Args:
        language: of the whole batch, or one a batch row.
        must_fire: False lets an intervention pass that never fired, such as one on generated tokens when none was generated.

    Raises:
        SteeringError: categories of another model, a batch of another size than the list of languages; at the end, an
            intervention that never fired.
        ValueError: an unknown language.
    """
    check_mlp_hooks(model)
    intervention.check(model)
    _check_padding(model, intervention.positions)
    per_row = not isinstance(language, str)
    languages = [language] if isinstance(language, str) else list(language)
    if not languages:
        raise SteeringError("no languages given")
    steering = Steering(intervention, languages, per_row=per_row)
    active = _on_model.setdefault(model, [])
    with hooked(model, steering.hooks(model)):
        active.append(steering)
        try:
            yield steering
        finally:
            active.remove(steering)
    silent = [name for name, count in steering.fired.items() if count == 0]
    if silent and must_fire:
        raise SteeringError(_why_silent(silent, intervention.positions))


def _check_padding(model: LensModel, positions: Positions) -> None:
    """The last column is every row's last real token only if padding is on the left."""
    side = getattr(getattr(model, "tokenizer", None), "padding_side", "left")
    if positions == "last" and side != "left":
        raise SteeringError(
            f"positions='last' needs left padding; this model's tokenizer pads on the {side}. "
            "Set model.tokenizer.padding_side = 'left'."
        )


def _why_silent(silent: Sequence[str], positions: Positions) -> str:
    reason = (
        "positions='generated' steers only forward passes that continue a KV cache"
        if positions == "generated"
        else "no forward pass of this model reached it inside the block"
    )
    return f"steering never fired at {', '.join(silent)}: {reason}"
