"""Searches: equal to independent runs, cheaper, and what they tuned on cannot be reported on unseen."""

import pandas as pd
import pytest

import clas_lens as cl
from clas_lens.evaluation.leakage import LeakageError
from clas_lens.evaluation.plan import EvaluationError
from clas_lens.evaluation.rows import evaluate
from clas_lens.evaluation.search import SearchResult, _best, search_alpha, search_beta_gamma
from clas_lens.tasks.xnli import XNLI

QUIET = {"progress": False}
ALPHAS = (-2.0, 0.0, 1.5)


@pytest.fixture(scope="module")
def task():
    return XNLI("bundled", ("en", "de", "zh"), limit=4, instruction="en", style="plain")


# The tasks have a language that the categories of this file lack.
pytestmark = pytest.mark.filterwarnings("ignore:'zh' was not measured")


@pytest.fixture
def clas(small_cats):
    return cl.Clas(small_cats, layers=(3,), alpha=7.0)


def test_equal_to_independent_runs_with_fewer_layers(model, small_cats, task):
    stats = cl.collect_statistics(model, cl.ParallelCorpus.bundled(["en", "de"]).take(range(3)), **QUIET)
    clas = cl.Clas(cl.categorize(stats), layers=(3,))
    found = search_alpha(model, task, clas, ALPHAS, **QUIET)
    for alpha in ALPHAS:
        rows = evaluate(model, task, cl.Clas(clas.categories, layers=(3,), alpha=alpha), **QUIET)
        alone = 100 * rows.groupby("language")["correct"].mean()
        searched = found.table[found.table["alpha"] == alpha].set_index("language")["score"]
        pd.testing.assert_series_equal(searched, alone[searched.index], check_names=False)
    assert found.passes_independent == 3 * 12
    assert found.passes == pytest.approx(4 + 8 * (3 + 3 * 2) / 5), "English, the anchor, is run once for all"
    assert list(found.table.columns) == [
        *("task", "alpha", "beta", "gamma", "layer", "language", "score", "n", "overlap", "title", "metric_title")
    ]
    assert (found.table["n"] == 4).all()
    assert (found.table["beta"] == 0.4).all()


def test_the_best_setting_leaves_the_anchor_out_and_prefers_the_weaker():
    table = pd.DataFrame(
        [
            ("xnli", alpha, 0.4, float("nan"), float("nan"), language, score, 10)
            for alpha, scores in {-3.0: (50, 60, 0), 1.0: (55, 55, 0), -1.0: (60, 50, 0), 0.0: (40, 40, 99)}.items()
            for language, score in zip(("de", "sw", "en"), scores, strict=True)
        ],
        columns=["task", "alpha", "beta", "gamma", "layer", "language", "score", "n"],
    )
    assert abs(_best(table, "en")["alpha"]) == 1.0
    assert _best(table[table["language"] == "en"], "en")["alpha"] == 0.0


def test_of_equal_layers_the_lowest_is_best():
    """After the strength: a weaker one in a higher layer comes first."""
    nan = float("nan")
    rows = [("unit", alpha, nan, nan, layer, "de", 50.0, 10) for layer, alpha in ((3, 1.0), (2, 1.0), (1, 2.0))]
    table = pd.DataFrame(rows, columns=["task", "alpha", "beta", "gamma", "layer", "language", "score", "n"])
    assert _best(table, "en")[["alpha", "layer"]].tolist() == [1.0, 2.0]


def test_a_tuned_intervention_is_not_reported_on_what_it_was_tuned_on(llama, task, clas, tmp_path):
    found = search_alpha(llama, task, clas, ALPHAS, **QUIET)
    assert found.intervention.alpha == found.chosen["alpha"] in ALPHAS
    with pytest.raises(LeakageError, match="4 of the 4 xnli examples"):
        evaluate(llama, task, found.intervention, **QUIET)
    report = XNLI("bundled", ("de",), split="test", limit=3, instruction="en", style="plain")
    assert not evaluate(llama, report, found.intervention, **QUIET)["overlap"].any()
    again = SearchResult.load(found.save(tmp_path / "alpha.parquet"), clas)
    pd.testing.assert_frame_equal(again.table, found.table)
    assert again.intervention.fingerprint() == found.intervention.fingerprint()
    with pytest.raises(EvaluationError, match="searched over another intervention"):
        SearchResult.load(tmp_path / "alpha.parquet", cl.Clas(clas.categories, layers=(2,)))


def test_what_was_tuned_on_is_never_forgotten(llama, task, clas, tmp_path):
    """Not by a second search, not by a file."""
    other = XNLI("bundled", ("de",), split="test", limit=3, instruction="en", style="plain")
    first = search_alpha(llama, other, clas, (0.0, 1.0), **QUIET)
    second = search_beta_gamma(llama, task, first.intervention, (0.4,), (0.2,), **QUIET)
    assert second.intervention.tuned_on == other.example_keys() | task.example_keys()
    read = cl.load_intervention(second.intervention.save_pretrained(tmp_path))
    assert read.fingerprint() == second.intervention.fingerprint()
    for tuned in (second.intervention, read):
        with pytest.raises(LeakageError, match="3 of the 3 xnli examples"):
            evaluate(llama, other, tuned, **QUIET)


def test_only_what_was_varied_is_chosen(llama, task, clas, tmp_path):
    found = search_alpha(llama, task, clas, ALPHAS, languages=["de"], **QUIET)
    assert list(found.chosen) == ["alpha"]
    path = found.save(tmp_path / "alpha.parquet")
    with pytest.raises(EvaluationError, match="with other strengths"):
        SearchResult.load(path, cl.Clas(clas.categories, layers=(3,), beta=0.9))


def test_beta_and_gamma(llama, task, clas, tmp_path):
    found = search_beta_gamma(llama, task, clas, (0.2, 0.6), (0.0, 0.4), languages=["de"], out=tmp_path, **QUIET)
    pairs = {(row.beta, row.gamma) for row in found.table.itertuples()}
    assert pairs == {(0.2, 0.0), (0.2, 0.4), (0.6, 0.0), (0.6, 0.4)}
    assert (found.table["alpha"] == 7.0).all()
    assert found.intervention.alpha == 7.0
    assert len(found.means()) == 4
    again = search_beta_gamma(llama, task, clas, (0.2, 0.6), (0.0, 0.4), languages=["de"], out=tmp_path, **QUIET)
    assert again.passes == 0, "all of it was read from files"


def test_searches_made_together_are_those_made_alone(model, small_cats, task, tmp_path):
    stats = cl.collect_statistics(model, cl.ParallelCorpus.bundled(["en", "de"]).take(range(3)), **QUIET)
    clas = cl.Clas(cl.categorize(stats), layers=(3,), alpha=1.0)
    lower = cl.Clas(clas.categories, layers=(2,))
    grids = {
        "clas": (clas, cl.evaluation.alpha_settings(task, ALPHAS)),
        "lower": (lower, cl.evaluation.alpha_settings(task, ALPHAS)),
        "pairs": (clas, cl.evaluation.beta_gamma_settings((0.2, 0.6), (0.1, 0.4))),
    }
    found = cl.search_grids(model, task, grids, out=tmp_path, **QUIET)
    alone = {
        "clas": search_alpha(model, task, clas, ALPHAS, **QUIET),
        "lower": search_alpha(model, task, lower, ALPHAS, **QUIET),
        "pairs": search_beta_gamma(model, task, clas, (0.2, 0.6), (0.1, 0.4), **QUIET),
    }
    for name, one in alone.items():
        pd.testing.assert_frame_equal(found[name].table, one.table)
        assert found[name].chosen == one.chosen
        assert found[name].intervention.fingerprint() == one.intervention.fingerprint()
        assert found[name].passes_independent == one.passes_independent
    assert sum(one.passes for one in found.values()) < sum(one.passes for one in alone.values())
    more = cl.search_grids(model, task, grids | {"new": (clas, [{"alpha": 5.0}])}, out=tmp_path, **QUIET)
    assert [name for name, one in more.items() if one.passes] == ["new"], "the rest was read from files"


def test_errors(llama, task, clas):
    with pytest.raises(EvaluationError, match="different settings of alpha, beta, gamma .* got none"):
        search_alpha(llama, task, clas, ())
    with pytest.raises(EvaluationError, match="got .'alpha=1', 'alpha=1'"):
        search_alpha(llama, task, clas, (1.0, 1.0))
    with pytest.raises(EvaluationError, match="no grids given"):
        cl.search_grids(llama, task, {})
