"""Overlap, flow, browser, distribution and the search curves carry their frames' values, escaped."""

import pandas as pd
import pytest
import torch

from analysis import (
    alpha_curve,
    beta_gamma_curve,
    category_flow,
    neuron_browser,
    neuron_distribution,
    overlap_matrix,
)
from clas_lens.categories.categorize import NeuronCategories
from clas_lens.categories.views import category_moves, language_overlap

COLUMNS = ["task", "alpha", "beta", "gamma", "language", "score", "n"]
ALPHAS = pd.DataFrame(
    [
        ("xnli", alpha, 0.4, 0.2, language, base - alpha**2, 200)
        for alpha in (-1.0, 0.0, 2.0)
        for language, base in (("de", 50.0), ("<b>%{y}", 40.0))
    ],
    columns=COLUMNS,
).assign(title="XNLI", metric_title="accuracy")


# --- curves ---


def test_alpha_curve_is_the_mean_over_languages():
    figure = alpha_curve(ALPHAS)
    escaped, german, mean = figure.data
    assert (escaped.name, german.name) == ("&lt;b&gt;%{y}", "de")
    assert list(german.x) == [-1.0, 0.0, 2.0]
    assert list(german.y) == [49.0, 50.0, 46.0]
    assert list(mean.y) == [44.0, 45.0, 41.0]
    assert [row[1] for row in mean.customdata] == [
        " (\N{MINUS SIGN}1.00 over none)",
        " (0.00 over none)",
        " (\N{MINUS SIGN}4.00 over none)",
    ]
    assert figure.layout.yaxis.title.text == "accuracy (%)"


def test_alpha_curves_of_several_models_and_tasks():
    both = pd.concat([ALPHAS, ALPHAS.assign(task="xquad", score=10.0, title="XQuAD", metric_title="token F1")])
    figure = alpha_curve({"one": both, "two": ALPHAS})
    assert [(trace.name, trace.xaxis, next(iter(trace.y))) for trace in figure.data] == [
        ("one", "x", 44.0),
        ("two", "x", 44.0),
        ("one", "x2", 10.0),
    ]
    assert figure.layout.yaxis2.title.text == "token F1 (%)"
    with pytest.raises(ValueError, match=r"one beta a curve, got \[0.2, 0.4\]"):
        alpha_curve(pd.concat([ALPHAS, ALPHAS.assign(beta=0.2)]))


def test_beta_and_gamma_curves_cut_the_grid_both_ways():
    rows = [
        ("xnli", alpha, beta, gamma, language, 100 * beta + 10 * gamma + extra, 200)
        for alpha in (1.0, 2.0)
        for beta in (0.2, 0.4)
        for gamma in (0.1, 0.2, 0.4)
        for language, extra in (("de", 0.0), ("ar", 2.0))
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    figure = beta_gamma_curve(table)
    assert [trace.name for trace in figure.data] == ["γ = 0.1", "γ = 0.2", "γ = 0.4", "β = 0.2", "β = 0.4"]
    assert list(figure.data[1].x) == [0.2, 0.4]
    assert list(figure.data[1].y) == pytest.approx([23.0, 43.0])
    assert list(figure.data[4].x) == [0.1, 0.2, 0.4]
    assert list(figure.data[4].y) == pytest.approx([42.0, 43.0, 45.0])
    assert {trace.legend for trace in figure.data[3:]} == {"legend2"}
    with pytest.raises(ValueError, match="no rows with alpha = 3; available: "):
        beta_gamma_curve(table, alpha=3)


# --- sharing ---


def test_overlap_matrix_puts_similar_languages_together():
    active = torch.zeros(4, 1, 10, dtype=torch.bool)
    active[0, 0, :5] = active[2, 0, :4] = True  # ar with en, de with zh
    active[1, 0, 5:] = active[3, 0, 6:] = True
    figure = overlap_matrix(NeuronCategories(active, ("ar", "de", "en", "zh")))
    (heat,) = figure.data
    order = list(heat.x)
    assert list(heat.y) == order
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset(("ar", "en")), frozenset(("de", "zh"))}
    i, j = order.index("ar"), order.index("en")
    assert heat.z[i][j] == heat.z[j][i] == pytest.approx(0.8)
    assert list(heat.customdata[i][j]) == [4, 5]
    assert (heat.zmin, heat.zmax) == (0.0, pytest.approx(0.8))
    assert heat.text[i][i] == "1.00"
    assert heat.text[i][j] == ".80"


def test_overlap_matrix_of_a_frame(small_cats):
    assert overlap_matrix(language_overlap(small_cats)).data == overlap_matrix(small_cats).data


def test_flow_conserves_neurons(small_stats):
    moves = category_moves(small_stats, [-0.1, 0.0, 0.1])
    figure = category_flow(moves)
    sankey = figure.data[0]
    assert sum(sankey.link.value) == 2 * small_stats.n_layers * small_stats.n_neurons
    names = list(sankey.node.customdata)
    pairs = zip(sankey.link.source, sankey.link.target, sankey.link.value, strict=True)
    drawn = {(names[source], names[target]): value for source, target, value in pairs}
    for row in moves[moves["count"] > 0].itertuples():
        low, high = (f"{value:g}".replace("-", "\N{MINUS SIGN}") for value in (row.from_threshold, row.to_threshold))
        assert drawn[f"{row.from_category} at threshold {low}", f"{row.to_category} at threshold {high}"] == row.count
    assert list(sankey.node.x)[:5] == [0.001] * 4 + [0.5]
    for start in (0, 4, 8):  # every column's categories from the top, shares of one whole
        assert list(sankey.node.y)[start : start + 4] == sorted(list(sankey.node.y)[start : start + 4])


# --- single neurons ---

TOP = pd.DataFrame(
    {
        "language": ["de"],
        "layer": [3],
        "neuron": [17],
        "category": ["partial-shared"],
        "languages": [2],
        "selectivity": [1.5],
        "mean": [0.2],
        "firing_rate": [0.25],
        "max": [3.456],
        "example": ["0"],
        "position": [4],
        "text": ["<script>alert('x')</script>"],
    }
)


def test_browser_shows_text_and_tokens_as_they_are():
    (table,) = neuron_browser(TOP.assign(promoted=[[" <i>", "\n"]])).data
    values = [column[0] for column in table.cells["values"]]
    assert values[:6] == ["de", "3.17", "partial-shared", "+1.50", "25", "3.46"]
    assert values[6] == "&lt;script&gt;alert('x')&lt;/script&gt;"
    assert values[7] == "“ &lt;i&gt;”, “⏎”"
    assert len(neuron_browser(TOP).data[0].cells["values"]) == 7


def test_distributions_before_and_after():
    frame = pd.DataFrame(
        [("de", "0", "before", 3.0), ("en", "0", "before", 1.0), ("de", "0", "after", 2.0), ("en", "0", "after", 1.0)],
        columns=["language", "example", "when", "value"],
    )
    figure = neuron_distribution(frame, 3, 17)
    before, after = figure.data
    assert (list(before.x), list(before.y), before.side) == (["de", "en"], [3.0, 1.0], "negative")
    assert (list(after.y), after.side) == ([2.0, 1.0], "positive")
    assert list(figure.layout.xaxis.categoryarray) == ["en", "de"]
    assert len(neuron_distribution(frame[frame["when"] == "before"], 3, 17).data) == 1
