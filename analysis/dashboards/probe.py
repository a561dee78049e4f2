"""Hooks that are attached once and exchange what they do: the next setting needs no new ones."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

from torch import Tensor

from clas_lens.models.hooking import HookBlock, acting_hooks, function_of, mark_idle
from clas_lens.models.sites import HookFunction, LensModel, hooked, residual_name

OtherHooks: TypeAlias = tuple[tuple[str, Any], ...]


class Probe:
    """Hooks at some hook points and the residual stream of every layer; inert, except inside `steering` and `reading`.

    It does not hold the model, nor whoever made it: `detach` can be left to a finalizer.

    Args:
        edited: the hook points where something may be changed or watched, besides the residual stream.
    """

    def __init__(self, n_layers: int, edited: Iterable[str]) -> None:
        self._edits: Mapping[str, HookFunction] = {}
        self._residuals: dict[int, Tensor] | None = None
        self._attached = ExitStack()
        self.block = HookBlock()
        self._functions = {
            **{name: self._editing(name) for name in edited},
            **{residual_name(layer): self._recording(layer) for layer in range(n_layers)},
        }
        mark_idle(self._functions.values())

    # --- on the model ---

    def attach(self, model: LensModel) -> None:
        """Put the hooks behind all others that are there now."""
        self.detach()
        self.block = self._attached.enter_context(hooked(model, list(self._functions.items())))

    def detach(self) -> None:
        """Take the hooks away, wherever they are; the others stay."""
        self._attached.close()

    def is_on(self, model: LensModel) -> bool:
        """Whether all hooks are attached (`reset_hooks(including_permanent=True)` takes them, too)."""
        points = model.hook_dict
        return all(
            any(function_of(handle) is function for handle in points[name].fwd_hooks)
            for name, function in self._functions.items()
        )

    def others(self, model: LensModel) -> OtherHooks:
        """The forward hooks that are no probe's: name and function, in their order."""
        return tuple(acting_hooks(model))

    # --- in use ---

    @contextmanager
    def steering(self, edits: Mapping[str, HookFunction]) -> Iterator[None]:
        """Forward passes inside are changed as these hook functions would."""
        self._edits = edits
        try:
            yield
        finally:
            self._edits = {}

    @contextmanager
    def reading(self) -> Iterator[dict[int, Tensor]]:
        """The residual stream at the output of each layer that forward passes inside run: [batch pos d_model]."""
        residuals: dict[int, Tensor] = {}
        self._residuals = residuals
        try:
            yield residuals
        finally:
            self._residuals = None

    def _editing(self, name: str) -> HookFunction:
        def hook(activation: Tensor, hook: object) -> Tensor | None:
            edit = self._edits.get(name)
            return None if edit is None else edit(activation, hook=hook)

        return hook

    def _recording(self, layer: int) -> HookFunction:
        edit = self._editing(residual_name(layer))

        def hook(residual: Tensor, hook: object) -> Tensor | None:
            changed = edit(residual, hook=hook)
            if self._residuals is not None:
                self._residuals[layer] = residual if changed is None else changed
            return changed

        return hook
