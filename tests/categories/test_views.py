"""Overlap, moves and chance against counting by hand."""

import itertools

import pytest
import torch

from clas_lens.categories.categorize import NeuronCategories, categorize
from clas_lens.categories.views import category_moves, language_overlap, null_shares, threshold_shares


def categories_by_counting(n_languages: int, rates: list[float]) -> dict[str, float]:
    """Go through all 2^n patterns of activity."""
    shares = dict.fromkeys(("dead", "language-specific", "partial-shared", "all-shared"), 0.0)
    for pattern in itertools.product([0, 1], repeat=n_languages):
        chance = 1.0
        for bit, rate in zip(pattern, rates, strict=True):
            chance *= rate if bit else 1 - rate
        count = sum(pattern)
        name = {0: "dead", n_languages: "all-shared", 1: "language-specific"}.get(count, "partial-shared")
        shares[name] += 100 * chance
    return shares


def test_twelve_fair_signs_are_nearly_all_partial_shared():
    cats = NeuronCategories(
        torch.zeros(12, 2, 3, dtype=torch.bool),
        ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr"),
    )
    null = null_shares(cats)
    shares = null[null["layer"] == 1].set_index("category")["percent"]
    assert shares["partial-shared"] == pytest.approx(100 * (1 - 14 / 4096))
    assert shares.to_dict() == pytest.approx(categories_by_counting(12, [0.5] * 12))
    assert shares.sum() == pytest.approx(100)


def test_measured_rates_are_each_languages_own():
    active = torch.zeros(3, 1, 4, dtype=torch.bool)
    active[0, 0, :1] = active[1, 0, :2] = active[2, 0, :3] = True
    null = null_shares(NeuronCategories(active, ("ar", "de", "en")), rates="measured").set_index("category")["percent"]
    assert null.to_dict() == pytest.approx(categories_by_counting(3, [0.25, 0.5, 0.75]))


def test_overlap_by_hand():
    active = torch.tensor([[[1, 1, 0, 0], [0, 0, 0, 0]], [[0, 1, 1, 0], [0, 0, 0, 0]]], dtype=torch.bool)
    cats = NeuronCategories(active, ("de", "en"))
    frame = language_overlap(cats).set_index(["language", "other"])
    assert frame.loc[("de", "en")].to_dict() == pytest.approx({"jaccard": 1 / 3, "both": 1, "either": 3})
    assert frame.loc[("de", "de"), "jaccard"] == 1.0
    assert language_overlap(cats, [1])["jaccard"].isna().all()


def test_moves_count_every_neuron_once(small_stats):
    moves = category_moves(small_stats, [-0.1, 0, 0.1])
    shares = threshold_shares(small_stats, [-0.1, 0, 0.1])
    n_neurons = small_stats.n_layers * small_stats.n_neurons
    assert moves.groupby("from_threshold")["count"].sum().tolist() == [n_neurons, n_neurons]
    for threshold, column in ((-0.1, "from"), (0.0, "from"), (0.0, "to"), (0.1, "to")):
        counted = moves[moves[f"{column}_threshold"] == threshold].groupby(f"{column}_category")["count"].sum()
        expected = shares[shares["threshold"] == threshold].groupby("category")["count"].sum()
        assert counted.to_dict() == expected.to_dict()
    # A higher threshold never makes a neuron active in more languages.
    rank = {"dead": 0, "language-specific": 1, "partial-shared": 2, "all-shared": 3}
    upward = [rank[row.to_category] > rank[row.from_category] for row in moves.itertuples()]
    assert moves.loc[upward, "count"].sum() == 0


def test_threshold_shares_are_those_of_categorize(small_stats):
    shares = threshold_shares(small_stats, [0.05])
    assert shares.drop(columns="threshold").equals(categorize(small_stats, 0.05).shares())
    with pytest.raises(ValueError, match="each larger than the one before; got"):
        threshold_shares(small_stats, [0.1, 0.05])
    with pytest.raises(ValueError, match="at least 2"):
        category_moves(small_stats, [0.1])
