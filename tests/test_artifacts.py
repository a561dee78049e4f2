"""Files written whole or not at all; fingerprints that change when they should and only then."""

import os
import socket
import stat
import subprocess
import sys

import pandas as pd
import pytest
import torch
from tiny import BACKENDS

import clas_lens as cl
from clas_lens.artifacts import (
    ArtifactError,
    Content,
    atomic_path,
    load_table,
    load_tensors,
    read_header,
    remember,
    remembered_table,
    save_table,
    save_tensors,
)
from clas_lens.models.identity import model_fingerprint, neuron_fingerprint
from clas_lens.provenance import provenance


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "deep" / "file.txt"
    with atomic_path(target) as path:
        path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as path:
        path.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    assert [entry.name for entry in target.parent.iterdir()] == ["file.txt"]


def test_tensors_with_a_header(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, "thing", {"a": torch.arange(6).reshape(2, 3).T}, {"word": "größe"})
    tensors, header = load_tensors(path, "thing")
    assert torch.equal(tensors["a"], torch.arange(6).reshape(2, 3).T)
    assert (header["kind"], header["word"]) == ("thing", "größe")
    assert header["provenance"]["versions"]["torch"] == torch.__version__
    with pytest.raises(ArtifactError, match="holds thing, not other"):
        load_tensors(path, "other")


def test_tables_with_a_header(tmp_path):
    path = tmp_path / "x.parquet"
    table = pd.DataFrame({"a": [1, 2]})
    save_table(path, "rows", table, {"key": "k"})
    loaded, header = load_table(path, "rows")
    assert loaded.equals(table)
    assert header["key"] == "k"
    assert remembered_table(path, "rows", "k") is not None
    assert remembered_table(path, "rows", "other") is None
    path.write_bytes(b"PAR1")
    with pytest.raises(ArtifactError, match="is damaged"):
        load_table(path, "rows")
    assert remembered_table(path, "rows", "k") is None


def test_what_was_made_from_the_same_inputs_is_remembered(tmp_path):
    path, made = tmp_path / "deep" / "x.parquet", []

    def make():
        made.append(1)
        return pd.DataFrame({"a": [len(made)]})

    assert [remember(path, "rows", key, make)["a"].item() for key in ("k", "k", "other", "other", "k")] == [
        1,
        1,
        2,
        2,
        3,
    ]
    path.write_bytes(b"PAR1")
    assert remember(path, "rows", "k", make)["a"].item() == 4
    assert remember(path, "rows of another kind", "k", make)["a"].item() == 5
    assert remember(None, "rows", "k", make)["a"].item() == 6
    path.unlink()

    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        remember(path, "rows", "k", fail)
    assert list(path.parent.iterdir()) == []


def test_tensors_are_remembered_with_the_versions_that_they_were_made_with(tmp_path):
    path = tmp_path / "x.safetensors"
    before = {"made": "2020-01-01", "versions": {"torch": "1.0"}}
    first = remember(path, "thing", "k", lambda: Content({"a": torch.ones(2)}, {"word": "w", "provenance": before}))
    again = remember(path, "thing", "k", lambda: pytest.fail("made again"))
    assert torch.equal(again.tensors["a"], first.tensors["a"])
    assert (again.header["word"], again.header["provenance"]) == ("w", before)
    changed = remember(path, "thing", "other", lambda: Content({"a": torch.zeros(2)}))
    assert changed.tensors["a"].sum() == 0
    assert load_tensors(path, "thing")[1]["provenance"]["versions"]["torch"] == torch.__version__


def flipped_everywhere(path):
    """Once for each byte of a file, with one of its bits flipped."""
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        yield place
    path.write_bytes(whole)


def test_any_flipped_bit_is_found_in_tensors(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, "thing", {"a": torch.arange(6), "b": torch.ones(3, 2)}, {"word": "größe"})
    for place in flipped_everywhere(path):
        with pytest.raises(ArtifactError, match="damaged|holds"):
            load_tensors(path, "thing")
        if place % 7 == 0:
            with pytest.raises(ArtifactError, match="damaged|holds"):
                read_header(path, "thing")
    assert load_tensors(path, "thing")[1]["word"] == "größe"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match="is damaged"):
        load_tensors(path, "thing")


def test_any_flipped_bit_is_found_in_tables(tmp_path):
    path = tmp_path / "x.parquet"
    table = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    save_table(path, "rows", table, {"key": "k"})
    assert pd.read_parquet(path).equals(table), "any reader of parquet reads it"
    for _ in flipped_everywhere(path):
        with pytest.raises(ArtifactError, match="is damaged"):
            load_table(path, "rows")
    assert load_table(path, "rows")[0].equals(table)
    table.to_parquet(path)
    with pytest.raises(ArtifactError, match="carries none"):
        load_table(path, "rows")


def test_tensors_may_share_memory(tmp_path):
    both = torch.arange(6).reshape(2, 3)
    save_tensors(tmp_path / "x", "thing", {"a": both[0], "b": both[1], "all": both}, {})
    tensors, _ = load_tensors(tmp_path / "x", "thing")
    assert tensors["b"].tolist() == [3, 4, 5]


@pytest.mark.skipif(os.name != "posix", reason="the umask is of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_follow_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        save_tensors(tmp_path / "x.safetensors", "thing", {"a": torch.zeros(1)}, {})
        save_table(tmp_path / "x.parquet", "rows", pd.DataFrame({"a": [1]}), {})
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o666 & ~umask}


@pytest.mark.skipif(os.name != "posix", reason="processes are asked for as POSIX has it")
def test_what_killed_runs_left_is_swept_and_what_others_write_is_not(tmp_path):
    killed = "import os, pathlib, sys; from clas_lens.artifacts import atomic_path\n"
    killed += "with atomic_path(pathlib.Path(sys.argv[1])) as path: path.write_text('half'); os._exit(9)"
    subprocess.run([sys.executable, "-c", killed, str(tmp_path / "a.txt")], check=False)
    (left,) = tmp_path.iterdir()
    alive = tmp_path / f".b.txt.{socket.gethostname()}.{os.getppid()}.tmp"
    elsewhere = tmp_path / left.name.replace(socket.gethostname(), "another-node")
    own = tmp_path / ".mine.tmp"
    for path in (alive, elsewhere, own):
        path.touch()
    with atomic_path(tmp_path / "a.txt") as path:
        path.write_text("whole")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", alive.name, elsewhere.name, own.name}


def test_model_fingerprints_follow_the_weights(folders):
    model = cl.load_model(folders["llama"])
    original = model_fingerprint(model)
    assert model_fingerprint(cl.load_model(folders["llama"])) == original
    weight = model.blocks[2].attn.W_O
    with torch.no_grad():
        weight[0, 0, 0] += 1e-3
        assert model_fingerprint(model) != original
        weight[0, 0, 0] -= 1e-3
        for parameter in model.parameters():  # another layout, the same values
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
    assert neuron_fingerprint(model) == neuron_fingerprint(cl.load_model(folders["llama"]))


def test_neuron_fingerprints_see_through_backend_dtype_and_layout(folders):
    prints = {
        neuron_fingerprint(cl.load_model(folders["gemma3"], backend=backend, dtype=dtype))
        for backend in BACKENDS
        for dtype in (torch.float32, torch.bfloat16)
    }
    assert len(prints) == 1
    assert neuron_fingerprint(cl.load_model(folders["llama"])) not in prints


def test_provenance_names_versions():
    facts = provenance()
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["transformer-lens"].startswith(("3.9", "4."))
