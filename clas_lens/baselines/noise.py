"""Norm-matched noise: CLAS's change of the MLP's output, as long at every position, in a random direction."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.artifacts import content_key, load_tensors, save_tensors, tensor_fingerprint
from clas_lens.models.sites import LensModel, down_projection, post_name
from clas_lens.steering.clas import Clas
from clas_lens.steering.edits import LanguageTable
from clas_lens.steering.intervention import Edit, SteeringError
from clas_lens.vocabulary import Positions

KIND = "matched noise"


FILE_NAME = "matched_noise.safetensors"


@dataclass(frozen=True, eq=False)
class MatchedNoise:
    """Norm-matched noise in place of W_down(h' - h): h'' = h + ||W_down(h' - h)|| * e, at every position, h' being CLAS's.

    e is the smallest vector of neurons with W_down e = n, for a unit direction n drawn at random for each layer. So the
    MLP's output (before a norm that some families put after it) moves exactly as far as CLAS would move it (in a bfloat16
    model up to rounding), in a direction that has nothing to do with languages. The direction is the same for all
    positions and languages. Rows in the anchor language are bit-identical to the unsteered model. Made by `for_model`.

    Args:
        clas: gives the layers, masks, beta, gamma, anchor and positions.
        directions: e, a row a steered layer.
        alpha: CLAS's alpha.
        seed: what n was drawn with.

    Raises:
        SteeringError: directions of another shape than CLAS's layers and neurons.
    """

    clas: Clas
    directions: Float[Tensor, "layer neuron"] = field(repr=False)
    alpha: float
    seed: int
    # Edits need W_down, 100 MB a layer; it is the checked model's own, never copied into this or into a file.
    _checked: list["weakref.ref[Any]"] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "clas", replace(self.clas, alpha=self.alpha))
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
        clas.check(model)
        drawn = torch.randn(
            model.cfg.n_layers, model.cfg.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
        )
        rows = [smallest_input(down_projection(model, layer), drawn[layer]) for layer in clas.layers]
        return cls(clas, torch.stack(rows), clas.alpha, seed)

    @property
    def anchor(self) -> str:
        return self.clas.anchor

    @property
    def source(self) -> Mapping[str, Any]:
        """What CLAS's categories were measured on."""
        return self.clas.source

    @property
    def positions(self) -> Positions:
        return self.clas.positions

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless this was made for this model; the edits that follow use this model's W_down."""
        self.clas.check(model)
        self._checked[:] = [weakref.ref(model)]

    def edits(self, languages: Sequence[str]) -> dict[str, Edit]:
        """An addition a steered layer. Those that `steer` makes, after `check`, work; others only say where they would be."""
        model = self._checked[0]() if self._checked else None
        changes = {code: self.clas.scale(code) for code in dict.fromkeys(languages)}
        return {
            post_name(layer): AddNoise(
                LanguageTable.of({code: scale[layer] - 1 for code, scale in changes.items()}, languages),
                direction,
                None if model is None else down_projection(model, layer),
            )
            for layer, direction in zip(self.clas.layers, self.directions, strict=True)
        }

    # --- files ---

    def settings(self) -> dict[str, Any]:
        """Everything but the tensors and the categories, for manifests."""
        return {**self.clas.settings(), "seed": self.seed}

    def fingerprint(self) -> str:
        """A hash of everything that this intervention does."""
        return content_key(KIND, self.clas.fingerprint(), self.seed, tensor_fingerprint(self.directions))

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write one file into `folder`; W_down is not in it, but the fingerprint of the model whose it is."""
        tensors = {"active": self.clas.categories.active, "directions": self.directions}
        save_tensors(Path(folder) / FILE_NAME, KIND, tensors, {**self.clas.header(), "seed": self.seed})
        return Path(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "MatchedNoise":
        """Read what `save_pretrained` wrote.

        Raises:
            ArtifactError: missing, damaged or another kind of file.
        """
        tensors, header = load_tensors(Path(folder) / FILE_NAME, KIND)
        clas = Clas.from_parts(tensors["active"], header)
        return cls(clas, tensors["directions"], clas.alpha, header["seed"])


class AddNoise:
    """h + ||W_down(h * change)|| * direction, in float32 or better, in h's own dtype; h itself where nothing changes.

    Args:
        change: each neuron's scale minus 1.
        direction: e.
        weights: W_down, row n of neuron n; None if no model is known, and then it cannot be called.
    """

    def __init__(
        self,
        change: LanguageTable,
        direction: Float[Tensor, "neuron"],
        weights: Float[Tensor, "neuron d_model"] | None,
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
        if self._weights is None:
            raise SteeringError("matched noise needs the model's W_down: put it on a model with steer(model, ...)")
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
