"""The report's data: one reading of the texts for all figures, kept while nothing changed, reasons where there is none."""

import pandas as pd
import pytest
import torch

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.cli import main
from clas_lens.study.config import CategorizeConfig, CollectConfig, ReportConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.stages import categorize_stage, collect_stage
from clas_lens.study.tables import WITHOUT_TASK, collect_for_report, evaluated_clas, report_data_stage, report_layers

TABLES = {
    *("null_shares", "language_overlap", "threshold_shares", "category_moves", "top_neurons"),
    *("cosine", "separation", "sentence_map", "sentences", "neuron_activations"),
}
HOW = {"batch_size": 4, "max_tokens": 64, "progress": False}


@pytest.fixture
def clas(small_cats):
    return cl.Clas(small_cats, layers=(1,), alpha=-3.0)


def stage(run, model, stats, cats, steered, corpus, **changes):
    how = {"measured": corpus, "read": corpus, **HOW, **changes}
    report_data_stage(ReportConfig(neurons=2, neuron_languages=3), run, model, stats, cats, steered, **how)


def written(run):
    return {path.stem for path in run.tables.glob("*.parquet")}


def test_everything_is_collected_once(llama, small_stats, small_cats, small_corpus, clas, tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    stage(run, llama, small_stats, small_cats, {WITHOUT_TASK: clas}, small_corpus)
    assert written(run) == TABLES
    assert run.read_manifest()["report data"]["left_out"] == {}
    cosine = pd.read_parquet(run.tables / "cosine.parquet")
    assert set(cosine["layer"]) == {1, 3}
    how = {"max_tokens": HOW["max_tokens"], "batch_size": 12, "progress": False}
    german = cl.collect_representations(llama, small_corpus, [3], intervention=clas, **how)
    english = cl.collect_representations(llama, small_corpus, [3], **how)
    expected = torch.cosine_similarity(german.at("de", 3), english.at("en", 3), dim=-1).mean()
    row = cosine[(cosine["language"] == "de") & (cosine["layer"] == 3)].iloc[0]
    assert row["after"] == pytest.approx(float(expected), abs=1e-4)
    activations = pd.read_parquet(run.tables / "neuron_activations.parquet")
    assert activations["language"].nunique() == 3
    assert set(activations["layer"]) == {1}
    for target in ("corpus.reading.run_layers", "representations.effects.run_layers"):
        monkeypatch.setattr(f"clas_lens.{target}", lambda *args: pytest.fail("read again"))
    before = {path: path.read_bytes() for path in run.tables.iterdir()}
    stage(run, llama, small_stats, small_cats, {WITHOUT_TASK: clas}, small_corpus)
    assert {path: path.read_bytes() for path in run.tables.iterdir()} == before


def test_tasks_steered_alike_share_one_reading(llama, small_stats, small_cats, small_corpus, clas, tmp_path):
    run = RunFolder(tmp_path)
    stage(run, llama, small_stats, small_cats, {"xnli": clas, "xquad": clas}, small_corpus)
    assert {folder.name for folder in run.representations.iterdir()} == {"before", "after-xnli"}
    cosine = pd.read_parquet(run.tables / "cosine.parquet")
    parts = [part.drop(columns="setting").reset_index(drop=True) for _, part in cosine.groupby("setting")]
    pd.testing.assert_frame_equal(*parts)


def test_too_few_texts_leave_out_what_needs_more(llama, small_stats, small_cats, small_corpus, clas, tmp_path):
    run = RunFolder(tmp_path)
    stage(run, llama, small_stats, small_cats, {WITHOUT_TASK: clas}, small_corpus)
    few = small_corpus.take(range(4))
    stage(run, llama, small_stats, small_cats, {WITHOUT_TASK: clas}, small_corpus, read=few)
    assert written(run) == TABLES - {"separation"}  # the old one is gone, too
    reason = run.read_manifest()["report data"]["left_out"]["separation"]
    assert "more than k examples" in reason


def test_a_corpus_without_the_anchor_still_has_its_neurons(
    llama, small_cats, small_stats, small_corpus, clas, tmp_path
):
    run = RunFolder(tmp_path)
    read = small_corpus.select(["de", "zh"])
    stage(run, llama, small_stats, small_cats, {WITHOUT_TASK: clas}, small_corpus, read=read)
    left = run.read_manifest()["report data"]["left_out"]
    assert set(left) == {"cosine", "separation", "sentence_map"}
    assert "no anchor 'en'" in left["cosine"]


def test_steering_of_generated_tokens_is_not_read(llama, small_stats, small_cats, small_corpus, tmp_path):
    run = RunFolder(tmp_path)
    clas = cl.Clas(small_cats, layers=(1,), positions="generated")
    stage(run, llama, small_stats, small_cats, {WITHOUT_TASK: clas}, small_corpus)
    assert "generated tokens only" in run.read_manifest()["report data"]["left_out"]["cosine"]
    assert "cosine" not in written(run)


def test_effects_and_figures_share_one_pass(llama, small_stats, small_cats, small_corpus, clas, tmp_path, monkeypatch):
    run = RunFolder(tmp_path)
    layers = report_layers(clas.layers, small_stats.n_layers)
    assert layers == (1, 3)
    plain = cl.measure_effects(llama, clas, small_corpus, batch_size=4, max_tokens=64, progress=False)
    kept = cl.measure_effects(
        llama, clas, small_corpus, representations=run.representations, more_layers=layers, out=run.rows, **HOW
    )
    pd.testing.assert_frame_equal(plain, kept)
    alone = cl.collect_representations(llama, small_corpus, layers, intervention=clas, **HOW)
    with monkeypatch.context() as patch:
        patch.setattr("clas_lens.corpus.reading.run_layers", lambda *args: pytest.fail("read again"))
        stage(run, llama, small_stats, small_cats, {WITHOUT_TASK: clas}, small_corpus)
    found = cl.Representations.load(run.representations / "after", small_corpus.languages)
    torch.testing.assert_close(found.values, alone.values, atol=1e-5, rtol=1e-5)
    (run.representations / "after" / "zh.safetensors").unlink()
    again = cl.measure_effects(
        llama, clas, small_corpus, representations=run.representations, more_layers=layers, out=run.rows, **HOW
    )
    assert (run.representations / "after" / "zh.safetensors").is_file()
    pd.testing.assert_frame_equal(again, kept)


def test_clas_as_it_was_evaluated(clas, tmp_path):
    run = RunFolder(tmp_path)
    assert evaluated_clas(run, clas) == {WITHOUT_TASK: clas}
    clas.save_pretrained(run.methods / "xquad" / "clas")
    assert [*evaluated_clas(run, clas)] == ["xquad"]
    assert evaluated_clas(run, clas)["xquad"].fingerprint() == clas.fingerprint()


def test_collecting_for_a_run_that_has_only_categories(folders, lens_models, tmp_path):
    run = RunFolder(tmp_path)
    with pytest.raises(ArtifactError, match="is not a run folder"):
        run.collected()
    config = CollectConfig(model=str(folders["llama"]), languages=("en", "de", "zh"), limit=4, batch_size=4)
    corpus = cl.ParallelCorpus.bundled(config.languages).sample(4, seed=0)
    collect_stage(config, run, lens_models["llama", "hooked"], corpus, progress=False)
    assert run.collected() == config
    categorize_stage(CategorizeConfig(), run)
    collect_for_report(ReportConfig(neurons=1, examples=3), run, progress=False)
    assert len(pd.read_parquet(run.tables / "sentences.parquet")) == 3 * 3


def test_a_demo_can_be_steered_and_collected_again(folders, tmp_path, capsys):
    out = str(tmp_path / "run")
    small = ["--model", str(folders["llama"]), "--languages", "en", "de", "--limit", "4", "--batch-size", "4"]
    assert main(["demo", *small, "--out", out, "--questions", "1", "--max-new-tokens", "2", "--effect-texts", "3"]) == 0
    assert f"{out}/report.html" in capsys.readouterr().out
    generate = ["generate", out, "--prompt", "Tee", "--language", "de", "--max-new-tokens", "2"]
    assert main(generate) == 0
    assert main(["report", out, "--collect", "--examples", "4"]) == 0
