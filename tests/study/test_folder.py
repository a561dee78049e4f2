"""A run folder: its manifest under a hash, what killed runs left swept, files of other languages and interventions noticed."""

import json
import os
import shutil
import socket
import subprocess
import sys

import pandas as pd
import pytest

import clas_lens as cl
from clas_lens.artifacts import ArtifactError, save_table
from clas_lens.study.config import CollectConfig
from clas_lens.study.folder import HEAD_SHARES, LAYER_SHARES, REPORT_DATA, RunFolder


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.update_manifest("collect", CollectConfig(limit=3), languages=["en", "de"])
    return folder


def test_a_manifest_is_read_as_it_was_written(folder):
    assert folder.collected().limit == 3
    assert folder.read_manifest()["collect"]["languages"] == ["en", "de"]
    assert set(folder.read_manifest()) == {"collect"}
    folder.update_manifest("report", CollectConfig(), languages=[])
    assert set(folder.read_manifest()) == {"collect", "report"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: os.urandom(len(content)),
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"[]",
        lambda content: b"{}",
        lambda content: content.replace(b'"limit": 3', b'"limit": 4'),
        lambda content: content.replace(b'"de"', b'"fr"'),
        lambda content: b"[" * 100_000,
    ],
)
def test_a_damaged_or_edited_manifest_is_named(folder, damage):
    before = folder.manifest.read_bytes()
    folder.manifest.write_bytes(damage(before))
    assert folder.manifest.read_bytes() != before
    with pytest.raises(
        ArtifactError, match=r"manifest\.json (was edited or damaged|is damaged).*delete it and collect again"
    ):
        folder.read_manifest()


def test_layout_alone_is_no_edit(folder):
    folder.manifest.write_text(json.dumps(json.loads(folder.manifest.read_text(encoding="utf-8"))), encoding="utf-8")
    assert folder.collected().limit == 3


def test_what_killed_runs_left_anywhere_is_swept_at_the_next_start(folder):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    left = folder.rows / "xquad" / "de" / f".clas.parquet.{socket.gethostname()}.{int(dead.stdout)}.tmp"
    others = folder.rows / "xquad" / "de" / f".clas.parquet.elsewhere.{int(dead.stdout)}.tmp"
    for path in (left, others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("half")
    with folder.alone():
        assert not left.exists()
        assert others.exists()


def test_rows_of_another_language_or_intervention_are_not_taken(llama, small_cats, tmp_path):
    task = cl.tasks.XQuAD("bundled", ("en", "de"), limit=2, max_new_tokens=2)
    named = {"base": None, "clas": cl.Clas(small_cats, layers=[1, 2], alpha=-6)}
    options = {"out": tmp_path, "allow_overlap": True, "progress": False}
    rows = cl.evaluate(llama, task, named, **options)
    files = {(code, name): tmp_path / "xquad" / code / f"{name}.parquet" for code in ("en", "de") for name in named}
    for place, other in ((("de", "clas"), ("en", "clas")), (("de", "base"), ("de", "clas"))):
        shutil.copy(files[other], files[place])
        pd.testing.assert_frame_equal(cl.evaluate(llama, task, named, **options), rows)


def test_a_table_is_read_by_name_and_kind(folder):
    table = pd.DataFrame({"layer": [0, 1]})
    save_table(folder.tables / "layer_shares.parquet", LAYER_SHARES, table, {})
    pd.testing.assert_frame_equal(folder.table("layer_shares", LAYER_SHARES), table)
    assert folder.table("head_shares", HEAD_SHARES) is None
    with pytest.raises(ArtifactError, match="holds layer shares, not report data"):
        folder.table("layer_shares", REPORT_DATA)
