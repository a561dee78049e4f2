"""Any language as the anchor: no text names English where the anchor is meant, and the table that says which to take."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from report_runs import full_run

import clas_lens as cl
from analysis.report.build import build_report
from analysis.report.grids import grid_figures
from analysis.report.run import RunData
from analysis.report.tables import anchors_table
from clas_lens.artifacts import ArtifactError
from clas_lens.cli import main
from clas_lens.representations.alignment import AlignmentError
from clas_lens.representations.anchors import anchor_frame
from clas_lens.study.folder import RunFolder

QUIET = {"progress": False}


def named(text):
    """Where English is named: not in plotly.js, nor in the name of the function that draws Figure 2."""
    return re.findall(
        r".{60}\benglish\b.{20}", re.sub(r"<script>/\*\*.*?</script>", "", text, flags=re.S), flags=re.I | re.S
    )


@pytest.fixture(scope="module")
def german(lens_models, tmp_path_factory):
    return full_run(tmp_path_factory.mktemp("german"), lens_models["llama", "hooked"], anchor="de")


def test_a_report_with_another_anchor_names_it(german):
    text = build_report(german.root).read_text(encoding="utf-8")
    assert named(text) == []
    assert named(text.replace("German", "English")), "the search finds what it should"
    for said in (
        "Cosine similarity to German in the residual stream",
        "German is the same in both.",
        "change of cosine to German",
        "Change of alignment with German against the gain in score",
    ):
        assert said in text
    assert "cosine_to_english" not in text
    figures = grid_figures([RunData.open(german.root)])
    assert "German" in figures["cosine_to_anchor"].layout.title.text


def test_the_demo_with_another_anchor(folders, tmp_path, capsys):
    words = [
        "--anchor",
        "de",
        "--languages",
        "de",
        "en",
        "fr",
        "--limit",
        "4",
        "--effect-texts",
        "4",
        "--questions",
        "1",
        "--max-new-tokens",
        "2",
    ]
    assert main(["demo", "--model", str(folders["llama"]), "--out", str(tmp_path / "demo"), *words]) == 0
    assert named((tmp_path / "demo" / "report.html").read_text(encoding="utf-8")) == []
    printed = capsys.readouterr()
    assert "english" not in (printed.out + printed.err).lower()
    assert main(["tables", str(tmp_path / "demo"), "--format", "csv"]) == 0
    written = [path.read_text(encoding="utf-8") for path in (tmp_path / "demo").rglob("*.csv")]
    assert written
    assert not [text for text in written if "english" in text.lower()]


def test_the_table_which_anchor(german):
    table = anchors_table(RunData.open(german.root))
    assert table.title == "Which anchor"
    columns = {column.heading: column.cells for column in table.columns}
    languages = columns["language"]
    gains = columns["XNLI: gain with clas"]
    assert [bool(gain) for gain in gains] == [code == "de" for code in languages]


@pytest.fixture(scope="module")
def english(lens_models, tmp_path_factory):
    return full_run(tmp_path_factory.mktemp("english"), lens_models["llama", "hooked"])


def test_runs_by_anchor(english, german):
    frame = cl.study.compare_anchors([english.root, german.root])
    assert frame[["run", "anchor", "task"]].to_numpy().tolist() == [
        [run.root.name, anchor, task] for run, anchor in ((english, "en"), (german, "de")) for task in ("xnli", "xquad")
    ]
    assert frame["alpha"].tolist() == [-4.0, 2.0] * 2
    for row in frame.to_dict("records"):
        data = RunData.open(english.root if row["anchor"] == "en" else german.root)
        candidate = data.table("anchors").set_index("language").loc[row["anchor"]]
        names = ["active", "specific", "partial", "shared", "cosine"]
        assert [row[name] for name in names] == candidate[names].tolist()
        assert [row[name] for name in ("gain", "ci_low", "ci_high")] == list(data.main_comparison(row["task"]).targets)
        read = data.table("cosine")
        read = read[(read["setting"] == row["task"]) & read["layer"].isin(data.bridge_layers)]
        assert row["anchor"] not in set(read["language"])
        assert row["cosine"] == pytest.approx(read["before"].mean(), abs=1e-9)
        assert row["cosine_change"] == pytest.approx((read["after"] - read["before"]).mean(), abs=1e-12)


def test_runs_that_differ_in_more_than_the_anchor_are_refused(english, german, tmp_path):
    with pytest.raises(ValueError, match=r"a list of at least two run folders, got list"):
        cl.study.compare_anchors([german.root])
    with pytest.raises(ValueError, match="at least two run folders, got str 'runs/demo'"):
        cl.study.compare_anchors("runs/demo")
    with pytest.raises(ValueError, match="two runs have the anchor 'de'"):
        cl.study.compare_anchors([german.root, german.root])
    other = RunFolder(Path(shutil.copytree(german.root, tmp_path / "other")))
    manifest = other.read_manifest()
    manifest["evaluate xnli"]["n_examples"] = 21
    other.write_manifest(manifest)
    with pytest.raises(ValueError, match="and other differ in more than the anchor: in the questions of xnli"):
        cl.study.compare_anchors([english.root, other.root])
    (other.tables / "cosine.parquet").unlink()
    with pytest.raises(ArtifactError, match="no table 'cosine': clas-lens report .*other --collect makes it"):
        cl.study.compare_anchors([other.root, other.root])


def test_a_run_without_answers_has_no_gain(english, german, tmp_path):
    folders = [
        RunFolder(Path(shutil.copytree(one.root, tmp_path / name))) for one, name in ((english, "a"), (german, "b"))
    ]
    for one in folders:
        one.comparisons("xnli").unlink()
    frame = cl.study.compare_anchors([one.root for one in folders])
    assert frame.set_index("task")["gain"].isna().groupby("task").all().to_dict() == {"xnli": True, "xquad": False}


def test_candidates_by_hand(llama, small_corpus, small_cats):
    states = cl.collect_representations(llama, small_corpus, [1, 2, 3], **QUIET)
    rows = pd.DataFrame(
        [
            {
                "task": "x",
                "metric": "right",
                "language": code,
                "intervention": name,
                "id": n,
                "group": n,
                "right": right,
            }
            for code in ("en", "de")
            for name in ("base", "clas")
            for n, right in enumerate([1.0, 0.0, 1.0, float(name == "clas" and code == "en")])
        ]
    )
    comparison = cl.compare(rows, "clas", anchor="de")
    frame = anchor_frame(small_cats, states, (1, 3), {"de": comparison}).set_index("language")
    assert frame.loc["de", "gain"] == 25.0
    assert frame["gain"].notna().sum() == 1
    own = states.of("zh")[:, [0, 2]].double()
    others = [states.of(code)[:, [0, 2]].double() for code in ("en", "de", "ar")]
    expected = torch.stack([torch.cosine_similarity(other, own, dim=-1).mean() for other in others]).mean()
    assert frame.loc["zh", "cosine"] == pytest.approx(float(expected), abs=1e-9)
    parts = frame.loc["zh", ["specific", "partial", "shared"]].sum()
    assert frame.loc["zh", "active"] == pytest.approx(parts)
    with pytest.raises(AlignmentError, match="for the anchor 'en' has the anchor 'de'"):
        anchor_frame(small_cats, states, (1,), {"en": comparison})
    with pytest.raises(AlignmentError, match="needs unsteered representations of layers"):
        anchor_frame(small_cats, states, (4,))
