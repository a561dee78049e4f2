"""Steering in the residual stream of one layer: a difference of means added (DiffMean), a linear map to English (INCLINE)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.corpus.arguments import given_model
from clas_lens.corpus.content import example_keys, texts_behind
from clas_lens.given import given, given_number, given_whole, given_word
from clas_lens.models.sites import LensModel, Site
from clas_lens.representations.sentences import Representations, given_representations
from clas_lens.saved import SAVED_ONLY
from clas_lens.steering.edits import LanguageTable, MapRows, Shift
from clas_lens.steering.intervention import (
    Edit,
    SavedIntervention,
    SteeringError,
    Strength,
    check_weights,
)
from clas_lens.vocabulary import Blend, Positions, check_language


@dataclass(frozen=True, eq=False)
class ResidualIntervention(SavedIntervention):
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

    values: Float[Tensor, "lang ..."] = field(repr=False)
    languages: tuple[str, ...]
    layer: int
    alpha: Strength = 1.0
    anchor: str = "en"
    positions: Positions = "all"
    model: Mapping[str, Any] = field(default_factory=dict, repr=False, metadata=SAVED_ONLY)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "layer", given_whole("layer", self.layer, error=SteeringError))
        super().__post_init__()
        for code in self.languages:
            check_language(code)
        if not self.languages or len({self.anchor, *self.languages}) != len(self.languages) + 1:
            raise SteeringError(
                f"needs different languages, at least one besides the anchor {self.anchor!r} and not the anchor itself; "
                f"got: {', '.join(self.languages) or 'none'}"
            )
        if self.values.shape[:1] != (len(self.languages),):
            raise SteeringError(f"{len(self.languages)} languages for values {tuple(self.values.shape)}")
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
        check_residual(model, self.model, [self.layer], self.values.shape[-1])


@dataclass(frozen=True, eq=False)
class AddVector(ResidualIntervention):
    """Add alpha times a language's vector to the residual stream at the output of one layer: x' = x + alpha * v."""

    kind: ClassVar[str] = "added vectors"

    values: Float[Tensor, "lang d_model"] = field(repr=False)

    @classmethod
    def diff_mean(
        cls,
        before: Representations,
        layer: int,
        anchor: str = "en",
        *,
        alpha: float = 1.0,
        positions: Positions = "all",
    ) -> "AddVector":
        """DiffMean: v = mean over the anchor's texts - mean over the language's.

        So alpha = 1 puts the language's mean on the anchor's, a positive alpha moves towards the anchor, and a negative one
        away from it.

        Args:
            before: of the unsteered model.

        Raises:
            ValueError: steered representations, or none of this layer or of the anchor.
        """
        _check_unsteered(before)
        means = {code: before.at(code, layer).double().mean(0) for code in before.languages}
        goal = before.at(anchor, layer).double().mean(0)
        others = tuple(code for code in before.languages if code != anchor)
        values = torch.stack([goal - means[code] for code in others]) if others else torch.zeros(0, goal.shape[0])
        source = {"method": "DiffMean", **measured_on(before)}
        return cls(values.float(), others, layer, alpha, anchor, positions, before.model, source)

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """One addition, at the layer's output."""
        # x + -0.0 is x to the bit; x + 0.0 would turn -0.0 into 0.0.
        nothing = torch.full_like(self.values[0], -0.0, dtype=torch.float64)
        shifts = {
            code: nothing if code == self.anchor or self.alpha == 0 else self.alpha * self.of(code).double()
            for code in dict.fromkeys(languages)
        }
        return {Site("residual", self.layer): Shift(LanguageTable.of(shifts, languages))}


@dataclass(frozen=True, eq=False)
class Incline(ResidualIntervention):
    """INCLINE (Wang et al., ACL 2025): a language's states at one layer, mapped linearly onto the anchor's and blended in.

    x' = (1 - alpha) x + alpha W x ("interpolate": alpha = 1 is the mapped state alone), or x' = x + alpha W x ("add"). A form
    of our own in one layer's residual stream: W is fitted on last tokens and, as it says nothing of others, applied by default
    to the last column of each forward pass. `ReleasedIncline` is the authors' released code: MLP outputs of all layers, fitted
    on token means, at the prompt's last position.

    Attributes:
        blend: "interpolate" or "add".
    """

    kind: ClassVar[str] = "incline"

    values: Float[Tensor, "lang d_model d_model"] = field(repr=False)
    positions: Positions = "last"
    blend: Blend = "interpolate"

    def __post_init__(self) -> None:
        super().__post_init__()
        given_word("blend", self.blend, get_args(Blend), error=SteeringError)

    @classmethod
    def fit(
        cls,
        states: Representations,
        layer: int,
        *,
        ridge: float = 0.0,
        anchor: str = "en",
        alpha: float = 1.0,
        positions: Positions = "last",
        blend: Blend = "interpolate",
    ) -> "Incline":
        """Fit one map a language on parallel last-token states of the unsteered model: see `least_squares_map`.

        With fewer examples than d_model, which is the usual case, W x keeps only what lies in the span of the examples'
        states; so a full alpha = 1 is a strong change.

        Args:
            states: with pool="last".
            ridge: see `least_squares_map`.

        Raises:
            ValueError: states that are steered or of another pooling, or none of this layer or of the anchor.
        """
        _check_unsteered(states)
        if states.pool != "last":
            raise ValueError(f"INCLINE maps last-token states, got pool={states.pool!r}: collect with pool='last'")
        goal = states.at(anchor, layer)
        others = tuple(code for code in states.languages if code != anchor)
        values = torch.zeros(len(others), goal.shape[1], goal.shape[1])
        for row, code in enumerate(others):
            values[row] = least_squares_map(states.at(code, layer), goal, ridge=ridge)
        source = {"method": "INCLINE", "ridge": ridge, **measured_on(states)}
        return cls(values, others, layer, alpha, anchor, positions, states.model, source, blend)

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """One linear map, at the layer's output."""
        kept = 1 - self.alpha if self.blend == "interpolate" else 1.0
        identity = torch.eye(self.values.shape[-1], dtype=torch.float64)
        # The anchor's rows and everything at alpha = 0 have no map and are handed on as they are.
        maps = {
            code: kept * identity + self.alpha * self.of(code).double()
            for code in dict.fromkeys(languages)
            if code != self.anchor
        }
        return {Site("residual", self.layer): MapRows({} if self.alpha == 0 else maps, languages)}


def measured_on(states: Representations) -> dict[str, Any]:
    """What an intervention records of the representations that it was made from."""
    keys = [*example_keys(states.corpus, states.example_ids), *texts_behind(states.texts)]
    return {"pool": states.pool, "representations": states.fingerprint(), "example_keys": keys}


def least_squares_map(
    states: Float[Tensor, "example d_model"], goals: Float[Tensor, "example d_model"], *, ridge: float = 0.0
) -> Float[Tensor, "d_model d_model"]:
    """The W that minimises sum_i ||W states_i - goals_i||^2 + ridge * ||W||^2 (Frobenius), in float64.

    With ridge 0 and several such W, as with fewer examples than dimensions, the one of minimum norm.

    Raises:
        ValueError: a negative ridge, or states that are no tensors [example d_model], as many as goals.
    """
    given_number("ridge", ridge, least=0)
    for one in (states, goals):
        given(one, Tensor, "least_squares_map needs tensors [example d_model]", "Representations.at gives them")
    if states.ndim != 2 or goals.ndim != 2 or len(states) != len(goals):
        raise ValueError(
            f"least_squares_map needs two tensors [example d_model] of one length; got {tuple(states.shape)} and "
            f"{tuple(goals.shape)}"
        )
    x, y = states.double(), goals.double()
    if ridge == 0:
        return torch.linalg.lstsq(x, y, driver="gelsd").solution.T
    # Of two equal forms the one with the smaller matrix.
    if len(x) < x.shape[1]:
        dual = x @ x.T + ridge * torch.eye(len(x), dtype=x.dtype)
        return (x.T @ torch.linalg.solve(dual, y)).T
    primal = x.T @ x + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(primal, x.T @ y).T


def _check_unsteered(representations: Representations) -> None:
    given_representations(representations)
    if representations.site != "residual":
        raise ValueError(f"needs the residual stream, got site={representations.site!r}: collect with site='residual'")
    if representations.intervention is not None:
        raise ValueError(
            f"needs representations of the unsteered model, got those under intervention {representations.intervention}"
        )


def check_stack(values: Float[Tensor, "lang layer d_model"], languages: Sequence[str], layers: Sequence[int]) -> None:
    """Raise `SteeringError` unless there is a finite vector for each of these languages and layers."""
    if (len(languages), len(layers)) != values.shape[:2] or not values.isfinite().all():
        raise SteeringError(
            f"{len(languages)} languages and {len(layers)} layers need as many finite vectors, got {tuple(values.shape)}"
        )


def check_residual(model: LensModel, described: Mapping[str, Any], layers: Sequence[int], width: int) -> None:
    """Raise `SteeringError` unless values so wide, made at these layers of the model `described`, are of `model`."""
    given_model(model)
    if not 0 <= min(layers) <= max(layers) < model.cfg.n_layers or width != model.cfg.d_model:
        raise SteeringError(
            f"this was made for layers {list(layers)} of {described.get('name')!r}, {width} wide; "
            f"{model.cfg.model_name!r} has {model.cfg.n_layers} layers, {model.cfg.d_model} wide"
        )
    check_weights(model, described)
