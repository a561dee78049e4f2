"""Hostile command lines and study files, in process: one line on stderr and a status, never a traceback; what is right runs."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from clas_lens.cli import main

SMALL = ("--limit", "4", "--batch-size", "4", "--max-tokens", "40")
TASK = ("--task", "xquad", "--data", "bundled", "--whole", "--allow-overlap", "--max-new-tokens", "2")
LONG = "x" * 300
TALLY: Counter[str] = Counter()


@pytest.fixture(scope="module")
def run(world, tmp_path_factory) -> Path:
    """A run folder that was collected and categorised."""
    root = tmp_path_factory.mktemp("commands") / "run"
    collect = ["collect", "--model", str(world.folder), "--languages", "en", "de", "zh", *SMALL, "--out", str(root)]
    assert main(collect) == 0
    assert main(["categorize", str(root)]) == 0
    return root


@pytest.fixture
def command(world, run, tmp_path, monkeypatch, capsys) -> Callable[..., tuple[int, str]]:
    """A command in an empty folder; MODEL, RUN and OUT stand for a model, a run and a folder to write to."""
    monkeypatch.chdir(tmp_path)
    known = {"MODEL": str(world.folder), "RUN": str(run), "OUT": str(tmp_path / "out"), "FILE": str(world.run.manifest)}

    def call(*words: str) -> tuple[int, str]:
        try:
            status = main([known.get(word, word) for word in words])
        except SystemExit as error:
            status = int(error.code or 0)
        said = capsys.readouterr().err.strip()
        TALLY["obscure"] += "unexpected;" in said
        TALLY["traceback"] += "Traceback" in said
        return status, said.splitlines()[-1] if said else ""

    return call


def options(words: tuple[str, ...], given: dict[str, dict[str, list[str]]]) -> list[tuple[tuple[str, ...], str]]:
    """One command a value: by option, the refusal and the values (split at blanks into several) that it is for."""
    return [
        ((*words, option, *(value.split() or [value])), says)
        for option, by_refusal in given.items()
        for says, values in by_refusal.items()
        for value in values
    ]


COLLECT = options(
    ("collect", "--model", "MODEL", *SMALL, "--out", "OUT"),
    {
        "--languages": {
            "is there twice": ["en en", "en,en"],
            "unknown language": ["xx", "English"],
            "is written 'en'": ["en EN"],
            "at least 1 item": [""],
            "no language 'ja'": ["en ja"],
        },
        "--batch-size": {"greater than or equal to 1": ["0", "-1"], "invalid int": ["a", "1.5", "nan", "1e3"]},
        "--max-tokens": {"greater than or equal to 2": ["0", "-5"], "invalid int": ["x"]},
        "--limit": {"greater than or equal to 1": ["0", "-1"], "asked for 99999": ["99999"], "invalid int": ["x"]},
        "--seed": {"greater than or equal to 0": ["-1"], "invalid int": ["x", "1.5"]},
        "--pooling": {"invalid choice": ["x"]},
        "--dtype": {"invalid choice": ["int8", "float64"]},
        "--backend": {"invalid choice": ["x"]},
        "--corpus": {"invalid choice": ["x"], "needs data": ["files"]},
        "--data": {"would not be read": ["/nonexistent", "x"], "at least 1 character": [""]},
        "--device": {"device": ["mps", "meta", "gpu", "auto", "cuda:99", ""]},
        "--model": {"unknown model": ["nope", "/nonexistent"], "no config.json": [".."], "at least 1 character": [""]},
        "--out": {"a folder's name is needed": [""], "too long": [LONG], "cannot be written to": ["FILE", "/proc/x"]},
    },
)
CATEGORIZE = options(
    ("categorize", "RUN"),
    {
        "--threshold": {"finite number": ["nan", "inf", "-inf", "1e400"], "invalid float": ["x", ""]},
        "--layers": {
            "is there twice": ["1 1", "1,1"],
            "different ones": ["9", "-1", "4"],
            "valid integer": ["x", "1.5"],
            "at least 1 item": [""],
        },
        "--activity": {"invalid choice": ["x"]},
        "--activity=firing_rate": {"expected one argument": [], "in [0, 1)": ["--threshold=1", "--threshold=-1"]},
    },
)
GENERATE = options(
    ("generate", "RUN", "--language", "de", "--prompt", "Der Tee", "--max-new-tokens", "2"),
    {
        "--alpha": {
            "finite number": ["nan", "inf", "-inf"],
            "or activations overflow": ["1e38", "-1e308"],
            "invalid float": ["x"],
        },
        "--gamma": {"finite number": ["-inf"]},
        "--language": {"unknown language": ["xx", "", "German", "de,en"]},
        "--prompt": {"has no tokens": [""]},
        "--anchor": {"none of the languages that were measured": ["fr"], "unknown language": ["", "xx"]},
        "--layers": {"different ones": ["9", "1 1", "-1", ""], "invalid literal": ["x", "1.5"]},
        "--max-new-tokens": {"at least 1": ["0", "-1"], "exceeds the context": ["99999999"], "invalid int": ["x"]},
        "--model": {"unknown model": ["nope"], "an empty name": [""]},
    },
)
EVALUATE = options(
    ("evaluate", "RUN", *TASK, "--limit", "2", "--languages", "en", "de"),
    {
        "--languages": {"is there twice": ["de de"], "at least 1 item": [""], "no language 'ja'": ["ja"]},
        "--methods": {"is there twice": ["clas clas"], "Input should be 'base'": ["x"], "at least 1 item": [""]},
        "--alpha": {"or activations overflow": ["1e38", "1e300"], "finite number": ["nan"]},
        "--anchor": {"is not among": ["fr", "ja"]},
        "--task": {"invalid choice": ["x", ""]},
        "--data": {"no such folder": ["/nonexistent"], "at least 1 character": [""]},
        "--limit": {"greater than or equal to 1": ["0"], "asked for 99999": ["99999"]},
        "--chunk-size": {"greater than or equal to 1": ["0", "-1"]},
        "--lape-share": {"greater than 0": ["0"], "less than 1": ["2"], "finite number": ["nan"]},
        "--vector-layer": {"greater than or equal to 0": ["-1"], "invalid int": ["x"]},
    },
)
SEARCH = options(
    ("search", "RUN", *TASK, "--tuning-limit", "2", "--languages", "en", "de"),
    {
        "--alphas": {
            "or activations overflow": ["1e308", "-1e30 1e30"],
            "finite number": ["nan", "inf"],
            "is there twice": ["1 1"],
            "valid number": ["x"],
        },
        "--methods": {"nothing to search": ["base"], "Input should be 'base'": ["x"]},
        "--fixed": {"nothing to search": ["clas"]},
        "--betas": {"needs both betas and gammas": ["0.1"]},
    },
)
OTHERS = [
    (("categorize", "/nonexistent"), "is not a run folder"),
    (("categorize", ""), "a folder's name is needed"),
    (("categorize", "FILE"), "is not a run folder"),
    (("categorize", LONG), "too long"),
    (("generate", "/nonexistent", "--prompt", "x", "--language", "de"), "is not a run folder"),
    (("report", "/nonexistent"), "is not a run folder"),
    (("report", ""), "a folder's name is needed"),
    (("figures", "RUN", "--format", "bmp"), "invalid choice"),
    (("demo", "--model", "MODEL", "--languages", "en", "de", "--anchor", "fr", "--out", "OUT"), "is not among"),
    (("demo", "--model", "MODEL", "--languages", "en", "--out", "OUT"), "at least 2 are needed"),
    (("demo", "--model", "MODEL", "--positions", "generated", "--out", "OUT"), "positions must be 'all' or 'last'"),
    (("run", "nonexistent"), "no study 'nonexistent'"),
    (("run", ""), "no study ''"),
    (("run", LONG), "no study"),
    (("run", "."), "no study '.'"),
    (("frobnicate",), "invalid choice"),
]
REFUSED = [*COLLECT, *CATEGORIZE, *GENERATE, *EVALUATE, *SEARCH, *OTHERS]


@pytest.mark.parametrize(
    ("words", "says"), REFUSED, ids=[f"{n}-{' '.join(w)[:60]}" for n, (w, _) in enumerate(REFUSED)]
)
def test_a_hostile_command_is_refused_in_one_line(words, says, command):
    status, said = command(*words)
    assert status in (1, 2), said
    assert says in said


@pytest.mark.parametrize("word", ["-1e-4", "-.5", "-0.5", "-2"])
def test_negative_numbers_in_any_spelling_are_values(word, command):
    generate = ("generate", "RUN", "--language", "de", "--prompt", "Der Tee", "--max-new-tokens", "2")
    assert command("categorize", "RUN", "--threshold", word)[0] == 0
    assert command("categorize", "RUN")[0] == 0
    assert command(*generate, "--alpha", word)[0] == 0


STUDY = """
name = "s"
[collect]
model = "MODEL"
languages = ["en", "de"]
limit = 3
[steer]
alpha = -2
[categorize]
threshold = 0.0
[[tasks]]
task = "xquad"
data = "bundled"
languages = ["en", "de"]
"""
EDITS = [
    ('name = "s"', "", "name: Field required"),
    ('name = "s"', 'name = "../x"', "should match pattern"),
    ('name = "s"', f'name = "{LONG}"', "at most 100 characters"),
    ('name = "s"', 'name = "s"\nx = 1', "Extra inputs"),
    ("limit = 3", "limit = 3.5", "valid integer"),
    ("limit = 3", 'limit = "3"', "valid integer"),
    ("limit = 3", "limit = nan", "limit"),
    ("limit = 3", "limit = true", "valid integer"),
    ("limit = 3", "limit = 3\nlimit = 4", "not TOML"),
    ('languages = ["en", "de"]\nlimit', 'languages = "en"\nlimit', "valid array"),
    ('languages = ["en", "de"]\nlimit', 'languages = ["en", "en"]\nlimit', "is there twice"),
    ('languages = ["en", "de"]\nlimit', 'languages = ["en"]\nlimit', "at least 2 are needed"),
    ('languages = ["en", "de"]\nlimit', 'languages = ["en", "xx"]\nlimit', "unknown language"),
    ("alpha = -2", "alpha = nan", "finite number"),
    ("alpha = -2", "alpha = 1e38", "or activations overflow"),
    ("alpha = -2", 'alpha = "-2"', "valid number"),
    ("alpha = -2", "alpha = true", "valid number"),
    ("alpha = -2", 'anchor = "fr"', "is not among"),
    ("alpha = -2", "anchor = 5", "valid string"),
    ("threshold = 0.0", "threshold = inf", "finite number"),
    ("threshold = 0.0", 'threshold = 1.0\nactivity = "firing_rate"', "in [0, 1)"),
    ("threshold = 0.0", "layers = [1, 1]", "is there twice"),
    ("threshold = 0.0", "layers = []", "at least 1 item"),
    ("threshold = 0.0", "layers = [1.5]", "valid integer"),
    ('task = "xquad"', 'task = "xcopa"', "Input should be"),
    ('data = "bundled"\nlanguages = ["en", "de"]', 'data = "bundled"\nlanguages = ["ja"]', "no language 'ja'"),
    ('data = "bundled"\nlanguages = ["en", "de"]', 'data = "bundled"\nlanguages = []', "at least 1 item"),
    ('data = "bundled"', 'data = "/nonexistent"', "no such folder"),
    ("MODEL", "/nonexistent", "unknown model"),
    ("[steer]", "[search]\nalphas = [1, 1]\n[steer]", "is there twice"),
    ("[steer]", "[search]\nbetas = [0.1]\n[steer]", "needs both betas and gammas"),
    ("[steer]", '[methods]\nmethods = ["base", "base"]\n[steer]', "is there twice"),
]


@pytest.mark.parametrize(
    ("old", "new", "says"), EDITS, ids=[f"{n}-{new[:40]!r}" for n, (_, new, _) in enumerate(EDITS)]
)
def test_a_hostile_study_is_refused_before_anything_is_measured(old, new, says, command, world, tmp_path):
    path = tmp_path / "study.toml"
    assert old in STUDY
    path.write_text(STUDY.replace(old, new, 1).replace("MODEL", str(world.folder)), encoding="utf-8")
    status, said = command("run", str(path), "--out", "OUT")
    assert status == 1
    assert says in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name = '\xfc'", "is not UTF-8"),
        (STUDY.encode("utf-16"), "is not UTF-8"),
        (b'name = "a\0"', "is not TOML"),
        (b"", "name: Field required"),
        (b"x = = 1", "is not TOML"),
    ],
)
def test_a_study_file_that_is_none(content, says, command, tmp_path):
    (tmp_path / "study.toml").write_bytes(content)
    status, said = command("run", str(tmp_path / "study.toml"), "--out", "OUT")
    assert status == 1
    assert says in said


def test_a_byte_order_mark_is_no_fault(command, world, tmp_path):
    text = "\ufeff" + STUDY.replace("MODEL", str(world.folder))
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    assert command("run", str(tmp_path / "study.toml"), "--dry-run")[0] == 0


def test_no_command_showed_a_traceback():
    assert TALLY["traceback"] == 0
    assert TALLY["obscure"] == 0
