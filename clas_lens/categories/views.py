"""What else the categories show: overlap between languages, moves between thresholds, and what chance alone would give."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import get_args

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor

from clas_lens.categories.categorize import NeuronCategories, NeuronCategory, categories_of, categorize
from clas_lens.cluster.work import Tell
from clas_lens.corpus.arguments import check_bare, given_corpus, given_model, given_sizes
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.reading import (
    Reading,
    in_one_pass,
    parallel_readings,
    read_batches,
    read_items,
    tokenize_corpus,
)
from clas_lens.corpus.tokens import TokenBatch
from clas_lens.given import given, given_number, given_word, in_a_row
from clas_lens.models.sites import HookFunction, LensModel, Site, check_layers, hooked
from clas_lens.models.units import check_units, flat, n_units
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.vocabulary import Activity, NullRates, Pool, UnitSite


def null_shares(cats: NeuronCategories, *, rates: NullRates = "fair") -> pd.DataFrame:
    """The shares if a neuron's languages had nothing to do with each other.

    Args:
        rates: every language active with probability 1/2 ("fair": with 12 languages 99.66% would be partial-shared), or
            with the share of the layer's neurons in which it is active ("measured").

    Returns:
        Tidy, like `NeuronCategories.shares()`: layer, category, percent.
    """
    given(cats, NeuronCategories, "null_shares needs NeuronCategories", "run categorize first")
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
    given(stats, NeuronStatistics, "threshold_shares needs NeuronStatistics", "run collect_statistics first")
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
    given(stats, NeuronStatistics, "category_moves needs NeuronStatistics", "run collect_statistics first")
    chosen = list(range(stats.n_layers) if layers is None else check_layers(layers, stats.n_layers))
    labels = {t: categorize(stats, t, activity).labels[chosen] for t in _increasing(thresholds, 2)}
    rows = []
    for low, high in pairwise(labels):
        for before in NeuronCategory:
            for after in NeuronCategory:
                count = int(((labels[low] == int(before)) & (labels[high] == int(after))).sum())
                rows.append((low, high, before.label, after.label, count))
    return pd.DataFrame(rows, columns=["from_threshold", "to_threshold", "from_category", "to_category", "count"])


def _increasing(thresholds: Sequence[float | int], at_least: int) -> list[float]:
    if not in_a_row(thresholds):
        raise ValueError(f"thresholds must be a list of numbers, got {thresholds!r}")
    values = [given_number("a threshold", threshold) for threshold in thresholds]
    if len(values) < at_least or values != sorted(set(values)):
        raise ValueError(f"thresholds must be at least {at_least}, each larger than the one before; got {values}")
    return values


def language_overlap(cats: NeuronCategories, layers: Sequence[int] | None = None) -> pd.DataFrame:
    """How far each two languages use the same neurons, in all layers or some.

    Returns:
        Tidy: language, other, jaccard (active in both / active in either, 0 to 1; NaN where none is active), both, either.
    """
    given(cats, NeuronCategories, "language_overlap needs NeuronCategories", "run categorize first")
    chosen = list(range(cats.n_layers) if layers is None else check_layers(layers, cats.n_layers))
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


def instance_shares(
    model: LensModel,
    corpus: ParallelCorpus | Mapping[str, Sequence[str]],
    *,
    position: Pool = "last",
    batch_size: int = 16,
    max_tokens: int = 512,
    site: UnitSite = "mlp",
    progress: bool = True,
) -> pd.DataFrame:
    """Categorise every neuron once per example, and average the shares over examples.

    A neuron is all-shared *for an example* if h > 0 in all languages of that example, and so on; so a neuron's category
    can change from one example to the next, unlike in `categorize`.

    Args:
        position: "last" content token (Wang et al.'s code), or the "mean" of h over a text's content tokens.
        batch_size: examples held at a time; each takes two bytes a neuron.
        site: see `collect_statistics`.

    Returns:
        Tidy: layer, category (label), percent (mean over examples, 0 to 100).
    """
    model, corpus = given_model(model), given_corpus(corpus)
    batch_size, max_tokens = given_sizes(batch_size, max_tokens)
    last = given_word("position", position, get_args(Pool)) == "last"
    check_units(model, given_word("site", site, get_args(UnitSite)))
    check_bare(model, "instance_shares", kept=False)
    if len(corpus.languages) < 2:
        raise ValueError(f"instance shares compare languages: at least 2 are needed, got {corpus.languages}")
    items = parallel_readings(model, tokenize_corpus(model, corpus, max_tokens), batch_size)
    totals = torch.zeros(model.cfg.n_layers, len(NeuronCategory), dtype=torch.int64)
    counts = torch.zeros(0)
    read = partial(_active, site=site, last=last)
    for item, active in read_items(model, items, read, what="instance shares", progress=progress):
        first, final = item.language == corpus.languages[0], item.language == corpus.languages[-1]
        counts = active if first else counts.add_(active)
        if final:
            labels = categories_of(counts, len(corpus.languages))
            for category in NeuronCategory:
                totals[:, int(category)] += (labels == int(category)).sum(dim=(0, 2))
    percent = 100.0 * totals.double() / (len(corpus) * n_units(model, site))
    return pd.DataFrame(
        [
            (layer, c.label, float(percent[layer, int(c)]))
            for layer in range(model.cfg.n_layers)
            for c in NeuronCategory
        ],
        columns=["layer", "category", "percent"],
    )


def _active(
    model: LensModel, item: Reading, tell: Tell, *, site: UnitSite, last: bool
) -> Int[Tensor, "example layer neuron"]:
    """1 where the h of an example's last token, or its mean over content tokens, is above 0; of an item of one batch."""

    @contextmanager
    def watching(batch: TokenBatch) -> Iterator[Int[Tensor, "example layer neuron"]]:
        active = torch.zeros(len(batch.rows), model.cfg.n_layers, n_units(model, site), dtype=torch.int8)
        weights = batch.content_mask.float()
        if last:
            weights = torch.zeros_like(weights)
            weights[:, -1] = 1.0  # left padding: the last column is every row's last token

        def on_units(layer: int) -> HookFunction:
            def hook(activation: Tensor, hook: object) -> None:
                means = torch.einsum("bp,bpn->bn", weights.to(activation.device), flat(activation).float())
                active[:, layer] = (means > 0).to(torch.int8).cpu()

            return hook

        with hooked(
            model, [(Site(site, layer).hook_name(model), on_units(layer)) for layer in range(model.cfg.n_layers)]
        ):
            yield active

    return torch.cat([active for _, active in read_batches(model, item, in_one_pass(model, watching), tell)])
