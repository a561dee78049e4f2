"""`clas-lens evaluate`, `search` and `run`: what they print and write, and refusals in one line."""

import pandas as pd
import pytest

from analysis.report.run import RunData
from clas_lens.baselines.load import load_intervention
from clas_lens.cli import main

TASK = ["--task", "xnli", "--data", "bundled", "--languages", "en", "de", "--instruction", "en"]


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    small = ["--languages", "en,de,zh", "--part", "statistics", "--limit", "5"]
    assert main(["collect", "--model", str(folders["llama"]), *small, "--out", str(out)]) == 0
    assert main(["categorize", str(out), "--layers", "2"]) == 0
    return out


def test_search_then_evaluate(run, capsys):
    command = [*TASK, "--methods", "clas", "random", "--tuning-limit", "3"]
    assert main(["search", str(run), *command, "--alphas", "-2", "1"]) == 0
    printed = capsys.readouterr().out
    assert "clas: chosen alpha=" in printed
    assert "prompt passes; by independent runs 12" in printed
    assert main(["evaluate", str(run), *TASK, "--methods", "base", "clas", "random", "--limit", "4"]) == 0
    printed = capsys.readouterr().out
    assert f"from the search in {run / 'search'}" in printed
    assert "xnli, correct in percent" in printed
    fixed = [*TASK, "--methods", "base", "clas", "--limit", "2", "--alpha", "0.5"]
    assert main(["evaluate", str(run), *fixed]) == 0
    assert "from the search" not in capsys.readouterr().out, "an alpha that was given is the one that is used"
    assert load_intervention(run / "methods" / "xnli" / "clas").alpha == 0.5
    assert main(["evaluate", str(run), *TASK, "--methods", "base", "clas", "random", "--limit", "4"]) == 0
    rows = pd.read_parquet(run / "tables" / "xnli_rows.parquet")
    assert rows.groupby(["language", "intervention"]).size().eq(4).all()
    assert set(pd.read_parquet(run / "tables" / "xnli_comparison.parquet")["intervention"]) == {"clas", "random"}


def test_answers_to_one_example_are_not_compared_and_the_report_says_why(run, capsys):
    assert main(["evaluate", str(run), *TASK, "--methods", "base", "clas", "--limit", "1", "--alpha", "0.5"]) == 0
    data = RunData.open(run)
    assert data.comparisons == {"xnli": []}
    assert "all 1 examples belong to 1 group; at least 2 groups are needed" in data.why_not_compared("xnli")
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "XNLI: not compared with the unsteered model: all 1 examples belong to 1 group" in page


def test_a_grid_over_beta_and_gamma(run, capsys):
    command = [*TASK, "--tuning-limit", "2", "--alphas", "1", "--betas", "0", "0.4", "--gammas", "0"]
    assert main(["search", str(run), *command]) == 0
    assert "beta_gamma: chosen beta=" in capsys.readouterr().out
    assert set(pd.read_parquet(run / "search" / "xnli" / "beta_gamma.parquet")["beta"]) == {0.0, 0.4}
    assert main(["search", str(run), *command, "--methods", "random"]) == 1
    assert "betas and gammas are CLAS's: name clas among the methods" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["search", str(run), *TASK, "--betas", "0.4"])
    assert "a grid needs both betas and gammas" in capsys.readouterr().err


def test_an_overlap_is_refused_in_one_line(folders, tmp_path, capsys):
    small = ["--model", str(folders["llama"]), "--languages", "en", "de", "--out", str(tmp_path)]
    assert main(["collect", *small]) == 0
    assert main(["categorize", str(tmp_path), "--layers", "2"]) == 0
    assert main(["evaluate", str(tmp_path), *TASK, "--limit", "3"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("clas-lens: error: 3 of the 3 xnli examples to report on share")
    assert main(["evaluate", str(tmp_path), *TASK, "--limit", "3", "--allow-overlap"]) == 0
    assert "some of these examples were also used to measure or tune" in capsys.readouterr().out


def test_dry_runs_print_a_plan_and_write_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "paper-qwen-xnli", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "6 methods x 15 languages x 5010 examples" in printed
    assert "million tokens" in printed
    assert not list(tmp_path.iterdir())
    assert main(["run", "nope"]) == 1
    assert "no study 'nope'" in capsys.readouterr().err
