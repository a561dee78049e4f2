"""What else the categories show: overlap between languages, moves between thresholds, and what chance alone would give."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from clas_lens.categories import Activity, NeuronCategories, NeuronCategory, categories_of, categorize
from clas_lens.statistics import NeuronStatistics


def null_shares(cats: NeuronCategories, *, rates: Literal["fair", "measured"] = "fair") -> pd.DataFrame:
    """The shares if a neuron's languages had nothing to do with each other.

    Args:
        rates: every language active with probability 1/2 ("fair": with 12 languages 99.66% would be partial-shared), or
            with the share of the layer's neurons in which it is active ("measured").

    Returns:
        Tidy, like `NeuronCategories.shares()`: layer, category, percent.
    """
    match rates:
        case "fair":
            active = np.full((len(cats.languages), cats.n_layers), 0.5)
        case "measured":
            active = cats.active.double().mean(2).numpy()
        case _:
            raise ValueError(f"unknown rates {rates!r}; available: fair, measured")
    labels = categories_of(torch.arange(len(cats.languages) + 1), len(cats.languages)).numpy()
    rows = []
    for layer in range(cats.n_layers):
        chances = _count_distribution(active[:, layer])
        rows += [(layer, c.label, 100.0 * float(chances[labels == int(c)].sum())) for c in NeuronCategory]
    return pd.DataFrame(rows, columns=["layer", "category", "percent"])


def _count_distribution(rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """P(0), P(1), ... successes of independent events with these probabilities."""
    chances = np.ones(1)
    for rate in rates:
        chances = np.convolve(chances, [1 - rate, rate])
    return chances


def threshold_shares(
    stats: NeuronStatistics, thresholds: Sequence[float | int], *, activity: Activity = "mean"
) -> pd.DataFrame:
    """The category shares at each threshold: threshold, layer, category, count, percent."""
    frames = [categorize(stats, t, activity).shares().assign(threshold=float(t)) for t in _increasing(thresholds, 1)]
    return pd.concat(frames, ignore_index=True)[["threshold", "layer", "category", "count", "percent"]]


def category_moves(
    stats: NeuronStatistics,
    thresholds: Sequence[float | int],
    *,
    activity: Activity = "mean",
    layers: Sequence[int] | None = None,
) -> pd.DataFrame:
    """How many neurons go from which category to which as the threshold rises from each value to the next.

    Returns:
        Tidy: from_threshold, to_threshold, from_category, to_category, count (0 where no neuron does).
    """
    chosen = list(range(stats.n_layers) if layers is None else layers)
    labels = {t: categorize(stats, t, activity).labels[chosen] for t in _increasing(thresholds, 2)}
    rows = []
    for low, high in pairwise(labels):
        for before in NeuronCategory:
            for after in NeuronCategory:
                count = int(((labels[low] == int(before)) & (labels[high] == int(after))).sum())
                rows.append((low, high, before.label, after.label, count))
    return pd.DataFrame(rows, columns=["from_threshold", "to_threshold", "from_category", "to_category", "count"])


def _increasing(thresholds: Sequence[float | int], at_least: int) -> list[float]:
    values = [float(threshold) for threshold in thresholds]
    if len(values) < at_least or values != sorted(set(values)):
        raise ValueError(f"thresholds must be at least {at_least}, each larger than the one before; got {values}")
    return values


def language_overlap(cats: NeuronCategories, layers: Sequence[int] | None = None) -> pd.DataFrame:
    """How far each two languages use the same neurons, in all layers or some.

    Returns:
        Tidy: language, other, jaccard (active in both / active in either, 0 to 1; NaN where none is active), both, either.
    """
    chosen = list(range(cats.n_layers) if layers is None else layers)
    active = cats.active[:, chosen].flatten(1).double()
    both = (active @ active.T).long()
    size = both.diagonal()
    either = size[:, None] + size[None, :] - both
    jaccard = both.double() / either.double()
    rows = [
        (language, other, float(jaccard[i, j]), int(both[i, j]), int(either[i, j]))
        for i, language in enumerate(cats.languages)
        for j, other in enumerate(cats.languages)
    ]
    return pd.DataFrame(rows, columns=["language", "other", "jaccard", "both", "either"])
