"""A folder belongs to one study, or to demos, and says in a file of its own how it is made again."""

import pandas as pd
import pytest

from clas_lens.artifacts import ArtifactError
from clas_lens.cli import main
from clas_lens.study.config import DemoConfig, EvaluateConfig, StudyConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.order import run_demo, run_study
from clas_lens.study.run import Run
from clas_lens.study.toml import load_study, shipped_studies


def study(folders):
    collect = {"model": str(folders["llama"]), "languages": ("en", "de"), "part": "statistics", "limit": 2}
    task = {"task": "xnli", "data": "bundled", "languages": ("en", "de"), "limit": 2, "instruction": "en"}
    parts = {"name": "s", "collect": collect, "methods": {"methods": ("base", "clas")}, "tasks": (task,)}
    return StudyConfig.model_validate(parts)


def demo(folders, out, **changes):
    small = {"languages": ("en", "de"), "limit": 4, "questions": 1, "max_new_tokens": 2, "effect_texts": 2}
    config = DemoConfig(model=str(folders["llama"]), out=out, **{**small, **changes})
    return run_demo(config, print, progress=False)


def test_a_demo_and_a_study_do_not_share_a_folder(folders, tmp_path):
    asked, shown = tmp_path / "asked", tmp_path / "shown"
    run_study(study(folders), asked, print, progress=False)
    demo(folders, shown)
    for out, go_on in ((asked, lambda: demo(folders, asked)), (shown, lambda: run_study(study(folders), shown, print))):
        before = RunFolder(out).read_manifest()
        what = "the study 's', not a demo" if out == asked else "a demo, not the study 's'"
        with pytest.raises(ArtifactError, match=f"{out} holds {what}. Give --out another folder, or delete this one"):
            go_on()
        assert RunFolder(out).read_manifest() == before
    assert set(run_study(study(folders), asked, print, progress=False).rows) == {"xnli"}
    assert load_study(asked / "study.toml") == study(folders)
    assert set(demo(folders, shown).rows) == {"xquad"}


def test_answers_that_a_run_would_not_give_are_not_taken_over(folders, tmp_path):
    folder = RunFolder(demo(folders, tmp_path).folder.root)
    assert demo(folders, tmp_path, limit=5).statistics.n_samples.tolist() == [5, 5]  # a demo with other options
    folder.update_manifest("evaluate xnli", EvaluateConfig())
    demo(folders, tmp_path, limit=5)  # the same demo, whatever was done with it since
    with pytest.raises(ArtifactError, match="holds what a demo does not make: evaluate xnli. Give --out another"):
        demo(folders, tmp_path)


def test_the_file_that_a_run_leaves_makes_it_again(folders, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    run = demo(folders, first)
    assert load_study(first / "study.toml") == run.config
    assert main(["run", str(first / "study.toml"), "--out", str(again)]) == 0
    assert (again / "study.toml").read_bytes() == (first / "study.toml").read_bytes()
    rows, expected = (pd.read_parquet(out / "tables" / "xquad_rows.parquet") for out in (again, first))
    pd.testing.assert_frame_equal(rows, expected, check_exact=True)


def test_answers_given_step_by_step_are_not_a_studys(folders, tmp_path):
    run = Run(tmp_path, study(folders), progress=False)
    _ = run.categories
    assert not run.folder.study.exists()
    run.folder.update_manifest("search xnli", EvaluateConfig())
    with pytest.raises(ArtifactError, match="holds what the study 's' does not make: search xnli"):
        run_study(study(folders), tmp_path, print, progress=False)


def test_no_shipped_study_goes_where_the_demo_goes():
    assert DemoConfig().out.name not in {load_study(name).name for name in shipped_studies()}
