"""Writing constants over some neurons of an activation, at the gate or at h."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.edits import LanguageTable


class Overwriting:
    """Overwrite some neurons of each row, in float32 or better, and hand back the activation's own dtype.

    Args:
        neurons: which columns; those of all languages together.
        strength: alpha for the row's own neurons, 0 for the others.
        constants: c.
        gated: overwrite act(gate), so that h becomes c * (W_up x); `see_up` has to see W_up x of the same pass first.
    """

    def __init__(
        self, neurons: Int[Tensor, "own"], strength: LanguageTable, constants: LanguageTable, *, gated: bool
    ) -> None:
        self._neurons = neurons
        self._strength = strength
        self._constants = constants
        self._gated = gated
        self._idle = strength.always(0.0)
        self._up: Tensor | None = None

    def see_up(self, activation: Float[Tensor, "batch pos neuron"], rows: Sequence[int]) -> Tensor:
        """Keep W_up x of the neurons and hand it on as it is."""
        if not self._idle:
            self._up = activation[..., self._on(activation.device)]
        return activation

    def __call__(self, activation: Float[Tensor, "batch pos neuron"], rows: Sequence[int]) -> Tensor:
        if self._idle:
            return activation
        neurons = self._on(activation.device)
        held = activation[..., neurons]
        new = self._constants.rows(held, rows)
        if self._gated:
            assert self._up is not None, "hook_post fired before hook_pre_linear"
            new, self._up = new * self._up, None
        result = activation.clone()
        result[..., neurons] = blend(held, new, self._strength.rows(held, rows))
        return result

    def _on(self, device: torch.device) -> Int[Tensor, "own"]:
        if self._neurons.device != device:
            with torch.inference_mode(False):  # so that it also serves a later pass with gradients
                self._neurons = self._neurons.to(device)
        return self._neurons


def blend(
    old: Float[Tensor, "batch pos own"],
    new: Float[Tensor, "batch_or_1 pos_or_1 own"],
    strength: Float[Tensor, "row 1 own"],
) -> Float[Tensor, "batch pos own"]:
    """(1 - strength) * old + strength * new in old's dtype, and old itself, to the bit, where strength is 0."""
    mixed = (1 - strength) * old + strength * new
    return torch.where(strength == 0, old, mixed.to(old.dtype))
