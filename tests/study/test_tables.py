"""The report's data: one reading of the texts for all figures, kept while nothing changed, reasons where there is none."""

import pandas as pd
import pytest
import torch

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.cli import main
from clas_lens.study.config import CollectConfig, ReportConfig, SteerConfig, StudyConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.run import Run
from clas_lens.study.tables import WITHOUT_TASK, evaluated_clas, report_layers, report_tables

TABLES = {
    *("null_shares", "language_overlap", "threshold_shares", "category_moves", "top_neurons"),
    *("cosine", "separation", "sentence_map", "sentences", "neuron_activations", "effects", "layer_shares", "anchors"),
}
READERS = ("corpus.reading.run_layers", "representations.effects.last_logits")
HOW = {"batch_size": 4, "max_tokens": 64, "progress": False}


@pytest.fixture
def clas(small_cats):
    return cl.Clas(small_cats, layers=(1,), alpha=-3.0)


@pytest.fixture
def run(llama, small_corpus, tmp_path):
    return the_run(tmp_path, llama, small_corpus)


def the_run(root, model, corpus, *, texts=12, quantile=None, **steer):
    config = StudyConfig(
        name="tiny",
        collect=CollectConfig(batch_size=4, max_tokens=64),
        categorize={"layers": (1,), "quantile": quantile},
        steer=SteerConfig(**{"alpha": -3.0, **steer}),
        report=ReportConfig(neurons=2, neuron_languages=3, examples=texts),
    )
    return Run(root, config, model=model, corpus=corpus, progress=False)


def written(run):
    return {path.stem for path in run.folder.tables.glob("*.parquet")}


def test_everything_is_collected_once(run, llama, small_corpus, monkeypatch):
    report_tables(run)
    clas = run.clas
    assert written(run) == TABLES
    assert (run.folder.root / "effects" / WITHOUT_TASK).is_dir()
    assert not run.folder.rows.exists()
    assert run.folder.read_manifest()["report data"]["left_out"] == {}
    cosine = pd.read_parquet(run.folder.tables / "cosine.parquet")
    assert set(cosine["layer"]) == {0, 1, 3, 4}
    how = {"max_tokens": HOW["max_tokens"], "batch_size": 12, "progress": False}
    german = cl.collect_representations(llama, small_corpus, [3], intervention=clas, **how)
    english = cl.collect_representations(llama, small_corpus, [3], **how)
    expected = torch.cosine_similarity(german.at("de", 3), english.at("en", 3), dim=-1).mean()
    row = cosine[(cosine["language"] == "de") & (cosine["layer"] == 3)].iloc[0]
    assert row["after"] == pytest.approx(float(expected), abs=1e-4)
    activations = pd.read_parquet(run.folder.tables / "neuron_activations.parquet")
    assert activations["language"].nunique() == 3
    assert set(activations["layer"]) == {1}
    alone = cl.measure_effects(llama, clas, small_corpus, **HOW)
    effects = pd.read_parquet(run.folder.tables / "effects.parquet")
    pd.testing.assert_frame_equal(effects.drop(columns="setting"), alone)
    for target in READERS:
        monkeypatch.setattr(f"clas_lens.{target}", lambda *args: pytest.fail("read again"))
    before = {path: path.read_bytes() for path in run.folder.tables.iterdir()}
    report_tables(run)
    assert {path: path.read_bytes() for path in run.folder.tables.iterdir()} == before


def test_tasks_steered_alike_share_one_reading(run, clas):
    for task in ("xnli", "xquad"):
        clas.save_pretrained(run.folder.methods / task / "clas")
    report_tables(run)
    assert {path.name for path in (run.folder.representations / "xnli").iterdir()} == {"before", "after"}
    assert not (run.folder.representations / "xquad").exists()
    cosine = pd.read_parquet(run.folder.tables / "cosine.parquet")
    parts = [part.drop(columns="setting").reset_index(drop=True) for _, part in cosine.groupby("setting")]
    pd.testing.assert_frame_equal(*parts)


def test_too_few_texts_leave_out_what_needs_more(run, llama, small_corpus, tmp_path):
    report_tables(run)
    report_tables(the_run(tmp_path, llama, small_corpus, texts=4))
    assert written(run) == TABLES - {"separation"}  # the old one is gone, too
    reason = run.folder.read_manifest()["report data"]["left_out"]["separation"]
    assert "more than k examples" in reason


def test_a_corpus_without_the_anchor_is_refused(llama, small_corpus, tmp_path):
    with pytest.raises(ValueError, match="the anchor 'en' is none of the languages that were measured: de, zh"):
        report_tables(the_run(tmp_path, llama, small_corpus.select(["de", "zh"])))


def test_a_quantile_leaves_out_what_a_threshold_had(run, llama, small_corpus, tmp_path):
    report_tables(run)
    report_tables(the_run(tmp_path, llama, small_corpus, quantile=0.5))
    assert written(run) == TABLES - {"threshold_shares", "category_moves"}


def test_steering_of_generated_tokens_is_not_read(run, llama, small_corpus, tmp_path):
    report_tables(run)
    run = the_run(tmp_path, llama, small_corpus, positions="generated")
    report_tables(run)
    left_out = run.folder.read_manifest()["report data"]["left_out"]
    assert written(run) == TABLES - set(left_out)
    assert set(left_out) >= {"cosine", "effects", "sentence_map"}
    assert all("generated tokens only" in reason for reason in left_out.values())


def test_effects_and_figures_share_one_pass(run, llama, small_corpus, clas, tmp_path, monkeypatch):
    layers = report_layers(clas.layers, 5)
    assert layers == (0, 1, 3, 4), "the first and last for the proximity to English, 3 for the map"
    plain = cl.measure_effects(llama, clas, small_corpus, batch_size=4, max_tokens=64, progress=False)
    place = {"representations": run.folder.representations / WITHOUT_TASK, "out": tmp_path / "effects"}
    kept = cl.measure_effects(llama, clas, small_corpus, more_layers=layers, **place, **HOW)
    pd.testing.assert_frame_equal(plain, kept)
    alone = cl.collect_representations(llama, small_corpus, layers, intervention=clas, **HOW)
    with monkeypatch.context() as patch:
        patch.setattr("clas_lens.corpus.reading.run_layers", lambda *args: pytest.fail("read again"))
        found = cl.collect_representations(
            llama, small_corpus, layers, intervention=clas, out=place["representations"] / "after", **HOW
        )
    torch.testing.assert_close(found.values, alone.values, atol=1e-5, rtol=1e-5)
    (place["representations"] / "after" / "zh.safetensors").unlink()
    again = cl.measure_effects(llama, clas, small_corpus, more_layers=layers, **place, **HOW)
    assert (place["representations"] / "after" / "zh.safetensors").is_file()
    pd.testing.assert_frame_equal(again, kept)


def test_clas_as_it_was_evaluated(clas, tmp_path):
    folder = RunFolder(tmp_path)
    assert evaluated_clas(folder, clas) == {WITHOUT_TASK: clas}
    clas.save_pretrained(folder.methods / "xquad" / "clas")
    assert [*evaluated_clas(folder, clas)] == ["xquad"]
    assert evaluated_clas(folder, clas)["xquad"].fingerprint() == clas.fingerprint()


def test_collecting_for_a_run_that_has_only_categories(folders, lens_models, tmp_path):
    with pytest.raises(ArtifactError, match="is not a run folder"):
        Run.open(tmp_path)
    config = CollectConfig(model=str(folders["llama"]), languages=("en", "de", "zh"), limit=4, batch_size=4)
    run = Run(tmp_path, StudyConfig(name="tiny", collect=config), progress=False)
    assert run.statistics.languages == ("en", "de", "zh")
    assert run.folder.collected() == config
    with pytest.raises(ArtifactError, match="has no categories yet: clas-lens categorize"):
        _ = Run.open(tmp_path).clas
    assert Run.open(tmp_path, categorize={}).bridge_layers == run.bridge_layers
    opened = Run.open(tmp_path, report=ReportConfig(neurons=1, examples=3), progress=False)
    report_tables(opened)
    assert len(pd.read_parquet(run.folder.tables / "sentences.parquet")) == 3 * 3


def test_a_demo_can_be_steered_and_collected_again(folders, tmp_path, capsys):
    out = str(tmp_path / "run")
    small = ["--model", str(folders["llama"]), "--languages", "en", "de", "--limit", "4", "--batch-size", "4"]
    assert main(["demo", *small, "--out", out, "--questions", "1", "--max-new-tokens", "2", "--effect-texts", "3"]) == 0
    assert f"{out}/report.html" in capsys.readouterr().out
    generate = ["generate", out, "--prompt", "Tee", "--language", "de", "--max-new-tokens", "2"]
    assert main(generate) == 0
    assert main(["report", out, "--collect", "--examples", "4"]) == 0
