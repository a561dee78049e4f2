"""A run at attention's units: from one option to the report; and what is made of MLP neurons is refused there."""

import json

import pandas as pd
import pytest

import clas_lens as cl
from analysis import head_distribution
from analysis.report.figures import drawn_figures
from analysis.report.run import RunData
from clas_lens.artifacts import ArtifactError
from clas_lens.cli import main
from clas_lens.study.config import StudyConfig
from clas_lens.study.run import Run
from clas_lens.study.toml import StudyError, load_study


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    """What `clas-lens demo --site attn` leaves."""
    out = tmp_path_factory.mktemp("runs") / "demo"
    small = [
        "--languages",
        "en,de",
        "zh",
        "--limit",
        "4",
        "--batch-size",
        "4",
        "--questions",
        "1",
        "--effect-texts",
        "2",
    ]
    command = ["demo", "--model", str(folders["llama"]), "--site", "attn", "--out", str(out), "--alpha", "-2", *small]
    assert main([*command, "--max-new-tokens", "3"]) == 0
    return out


def test_every_stage_is_at_its_site(run):
    stats = cl.NeuronStatistics.load(run / "statistics")
    assert stats.site == "attn"
    assert stats.n_neurons == 32
    opened = Run.open(run)
    assert opened.config.collect.site == opened.categories.site == opened.clas.site == "attn"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["collect"]["model"]["site"] == "attn"
    rows = pd.read_parquet(run / "tables" / "xquad_rows.parquet")
    assert set(rows["intervention"]) == {"base", "clas"}
    effects = pd.read_parquet(run / "tables" / "effects.parquet").set_index("language")
    assert effects.loc["en", "kl"] == 0
    assert effects.loc["de", "kl"] > 0
    top = pd.read_parquet(run / "tables" / "top_neurons.parquet")
    assert (top["head"] == top["neuron"] // 8).all()


def test_the_report_says_attention_and_draws_its_heads(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "5 layers of 4 heads x 8 units of attention, measured before its output projection" in page
    assert "output projection, the heads side by side" in page
    assert "MLP neurons" not in page
    figures = drawn_figures(RunData.open(run))
    assert figures["layer_distribution"].layout.title.text.replace("<br>", " ").startswith("Attention units by")
    assert figures["layer_distribution"].layout.yaxis.title.text == "units in the layer (%)"
    assert len(figures["head_distribution"].data) == 4


def test_the_head_figure_carries_the_table(run):
    cats = Run.open(run).categories
    figure, table = head_distribution(cats, bridge_layers=(1, 2, 4)), cats.by_head()
    for trace in figure.data:
        rows = table[table["category"] == trace.name].set_index(["head", "layer"])
        for head in range(4):
            for layer in range(5):
                assert trace.z[head][layer] == rows.loc[(head, layer), "percent"]
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(0.5, 2.5), (3.5, 4.5)] * 4
    assert head_distribution(table).data == head_distribution(cats).data


def test_mlp_neurons_have_no_head_figure(small_cats):
    with pytest.raises(ValueError, match="MLP neurons have no heads"):
        head_distribution(small_cats)
    with pytest.raises(ValueError, match=r"NeuronCategories\.by_head"):
        head_distribution(small_cats.shares())


def test_a_run_collected_again_at_the_other_site_is_not_mixed(run, folders, tmp_path):
    options = {"languages": ("en", "de", "zh"), "limit": 3, "model": str(folders["llama"])}
    for site in ("attn", "mlp"):
        study = StudyConfig.model_validate({"name": "run", "collect": {**options, "site": site}})
        made = Run(tmp_path, study, progress=False)
        assert made.statistics.site == site
        if site == "attn":
            assert made.categories.site == "attn"
    with pytest.raises(ArtifactError, match="was collected again since it was categorised"):
        _ = Run.open(tmp_path).categories


def test_methods_of_the_mlp_are_refused_in_the_study_file(tmp_path):
    text = 'name = "x"\n[collect]\nsite = "{}"\n[methods]\nmethods = ["base", "clas", "{}"]\n'
    path = tmp_path / "study.toml"
    path.write_text(text.format("attn", "amplify"))
    with pytest.raises(StudyError, match="amplify changes neurons of the MLP: it needs site = 'mlp', not 'attn'"):
        load_study(path)
    path.write_text(text.format("attn", "noise"))
    assert load_study(path).collect.site == "attn"
    path.write_text(text.format("residual", "noise"))
    with pytest.raises(StudyError, match=r"collect.site: Input should be 'mlp' or 'attn'"):
        load_study(path)


def test_every_other_method_is_at_attention(run, folders):
    methods = ("base", "clas", "random", "other-categories", "uniform", "noise", "shuffled")
    opened = Run.open(run, methods={"methods": methods})
    opened.progress = False
    sites = {name: one.edits(opened.model, ["de"]) for name, one in opened.methods.items() if one is not None}
    assert {site.kind for edits in sites.values() for site in edits} == {"attn"}
    assert len(sites) == len(methods) - 1
