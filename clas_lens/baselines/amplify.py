"""Some neurons of each language made stronger: LAPE's (Rahmanisa et al. 2025) or SADI's (Wang et al. 2024)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clas_lens.baselines.bases import OfSelection
from clas_lens.categories.selection import NeuronSelection
from clas_lens.given import given, given_whole, given_word
from clas_lens.models.sites import LensModel, Site
from clas_lens.models.units import site_of
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.edits import rescale_edits
from clas_lens.steering.intervention import (
    Edit,
    SteeringError,
    Strength,
)
from clas_lens.vocabulary import Missing, Positions, check_language


@dataclass(frozen=True, eq=False)
class Amplify(OfSelection):
    """h' = h * (1 + alpha * M), M being the neurons selected for the input's own language.

    h is act(gate) * (W_up x), so this is act(gate) times 1 + alpha. With `lape` neurons it is the multiplication of "Unveiling
    the Influence of Amplifying Language-Specific Neurons" (arXiv:2507.22581; github.com/tauimbz/lang-task-neuron, d "*10" there
    is alpha 9 here). Its main form, act(gate) := the maximum or median over texts, is `Overwrite` with a statistic. With
    `sadi_neurons` and positions="prompt_last" it is SADI's A + delta (A * M).

    Args:
        selection: which neurons, per language.
        alpha: strength; 0 is bit-identical to no steering.
        anchor: the language that stays untouched.
        missing: a language without selected neurons raises ("raise") or is left as it is ("untouched").
        positions: see `Clas`.

    Raises:
        SteeringError: an unknown option, or no neuron in any language but the anchor.
    """

    kind: ClassVar[str] = "amplified neurons"

    selection: NeuronSelection
    alpha: Strength = 1.0
    anchor: str = "en"
    missing: Missing = "raise"
    positions: Positions = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        given_word("missing", self.missing, get_args(Missing), error=SteeringError)
        given(
            self.selection,
            NeuronSelection,
            "Amplify needs a NeuronSelection",
            "lape(stats) makes one",
            error=SteeringError,
        )
        if not any(self.selection.of(code).any() for code in self.selection.languages if code != self.anchor):
            raise SteeringError(f"nothing to amplify: no neuron of any language but {self.anchor!r}")

    @cached_property
    def _layers(self) -> list[int]:
        return self.selection.union.any(1).nonzero().flatten().tolist()

    def neurons(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """The neurons that are amplified in inputs in `language`; none for the anchor.

        Raises:
            ValueError: not a language code, or one without neurons (unless `missing` is "untouched").
        """
        check_language(language)
        known = language in self.selection.languages and language != self.anchor
        masks = self.selection.of(language) if known else torch.zeros_like(self.selection.union)
        if self.missing == "raise" and language != self.anchor and not masks.any():
            raise ValueError(
                f"no neurons to amplify for {language!r} among {', '.join(self.selection.languages)}; "
                "missing='untouched' leaves such languages as they are"
            )
        return masks

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """A rescaling a layer with selected neurons."""
        return rescale_edits(self._scale, self._layers, languages, site_of(self.selection.model))

    def _scale(self, language: str) -> dict[int, Float[Tensor, "neuron"]]:
        masks = self.neurons(language).double()
        return {layer: 1.0 + self.alpha * masks[layer] for layer in self._layers}


def sadi_neurons(stats: NeuronStatistics, *, anchor: str = "en", k: int = 100) -> NeuronSelection:
    """SADI (arXiv:2410.12299): the `k` neurons with the largest mean difference of act(gate) at the last token of pairs.

    Theirs are a question with its right and with its wrong answer; a parallel corpus has none, so that here a pair is the same
    text in the anchor (positive) and in the language (negative). As in their code (steering.py of github.com/
    weixuan-wang123/SADI, d7fedf0) the signed difference is ranked, over all layers together; theirs tries k from 3 to 500, and
    multiplies by 10 to 90 (alpha 9 to 89 of `Amplify`). Equal differences go to the lower layer, then the lower neuron.

    Args:
        stats: with pooling="last".

    Raises:
        ValueError: another pooling, no anchor or no other language, or k out of range.
    """
    given(stats, NeuronStatistics, "sadi_neurons needs NeuronStatistics", "run collect_statistics first")
    k = given_whole("k", k, least=1)
    if stats.pooling != "last":
        raise ValueError(f"SADI compares last tokens, got pooling={stats.pooling!r}: collect with pooling='last'")
    others = [code for code in stats.languages if code != anchor]
    if not others or len(others) == len(stats.languages):
        raise ValueError(
            f"contrast pairs need the anchor {anchor!r} and another language; got {', '.join(stats.languages)}"
        )
    means = stats.gate_act_mean.double()
    total = means[0].numel()
    if not 1 <= k <= total:
        raise ValueError(f"k must be from 1 to {total} neurons, got {k}")
    masks = torch.zeros(len(others), *means.shape[1:], dtype=torch.bool)
    for row, code in enumerate(others):
        difference = means[stats.languages.index(anchor)] - means[stats.languages.index(code)]
        masks[row].view(-1)[difference.flatten().argsort(descending=True, stable=True)[:k]] = True
    return NeuronSelection(masks, tuple(others), "sadi", {"k": k, "anchor": anchor}, stats.model, stats.source())
