"""Single neurons: which belong to a language most, the text that excites them, the tokens they promote."""

from collections.abc import Sequence
from typing import get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.corpus.arguments import given_model
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.given import given, given_frame, given_whole, given_word
from clas_lens.models.forward import direct_logits
from clas_lens.models.sites import LensModel
from clas_lens.models.units import check_units, n_units, output_projection
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.vocabulary import UnitSite

COLUMNS = [
    *("language", "layer", "neuron", "category", "languages", "selectivity"),
    *("mean", "firing_rate", "max", "example", "position", "text"),
]


def selectivity(stats: NeuronStatistics, language: str) -> Float[Tensor, "layer neuron"]:
    """How much more a neuron is active in one language than in the others: (mean - mean over the others) / RMS.

    In units of the neuron's own root mean square over all languages, so that layers compare; 0 for a silent neuron.
    """
    given(stats, NeuronStatistics, "selectivity needs NeuronStatistics", "run collect_statistics first")
    row = _row(stats.languages, language, "statistics")
    others = [i for i in range(len(stats.languages)) if i != row]
    scale = stats.second_moment.double().mean(0).sqrt()
    difference = stats.mean[row].double() - stats.mean[others].double().mean(0)
    return torch.where(scale > 0, difference / scale, 0.0).float()


def top_neurons(
    stats: NeuronStatistics,
    cats: NeuronCategories,
    corpus: ParallelCorpus,
    language: str,
    layer: int | None = None,
    n: int = 10,
) -> pd.DataFrame:
    """The neurons most selective for a language, of those active in it, each with the text that excites it most.

    Args:
        corpus: the one that `stats` were collected on, for the texts.
        layer: one layer; default all.

    Returns:
        At most `n` rows, the most selective first: language, layer, neuron, category, languages (how many it is active
        in), selectivity, mean, firing_rate (share of tokens, 0 to 1), max (the largest activation in this language),
        example (id), position (content token of that text), text. Of attention's units also their head, after neuron.

    Raises:
        ValueError: the language, the layer or the examples are not those of `stats` and `cats`.
    """
    given(stats, NeuronStatistics, "top_neurons needs NeuronStatistics", "run collect_statistics first")
    given(cats, NeuronCategories, "top_neurons needs NeuronCategories", "run categorize first")
    given(corpus, ParallelCorpus, "top_neurons needs a ParallelCorpus", "give the one that collect_statistics had")
    given_whole("n", n, least=1)
    row = _row(stats.languages, language, "statistics")
    if stats.site != cats.site:
        raise ValueError(
            f"statistics of site={stats.site!r} and categories of site={cats.site!r}: give those of one site"
        )
    active = cats.active[_row(cats.languages, language, "categories")]
    if active.shape != (stats.n_layers, stats.n_neurons):
        raise ValueError(
            f"categories of {tuple(active.shape)} (layers, neurons) and statistics of {(stats.n_layers, stats.n_neurons)}"
        )
    if tuple(corpus.ids) != tuple(stats.example_ids):
        raise ValueError(
            f"the statistics were collected on other examples ({len(stats.example_ids)}) than {corpus!r} has: "
            "give the corpus that collect_statistics had"
        )
    if layer is not None:
        given_whole("layer", layer, most=stats.n_layers - 1)
    score = selectivity(stats, language).masked_fill(~active, -torch.inf)
    if layer is not None:
        score[torch.arange(stats.n_layers) != layer] = -torch.inf
    order = score.flatten().argsort(descending=True, stable=True)[:n].tolist()
    places = [divmod(place, stats.n_neurons) for place in order if score.flatten()[place] > -torch.inf]
    labels, counts = cats.labels, cats.counts
    rows = []
    for at, neuron in places:
        example = int(stats.max_example[row, at, neuron])
        rows.append(
            {
                "language": language,
                "layer": at,
                "neuron": neuron,
                **({} if stats.site == "mlp" else {"head": neuron // int(stats.model["d_head"])}),
                "category": NeuronCategory(int(labels[at, neuron])).label,
                "languages": int(counts[at, neuron]),
                "selectivity": float(score[at, neuron]),
                "mean": float(stats.mean[row, at, neuron]),
                "firing_rate": float(stats.firing_rate[row, at, neuron]),
                "max": float(stats.max[row, at, neuron]),
                "example": corpus.ids[example],
                "position": int(stats.max_position[row, at, neuron]),
                "text": corpus[language][example],
            }
        )
    columns = COLUMNS if stats.site == "mlp" else [*COLUMNS[:3], "head", *COLUMNS[3:]]
    return pd.DataFrame(rows, columns=columns)


def _row(languages: Sequence[str], language: str, what: str) -> int:
    if language not in languages:
        raise ValueError(f"no {what} of {language!r}; available: {', '.join(languages)}")
    return list(languages).index(language)


def check_neuron(model: LensModel, layer: int, neuron: int, site: UnitSite = "mlp") -> None:
    """Raise `ValueError` unless the model has this neuron, or this unit of attention."""
    check_units(model, given_word("site", site, get_args(UnitSite)))
    for what, value, size in (("layer", layer, model.cfg.n_layers), ("neuron", neuron, n_units(model, site))):
        if type(value) is bool or not hasattr(value, "__index__") or not 0 <= value < size:
            raise ValueError(f"no {what} {value} in {model.cfg.model_name}; available: 0..{size - 1}")


def promoted_tokens(model: LensModel, layer: int, neuron: int, k: int = 10, *, site: UnitSite = "mlp") -> pd.DataFrame:
    """The tokens whose logits a neuron raises most when it is active: its row of W_down (of attention's units: of W_O) through
    the unembedding.

    A logit-lens view (see `sites.direct_logits`): what later layers make of the neuron's output is not in it, nor is the
    final norm's scale, so the logits compare within one neuron only. A negative activation lowers these tokens instead.
    Rows of the unembedding that no token of the tokenizer has are left out.

    Returns:
        `k` rows, the most promoted first: token (text), token_id, logit (per unit of activation).
    """
    given_model(model)
    k = given_whole("k", k, least=1)
    check_neuron(model, layer, neuron, site)
    tokenizer = require_tokenizer(model)
    logits = direct_logits(model, output_projection(model, site, layer)[neuron][None])[0, : len(tokenizer)]
    values, ids = logits.topk(min(k, len(logits)))
    return pd.DataFrame(
        {
            "token": [tokenizer.decode([token]) for token in ids.tolist()],
            "token_id": ids.tolist(),
            "logit": values.tolist(),
        }
    )


def with_promoted_tokens(table: pd.DataFrame, model: LensModel, k: int = 5) -> pd.DataFrame:
    """`top_neurons`' table with a column `promoted`: a list of each neuron's `k` most promoted tokens."""
    given_frame(table, ("layer", "neuron"), "with_promoted_tokens", "top_neurons(...)")
    site: UnitSite = "attn" if "head" in table.columns else "mlp"
    promoted = [
        promoted_tokens(model, int(layer), int(neuron), k, site=site)["token"].tolist()
        for layer, neuron in zip(table["layer"], table["neuron"], strict=True)
    ]
    return table.assign(promoted=pd.Series(promoted, index=table.index, dtype=object))
