"""Norm-matched noise: CLAS's change of the MLP's output, as long at every position, in a random direction."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.bases import OfClas
from clas_lens.corpus.arguments import given_model
from clas_lens.given import given, given_whole
from clas_lens.models.sites import LensModel, Site
from clas_lens.models.units import output_projection
from clas_lens.steering.clas import Clas
from clas_lens.steering.edits import LanguageTable
from clas_lens.steering.intervention import Edit, SteeringError, Strength


@dataclass(frozen=True, eq=False)
class MatchedNoise(OfClas):
    """Norm-matched noise in place of W_down(h' - h): h'' = h + ||W_down(h' - h)|| * e, at every position, h' being CLAS's.

    e is the smallest vector of neurons with W_down e = n, for a unit direction n drawn at random for each layer. So the
    MLP's output (before a norm that some families put after it) moves exactly as far as CLAS would move it (in a bfloat16
    model up to rounding), in a direction that has nothing to do with languages. The direction is the same for all
    positions and languages. Rows in the anchor language are bit-identical to the unsteered model. With categories of
    attention's units the same holds of attention's output and W_O. Made by `for_model`.

    Args:
        clas: gives the layers, masks, beta, gamma, anchor and positions.
        directions: e, a row a steered layer.
        alpha: CLAS's alpha, in place of the one that `clas` has.
        seed: what n was drawn with.

    Raises:
        SteeringError: directions of another shape than CLAS's layers and neurons.
    """

    kind: ClassVar[str] = "matched noise"

    clas: Clas
    directions: Float[Tensor, "layer neuron"] = field(repr=False)
    alpha: Strength
    seed: int

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = (len(self.clas.layers), self.clas.categories.n_neurons)
        if self.directions.shape != expected:
            raise SteeringError(f"directions are {tuple(self.directions.shape)}, CLAS's layers and neurons {expected}")

    @classmethod
    def for_model(cls, model: LensModel, clas: Clas, *, seed: int = 0) -> "MatchedNoise":
        """Draw directions and solve for them in float64 (for a model 4096 wide about a minute a layer on a CPU).

        Directions are uniform over what the MLP can write: all directions, unless W_down has a lower rank than d_model. A
        layer's does not depend on which other layers are steered.

        Raises:
            SteeringError: categories of another model.
        """
        given_model(model)
        given(clas, Clas, "for_model needs a Clas", "Clas(categories, layers=...)", error=SteeringError)
        seed = given_whole("seed", seed)
        clas.check(model)
        drawn = torch.randn(
            model.cfg.n_layers, model.cfg.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        rows = [smallest_input(output_projection(model, clas.site, layer), drawn[layer]) for layer in clas.layers]
        return cls(clas, torch.stack(rows), clas.alpha, seed)

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """An addition a steered layer, as far as this model's W_down says."""
        changes = {code: self.clas.scale(code) for code in dict.fromkeys(languages)}
        return {
            Site(self.clas.site, layer): AddNoise(
                LanguageTable.of({code: scale[layer] - 1 for code, scale in changes.items()}, languages),
                direction,
                # 100 MB a layer, the model's own: never copied into this or into a file.
                output_projection(model, self.clas.site, layer),
            )
            for layer, direction in zip(self.clas.layers, self.directions, strict=True)
        }


class AddNoise:
    """h + ||W_down(h * change)|| * direction, in float32 or better, in h's own dtype; h itself where nothing changes.

    Args:
        change: each neuron's scale minus 1.
        direction: e.
        weights: W_down, row n of neuron n.
    """

    def __init__(
        self,
        change: LanguageTable,
        direction: Float[Tensor, "neuron"],
        weights: Float[Tensor, "neuron d_model"],
    ) -> None:
        self._change = change
        self._direction = direction
        self._weights = weights
        self._identity = change.always(0.0)

    def __call__(self, activation: Float[Tensor, "batch pos neuron"], rows: Sequence[int]) -> Tensor:
        if self._identity:
            return activation
        change = self._change.rows(activation, rows)
        weights, direction = self._held(change)
        distance = ((activation * change) @ weights).norm(dim=-1, keepdim=True)
        moved = (activation + distance * direction).to(activation.dtype)
        return torch.where(distance == 0, activation, moved)

    def _held(self, like: Tensor) -> tuple[Float[Tensor, "neuron d_model"], Float[Tensor, "neuron"]]:
        """Weights and direction on the device and in the dtype of `like`, moved there at their first use."""
        if (self._weights.dtype, self._direction.dtype, self._direction.device) != (
            like.dtype,
            like.dtype,
            like.device,
        ):
            with torch.inference_mode(False):  # so that it also serves a later pass with gradients
                self._weights, self._direction = (
                    t.to(like.device, like.dtype) for t in (self._weights, self._direction)
                )
        return self._weights, self._direction


def smallest_input(
    weights: Float[Tensor, "neuron d_model"], direction: Float[Tensor, "d_model"]
) -> Float[Tensor, "neuron"]:
    """The e of least norm with W_down e = n, in float64, n being `direction`'s part that W_down can write, of norm 1."""
    written = weights.detach().double().cpu().T
    solution = torch.linalg.lstsq(written, direction.double()[:, None], driver="gelsd").solution[:, 0]
    return solution / (written @ solution).norm()
