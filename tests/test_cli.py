"""The command line on a tiny model: every subcommand, resuming, interrupting, and errors in one line."""

import json
import re
import shlex
from importlib import import_module

import pandas as pd
import pytest

import clas_lens as cl
from clas_lens.cli import _parser, main
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.study.config import CollectConfig, DemoConfig


@pytest.fixture
def small(folders):
    """Options that make a command small."""
    return ["--model", str(folders["llama"]), "--languages", "en,de", "zh", "--limit", "6", "--batch-size", "4"]


def test_demo_writes_a_whole_run_folder(small, tmp_path, capsys):
    out = tmp_path / "run"
    command = ["demo", *small, "--out", str(out), "--alpha", "-2", "--questions", "2", "--effect-texts", "3"]
    assert main([*command, "--max-new-tokens", "6"]) == 0
    printed = capsys.readouterr().out
    assert "layer_distribution.html" in printed
    assert "summary.md" in printed
    stats = NeuronStatistics.load(out / "statistics", ["en", "de", "zh"])
    assert stats.n_samples.tolist() == [6, 6, 6]
    clas = cl.Clas.from_pretrained(out / "clas")
    assert clas.alpha == -2
    rows = pd.read_parquet(out / "tables" / "xquad_rows.parquet")
    answers = rows.pivot(index=["language", "id"], columns="intervention", values="prediction")
    assert set(rows["language"]) == {"en", "de", "zh"}
    assert len(answers) == 6
    assert answers.loc["en", "clas"].equals(answers.loc["en", "base"])
    effects = pd.read_parquet(out / "tables" / "effects.parquet").set_index("language")
    assert effects.loc["en", "kl"] == 0
    assert effects.loc["de", "kl"] > 0
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["collect"]["config"]["seed"] == 0
    assert manifest["categorize"]["bridge_layers"] == list(clas.layers)
    assert (out / "figures" / "layer_distribution.json").is_file()
    assert "## Answers side by side" in (out / "summary.md").read_text(encoding="utf-8")


def test_a_second_demo_runs_no_forward_pass(small, tmp_path, monkeypatch):
    command = [
        "demo",
        *small,
        "--out",
        str(tmp_path),
        "--questions",
        "1",
        "--effect-texts",
        "2",
        "--max-new-tokens",
        "3",
    ]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    for home, name in (
        ("corpus.reading", "run_layers"),
        ("representations.effects", "last_logits"),
        ("evaluation.passes", "make_decoder"),
    ):
        monkeypatch.setattr(import_module(f"clas_lens.{home}"), name, lambda *args: pytest.fail("ran again"))
    assert main(command) == 0
    after = {path: path.read_bytes() for path in (tmp_path / "tables").iterdir()}
    assert {path.name for path in before if after[path] != before[path]} <= {
        "layer_shares.parquet",
        "xquad_comparison.parquet",
        "xquad_rows.parquet",
    }


def test_ctrl_c_then_the_same_command_goes_on(small, tmp_path, monkeypatch, capsys):
    real, passes = cl.corpus.reading.run_layers, []

    def interrupted(*args):
        passes.append(1)
        if len(passes) == 4:  # two batches a language: in the middle of the second
            raise KeyboardInterrupt
        real(*args)

    command = ["collect", *small, "--out", str(tmp_path)]
    monkeypatch.setattr("clas_lens.corpus.tokens.CPU_BATCH_COST", 10**6)  # full batches
    monkeypatch.setattr("clas_lens.corpus.reading.run_layers", interrupted)
    assert main(command) == 130
    assert "the same command goes on from here" in capsys.readouterr().err
    assert main(command) == 0
    assert len(passes) == 4 + 4  # the finished language was not measured again
    assert NeuronStatistics.load(tmp_path / "statistics").languages == ("de", "en", "zh")


def test_the_steps_one_by_one(small, tmp_path, capsys):
    run = str(tmp_path / "run")
    assert main(["collect", *small, "--out", run]) == 0
    assert f"next: clas-lens categorize {run}" in capsys.readouterr().out
    assert main(["categorize", run, "--threshold", "0.01", "--layers", "1", "2"]) == 0
    printed = capsys.readouterr().out
    assert "partial-shared" in printed
    assert "bridge layers 1, 2" in printed
    generate = ["generate", run, "--prompt", "Der Tee wächst", "--language", "de", "--max-new-tokens", "5"]
    assert main([*generate, "--alpha", "-6"]) == 0
    unsteered, steered = capsys.readouterr().out.splitlines()[-2:]
    assert unsteered.startswith("unsteered:")
    assert steered.startswith("steered:")
    assert main([*generate, "--layers", "9"]) == 1
    assert "layers must be different ones among 0..4" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["demo", "--model", "gemma-3-271m"], "unknown model 'gemma-3-271m'"),
        (["demo", "--languages", "en", "ja"], "no language 'ja'; available: ar"),
        (["categorize", "nowhere"], "is not a run folder"),
        (["collect", "--corpus", "files"], "needs data"),
        (["demo", "--languages", "en", "de", "--answer-languages", "ja"], "no bundled questions in 'ja'"),
        (["collect", "--device", "cuda"], "no CUDA device here"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(command, message, capsys, tmp_path, monkeypatch, folders):
    monkeypatch.chdir(tmp_path)
    if "--model" not in command and command[0] != "categorize":
        command = [*command, "--model", str(folders["llama"])]
    assert main(command) == 1
    error = capsys.readouterr().err.splitlines()
    assert message in error[-1]
    assert not any("Traceback" in line for line in error)


def test_categories_of_an_earlier_collection_are_not_used(small, tmp_path, capsys):
    run = str(tmp_path)
    assert main(["collect", *small, "--out", run]) == 0
    assert main(["categorize", run]) == 0
    assert main(["collect", *small, "--out", run, "--pooling", "token"]) == 0
    assert main(["generate", run, "--prompt", "Tee", "--language", "de"]) == 1
    assert "was collected again since it was categorised" in capsys.readouterr().err


def test_demo_on_languages_that_are_not_bundled(folders, tmp_path, capsys):
    for language, text in (("en", "Tea grows.\nRice grows.\n"), ("nl", "Thee groeit.\nRijst groeit.\n")):
        (tmp_path / f"{language}.txt").write_text(text, encoding="utf-8")
    command = [
        "demo",
        "--model",
        str(folders["llama"]),
        "--corpus",
        "files",
        "--data",
        str(tmp_path),
        "--questions",
        "1",
    ]
    assert main([*command, "--out", str(tmp_path / "run"), "--max-new-tokens", "2"]) == 0
    assert pd.read_parquet(tmp_path / "run" / "tables" / "effects.parquet")["n_texts"].tolist() == [2, 2]
    assert main([*command, "--out", str(tmp_path / "again"), "--anchor", "fr"]) == 1
    assert "the anchor 'fr' is not among the languages: en, nl" in capsys.readouterr().err
    assert not (tmp_path / "again" / "statistics").exists()  # refused before anything is measured


def test_bad_options_exit_with_usage(capsys):
    for command in (
        ["demo", "--pooling", "median"],
        ["collect", "--limit", "0"],
        ["demo", "--positions", "generated"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(command)
        assert stopped.value.code == 2


def test_without_arguments_it_says_what_to_try_first(capsys):
    assert main([]) == 0
    told = re.findall(r"^  clas-lens (.*?)  +", capsys.readouterr().out, flags=re.MULTILINE)
    assert len(told) == 4
    for command in told:
        if not command.endswith("--help"):
            _parser().parse_args(shlex.split(command))


def test_configurations_refuse_unknown_keys_and_changes():
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        CollectConfig(modle="x")
    with pytest.raises(ValueError, match="frozen"):
        DemoConfig().alpha = 3.0


def test_text_files_as_a_corpus(folders, tmp_path):
    for language, text in (("en", "Tea grows.\nRice grows.\n"), ("de", "Tee wächst.\nReis wächst.\n")):
        (tmp_path / f"{language}.txt").write_text(text, encoding="utf-8")
    command = ["collect", "--model", str(folders["llama"]), "--corpus", "files", "--data", str(tmp_path)]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert NeuronStatistics.load(tmp_path / "run" / "statistics").n_samples.tolist() == [2, 2]
