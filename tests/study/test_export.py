"""`clas-lens export`: every kind of file from a run folder, at the strength that was searched, with what it is not."""

import json

import pandas as pd
import pytest

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.cli import main
from clas_lens.study.config import SteerConfig
from clas_lens.study.export import run_intervention
from clas_lens.study.folder import RunFolder
from clas_lens.study.run import Run


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    """A tiny run that was collected and categorised."""
    out = tmp_path_factory.mktemp("export") / "run"
    options = ["--model", str(folders["llama"]), "--languages", "en,de,zh", "--limit", "6", "--batch-size", "4"]
    assert main(["collect", "--out", str(out), *options]) == 0
    assert main(["categorize", str(out)]) == 0
    return out


@pytest.mark.parametrize(
    ("target", "made"),
    [
        ("checkpoint", "model.safetensors"),
        ("peft", "de/adapter_model.safetensors"),
        ("lora", "adapter_model.safetensors"),
        ("gguf-lora", "clas-de-lora.gguf"),
    ],
)
def test_each_kind_of_file(run, target, made, tmp_path, capsys):
    pytest.importorskip({"peft": "peft", "lora": "peft", "gguf-lora": "gguf"}.get(target, "torch"))
    out = tmp_path / "out"
    command = ["export", str(run), "--language", "de", "--to", target, "--out", str(out), "--alpha", "-2"]
    assert main(command) == 0
    assert (out / made).is_file()
    printed = capsys.readouterr().out
    for wanted in ("clas at alpha=-2", "nats", "steers every input, those in en too", "unsteered model"):
        assert wanted in printed
    facts = json.loads(next(out.rglob("steering.json")).read_text())
    assert facts["settings"]["alpha"] == -2


def test_errors_are_one_line(run, tmp_path, capsys):
    for language, more, message in [
        ("en", [], "is the anchor"),
        ("de", ["--positions", "last"], "positions='last'"),
        ("de", ["--task", "xnli"], "has no clas that was searched or evaluated on xnli: clas-lens search"),
        ("de", ["--method", "random"], "has no random"),
    ]:
        command = [
            "export",
            str(run),
            "--language",
            language,
            "--to",
            "checkpoint",
            "--out",
            str(tmp_path / "out"),
            *more,
        ]
        assert main(command) == 1
        assert message in capsys.readouterr().err
    assert main(["export", str(run), "--language", "de", "--to", "gguf", "--out", str(tmp_path / "out")]) == 1
    assert "needs source= a .gguf file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_strength_that_was_searched_or_evaluated(run, tmp_path):
    from clas_lens.evaluation.search import SearchResult

    folder = RunFolder(run)

    def found(method, task, **steer):
        return run_intervention(Run.open(run, steer=SteerConfig(**steer)), method, task)

    plain = found("clas", None)
    tuned = cl.Clas(plain.categories, plain.layers, alpha=-4.0, tuned_on=frozenset({"xnli/1"}))
    SearchResult(pd.DataFrame({"alpha": [-4.0]}), {"alpha": -4.0}, tuned, 0.0, 0.0).save(
        run / "search" / "xnli" / "clas.parquet"
    )
    assert found("clas", "xnli").alpha == -4.0
    assert found("clas", "xnli", alpha=-1.0).alpha == -1.0
    masks = cl.RescaleMasks.uniform(plain)
    masks.save_pretrained(folder.methods / "xnli" / "uniform")
    assert found("uniform", "xnli").fingerprint() == masks.fingerprint()
    with pytest.raises(ArtifactError, match="has no uniform"):
        found("uniform", "xquad")
