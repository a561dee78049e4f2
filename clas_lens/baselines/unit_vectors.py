"""DiffMean with vectors of length 1, at whichever of several layers the search finds best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.vectors import AddVector, check_residual, check_stack
from clas_lens.models.sites import LensModel, Site
from clas_lens.representations.sentences import Representations, given_representations
from clas_lens.saved import SAVED_ONLY
from clas_lens.steering.intervention import Edit, SavedIntervention, SteeringError, Strength
from clas_lens.vocabulary import Positions


@dataclass(frozen=True, eq=False)
class UnitDiffMean(SavedIntervention):
    """x' = x + alpha * v / ||v|| at the output of one layer, v = mean over the anchor's texts - mean over the language's.

    One alpha is one length in every language and layer, where the plain difference (`AddVector.diff_mean`) is longest for the
    languages furthest off and in late layers. `layer` is searched together with alpha (`sweep_settings`).

    Args:
        values: v / ||v||.
        languages, layers: the names of the first two axes; the anchor is not among the languages.
        layer: the one in use.
        alpha: length of what is added; 0 is bit-identical to no steering.
        anchor, positions: see `Clas`.
        model: see `describe_model`.
        source: what the vectors were made from, for manifests.

    Raises:
        SteeringError: a layer without vectors, or vectors that do not fit their names or are not finite.
    """

    kind: ClassVar[str] = "unit difference of means"

    values: Float[Tensor, "lang layer d_model"] = field(repr=False)
    languages: tuple[str, ...]
    layers: tuple[int, ...]
    layer: Any  # an int; searches give 12.0
    alpha: Strength = 1.0
    anchor: str = "en"
    positions: Positions = "all"
    model: Mapping[str, Any] = field(default_factory=dict, repr=False, metadata=SAVED_ONLY)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.layer not in self.layers:
            raise SteeringError(f"no vectors for layer {self.layer}; available: {', '.join(map(str, self.layers))}")
        object.__setattr__(self, "layer", int(self.layer))
        check_stack(self.values, self.languages, self.layers)

    @classmethod
    def fit(cls, before: Representations, *, alpha: float = 1.0, anchor: str = "en") -> "UnitDiffMean":
        """Vectors at all layers that `before` has; the middle one is in use until a search chooses.

        Raises:
            ValueError: as for `AddVector.diff_mean`.
        """
        given_representations(before)
        parts = [AddVector.diff_mean(before, layer, anchor) for layer in before.layers]
        values = torch.nn.functional.normalize(torch.stack([part.values for part in parts], dim=1), dim=-1)
        source = {**parts[0].source, "method": "DiffMean, unit vectors"}
        middle = before.layers[len(before.layers) // 2]
        return cls(values, parts[0].languages, before.layers, middle, alpha, anchor, model=before.model, source=source)

    @property
    def in_use(self) -> AddVector:
        """The unit vectors at `layer`, as what is added there."""
        values = self.values[:, self.layers.index(self.layer)]
        return AddVector(values, self.languages, self.layer, self.alpha, self.anchor, self.positions, self.model)

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless this was made from this model."""
        check_residual(model, self.model, self.layers, self.values.shape[-1])

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """One addition, at the layer's output."""
        return self.in_use.edits(model, languages)
