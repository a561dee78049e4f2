"""What interventions in the residual stream of one layer have in common."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from jaxtyping import Float
from torch import Tensor

from clas_lens.artifacts import content_key, load_tensors, save_tensors, tensor_fingerprint
from clas_lens.languages import check_language
from clas_lens.sites import LensModel
from clas_lens.steering import Positions, SteeringError, check_choice, check_numbers, check_weights

Made = TypeVar("Made", bound="ResidualIntervention")


@dataclass(frozen=True, eq=False)
class ResidualIntervention:
    """What `AddVector` and `Incline` share: a tensor a language, for the residual stream at the output of one layer.

    Attributes:
        values: one vector or matrix a language, finite.
        languages: the names of the `lang` axis; the anchor is not among them.
        layer: 0-based.
        alpha: strength; 0 is bit-identical to no steering.
        anchor: the language that stays untouched.
        positions: see `Clas`.
        model: see `describe_model`.
        source: what the values were made from, for manifests.

    Raises:
        SteeringError: no languages, one twice, the anchor among them, or numbers that are not finite.
    """

    KIND: ClassVar[str]
    FILE_NAME: ClassVar[str]

    values: Float[Tensor, "lang ..."] = field(repr=False)
    languages: tuple[str, ...]
    layer: int
    alpha: float = 1.0
    anchor: str = "en"
    positions: Positions = "all"
    model: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for code in (self.anchor, *self.languages):
            check_language(code)
        check_numbers(alpha=self.alpha)
        check_choice("positions", self.positions, get_args(Positions))
        if not self.languages or len({self.anchor, *self.languages}) != len(self.languages) + 1:
            raise SteeringError(
                f"needs different languages, at least one besides the anchor {self.anchor!r} and not the anchor itself; "
                f"got: {', '.join(self.languages) or 'none'}"
            )
        if len(self.languages) != self.values.shape[0]:
            raise SteeringError(f"{len(self.languages)} languages for {self.values.shape[0]} rows of values")
        if not self.values.isfinite().all():
            raise SteeringError("values must be finite; some of the representations that they were made from are not")

    def of(self, language: str) -> Tensor:
        """One language's vector or matrix.

        Raises:
            ValueError: not a language code, or none was made for this language.
        """
        check_language(language)
        if language not in self.languages:
            raise SteeringError(
                f"{type(self).__name__} has nothing for {language!r}; available: {', '.join(self.languages)}, "
                f"and the anchor {self.anchor!r}, which stays untouched"
            )
        return self.values[self.languages.index(language)]

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless this was made from this model's residual stream."""
        if not 0 <= self.layer < model.cfg.n_layers or self.values.shape[-1] != model.cfg.d_model:
            raise SteeringError(
                f"this {type(self).__name__} is for layer {self.layer} of {self.model.get('name')!r}, "
                f"{self.values.shape[-1]} wide; {model.cfg.model_name!r} has {model.cfg.n_layers} layers, "
                f"{model.cfg.d_model} wide"
            )
        check_weights(model, self.model)

    # --- files ---

    def settings(self) -> dict[str, Any]:
        """Everything but the values and the model, for manifests."""
        names = [f.name for f in fields(self) if f.name not in ("values", "model")]
        return {**{name: getattr(self, name) for name in names}, "languages": list(self.languages)}

    def fingerprint(self) -> str:
        """A hash of everything that this intervention does."""
        return content_key(self.KIND, self.settings(), dict(self.model), tensor_fingerprint(self.values))

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write one self-contained file into `folder`."""
        header = {**self.settings(), "model": dict(self.model)}
        save_tensors(Path(folder) / self.FILE_NAME, self.KIND, {"values": self.values}, header)
        return Path(folder)

    @classmethod
    def from_pretrained(cls: type[Made], folder: str | Path) -> Made:
        """Read what `save_pretrained` wrote.

        Raises:
            ArtifactError: missing, damaged or another kind of file.
        """
        tensors, header = load_tensors(Path(folder) / cls.FILE_NAME, cls.KIND)
        settings = {f.name: header[f.name] for f in fields(cls) if f.name != "values"}
        return cls(**{**settings, "values": tensors["values"], "languages": tuple(header["languages"])})
