"""What gains go with: lines against SciPy, variances of the paper's own tables, and both in a run's report."""

import numpy as np
import pandas as pd
import pytest
from report_runs import full_run
from scipy import stats

from analysis import gain_scatter
from analysis.report.relation_tables import relation_tables
from analysis.report.result_figures import result_figures
from analysis.report.run import MEASURES, RunData
from analysis.tables.paper import paper_table
from analysis.tables.relations import fit_table
from clas_lens.representations.alignment import fit_gain, fit_gain_alignment
from clas_lens.significance.tests import levene_p, pitman_morgan_p

POINTS = pd.DataFrame(
    {
        "language": ["en", "de", "ar", "hi", "ru", "zh"],
        "gain": [0.0, 4.0, -2.0, 1.0, 2.0, 3.0],
        "change": [0.0, -0.2, 0.05, -0.1, 0.0, -0.15],
        "near": [1.0, 0.9, 0.6, 0.5, 0.8, 0.7],
        "flat": 1.0,
    }
)


def test_any_measure_is_fitted_as_the_alignment_is():
    assert fit_gain(POINTS, "change") == fit_gain_alignment(POINTS)
    rows = POINTS.iloc[1:]
    line = stats.linregress(rows["gain"] / 4, rows["near"] / 0.9)
    fit = fit_gain(POINTS, "near")
    assert (fit.slope, fit.r, fit.p, fit.change_scale) == pytest.approx((line.slope, line.rvalue, line.pvalue, 0.9))
    table = fit_table(POINTS, {"near": "proximity", "flat": "nothing"}).set_index("measure")
    assert table.loc["proximity", "r"] == pytest.approx(line.rvalue)
    assert table.loc["proximity", ["loo_low", "loo_high"]].tolist() == [fit.loo_low, fit.loo_high]
    assert table.loc["nothing", "n"] == 5
    assert np.isnan(table.loc["nothing", "r"])


def test_the_figure_has_the_measure_and_its_line():
    fit = fit_gain(POINTS, "near")
    figure = gain_scatter(POINTS, fit, "near", "cosine to English")
    _, points = figure.data
    assert list(points.y) == pytest.approx([1, 0.6 / 0.9, 0.5 / 0.9, 0.8 / 0.9, 0.7 / 0.9])
    assert "cosine to English: %{customdata[1]}" in points.hovertemplate
    assert figure.layout.title.text.startswith("Cosine to English against the gain")
    assert figure.layout.yaxis.title.text == "cosine to English (1 = 0.9)"


def test_variances_of_the_papers_own_scores():
    """p > 0.05 on XNLI is right by either test; on XQuAD with Llama the variance grows, which Levene's test misses."""
    found = {}
    for task in ("xnli", "xquad"):
        table = paper_table(task)
        for model, rows in table[table["language"] != "en"].groupby("model"):
            before = rows["base"].to_numpy(dtype=float)
            after = before + rows["clas_gain"].to_numpy(dtype=float)
            found[task, model] = pitman_morgan_p(before, after), levene_p(before, after)
    assert [round(p, 3) for p, _ in found.values()] == [0.653, 0.154, 0.010, 0.864]
    assert all(p > 0.7 for _, p in found.values())


def test_pitman_morgan_by_its_t():
    """t = (F - 1) sqrt(n - 2) / (2 sqrt(F (1 - r^2))), with F the ratio of variances and r the correlation of the pairs."""
    rng = np.random.default_rng(0)
    before = rng.normal(size=12)
    after = 1.4 * before + 0.3 * rng.normal(size=12)
    ratio, r = after.var(ddof=1) / before.var(ddof=1), np.corrcoef(before, after)[0, 1]
    t = (ratio - 1) * np.sqrt(10) / (2 * np.sqrt(ratio * (1 - r**2)))
    assert pitman_morgan_p(before, after) == pytest.approx(2 * stats.t.sf(abs(t), 10))
    assert pitman_morgan_p(before, before + 2.0) == 1.0
    assert pitman_morgan_p(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])) == 1.0
    assert pitman_morgan_p(before[:2], after[:2]) is levene_p(before[:2], after[:2]) is None
    assert levene_p(np.ones(3), np.ones(3)) == 1.0


@pytest.fixture(scope="module")
def data(lens_models, tmp_path_factory):
    return RunData.open(full_run(tmp_path_factory.mktemp("full"), lens_models["llama", "hooked"]).root)


def test_a_runs_relations_are_its_tables(data):
    frame = data.relations("xnli").set_index("language")
    assert set(MEASURES) < set(frame)
    separation, cosine = data.table("separation"), data.table("cosine")
    one = separation.query("setting == 'xnli' and measure == 'silhouette' and language == 'zh'").iloc[0]
    assert frame.loc["zh", "separation"] == one["after"] - one["before"]
    for column, layer, when in (
        ("first", 0, "before"),
        ("last", 4, "before"),
        ("initial", 3, "before"),
        ("final", 3, "after"),
    ):
        own = cosine.query(f"setting == 'xnli' and language == 'zh' and layer == {layer}").iloc[0]
        assert frame.loc["zh", f"proximity_{column}"] == own[when]
    row = data.main_comparison("xnli").languages.set_index("language").loc["zh"]
    assert frame.loc["zh", "mean_score"] == pytest.approx((row["baseline"] + row["score"]) / 2)


def test_a_run_shows_all_of_them(data):
    names = [part.name for part in result_figures(data)]
    for column in MEASURES:
        assert (f"gain_vs_{'alignment' if column == 'change' else column}_xnli") in names
    fits, variances = relation_tables(data)[:2]
    assert list(fits.columns[0].cells) == list(data.measures.values())
    assert variances.columns[0].cells == ("clas", "random")
