"""Categories, shares and bridge layers on small hand-made tensors."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory

C = cl.NeuronCategory


def stats_with(mean, firing=None):
    """Statistics with a given mean [lang layer neuron], from one sample of one token."""
    mean = torch.as_tensor(mean, dtype=torch.float32)
    accumulators = {}
    for row, language in enumerate(["en", "de", "zh", "sw"][: len(mean)]):
        accumulator = cl.statistics.NeuronAccumulator(*mean.shape[1:])
        accumulator.sums.sum += mean[row]
        if firing is not None:
            accumulator.sums.fired += torch.as_tensor(firing[row])
        accumulator.count(samples=1, tokens=10 if firing is not None else 1)
        accumulators[language] = accumulator
    return cl.NeuronStatistics.from_accumulators(accumulators)


def test_by_hand():
    mean = [
        [[1.0, 1.0, 1.0, -1.0, 0.0]],
        [[1.0, 1.0, -1.0, -1.0, 0.0]],
        [[1.0, -1.0, -1.0, -1.0, 0.0]],
    ]
    cats = cl.categorize(stats_with(mean))
    assert cats.labels.dtype == torch.int8
    expected = [C.ALL_SHARED, C.PARTIAL_SHARED, C.LANGUAGE_SPECIFIC, C.DEAD, C.DEAD]
    assert cats.labels[0].tolist() == expected
    assert cats.counts[0].tolist() == [3, 2, 1, 0, 0]
    assert cats.specific_to("en")[0].tolist() == [False, False, True, False, False]
    assert not cats.specific_to("de").any()
    with pytest.raises(ValueError, match="'fr': it was not in the statistics; available: en, de, zh"):
        cats.specific_to("fr")


def test_activities_and_thresholds():
    mean = [[[0.5, -0.5, 0.1]], [[0.5, -0.5, 0.1]]]
    firing = [[[9, 1, 0]], [[9, 1, 0]]]
    stats = stats_with(mean, firing)
    assert cl.categorize(stats).labels[0].tolist() == [3, 0, 3]
    assert cl.categorize(stats, 0.2).labels[0].tolist() == [3, 0, 0]
    assert cl.categorize(stats, 0.2, "abs_mean").labels[0].tolist() == [3, 3, 0]
    assert cl.categorize(stats, 0.05, activity="firing_rate").labels[0].tolist() == [3, 3, 0]
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 2"):
        cl.categorize(stats, 2.0, "firing_rate")


def test_two_languages_have_no_partial_and_one_is_refused():
    two = cl.categorize(stats_with([[[1.0, 1.0, -1.0]], [[1.0, -1.0, -1.0]]]))
    assert two.labels[0].tolist() == [C.ALL_SHARED, C.LANGUAGE_SPECIFIC, C.DEAD]
    with pytest.raises(ValueError, match="at least 2 are needed"):
        cl.categorize(stats_with([[[1.0]]]))


@given(active=st.lists(st.lists(st.booleans(), min_size=6, max_size=6), min_size=2, max_size=5))
def test_categories_are_exclusive_and_cover_everything(active):
    cats = NeuronCategories(torch.tensor(active)[:, None, :], tuple("abcde"[: len(active)]))
    masks = torch.stack([cats.mask(category) for category in C])
    assert (masks.sum(0) == 1).all()
    shares = cats.shares()
    assert shares["count"].sum() == 6
    assert shares["percent"].sum() == pytest.approx(100)
    assert list(shares.columns) == ["layer", "category", "count", "percent"]


def test_save_and_load(tmp_path, small_cats):
    loaded = NeuronCategories.load(small_cats.save(tmp_path / "categories.safetensors"))
    assert torch.equal(loaded.active, small_cats.active)
    assert (loaded.languages, loaded.threshold, loaded.activity) == (small_cats.languages, 0.0, "mean")
    assert loaded.model == small_cats.model
    with pytest.raises(ArtifactError, match="no neuron categories at"):
        NeuronCategories.load(tmp_path / "absent.safetensors")


def test_another_kind_of_file_is_refused(tmp_path, small_stats):
    small_stats.save(tmp_path)
    with pytest.raises(ArtifactError, match="holds neuron statistics, not neuron categories"):
        NeuronCategories.load(tmp_path / "en.safetensors")


def layered(partial_percent, model=None):
    """Categories with a given percentage of partial-shared neurons a layer; the rest are dead."""
    active = torch.zeros(3, len(partial_percent), 100, dtype=torch.bool)
    for layer, percent in enumerate(partial_percent):
        active[:2, layer, :percent] = True
    return NeuronCategories(active, ("en", "de", "zh"), model=model or {})


def test_the_rule_takes_the_best_late_run_and_never_the_last_two():
    shares = [90] * 8 + [10, 20, 80, 70, 30, 10, 99, 99]
    assert cl.select_bridge_layers(layered(shares)) == (10, 11)
    assert cl.select_bridge_layers(layered([50] * 16)) == (12, 13)  # of equal runs the later
    assert cl.select_bridge_layers(layered([10, 20, 30])) == (0,)
    with pytest.raises(ValueError, match="no bridge layer in a model of 2 layers"):
        cl.select_bridge_layers(layered([10, 20]))


def test_explicit_layers_are_checked():
    cats = layered([50] * 6)
    assert cl.select_bridge_layers(cats, layers=[3, 1]) == (1, 3)
    for wrong in ([4], [-1], [9], []):
        with pytest.raises(ValueError, match=r"bridge layers must be different ones among 0\.\.3, .*\(of 6"):
            cl.select_bridge_layers(cats, layers=wrong)


def test_the_papers_models_get_the_papers_layers():
    for n_layers, n_neurons, vocab, expected in (
        (32, 14336, 128256, (24, 25, 26, 27, 28, 29)),
        (28, 18944, 152064, (24, 25)),
    ):
        active = torch.zeros(2, n_layers, n_neurons, dtype=torch.bool)
        cats = NeuronCategories(active, ("en", "de"), model={"d_vocab": vocab})
        assert cl.select_bridge_layers(cats) == expected


def test_instance_shares_equal_the_definition(llama, small_corpus):
    """Per example: in how many languages the last token's h is positive."""
    corpus = small_corpus.select(["en", "de", "zh"])
    shares = cl.categories.instance_shares(llama, corpus, batch_size=5, progress=False)
    counts = torch.zeros(len(corpus), llama.cfg.n_layers, llama.cfg.d_mlp)
    for language in corpus.languages:
        for row, text in enumerate(corpus[language]):
            _, cache = llama.run_with_cache(text)
            h = torch.stack([cache[f"blocks.{i}.mlp.hook_post"][0, -1] for i in range(llama.cfg.n_layers)])
            counts[row] += h > 0
    for layer in range(llama.cfg.n_layers):
        rows = shares[shares["layer"] == layer].set_index("category")["percent"]
        for label, n in (("dead", 0), ("language-specific", 1), ("partial-shared", 2), ("all-shared", 3)):
            assert rows[label] == pytest.approx(100 * float((counts[:, layer] == n).float().mean()), abs=0.2)
    assert shares.groupby("layer")["percent"].sum().round(6).eq(100).all()
    mean = cl.categories.instance_shares(llama, corpus, position="mean", batch_size=3, progress=False)
    assert not mean["percent"].equals(shares["percent"])
    with pytest.raises(ValueError, match="at least 2"):
        cl.categories.instance_shares(llama, corpus.select(["en"]), progress=False)


def test_arguments_of_another_kind_say_what_to_run_first(small_stats, small_corpus):
    sort, select = inspect.unwrap(cl.categorize), inspect.unwrap(cl.select_bridge_layers)
    with pytest.raises(ValueError, match="got ParallelCorpus: run collect_statistics first"):
        sort(small_corpus)
    with pytest.raises(ValueError, match="got NeuronStatistics: run categorize first"):
        select(small_stats)
    for threshold in (float("nan"), float("inf"), "0.1", None):
        with pytest.raises(ValueError, match="a threshold must be a finite number"):
            sort(small_stats, threshold)


def test_masks_by_label(small_cats):
    for category in NeuronCategory:
        assert torch.equal(small_cats.mask(category.label), small_cats.mask(category))
    with pytest.raises(
        ValueError, match="no neuron category 'partial'; available: dead, language-specific, partial-sh"
    ):
        small_cats.mask("partial")


def test_a_quantile_of_each_layer_as_the_bar(small_stats):
    """NumPy's quantile of a layer's means, in all languages together."""
    for activity in ("mean", "abs_mean", "firing_rate"):
        cats = cl.categorize(small_stats, activity=activity, quantile=0.9)
        values = {"mean": small_stats.mean, "abs_mean": small_stats.mean.abs(), "firing_rate": small_stats.firing_rate}
        for layer in range(small_stats.n_layers):
            held = values[activity][:, layer].numpy()
            assert (cats.active[:, layer].numpy() == (held > np.float32(np.quantile(held.astype(float), 0.9)))).all()
    cats = cl.categorize(small_stats, quantile=0.9)
    assert "mean > its layer's 90th percentile" in repr(cats)
    assert cats.settings()["quantile"] == 0.9
    assert cats.active.double().mean((0, 2)).tolist() == pytest.approx([0.1] * 5, abs=0.006)
    for wrong in ({"quantile": 1.0}, {"quantile": 0.0}, {"quantile": 0.5, "threshold": 0.1}):
        with pytest.raises(ValueError, match="takes the threshold's place"):
            cl.categorize(small_stats, **wrong)


def test_a_quantile_survives_the_disk(small_stats, tmp_path):
    cats = cl.categorize(small_stats, quantile=0.75)
    read = NeuronCategories.load(cats.save(tmp_path / "cats.safetensors"))
    assert (read.quantile, read.fingerprint()) == (0.75, cats.fingerprint())
    assert NeuronCategories.load(cl.categorize(small_stats).save(tmp_path / "cats.safetensors")).quantile is None
