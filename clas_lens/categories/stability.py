"""Are the categories a property of the model, or of the texts? Two halves of a corpus, categorised by themselves."""

import random

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.corpus.arguments import given_corpus
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.given import given, given_whole

ALL = "all"


def split_halves(corpus: ParallelCorpus, *, seed: int = 0) -> tuple[ParallelCorpus, ParallelCorpus]:
    """Two halves of the examples at random, each in corpus order; a group (a paragraph) is in one of them alone.

    Raises:
        ValueError: fewer than two examples or groups.
    """
    corpus, seed = given_corpus(corpus), given_whole("seed", seed)
    groups = corpus.ids if corpus.groups is None else corpus.groups
    distinct = list(dict.fromkeys(groups))
    if len(distinct) < 2:
        raise ValueError(f"{corpus.name}: {len(distinct)} group of examples cannot be halved")
    first = set(random.Random(seed).sample(distinct, len(distinct) // 2))
    rows = [[row for row, group in enumerate(groups) if (group in first) is inside] for inside in (True, False)]
    return corpus.take(rows[0]), corpus.take(rows[1])


def category_agreement(first: NeuronCategories, second: NeuronCategories) -> pd.DataFrame:
    """How far two categorisations of the same neurons agree: of two halves of the texts, or of any other two.

    Returns:
        Tidy: layer ("all", then "0", "1", ...), category ("all" and each label), `kappa` (Cohen's: agreement above what the two
        categorisations' shares alone would give; for one category that category against the rest; NaN where both put all
        neurons into one), `jaccard` (in both / in either; for "all" NaN, as for a category with no neuron), `agreement`
        (share of neurons on which they agree), `first`, `second` (numbers of neurons).

    Raises:
        ValueError: other layers, neurons, languages or another model in one than in the other.
    """
    for one in (first, second):
        given(one, NeuronCategories, "category_agreement needs NeuronCategories", "run categorize first")
    for what in ("languages", "n_layers", "n_neurons"):
        if getattr(first, what) != getattr(second, what):
            raise ValueError(f"different {what}: {getattr(first, what)} and {getattr(second, what)}")
    if first.site != second.site:
        raise ValueError(f"categories of site={first.site!r} and of site={second.site!r}: other units")
    if first.model.get("neurons") != second.model.get("neurons"):
        raise ValueError(f"neurons of {first.model.get('name')!r} and {second.model.get('name')!r}: other weights")
    here, there = first.labels.numpy(), second.labels.numpy()
    rows = _agreements(ALL, here.ravel(), there.ravel())
    for layer in range(first.n_layers):
        rows += _agreements(str(layer), here[layer], there[layer])
    return pd.DataFrame(rows, columns=["layer", "category", "kappa", "jaccard", "agreement", "first", "second"])


def _agreements(layer: str, one: NDArray[np.int8], two: NDArray[np.int8]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (layer, ALL, cohens_kappa(one, two), float("nan"), float((one == two).mean()), len(one), len(two))
    ]
    for category in NeuronCategory:
        here, there = one == int(category), two == int(category)
        either = int((here | there).sum())
        jaccard = int((here & there).sum()) / either if either else float("nan")
        agreement = float((here == there).mean())
        kappa = cohens_kappa(here.astype(np.int8), there.astype(np.int8))
        rows.append((layer, category.label, kappa, jaccard, agreement, int(here.sum()), int(there.sum())))
    return rows


def cohens_kappa(one: NDArray[np.int8], two: NDArray[np.int8]) -> float:
    """(agreement - chance) / (1 - chance), with chance from the two sides' own shares; NaN where chance is 1."""
    values = np.union1d(one, two)
    chance = float(sum((one == value).mean() * (two == value).mean() for value in values))
    return float("nan") if len(values) == 1 else (float((one == two).mean()) - chance) / (1 - chance)
