"""Pushing and fetching, against a Hub that is a folder."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import clas_lens as cl


class FolderHub:
    """The two calls of `HfApi` that are used."""

    def __init__(self, root):
        self.root = root
        self.private = {}

    def create_repo(self, repo_id, *, private, exist_ok):
        self.private[repo_id] = private
        (self.root / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)
        return f"https://hub/{repo_id}/commit/1"


def test_an_intervention_goes_and_comes_back(small_cats, tmp_path, monkeypatch):
    hub = FolderHub(tmp_path)
    clas = cl.Clas(small_cats, layers=(1, 4), alpha=-2.0)
    tuned = replace(clas, tuned_on=frozenset({"xnli/3", "xnli/5"}))
    assert cl.export.push_to_hub(tuned, "user/clas", api=hub) == "https://hub/user/clas/commit/1"
    assert hub.private == {"user/clas": True}
    card = (tmp_path / "user" / "clas" / "README.md").read_text()
    for wanted in ("alpha: `-2.0`", "tuned on 2 examples", "12 examples", '"de"', "## Caution"):
        assert wanted in card
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **options: str(tmp_path / name))
    back = cl.export.from_pretrained("user/clas")
    assert back.fingerprint() == tuned.fingerprint()
    assert cl.export.from_pretrained(tmp_path / "user" / "clas").fingerprint() == tuned.fingerprint()


def test_an_exported_folder_is_pushed_as_it_is(sources, masks, tmp_path):
    out = cl.export.checkpoint(masks, language="de", source=sources("llama"), out=tmp_path / "out")
    cl.export.push_to_hub(out, "user/steered", private=False, api=FolderHub(tmp_path / "hub"))
    assert {file.name for file in (tmp_path / "hub" / "user" / "steered").iterdir()} == {
        file.name for file in out.iterdir()
    }


def test_refusals(tmp_path, masks):
    with pytest.raises(cl.ExportError, match="must be 'user/repo', got 'repo'"):
        cl.export.push_to_hub(masks, "repo", api=FolderHub(tmp_path))
    with pytest.raises(cl.ExportError, match=r"has no README.md"):
        cl.export.push_to_hub(tmp_path, "user/repo", api=FolderHub(tmp_path))
    with pytest.raises(cl.ArtifactError, match="neither a folder here nor a Hub repository"):
        cl.export.from_pretrained(Path("./missing"))
