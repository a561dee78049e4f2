"""Strengths of examples that their prompts decide: found in the pass over the prompt, held for the tokens after it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from inspect import signature
from types import MethodType
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.models.backends import HookedTransformer
from clas_lens.models.forward import unembed_last
from clas_lens.models.hooking import HookBlock
from clas_lens.models.sites import LensModel
from clas_lens.steering.edits import LanguageTable
from clas_lens.steering.intervention import SteeringError

OfLogits: TypeAlias = Callable[[Tensor, Sequence[int]], Tensor]


class PromptStrengths:
    """One number an example, which edits of one `steer` share; `Steering` says whose activations they are given.

    Args:
        of_logits: gives the strengths, from the unsteered logits after the prompts and the rows' places in the list of
            languages; None where an edit finds them on the way. With it, each prompt is first run once without steering.
    """

    def __init__(self, of_logits: OfLogits | None = None) -> None:
        self.of_logits = of_logits
        self._held: dict[int, Tensor] = {}
        self._examples: tuple[int, ...] = ()
        self.continues = False

    def now(self, examples: Sequence[int], *, continues: bool) -> None:
        """What comes are activations of these examples, of their prompts or of tokens that continue them."""
        self._examples, self.continues = tuple(examples), continues

    def hold(self, strengths: Float[Tensor, "row"]) -> None:
        """The strengths of the examples at hand, from now on."""
        self._held.update(zip(self._examples, strengths.detach().float(), strict=True))

    def current(self) -> Float[Tensor, "row"]:
        """The strengths of the examples at hand.

        Raises:
            SteeringError: their prompts were not read inside this `steer`.
        """
        if not self._examples or any(example not in self._held for example in self._examples):
            raise SteeringError(
                "a strength that adapts is decided by the prompt, and these rows continue one that was not read inside this "
                "`steer`: run the prompt inside it, too"
            )
        return torch.stack([self._held[example] for example in self._examples])


class StrengthRescale:
    """h * (1 + strength * change): each row's change is its language's, as strong as its example's strength says.

    Args:
        change: each neuron's scale minus 1, at full strength.
    """

    def __init__(self, change: LanguageTable, strengths: PromptStrengths) -> None:
        self._change, self.strengths = change, strengths
        self._identity = change.always(0.0)

    def __call__(self, activation: Float[Tensor, "batch pos neuron"], rows: Sequence[int]) -> Tensor:
        if self._identity:
            return activation
        change = self._change.rows(activation, rows)
        strength = self.strengths.current()[:, None, None].to(change)
        return (activation * (1 + strength * change)).to(activation.dtype)


@runtime_checkable
class PromptReader(Protocol):
    """Who steers, and wants to see the unsteered logits of prompts first."""

    def silenced(self) -> AbstractContextManager[None]:
        """Forward passes inside are not steered."""
        ...

    def see_prompts(self, logits: Float[Tensor, "row d_vocab"]) -> None:
        """Take the unsteered logits after the prompts that are about to be run."""
        ...


@contextmanager
def unsteered_first(model: LensModel, block: HookBlock, reader: PromptReader) -> Iterator[None]:
    """Each forward pass inside that continues no KV cache is first run once unsteered, and its last logits shown to `reader`.

    The user's own hooks fire in that pass, too; it has no cache.
    """
    inner: Any = model if isinstance(model, HookedTransformer) else model.original_model
    own = vars(inner).get("forward")
    try:
        # An attribute of the instance hides the method of its class; generation calls it directly, past torch's module hooks.
        vars(inner)["forward"] = _ReadingForward(model, inner, block, reader)
        yield
    finally:
        if own is None:
            vars(inner).pop("forward", None)
        else:
            vars(inner)["forward"] = own


class _ReadingForward:
    """A model's forward that runs each prompt twice. A copy of the model has its own plain one."""

    def __init__(self, model: LensModel, inner: Any, block: HookBlock, reader: PromptReader) -> None:
        self._model, self._inner, self._block, self._reader = model, inner, block, reader
        self._plain = inner.forward
        self._names = signature(inner.forward)
        self._is_running = False

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        if not self._is_running and self._block.acts_here():
            given = dict(self._names.bind(*inputs, **options).arguments)
            given |= given.pop("kwargs", {})
            if not _continues(given):
                self._read(given)
        return self._plain(*inputs, **options)

    def _read(self, given: dict[str, Any]) -> None:
        self._is_running = True
        try:
            with torch.no_grad(), self._reader.silenced():
                logits = _last_logits(self._model, given)
        finally:
            self._is_running = False
        self._reader.see_prompts(logits)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return MethodType(type(self._inner).forward, memo[id(self._inner)])


def _continues(given: dict[str, Any]) -> bool:
    """Whether a pass of either backend goes on from a KV cache that holds something."""
    if (cache := given.get("past_kv_cache")) is not None:
        return bool(cache.entries[-1].past_keys.shape[1])
    cache = given.get("past_key_values")
    return cache is not None and bool(cache.get_seq_length())


def _last_logits(model: LensModel, given: dict[str, Any]) -> Float[Tensor, "row d_vocab"]:
    if isinstance(model, HookedTransformer):
        residual = model(**{**given, "past_kv_cache": None, "stop_at_layer": model.cfg.n_layers})
        return unembed_last(model, residual)
    inner: Any = model.original_model
    return inner(**{**given, "past_key_values": None, "use_cache": False, "logits_to_keep": 1}).logits[:, -1]
