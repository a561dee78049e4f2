"""The report: everything that is there, what is not by the command that brings it, and no text of data ever as markup."""

import json
import shlex
from html.parser import HTMLParser

import pandas as pd
import pytest
from report_runs import HOSTILE, LANGUAGES, full_run
from tiny import BACKEND

from analysis import save_figure
from analysis.figures.paper import paper_gains
from analysis.report.build import build_report
from analysis.report.figures import drawn_figures, run_figures
from analysis.report.methods import methods_paragraphs, reproduce_text
from analysis.report.pieces import Missing
from analysis.report.run import RunData
from analysis.report.tables import paper_beside
from analysis.style.export import PictureError, export_figures
from analysis.tables.table import table_of
from clas_lens.artifacts import ArtifactError
from clas_lens.cli import _parser, main
from clas_lens.study.config import CategorizeConfig, CollectConfig, DemoConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.options import read_config
from clas_lens.study.toml import load_study

SECTIONS = ["run", "categories", "neurons", "changes", "results", "paper", "answers", "methods", "reproduce"]


@pytest.fixture(scope="module")
def full(lens_models, tmp_path_factory):
    return full_run(tmp_path_factory.mktemp("full"), lens_models["llama", BACKEND])


@pytest.fixture(scope="module")
def hostile(lens_models, tmp_path_factory):
    return full_run(tmp_path_factory.mktemp("hostile"), lens_models["llama", BACKEND], hostile=True)


class Page(HTMLParser):
    """What a browser would see: elements with attributes, text outside scripts, the scripts' contents."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.text, self.scripts = [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data):
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        elif self.cdata_elem is None:
            self.text += data

    @property
    def data(self):
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def page(full):
    return Page(build_report(full.root).read_text(encoding="utf-8"))


def test_all_sections_and_figures_are_in_one_file_below_8_megabytes(page, full):
    assert [attributes["id"] for tag, attributes in page.elements if tag == "section"] == SECTIONS
    assert [attributes["href"] for tag, attributes in page.elements if tag == "a"] == [f"#{name}" for name in SECTIONS]
    boxes = [a["data-figure"] for _, a in page.elements if "data-figure" in a]
    assert boxes == list(page.data["figures"])
    assert set(boxes) == set(drawn_figures(RunData.open(full.root))) - {"neuron_browser"}
    assert {"layer_distribution", "tsne_map_xnli", "forest_xquad", "gain_vs_alignment_xnli", "alpha_curve"} < set(boxes)
    assert "Not there yet" not in page.text
    assert (full.root / "report.html").stat().st_size < 8e6


def test_nothing_is_loaded_from_elsewhere(page):
    for tag, attributes in page.elements:
        assert not set(attributes) & {"src", "srcset", "action", "onerror", "onload", "onclick"}, tag
        assert attributes.get("href", "#").startswith(("#", "data:,"))


def test_figures_carry_no_look_of_their_own(page):
    assert set(page.data["templates"]) == {"light", "dark"}
    assert not any("template" in figure["layout"] for figure in page.data["figures"].values())


def test_markup_and_templates_in_data_stay_text(hostile):
    data = RunData.open(hostile.root)
    data.manifest["collect"]["model"]["name"] = f"model {HOSTILE}"
    hostile.write_manifest(data.manifest)
    page = Page(build_report(hostile.root, title=f"title {HOSTILE}").read_text(encoding="utf-8"))
    assert len(page.scripts) == 3
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [a for _, a in page.elements if "onerror" in a]
    for found in (f"title {HOSTILE}", f"model {HOSTILE}", f"xx {HOSTILE}", f"clas {HOSTILE}", f"random {HOSTILE}"):
        assert found in page.text
    shown = json.dumps(page.data["figures"], ensure_ascii=False)
    assert "&lt;script&gt;document.hacked" in shown  # plotly's own markup, escaped for it
    assert "<script" not in shown
    assert "<img" not in shown


def test_methods_state_what_the_manifest_has(full):
    said = dict(methods_paragraphs(RunData.open(full.root)))
    collect = full.read_manifest()["collect"]
    assert f"{sum(collect['n_tokens'].values()):,} tokens in all. None is longer than 64 tokens." in said["Texts"]
    assert "12 parallel texts in each of 6 languages (en, de, zh, ar, fr, sw)" in said["Texts"]
    assert "alpha \N{MINUS SIGN}4 on xnli; alpha 2 on xquad" in said["Steering"]
    assert "Prompts that were cut: 5%." in said["Task XNLI"]
    assert "18 of the 360 answers are to examples that an intervention was measured or tuned on" in said["Task XNLI"]
    assert "transformer-lens 3" in said["Software"]


def test_cut_texts_are_named(full):
    data = RunData.open(full.root)
    data.manifest["collect"]["texts"]["zh"]["truncated"] = 3
    assert "Cut at 64 tokens: 3 in zh." in dict(methods_paragraphs(data))["Texts"]


def test_versions_of_kept_answers_stand_beside_the_current_ones(full):
    data = RunData.open(full.root)
    now = data.facts("evaluate xnli")["provenance"]
    earlier = {**now, "versions": {**now["versions"], "torch": "1.0"}}
    data.manifest["evaluate xnli"]["measured"] = [earlier, now]
    said = dict(methods_paragraphs(data))["Software"]
    assert "Answers that were kept were given with" in said
    assert said.count("torch 1.0") == 1
    data.manifest["evaluate xnli"]["measured"] = [now]
    assert "were kept" not in dict(methods_paragraphs(data))["Software"]


def test_an_empty_run_says_what_brings_the_rest(tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(ArtifactError, match="is not a run folder"):
        build_report(tmp_path)
    run.update_manifest("categorize", CategorizeConfig(), bridge_layers=[1], languages=["en", "de"])
    page = Page(build_report(tmp_path).read_text(encoding="utf-8"))
    for command in (f"categorize {tmp_path}", f"report {tmp_path} --collect", f"evaluate {tmp_path} --task xnli"):
        assert f"clas-lens {command}" in page.text
    assert list(page.data["figures"]) == ["paper_gains"]


def test_reasons_of_the_stage_are_given(full):
    data = RunData.open(full.root)
    data.manifest["report data"]["left_out"] = {"cosine": "no anchor"}
    assert data.why_missing("cosine", "clas-lens x") == "Not drawn: no anchor."
    assert data.why_missing("other", "clas-lens x") == "Not there yet. This brings it: clas-lens x"


def test_settings_steered_alike_are_shown_once(full):
    data = RunData.open(full.root)
    assert list(data.settings) == ["xnli", "xquad"]
    data.manifest["report data"]["steered"]["xquad"] = data.manifest["report data"]["steered"]["xnli"]
    again = RunData(data.run, data.manifest)
    assert again.settings == {"xnli": "XNLI and XQuAD, \N{GREEK SMALL LETTER ALPHA} = \N{MINUS SIGN}4"}
    names = [part.name for part in run_figures(again)["changes"] if not isinstance(part, Missing)]
    assert names == ["cosine_to_english", "tsne_map"]


def test_gains_and_changes_meet_by_task(full):
    data = RunData.open(full.root)
    cosine = pd.read_parquet(full.tables / "cosine.parquet")
    at = (cosine["setting"] == "xquad") & (cosine["language"] == "sw") & cosine["layer"].isin(data.bridge_layers)
    gains = data.gains("xquad").set_index("language")
    assert gains.loc["sw", "change"] == pytest.approx(cosine.loc[at, "change"].mean())
    rows = pd.read_parquet(full.tables / "xquad_rows.parquet").query("language == 'sw'")
    means = rows.groupby("intervention")["f1"].mean()
    assert gains.loc["sw", "gain"] == pytest.approx(100 * (means["clas"] - means["base"]))


# --- the paper ---


def test_the_paper_stands_beside_ones_own(full, tmp_path):
    table = paper_beside(RunData.open(full.root), "xnli")
    german = dict(zip(table.headings, table.rows[[row[0] for row in table.rows].index("de")], strict=True))
    assert (german["Llama"], german["Llama CLAS"], german["Qwen CLAS"]) == ("43.65", "+1.62", "+0.77")
    rows = pd.read_parquet(full.tables / "xnli_rows.parquet").query("language == 'de'")
    means = rows.groupby("intervention")["correct"].mean()
    assert german["yours"] == f"{100 * means['base']:.2f}"
    assert german["yours clas"].replace("\N{MINUS SIGN}", "-") == f"{100 * (means['clas'] - means['base']):+.2f}"
    RunFolder(tmp_path).update_manifest("categorize", CategorizeConfig(), bridge_layers=[], languages=[])
    assert "Your columns come with: clas-lens evaluate" in paper_beside(RunData.open(tmp_path), "xquad").notes[0]


def test_paper_gains_with_and_without_ones_own():
    printed = paper_gains({})
    assert [trace.name for trace in printed.data] == ["Llama 3.1 8B, paper", "Qwen 2.5 7B, paper"] * 2
    llama = dict(zip(printed.data[0].y, printed.data[0].x, strict=True))
    assert (llama["ur"], llama["vi"]) == (7.0, -3.73)
    own = paper_gains({"xquad": pd.DataFrame({"language": ["de"], "gain": [1.0]})}, model="<b>")
    assert own.data[-1].name == "&lt;b&gt;, this run"
    assert own.data[-1].showlegend


# --- commands ---


def test_the_reproduced_command_means_the_recorded_settings(tmp_path):
    config = DemoConfig(model="a b's", languages=("en", "de"), alpha=-2.0, limit=7, out=tmp_path / "x y")
    run = RunFolder(tmp_path)
    run.update_manifest("demo", config)
    words = shlex.split(reproduce_text(RunData.open(tmp_path)))
    assert words[0] == "clas-lens"
    assert read_config(DemoConfig, _parser().parse_args(words[1:])) == config


def test_stage_by_stage_commands(full):
    lines = [shlex.split(line) for line in reproduce_text(RunData.open(full.root)).splitlines()]
    assert [line[1] for line in lines] == ["collect", "categorize", "search", "evaluate", "search", "evaluate"]
    parsed = [_parser().parse_args(line[1:]) for line in lines]
    assert read_config(CollectConfig, parsed[0]) == CollectConfig(
        model="tiny", corpus="files", batch_size=8, max_tokens=64
    )
    assert parsed[3].run == full.root
    assert parsed[3].allow_overlap


def test_a_study_is_reproduced_by_its_file(tmp_path):
    RunFolder(tmp_path).update_manifest("study", load_study("demo"))
    text = reproduce_text(RunData.open(tmp_path))
    assert text.startswith("cat > demo-study.toml <<'END OF STUDY'\nname = \"demo-study\"")
    assert text.endswith("END OF STUDY\nclas-lens run demo-study.toml")


def test_report_and_figures_commands(full, capsys, monkeypatch):
    monkeypatch.setattr("clas_lens.models.load.load_model", lambda *args, **kwargs: pytest.fail("a model was loaded"))
    assert main(["report", str(full.root)]) == 0
    assert capsys.readouterr().out.strip() == str(full.root / "report.html")
    assert main(["figures", str(full.root)]) == 0
    written = capsys.readouterr().out.splitlines()
    assert str(full.figures / "neuron_browser.html") in written
    assert all((full.figures / f"{name}.json").is_file() for name in drawn_figures(RunData.open(full.root)))
    assert main(["report", str(full.root / "tables")]) == 1
    assert "is not a run folder" in capsys.readouterr().err


# --- files ---


def test_figures_as_files(tmp_path):
    figures = {"one": paper_gains({}), "two": paper_gains({})}
    written = export_figures(figures, tmp_path)
    assert [path.name for path in written] == ["one.html", "two.html"]
    assert (tmp_path / "one.json").is_file()
    assert save_figure(figures["one"], tmp_path / "three") == tmp_path / "three.html"


def test_unknown_formats_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SystemExit):
        main(["figures", str(tmp_path), "--format", "gif"])


def test_pictures_without_a_browser_say_what_to_install(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise RuntimeError("\nKaleido requires Google Chrome to be installed.\nmore")

    monkeypatch.setattr("plotly.io.write_images", fails)
    with pytest.raises(PictureError, match=r"apt-get install chromium.*kaleido_get_chrome.*--format html needs none"):
        export_figures({"one": paper_gains({})}, tmp_path, ["png"])


def test_cells_are_plain_text():
    frame = pd.DataFrame({"a": ["<b>", None], "b": [-0.004, float("nan")], "c": [1200, 3], "d": [1.5, -1.5]})
    table = table_of(frame, "t", signed=["d"])
    assert table.rows == (("<b>", "0.00", "1,200", "+1.50"), ("", "", "3", "\N{MINUS SIGN}1.50"))
    assert tuple(column.numeric for column in table.columns) == (False, True, True, True)


def test_languages_of_the_fixture(full):
    assert tuple(full.read_manifest()["collect"]["languages"]) == LANGUAGES
