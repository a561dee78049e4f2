"""ReCoVeR (Sterz et al. 2025): a language's unit vector added to the residual stream of every layer, whose norm is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.vectors import check_residual, check_stack, measured_on
from clas_lens.given import given_word
from clas_lens.models.sites import LensModel, Site
from clas_lens.representations.sentences import Representations, given_representations
from clas_lens.saved import SAVED_ONLY
from clas_lens.steering.edits import LanguageTable
from clas_lens.steering.intervention import (
    Edit,
    SavedIntervention,
    SteeringError,
    Strength,
)
from clas_lens.vocabulary import Positions, Toward, check_language


@dataclass(frozen=True, eq=False)
class Recover(SavedIntervention):
    """x' = (x + alpha v / ||v||) * ||x|| / ||x + alpha v / ||v||| at the output of every layer.

    The unsupervised form of arXiv:2509.14814 as in github.com/hSterz/recover (4c6eb4d) with --scaling norm --restore_norm: a
    language's vector is its mean state (token means, then texts) minus the mean over languages; v is the own language's
    ("own", their monolingual setting), or the anchor's minus beta times the own ("anchor", their cross-lingual setting). Theirs
    leaves the first column of a prompt alone, which is BOS or padding; here all positions are steered that `positions` names.

    Args:
        vectors: a language's mean state minus the mean over languages, a row for the anchor too.
        languages, layers: the names of the first two axes.
        alpha: length of what is added; 0 is bit-identical to no steering.
        beta: how much of the own language's vector is taken away, for toward="anchor".
        toward: "own" or "anchor".
        anchor, positions: see `Clas`.
        model: see `describe_model`.
        source: what the vectors were made from, for manifests.

    Raises:
        SteeringError: vectors that do not fit their names or are not finite, no anchor among them, or an unknown option.
    """

    kind: ClassVar[str] = "recover"

    vectors: Float[Tensor, "lang layer d_model"] = field(repr=False)
    languages: tuple[str, ...]
    layers: tuple[int, ...]
    alpha: Strength = 1.0
    beta: Strength = 1.0
    toward: str = "own"
    anchor: str = "en"
    positions: Positions = "all"
    model: Mapping[str, Any] = field(default_factory=dict, repr=False, metadata=SAVED_ONLY)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        given_word("toward", self.toward, get_args(Toward), error=SteeringError)
        check_stack(self.vectors, self.languages, self.layers)
        if self.anchor not in self.languages:
            raise SteeringError(f"no vector of the anchor {self.anchor!r}; available: {', '.join(self.languages)}")

    @classmethod
    def fit(
        cls, before: Representations, *, toward: Toward = "own", alpha: float = 1.0, anchor: str = "en"
    ) -> "Recover":
        """Vectors of all layers that `before` has, which theirs takes all of.

        Args:
            before: token means of the unsteered model's residual stream.

        Raises:
            ValueError: steered representations, of another site or pooling, or of a single language.
        """
        given_representations(before)
        found = (before.site, before.pool, before.intervention)
        if found != ("residual", "mean", None) or len(before.languages) < 2:
            raise ValueError(
                f"ReCoVeR takes token means of several languages in the unsteered residual stream, got site={found[0]!r}, "
                f"pool={found[1]!r}, intervention={found[2]!r}, languages {', '.join(before.languages)}"
            )
        means = before.values.double().mean(1)
        vectors = (means - means.mean(0)).float()
        source = {"method": "ReCoVeR", **measured_on(before)}
        return cls(
            vectors, before.languages, before.layers, alpha, 1.0, toward, anchor, model=before.model, source=source
        )

    def direction(self, language: str) -> Float[Tensor, "layer d_model"]:
        """The unit vectors that are added in inputs in `language`; zeros for the anchor, and where v is 0.

        Raises:
            ValueError: not a language code, or one without vectors.
        """
        check_language(language)
        if language not in self.languages:
            raise SteeringError(f"no vector of {language!r}; available: {', '.join(self.languages)}")
        own, anchor = (self.vectors[self.languages.index(code)].double() for code in (language, self.anchor))
        if language == self.anchor:
            return torch.zeros_like(own)
        return torch.nn.functional.normalize(own if self.toward == "own" else anchor - self.beta * own, dim=-1)

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless this was made from this model."""
        check_residual(model, self.model, self.layers, self.vectors.shape[-1])

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """An addition a layer."""
        shifts = {code: self.alpha * self.direction(code) for code in dict.fromkeys(languages)}
        return {
            Site("residual", layer): ShiftKeepingNorm(
                LanguageTable.of({code: shift[place] for code, shift in shifts.items()}, languages)
            )
            for place, layer in enumerate(self.layers)
        }


class ShiftKeepingNorm:
    """Add each row's vector and give every position its norm back, in float32 or better; x itself where nothing is added."""

    def __init__(self, vectors: LanguageTable) -> None:
        self._vectors = vectors
        self._identity = vectors.always(0.0)

    def __call__(self, activation: Float[Tensor, "batch pos d_model"], rows: Sequence[int]) -> Tensor:
        if self._identity:
            return activation
        shift = self._vectors.rows(activation, rows)
        moved = activation + shift
        # A sum of length 0 has no direction to give the norm back to, and stays 0.
        norm = activation.to(moved.dtype).norm(dim=-1, keepdim=True)
        kept = torch.nn.functional.normalize(moved, dim=-1) * norm
        return torch.where((shift == 0).all(-1, keepdim=True), activation, kept.to(activation.dtype))
