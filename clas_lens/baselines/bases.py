"""What baselines that build on a `Clas`, or on selected neurons, take from it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from clas_lens.categories.selection import NeuronSelection
from clas_lens.models.sites import LensModel
from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import SavedIntervention, check_neurons
from clas_lens.vocabulary import Positions


class OfClas(SavedIntervention):
    """Has a `clas`, which gives everything but the strength: an `alpha` of its own."""

    clas: Clas
    alpha: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "tuned_on", self.tuned_on | self.clas.tuned_on)
        object.__setattr__(self, "clas", replace(self.clas, alpha=self.alpha, tuned_on=frozenset()))

    @property
    def anchor(self) -> str:
        return self.clas.anchor

    @property
    def positions(self) -> Positions:
        return self.clas.positions

    @property
    def source(self) -> Mapping[str, Any]:
        """What CLAS's categories were measured on."""
        return self.clas.source

    def settings(self) -> dict[str, Any]:
        """CLAS's and its own."""
        return {**self.clas.settings(), **super().settings()}

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless this was made for this model."""
        self.clas.check(model)


class OfSelection(SavedIntervention):
    """Has a `selection` of neurons, which it changes."""

    selection: NeuronSelection

    @property
    def source(self) -> Mapping[str, Any]:
        """What the neurons were selected on."""
        return self.selection.source

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless the neurons are this model's."""
        check_neurons(model, self.selection.model, self.selection.n_layers, self.selection.n_neurons)
