"""Neurons that belong to a language, by other rules than CLAS's categories: LAPE and ActProb, from the same statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, get_args

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clas_lens.artifacts import tensor_fingerprint
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory, check_axes
from clas_lens.given import given, given_number
from clas_lens.models.sites import check_layers
from clas_lens.saved import SAVED_ONLY, Saved
from clas_lens.statistics.histogram import quantile, share_above
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.vocabulary import QuantileOver

TIE_DECIMALS = 9  # scores that agree to so many decimals are equal: the rest is the order of a floating-point sum


@dataclass(frozen=True, eq=False)
class NeuronSelection(Saved):
    """Which neurons belong to which language; a neuron may belong to several, or to none.

    Attributes:
        masks: where each language's neurons are.
        languages: the names of the `lang` axis.
        method: what chose them: "lape", "act_prob", "category" or your own name.
        options: the method's.
        model: see `NeuronStatistics.model`.
        source: what the statistics were: `NeuronStatistics.source()`.
    """

    kind: ClassVar[str] = "neuron selection"

    masks: Bool[Tensor, "lang layer neuron"]
    languages: tuple[str, ...]
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict, metadata=SAVED_ONLY)
    source: Mapping[str, Any] = field(default_factory=dict, metadata=SAVED_ONLY)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_axes("masks", self.masks, self.languages)

    @property
    def n_layers(self) -> int:
        return self.masks.shape[1]

    @property
    def n_neurons(self) -> int:
        return self.masks.shape[2]

    @property
    def union(self) -> Bool[Tensor, "layer neuron"]:
        """Neurons of any language."""
        return self.masks.any(0)

    def of(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """One language's neurons.

        Raises:
            ValueError: the language was not among those that the selection was made from.
        """
        if not isinstance(language, str) or language not in self.languages:
            raise ValueError(
                f"no neurons selected for {language!r}: it was not in the statistics; available: {', '.join(self.languages)}"
            )
        return self.masks[self.languages.index(language)]

    def shares(self) -> pd.DataFrame:
        """Tidy: language, layer, count, percent (of the layer's neurons, 0 to 100)."""
        counts = self.masks.sum(2).tolist()
        rows = [
            (language, layer, counts[row][layer], 100.0 * counts[row][layer] / self.n_neurons)
            for row, language in enumerate(self.languages)
            for layer in range(self.n_layers)
        ]
        return pd.DataFrame(rows, columns=["language", "layer", "count", "percent"])

    def __repr__(self) -> str:
        counts = ", ".join(f"{n} {code}" for code, n in zip(self.languages, self._sizes(), strict=True))
        return (
            f"NeuronSelection({self.method!r} on {self.model.get('name')!r}, {self.n_layers} layers x {self.n_neurons} "
            f"neurons: {counts})"
        )

    def _sizes(self) -> list[int]:
        return self.masks.sum((1, 2)).tolist()


def lape(stats: NeuronStatistics, *, rate_percentile: float = 95.0, share: float = 0.01) -> NeuronSelection:
    """LAPE (Tang et al. 2024): neurons whose gate is open in few languages.

    p is P(gate > 0) of a neuron in a language, in an MLP without a gate P(pre-activation > 0). Neurons whose p exceeds the
    bar in no language are out; of the rest those with the lowest entropy of p over languages are taken, over all layers
    together. A taken neuron belongs to every language in which its p exceeds the bar.

    The bar is the released code's: of all n values of p the one of rank round(rate_percentile / 100 * n), not interpolated.
    Equal entropies (to 1e-9) go to the lower layer, then the lower neuron. Where fewer neurons pass the bar than `share`
    asks for, those are all.

    Args:
        rate_percentile: the bar, among p over all neurons and languages.
        share: of all neurons, how many are taken, rounded; in (0, 1].

    Raises:
        ValueError: fewer than two languages, or an option out of range.
    """
    _check_options(stats, rate_percentile, share)
    rate = stats.gate_rate_exact
    rank = max(1, round(rate.numel() * rate_percentile / 100))
    above = rate > rate.flatten().kthvalue(rank).values
    entropy = language_entropy(rate).masked_fill(~above.any(0), torch.inf)
    masks = above & _highest(-entropy, share)
    options = {"rate_percentile": rate_percentile, "share": share}
    return NeuronSelection(masks, stats.languages, "lape", options, stats.model, stats.source())


def language_entropy(rate: Float[Tensor, "lang *shape"]) -> Float[Tensor, "*shape"]:
    """H = -sum p' log p' in nats, with p' the rates normalised over languages; from 0 to log(languages), NaN if all are 0.

    Rates are sorted first, so that neurons with the same rates in other languages get the same sum to the last bit.
    """
    given(rate, Tensor, "language_entropy needs rates [lang *shape]", "give stats.firing_rate, say")
    if rate.is_complex() or rate.is_meta or rate.ndim == 0 or not bool((rate.isfinite() & (rate >= 0)).all()):
        raise ValueError(f"language_entropy needs finite rates of at least 0 [lang *shape], got {tuple(rate.shape)}")
    normalised = rate.sort(0).values / rate.sum(0)
    return -torch.special.xlogy(normalised, normalised).sum(0)


def act_prob(
    stats: NeuronStatistics,
    *,
    percentile: float = 90.0,
    share: float = 0.00125,
    quantile_over: QuantileOver = "pooled",
    thresholds: Float[Tensor, "lang layer neuron"] | None = None,
) -> NeuronSelection:
    """ActProb-90p (Mondal et al. 2025): in each language the neurons that most often exceed a 90th percentile of their own.

    The score of a neuron in a language is P(gate > q), with q a percentile of its gate (before the nonlinearity). "pooled" is
    ours: q over the tokens of all languages together, so that a neuron scores high in the languages that use it most.
    "language" is theirs: q of each language by itself. Over all of a language's tokens at once every neuron then scores
    1 - percentile / 100, and what is chosen is chosen by rounding; their released code escapes that only because its q is a
    mean over batches of each batch's percentile. Give these as `thresholds` (`mean_batch_percentiles`) to do as it does.

    Pooled percentiles and all scores are read from histograms: a score is off by at most the share of tokens in the one bin
    that holds q. Equal scores (to 1e-9) go to the lower layer, then the lower neuron.

    Args:
        percentile: of the neuron's own values.
        share: of all neurons, how many each language gets, rounded; in (0, 1].
        quantile_over: whose tokens the percentile is of; pooled by default, because per language every neuron scores alike.
        thresholds: q itself, for "language"; default each language's own percentile over all its tokens.

    Raises:
        ValueError: statistics without histograms, fewer than two languages, an option out of range, or thresholds that are
            of another shape or of pooled tokens.
    """
    _check_options(stats, percentile, share)
    counts = stats.histogram("gate")
    pooled = quantile_over == "pooled"
    if quantile_over not in get_args(QuantileOver) or (thresholds is not None and pooled):
        raise ValueError(
            f"quantile_over must be one of {', '.join(get_args(QuantileOver))}, and thresholds go with 'language' alone; got "
            f"{quantile_over!r}{'' if thresholds is None else ' with thresholds'}"
        )
    if thresholds is not None and thresholds.shape != counts.shape[:-1]:
        raise ValueError(f"thresholds are {tuple(thresholds.shape)}, the statistics {tuple(counts.shape[:-1])}")
    scores = torch.stack(
        [
            _exceedance(
                counts[:, layer], percentile / 100, pooled, None if thresholds is None else thresholds[:, layer]
            )
            for layer in range(stats.n_layers)
        ],
        dim=1,
    )
    masks = torch.stack([_highest(score, share) for score in scores])
    own = {} if thresholds is None else {"thresholds": tensor_fingerprint(thresholds)}
    options = {"percentile": percentile, "share": share, "quantile_over": quantile_over, **own}
    return NeuronSelection(masks, stats.languages, "act_prob", options, stats.model, stats.source())


def _exceedance(
    counts: Int[Tensor, "lang neuron bin"], q: float, pooled: bool, thresholds: Float[Tensor, "lang neuron"] | None
) -> Float[Tensor, "lang neuron"]:
    """Per language, how often a neuron exceeds its threshold: by default its q-quantile, over all languages or its own."""
    if thresholds is None:
        thresholds = quantile(counts.sum(0), q) if pooled else quantile(counts, q)
    return share_above(counts, thresholds)


def category_selection(cats: NeuronCategories, layers: Sequence[int] | None = None) -> NeuronSelection:
    """CLAS's language-specific neurons: those active in one language alone.

    Args:
        layers: only in these; default all.

    Raises:
        ValueError: a layer that the model does not have, or twice, or none.
    """
    given(cats, NeuronCategories, "category_selection needs NeuronCategories", "run categorize first")
    chosen = list(check_layers(range(cats.n_layers) if layers is None else layers, cats.n_layers))
    masks = torch.zeros_like(cats.active)
    masks[:, chosen] = (cats.active & cats.mask(NeuronCategory.LANGUAGE_SPECIFIC))[:, chosen]
    options = {"threshold": cats.threshold, "activity": cats.activity, "quantile": cats.quantile, "layers": chosen}
    return NeuronSelection(masks, cats.languages, "category", options, cats.model, cats.source)


def _highest(scores: Float[Tensor, "layer neuron"], share: float) -> Bool[Tensor, "layer neuron"]:
    """The `share` of all neurons with the highest finite scores; of equal ones the first in (layer, neuron) order."""
    flat = scores.round(decimals=TIE_DECIMALS).flatten()
    order = flat.argsort(descending=True, stable=True)[: round(share * flat.numel())]
    chosen = torch.zeros_like(flat, dtype=torch.bool)
    chosen[order] = True
    return (chosen & flat.isfinite()).view_as(scores)


def _check_options(stats: NeuronStatistics, percentile: float, share: float) -> None:
    """Raise unless there are languages to compare, a percentile, and a share that takes at least one neuron."""
    given(stats, NeuronStatistics, "a selection needs NeuronStatistics", "run collect_statistics first")
    given_number("a percentile", percentile)
    given_number("share", share)
    if len(stats.languages) < 2:
        raise ValueError(f"a selection compares languages: at least 2 are needed, got {', '.join(stats.languages)}")
    if not 0 < percentile < 100:
        raise ValueError(f"a percentile is between 0 and 100, got {percentile}")
    total = stats.n_layers * stats.n_neurons
    if not 0 < share <= 1 or round(share * total) == 0:
        raise ValueError(f"share={share} of {total} neurons is none; a share is in (0, 1]")
