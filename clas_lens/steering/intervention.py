"""What an intervention is, and the checks that all of them share."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, TypeVar, get_args, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from clas_lens.corpus.arguments import given_model
from clas_lens.given import given_each, given_path, given_word, named
from clas_lens.models.identity import attention_fingerprint, neuron_fingerprint, parameter_fingerprint
from clas_lens.models.sites import LensModel, Site
from clas_lens.models.units import check_units, n_units, site_of
from clas_lens.saved import SAVED_ONLY, Saved
from clas_lens.vocabulary import Positions, UnitSite, check_language

FILE_NAME = "intervention.safetensors"


STRENGTHS = ("alpha", "beta", "gamma")


# A float32 norm squares what it is given and sums thousands of squares: factors up to this leave room for activations of 1e5.
LARGEST = 1e12


# What these fields may be given: any real scalar of Python, NumPy or torch, and any integers in a row. `__post_init__` checks
# them and leaves a float and a tuple of ints; a narrower annotation would have to be untrue of one of the two.
Strength: TypeAlias = Any


Layers: TypeAlias = Any


Made = TypeVar("Made", bound="SavedIntervention")


class SteeringError(ValueError):
    """An intervention that does not fit the model, the batch or the moment."""


@runtime_checkable
class Edit(Protocol):
    """A change of one activation tensor, heads side by side; `rows` are the batch rows' places in the list of languages."""

    def __call__(self, activation: Float[Tensor, "batch pos width"], rows: Sequence[int]) -> Tensor: ...


@runtime_checkable
class Intervention(Protocol):
    """What `steer` puts on a model: at which sites, and which edit for which languages.

    Those of this toolkit are frozen dataclasses (`SavedIntervention`), so that `dataclasses.replace(intervention, alpha=...)`
    gives every method the same search over its strength.
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

    @property
    def tuned_on(self) -> frozenset[str]:
        """Keys `<data set>/<id>` of the examples that its strengths were chosen on; not reported on either."""
        ...

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` if this intervention was not made for `model`."""
        ...

    def edits(self, model: LensModel, languages: Sequence[str]) -> Mapping[Site, Edit]:
        """One edit a site of `model`, which was checked, for rows in these languages."""
        ...

    def settings(self) -> dict[str, Any]:
        """What was chosen, JSON-able, for manifests."""
        ...

    def fingerprint(self) -> str:
        """A hash of everything that this intervention does, and of what it was tuned on."""
        ...

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write one self-contained file into `folder`."""
        ...


@dataclass(frozen=True, eq=False)
class SavedIntervention(Saved):
    """What the interventions of this toolkit share: one file, checked strengths, and what they were tuned on.

    Attributes:
        tuned_on: keys `<data set>/<id>` of the examples that its strengths were chosen on.

    Raises:
        SteeringError: a strength that is no finite number of sensible size, or unknown positions.
        ValueError: an unknown language as the anchor.
    """

    error: ClassVar[type[ValueError]] = SteeringError

    tuned_on: frozenset[str] = field(default=frozenset(), kw_only=True, repr=False, metadata=SAVED_ONLY)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in STRENGTHS:
            if hasattr(self, name):
                object.__setattr__(self, name, strength(name, getattr(self, name)))
        check_language(getattr(self, "anchor", "en"))
        given_word("positions", getattr(self, "positions", "all"), get_args(Positions), error=SteeringError)
        wanted = "tuned_on needs keys of examples", "SearchResult.intervention has them"
        keys = list(self.tuned_on) if isinstance(self.tuned_on, frozenset | set) else self.tuned_on
        object.__setattr__(self, "tuned_on", frozenset(given_each(keys, str, *wanted, error=SteeringError)))

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write one self-contained file into `folder`."""
        self.save(given_path("folder", folder) / FILE_NAME)
        return Path(folder)

    @classmethod
    def from_pretrained(cls: type[Made], folder: str | Path) -> Made:
        """Read what `save_pretrained` wrote.

        Raises:
            ArtifactError: none there, a damaged file, or an intervention of another kind, which the message names.
        """
        return cls.load(given_path("folder", folder) / FILE_NAME)


def strength(name: str, value: Any) -> float:
    """This number, of Python, NumPy or torch, as a plain float.

    Raises:
        SteeringError: no number, not finite, or so large that activations would overflow.
    """
    scalar = value.item() if getattr(value, "ndim", None) == 0 else value
    if not isinstance(scalar, int | float) or isinstance(scalar, bool):
        raise SteeringError(f"{name} must be a finite number, got {value!r}")
    if not abs(scalar) <= LARGEST:  # so for NaN too
        raise SteeringError(f"{name} must be finite and at most {LARGEST:g}, or activations overflow; got {value}")
    return float(scalar)


def given_intervention(value: Any) -> Intervention:
    """The value, if it is an intervention.

    Raises:
        SteeringError: anything else, such as categories, or a class in place of one of its objects.
    """
    if isinstance(value, type) or not isinstance(value, Intervention):
        raise SteeringError(f"an intervention is needed, got {named(value)}: {why_none(value)}")
    return value


def missing_members(value: Any) -> list[str]:
    """The members of `Intervention` that something does not have, in the order in which it names them."""
    return [name for name in vars(Intervention) if not name.startswith("_") and not hasattr(value, name)]


def first_layer(model: LensModel, intervention: Intervention, languages: Sequence[str]) -> int:
    """The lowest layer that an intervention changes: everything that enters it is as without the intervention."""
    return min(intervention.edits(model, languages)).layer


def why_none(value: Any) -> str:
    """What to do about something that is no intervention: its missing members where it has some, else where to get one."""
    missing = missing_members(value)
    if isinstance(value, type) or not hasattr(value, "edits"):
        return "Clas(categories, layers=...) makes one, and @cl.rule(layers=...) of a function"
    return f"it lacks {', '.join(missing)}; check_intervention(model, it) says more"


def check_neurons(model: LensModel, described: Mapping[str, Any], n_layers: int, n_neurons: int) -> None:
    """Raise `SteeringError` unless these neurons, measured on the model `described`, are those of `model`.

    Raises:
        ModelLoadError: the units are of attention, and the model has no hook points there.
    """
    given_model(model)
    site = site_of(described)
    if site != "mlp":  # MLPs have been checked when the model was taken
        check_units(model, site)
    shape, expected = (model.cfg.n_layers, n_units(model, site)), (n_layers, n_neurons)
    if shape != expected:
        raise SteeringError(
            f"these neurons are of {described.get('name')!r} with {expected[0]} layers x {expected[1]} neurons; "
            f"{model.cfg.model_name!r} has {shape[0]} x {shape[1]}. Collect and categorise this model."
        )
    check_weights(model, described)


def check_site(described: Mapping[str, Any], site: UnitSite, what: str) -> None:
    """Raise `SteeringError` unless units described so (see `describe_model`) are of the site that `what` means."""
    if site_of(described) != site:
        raise SteeringError(
            f"{what} is for site={site!r}; these are of site={site_of(described)!r}. Collect with site={site!r}."
        )


def check_weights(model: LensModel, described: Mapping[str, Any]) -> None:
    """Raise `SteeringError` unless `described` (see `describe_model`) is this model, in any float32 or bfloat16 copy."""
    measured = described.get("neurons")
    if measured is not None and measured != neuron_fingerprint(model, site_of(described)):
        raise SteeringError(
            f"this intervention was measured on {described.get('name')!r} with other weights than "
            f"{model.cfg.model_name!r} has now (float16 copies count as other weights). Measure this model."
        )
    if _other_weights_differ(model, described):
        warnings.warn(
            f"this intervention was measured on {described.get('name')!r}, whose neurons are those of "
            f"{model.cfg.model_name!r} but whose other weights differ (a fine-tune of attention, or other processing): its "
            "categories may not be this model's",
            stacklevel=2,
        )


def _other_weights_differ(model: LensModel, described: Mapping[str, Any]) -> bool:
    """Whether weights beside the neurons' are known to be others: all, of one backend and dtype; else those of attention."""
    sampled, here = described.get("parameters"), parameter_fingerprint(model)
    if sampled is not None and sampled.split()[:2] == here.split()[:2]:
        return sampled != here
    attention = described.get("attention")
    return attention is not None and attention_fingerprint(model) not in (None, attention)
