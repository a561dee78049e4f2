"""Out of memory: batches are halved down to one row, results stay, and what happened is recorded."""

from contextlib import contextmanager

import pandas as pd
import pytest
import torch

import clas_lens as cl
from clas_lens.artifacts import load_table
from clas_lens.models.room import DeviceMemoryError, in_parts_that_fit, is_out_of_memory, noting_halvings

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
NO_ROOM = "ignore:no memory for .* at once:UserWarning"
LAYER = 2  # where it happens: layers below have added to the sums already


@contextmanager
def room_for(model, rows):
    """A device that has memory for so many rows in one pass, no more."""

    def allocate(module, inputs, output):
        residual = output[0] if isinstance(output, tuple) else output
        if residual.shape[0] > rows:
            raise FULL

    handle = model.blocks[LAYER].register_forward_hook(
        allocate
    )  # none of TransformerLens's, which files could not name
    try:
        yield
    finally:
        handle.remove()


def test_parts_come_in_order_with_their_rows():
    tried = []

    def run(rows):
        tried.append(len(rows))
        if len(rows) > 2:
            raise FULL
        return [10 * row for row in rows]

    with (
        noting_halvings() as halved,
        pytest.warns(UserWarning, match="no memory for [53] texts at once: going on with"),
    ):
        parts = list(in_parts_that_fit((4, 0, 3, 1, 2), run, what="texts"))
    assert parts == [((4, 0), [40, 0]), ((3,), [30]), ((1, 2), [10, 20])]
    assert tried == [5, 3, 2, 1, 2]
    assert halved == [5, 3]


def test_one_row_without_room_is_one_clear_line():
    def run(rows):
        raise FULL

    with pytest.warns(UserWarning, match="no memory"):
        with pytest.raises(DeviceMemoryError, match=r"single one of the texts \(CUDA.*GiB\.\)\. Shorten it") as caught:
            list(in_parts_that_fit((0, 1), run, what="texts"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), KeyboardInterrupt()])
def test_other_errors_pass(error):
    assert not is_out_of_memory(error)

    def run(rows):
        raise error

    with pytest.raises(type(error)):
        list(in_parts_that_fit((0, 1), run, what="texts"))


def test_the_machine_s_own_memory_counts():
    cpu = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ...")
    assert is_out_of_memory(cpu)
    assert is_out_of_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))


@pytest.mark.filterwarnings(NO_ROOM)
@pytest.mark.parametrize("rows", [1, 3])
def test_a_collection_goes_on_with_smaller_batches(model, small_corpus, rows, monkeypatch):
    monkeypatch.setattr("clas_lens.corpus.tokens.CPU_BATCH_COST", 10**6)  # full batches
    corpus = small_corpus.select(["en", "zh"])
    expected = cl.collect_statistics(model, corpus, batch_size=6, histograms=True, progress=False)
    with room_for(model, rows):
        stats = cl.collect_statistics(model, corpus, batch_size=6, histograms=True, progress=False)
    for name in ("mean", "second_moment", "gate_mean", "firing_rate", "max"):
        torch.testing.assert_close(getattr(stats, name), getattr(expected, name), atol=2e-5, rtol=1e-4)
    assert torch.equal(stats.n_tokens, expected.n_tokens)
    assert int(stats.histogram("h").sum()) == int(expected.histogram("h").sum())
    assert set(stats.made["en"]["halved"]) == ({6, 3, 2} if rows == 1 else {6})
    assert "halved" not in expected.made["en"]


def test_a_text_without_room_says_what_to_do(llama, small_corpus):
    with room_for(llama, 0), pytest.raises(DeviceMemoryError, match="single one of the texts"):
        cl.collect_statistics(llama, small_corpus.take([0]), batch_size=1, progress=False)


@pytest.mark.filterwarnings(NO_ROOM)
def test_generation_goes_on_with_fewer_prompts(model, small_cats):
    prompts = [[1, 5, 9], [1, 7], [1, 20, 33, 4], [1, 8], [1, 99, 5]]
    clas = cl.Clas(small_cats, layers=(1, 2), alpha=-2.0)
    with cl.steer(model, clas, language=["de", "en", "zh", "de", "ar"]):
        expected = cl.generate(model, prompts, max_new_tokens=4)
        with room_for(model, 2):
            assert cl.generate(model, prompts, max_new_tokens=4) == expected


@pytest.mark.filterwarnings(NO_ROOM)
def test_evaluations_and_searches_go_on_with_fewer_prompts(model, small_cats, tmp_path):
    task = cl.tasks.XNLI("bundled", ("de",), split="test", limit=6)
    clas = cl.Clas(small_cats, layers=(3,), alpha=-2.0)
    options = {"batch_size": 6, "progress": False, "allow_overlap": True}
    expected = cl.evaluate(model, task, {"base": None, "clas": clas}, **options)
    with room_for(model, 1):
        rows = cl.evaluate(model, task, {"base": None, "clas": clas}, out=tmp_path, **options)
        found = cl.search_alpha(model, task, clas, [-1.0, 1.0], **options)
    numbers = expected.select_dtypes("float").columns
    pd.testing.assert_frame_equal(rows[numbers], expected[numbers], atol=2e-5, rtol=1e-4)
    pd.testing.assert_frame_equal(rows.drop(columns=numbers), expected.drop(columns=numbers))
    _, header = load_table(tmp_path / "xnli/de/clas.parquet", "evaluation rows")
    assert max(header["halved"]) > 1
    assert len(found.means()) == 2


@pytest.mark.filterwarnings(NO_ROOM)
def test_strengths_of_prompts_and_a_scan_go_on_with_fewer(model, small_cats, small_corpus):
    adaptive = cl.baselines.Adaptive(cl.Clas(small_cats, layers=(2, 3), alpha=-2.0))
    prompts = [[1, 5, 9], [1, 7], [1, 20, 33, 4], [1, 8], [1, 99, 5]]
    corpus = small_corpus.select(["en", "zh"])
    options = {"layers": [1, 3], "answer_tokens": 2, "batch_size": 8, "progress": False}
    expected = adaptive.strengths(model, prompts, "de")
    scanned = cl.causal.scan(model, corpus, **options)
    with room_for(model, 2):
        torch.testing.assert_close(adaptive.strengths(model, prompts, "de"), expected, atol=2e-5, rtol=1e-4)
    with room_for(model, 8):  # fewer than a pass of several edits has
        found = cl.causal.scan(model, corpus, **options)
    numbers = scanned.select_dtypes("float").columns
    pd.testing.assert_frame_equal(found[numbers], scanned[numbers], atol=2e-4, rtol=1e-3)
