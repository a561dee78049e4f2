"""What a run is refused for before anything is measured; one process a folder; folders that vanish under a run."""

import shutil
import subprocess
import sys

import pytest

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.study import order
from clas_lens.study.config import StudyConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.order import refuse_early, run_study
from clas_lens.study.run import Run

TASK = {"task": "xnli", "data": "bundled", "languages": ("en", "de"), "limit": 2, "instruction": "en"}


def study(folders, **changes):
    collect = {"model": str(folders["llama"]), "languages": ("en", "de"), "part": "statistics", "limit": 2}
    parts = {"name": "s", "collect": collect, "methods": {"methods": ("base", "clas")}, "tasks": (TASK,), **changes}
    return StudyConfig.model_validate(parts)


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steer": {"anchor": "fr"}}, "the anchor 'fr' is not among the languages: en, de"),
        ({"tasks": ({**TASK, "languages": ("en", "ja")},)}, "'ja'"),
        ({"categorize": {"layers": (2, 99)}}, r"bridge layers must be different ones among 0\.\.2"),
        ({"methods": {"methods": ("base", "diff-mean"), "vector_layer": 99}}, r"layers must be .* 0\.\.4"),
        ({"tasks": ({**TASK, "limit": 10**6},)}, "asked for 1000000 examples"),
        ({"search": {}, "tasks": ({**TASK, "tuning_limit": 10**6},)}, "asked for 1000000 examples"),
    ],
)
def test_a_study_is_refused_before_anything_is_measured(folders, tmp_path, changes, message, dry):
    run = Run(tmp_path / "run", study(folders, **changes))
    with pytest.raises(ValueError, match=message):
        refuse_early(run, dry=dry)
    assert not (tmp_path / "run").exists()


def test_a_missing_model_is_refused_early(folders, tmp_path):
    collect = {**study(folders).collect.model_dump(), "model": str(tmp_path / "nowhere")}
    with pytest.raises(cl.ModelLoadError):
        refuse_early(Run(tmp_path / "run", study(folders, collect=collect)))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArtifactError, match="cannot be written to"), RunFolder(tmp_path / "file" / "run").alone():
        pass
    with pytest.raises(ArtifactError, match="has a name that is too long"), RunFolder(tmp_path / ("x" * 300)).alone():
        pass


def test_two_processes_do_not_write_into_one_folder(tmp_path):
    code = f"""
from pathlib import Path
from clas_lens.study.folder import RunFolder
with RunFolder(Path({str(tmp_path)!r})).alone():
    print("in", flush=True)
    input()
"""
    other = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "in\n"
    with pytest.raises(ArtifactError, match="another process is writing into"), RunFolder(tmp_path).alone():
        pass
    other.kill()
    other.communicate()
    with RunFolder(tmp_path).alone():  # a lock dies with its process
        pass


def test_a_folder_deleted_under_a_run_is_an_error(folders, tmp_path, monkeypatch):
    real = order.report_tables

    def deleted(run):
        shutil.rmtree(run.folder.root)
        real(run)

    monkeypatch.setattr(order, "report_tables", deleted)
    with pytest.raises(ArtifactError, match=r"was changed while the run was on: \d+ of its files are gone"):
        run_study(study(folders), tmp_path / "run", print, progress=False)
    monkeypatch.undo()
    assert run_study(study(folders), tmp_path / "run", print, progress=False).rows["xnli"].shape[0] == 8
