"""Agreement of categorisations by hand and against scikit-learn; halves of a corpus."""

from collections import Counter

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, jaccard_score

import clas_lens as cl
from clas_lens.categories.categorize import NeuronCategories
from clas_lens.categories.stability import category_agreement, cohens_kappa, split_halves


def categories(counts):
    """Two layers of neurons that are active in so many of three languages."""
    active = torch.arange(3)[:, None, None] < torch.tensor(counts)
    return NeuronCategories(active, ("de", "en", "zh"))


def test_by_hand():
    # dead, specific, partial, all | dead x 4 against dead, partial, partial, all | dead x 4
    first, second = categories([[0, 1, 2, 3], [0, 0, 0, 0]]), categories([[0, 2, 2, 3], [0, 0, 0, 0]])
    table = category_agreement(first, second).set_index(["layer", "category"])
    # 3 of 4 agree; chance: dead 1/16, specific 0, partial 1/4 * 2/4, all 1/16: 1/4
    assert table.loc[("0", "all"), "kappa"] == pytest.approx((3 / 4 - 1 / 4) / (1 - 1 / 4))
    assert table.loc[("0", "partial-shared"), "jaccard"] == 0.5
    assert table.loc[("0", "language-specific"), "jaccard"] == 0.0
    assert table.loc[("0", "partial-shared"), ["first", "second"]].tolist() == [1, 2]
    assert np.isnan(table.loc[("1", "all"), "kappa"])
    assert table.loc[("1", "all"), "agreement"] == 1.0
    assert table.loc[("all", "dead"), "jaccard"] == 1.0
    assert table.loc[("all", "all"), "agreement"] == 7 / 8


def test_against_scikit_learn():
    rng = np.random.default_rng(0)
    one = rng.integers(0, 4, 200).astype(np.int8)
    two = np.where(rng.random(200) < 0.6, one, rng.integers(0, 4, 200)).astype(np.int8)
    assert cohens_kappa(one, two) == pytest.approx(cohen_kappa_score(one, two))
    table = category_agreement(categories([one.tolist()]), categories([two.tolist()])).set_index(["layer", "category"])
    assert table.loc[("all", "dead"), "jaccard"] == pytest.approx(jaccard_score(one == 0, two == 0))
    assert table.loc[("0", "dead"), "kappa"] == pytest.approx(cohen_kappa_score(one == 0, two == 0))


def test_a_categorisation_agrees_with_itself_and_with_no_other_languages(small_cats):
    table = category_agreement(small_cats, small_cats)
    assert set(table["kappa"].dropna()) == {1.0}
    assert set(table["agreement"]) == {1.0}
    with pytest.raises(ValueError, match="different languages"):
        category_agreement(small_cats, categories([[0, 1]]))


def test_halves_keep_groups_together():
    texts = {"en": [f"text {i}" for i in range(10)], "de": [f"Text {i}" for i in range(10)]}
    groups = [str(i // 2) for i in range(10)]
    corpus = cl.ParallelCorpus.from_texts(texts, groups=groups)
    first, second = split_halves(corpus, seed=1)
    assert Counter(first.ids + second.ids) == Counter(corpus.ids)
    assert not set(first.groups) & set(second.groups)
    assert (len(first), len(second)) == (4, 6)
    assert split_halves(corpus, seed=1)[0] == first
    assert split_halves(corpus, seed=2)[0] != first
    with pytest.raises(ValueError, match="1 group of examples cannot be halved"):
        split_halves(corpus.take([0, 1]))
