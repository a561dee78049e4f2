"""What else the categories show: overlap between languages, moves between thresholds, and what chance alone would give."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from clas_lens.categories.categorize import NeuronCategories, NeuronCategory, categories_of, categorize
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.tokens import forward_batches, pad, require_tokenizer, tokenize
from clas_lens.models.sites import HookFunction, LensModel, check_mlp_hooks, device_of, hooked, post_name, run_layers
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.vocabulary import Activity


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


def instance_shares(
    model: LensModel,
    corpus: ParallelCorpus,
    *,
    position: Literal["last", "mean"] = "last",
    batch_size: int = 16,
    max_tokens: int = 512,
    progress: bool = True,
) -> pd.DataFrame:
    """Categorise every neuron once per example, and average the shares over examples.

    A neuron is all-shared *for an example* if h > 0 in all languages of that example, and so on; so a neuron's category
    can change from one example to the next, unlike in `categorize`.

    Args:
        position: "last" content token (Wang et al.'s code), or the "mean" of h over a text's content tokens.
        batch_size: examples held at a time; each takes one byte a neuron.

    Returns:
        Tidy: layer, category (label), percent (mean over examples, 0 to 100).
    """
    check_mlp_hooks(model)
    if len(corpus.languages) < 2:
        raise ValueError(f"instance shares compare languages: at least 2 are needed, got {corpus.languages}")
    tokenizer = require_tokenizer(model)
    limit = min(max_tokens, model.cfg.n_ctx)
    texts = {code: tokenize(tokenizer, corpus[code], max_tokens=limit) for code in corpus.languages}
    # All languages of an example go together, so an example is as long as in its longest language.
    lengths = [max(len(text.ids[row]) for text in texts.values()) for row in range(len(corpus))]
    batches = forward_batches(lengths, batch_size, device_of(model))
    layers = range(model.cfg.n_layers)
    totals = torch.zeros(model.cfg.n_layers, len(NeuronCategory), dtype=torch.int64)
    for rows in tqdm(batches, unit="batch", desc="instance shares", disable=not progress):
        counts = torch.zeros(len(rows), model.cfg.n_layers, model.cfg.d_mlp, dtype=torch.int8)
        for text in texts.values():
            batch = pad(text.ids, rows, n_prefix=text.n_prefix, device=device_of(model))
            weights = batch.content_mask.float()
            if position == "last":
                weights = torch.zeros_like(weights)
                weights[:, -1] = 1.0  # left padding: the last column is every row's last token

            def on_post(layer: int, weights: torch.Tensor = weights, counts: torch.Tensor = counts) -> HookFunction:
                def hook(activation: torch.Tensor, hook: object) -> None:
                    pooled = torch.einsum("bp,bpn->bn", weights, activation.float())
                    counts[:, layer] += (pooled > 0).to(torch.int8).cpu()

                return hook

            with hooked(model, [(post_name(layer), on_post(layer)) for layer in layers]):
                run_layers(model, batch.tokens, batch.attention_mask)
        labels = categories_of(counts, len(corpus.languages))
        for category in NeuronCategory:
            totals[:, int(category)] += (labels == int(category)).sum(dim=(0, 2))
    percent = 100.0 * totals.double() / (len(corpus) * model.cfg.d_mlp)
    return pd.DataFrame(
        [(layer, c.label, float(percent[layer, int(c)])) for layer in layers for c in NeuronCategory],
        columns=["layer", "category", "percent"],
    )
