"""Two runs in one table and in one figure each; tables of effects and sweeps fit the figures."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
from report_runs import full_run
from tiny import BACKEND

import clas_lens as cl
from analysis import alpha_curve, cosine_to_english, overlay_runs
from clas_lens.study.config import CategorizeConfig
from clas_lens.study.folder import RunFolder


@pytest.fixture(scope="module")
def pair(lens_models, tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    run = full_run(root / "one", lens_models["llama", BACKEND]).root
    other = root / "two"
    other.symlink_to(run)
    return cl.compare_runs(run, other, names=("one", "two"))


def test_rows_of_both_runs(pair):
    assert pair.settings.empty
    assert set(pair.rows["measure"]) == {"share", "score", "gain", "cosine_before", "cosine_after"}
    one, two = (pair.rows[pair.rows["run"] == name].drop(columns="run").reset_index(drop=True) for name in pair.names)
    pd.testing.assert_frame_equal(one, two)
    share = pair.measure("share")
    assert share.groupby(["run", "layer"])["value"].sum().tolist() == pytest.approx([100.0] * (len(share) // 4))
    assert "one | two" in pair._repr_html_()


def test_settings_that_differ(lens_models, tmp_path):
    run = full_run(tmp_path / "one", lens_models["llama", BACKEND]).root
    other = Path(shutil.copytree(run, tmp_path / "two"))
    RunFolder(other).update_manifest("categorize", CategorizeConfig(threshold=0.5))
    found = cl.compare_runs(run, other).settings
    assert found.to_dict("records") == [{"stage": "categorize", "setting": "threshold", "one": "0.0", "two": "0.5"}]


def test_overlays(pair):
    figures = overlay_runs(pair)
    assert set(figures) == {"layers", "alpha", "gains", "cosines"}
    for figure in figures.values():
        assert {trace.name for trace in figure.data} == {"one", "two"}


@pytest.mark.parametrize("name", ["Clas", "steered", ""])
def test_what_no_run_has_is_refused_not_left_out(pair, name):
    with pytest.raises(ValueError, match="unknown method .* available: clas"):
        overlay_runs(pair, method=name)
    with pytest.raises(ValueError, match="unknown measure .* available: share, score, gain"):
        pair.measure(name)


def test_two_runs_need_two_names(tmp_path):
    with pytest.raises(ValueError, match="give names="):
        cl.compare_runs(tmp_path / "a", tmp_path / "b" / "a")


def test_effects_fit_the_figure_of_cosines():
    effects = pd.DataFrame(
        {"language": ["en", "de", "zh"], "kl": [0, 1, 1], "cosine_before": [1, 0.8, 0.6], "cosine_after": [1, 0.9, 0.5]}
    )
    figure = cosine_to_english(effects)
    assert list(figure.data[1].y) == ["zh", "de"]
    assert list(figure.data[2].x) == [0.5, 0.9]
    assert "mean over the layers measured" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_a_sweep_fits_the_curve():
    rows = [
        (alpha, prompt, "de", abs(alpha) + prompt, "a", "b", alpha != 0)
        for alpha in (-2.0, 0.0, 1.0)
        for prompt in (0, 1)
    ]
    sweep = pd.DataFrame(rows, columns=["alpha", "prompt", "language", "kl", "next", "answer", "changed"])
    kl, changed = (trace for trace in alpha_curve(sweep).data)
    assert list(kl.y) == [2.5, 0.5, 1.5]
    assert list(changed.y) == [100, 0, 100]
    assert {trace.name for trace in alpha_curve({"one": sweep, "two": sweep}).data} == {"one", "two"}
    with pytest.raises(ValueError, match="draw them apart"):
        alpha_curve({"one": sweep, "two": sweep.drop(columns="kl")})
