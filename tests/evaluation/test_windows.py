"""The same search at every window of layers: which there are, the scores of searches one by one, and what is best."""

import pandas as pd
import pytest

import analysis
import clas_lens as cl
from clas_lens.evaluation.windows import bridge_windows, search_windows, window_bests


def test_windows_are_as_wide_as_the_bridge_and_leave_out_the_last_two():
    assert bridge_windows((2, 3), 7) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert bridge_windows((1, 3), 5) == [(0, 1), (1, 2), (1, 3)]  # its own, although not in a row
    assert bridge_windows((4,), 7) == [(0,), (1,), (2,), (3,), (4,)]


@pytest.fixture
def searched(llama, small_cats):
    task = cl.tasks.XNLI("bundled", ("en", "de"), split="validation", limit=3)
    clas = cl.Clas(small_cats, layers=(2,), alpha=1.0)
    return task, search_windows(llama, task, clas, [-2.0, 0.0, 2.0], progress=False, allow_overlap=True)


def test_each_window_scores_as_a_search_of_its_own(llama, searched, small_cats):
    task, table = searched
    assert table["layers"].drop_duplicates().tolist() == ["0", "1", "2"]
    assert table.groupby("layers")["own"].first().to_dict() == {"0": False, "1": False, "2": True}
    for layer in (0, 2):
        alone = cl.Clas(small_cats, layers=(layer,), alpha=1.0)
        found = cl.search_alpha(llama, task, alone, [-2.0, 0.0, 2.0], progress=False, allow_overlap=True).table
        here = table[table["first"] == layer].reset_index(drop=True)
        pd.testing.assert_frame_equal(here[list(found.columns)], found)
    unsteered = table[table["alpha"] == 0].groupby("language")["score"].nunique()
    assert (unsteered == 1).all()


def test_an_intervention_whose_layers_cannot_be_others_is_refused(llama, small_cats):
    noise = cl.MatchedNoise.for_model(llama, cl.Clas(small_cats, layers=(2,), alpha=1.0))
    task = cl.tasks.XNLI("bundled", ("en", "de"), split="validation", limit=3)
    with pytest.raises(cl.EvaluationError, match="MatchedNoise has no layers that could be others"):
        search_windows(llama, task, noise, [0.0], progress=False)


def frame():
    scores = {("2-3", -1): 40, ("2-3", 0): 30, ("2-3", 1): 40, ("0-1", -1): 20, ("0-1", 0): 30, ("0-1", 1): 25}
    rows = [
        {
            "task": "xnli",
            "alpha": float(alpha),
            "beta": 0.4,
            "gamma": 0.2,
            "layer": float("nan"),
            "language": language,
            "score": score + (100 if language == "en" else 0),
            "n": 5,
            "layers": layers,
            "first": int(layers[0]),
            "last": int(layers[-1]),
            "own": layers == "2-3",
            "anchor": "en",
        }
        for (layers, alpha), score in scores.items()
        for language in ("en", "de")
    ]
    return pd.DataFrame(rows)


def test_best_setting_of_each_window_without_the_anchor():
    bests = window_bests(frame())
    assert bests["layers"].tolist() == ["0-1", "2-3"]
    assert bests["alpha"].tolist() == [0, -1]
    assert bests["score"].tolist() == [30, 40]
    assert bests["gain"].tolist() == [0, 10]
    assert window_bests(frame().query("alpha != 0"))["gain"].isna().all()


def test_the_figure_marks_the_bridge():
    figure = analysis.window_scores(frame())
    others, own, unsteered = figure.data
    assert (list(others.x), list(others.y)) == (["0-1"], [30])
    assert (list(own.x), list(own.y), own.name) == (["2-3"], [40], "the bridge")
    assert list(unsteered.y) == [30, 30]
    with pytest.raises(ValueError, match="window_scores needs a DataFrame"):
        analysis.window_scores(frame().drop(columns="own"))
