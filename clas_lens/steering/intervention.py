"""What an intervention is, and the checks that all of them share."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from clas_lens.models.identity import neuron_fingerprint
from clas_lens.models.sites import LensModel
from clas_lens.vocabulary import Positions


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
