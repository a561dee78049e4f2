"""Top neurons, their texts and tokens, against the Hugging Face weights and cached runs."""

import copy

import numpy as np
import pytest
import torch
from tiny import BACKEND, BACKENDS, FAMILIES, needs_hooked

import clas_lens as cl
from clas_lens.categories.browser import promoted_tokens, selectivity, top_neurons, with_promoted_tokens
from clas_lens.models.forward import direct_logits
from clas_lens.models.sites import down_projection


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_promoted_tokens_are_those_of_the_hugging_face_weights(family, backend, lens_models, hf_models):
    model, hf = lens_models[family, backend], hf_models[family]
    layer, neuron = 3, 17
    norm = hf.model.norm
    gain = norm.weight + 1 if family == "gemma3" else norm.weight
    with torch.no_grad():
        written = hf.model.layers[layer].mlp.down_proj.weight[:, neuron]
        logits = hf.lm_head.weight @ (gain * written)
    table = promoted_tokens(model, layer, neuron, k=5)
    assert table["token_id"].tolist() == logits.topk(5).indices.tolist()
    assert table["logit"].tolist() == pytest.approx(logits.topk(5).values.tolist(), rel=1e-4)
    assert table["token"].tolist() == [model.tokenizer.decode([i]) for i in table["token_id"]]


def test_a_neuron_out_of_range_is_refused(llama):
    with pytest.raises(ValueError, match=r"no neuron 48 in tiny-llama.*available: 0\.\.47"):
        promoted_tokens(llama, 0, 48)
    with pytest.raises(ValueError, match=r"no layer 5"):
        cl.representations.neuron_activations(llama, cl.ParallelCorpus.bundled(["en"]), 5, 0)


def test_top_neurons_by_counting(small_stats, small_cats, small_corpus):
    table = top_neurons(small_stats, small_cats, small_corpus, "de", n=6)
    row = small_stats.languages.index("de")
    mean, square = small_stats.mean.double().numpy(), small_stats.second_moment.double().numpy()
    score = (mean[row] - np.delete(mean, row, 0).mean(0)) / np.sqrt(square.mean(0))
    score[~small_cats.active[row].numpy()] = -np.inf
    best = np.argsort(-score.ravel())[:6]
    assert (table["layer"] * small_stats.n_neurons + table["neuron"]).tolist() == best.tolist()
    assert table["selectivity"].tolist() == pytest.approx(score.ravel()[best].tolist(), abs=1e-5)
    assert (table["mean"] > 0).all()
    for line in table.itertuples():
        assert small_corpus["de"][small_corpus.ids.index(line.example)] == line.text


def test_the_top_example_is_where_the_neuron_fires_most(lens_models, small_stats, small_cats, small_corpus):
    model = lens_models["llama", BACKEND]
    line = next(top_neurons(small_stats, small_cats, small_corpus, "zh", layer=2, n=1).itertuples())
    assert line.layer == 2
    _, cache = model.run_with_cache(model.to_tokens(line.text))
    values = cache[f"blocks.{line.layer}.mlp.hook_post"][0, 1:, line.neuron]
    assert int(values.argmax()) == line.position
    assert float(values.max()) == pytest.approx(line.max, abs=1e-4)


def test_silent_neurons_and_few_candidates(small_stats, small_cats, small_corpus):
    assert torch.isfinite(selectivity(small_stats, "de")).all()
    all_in_layer = top_neurons(small_stats, small_cats, small_corpus, "de", layer=0, n=10_000)
    assert len(all_in_layer) == int(small_cats.active[small_cats.languages.index("de"), 0].sum())
    with pytest.raises(ValueError, match="no statistics of 'fr'; available: "):
        top_neurons(small_stats, small_cats, small_corpus, "fr")
    with pytest.raises(ValueError, match="collected on other examples"):
        top_neurons(small_stats, small_cats, small_corpus.take(range(3)), "de")


def test_promoted_tokens_join_the_table(llama, small_stats, small_cats, small_corpus):
    table = with_promoted_tokens(top_neurons(small_stats, small_cats, small_corpus, "de", n=2), llama, k=3)
    first = table.iloc[0]
    assert first["promoted"] == promoted_tokens(llama, int(first["layer"]), int(first["neuron"]), 3)["token"].tolist()


@needs_hooked
def test_a_folded_norm_makes_no_difference(llama):
    directions = down_projection(llama, 2)[:4]
    folded = copy.deepcopy(llama)
    folded.process_weights_(fold_ln=True, center_writing_weights=False, center_unembed=False)
    assert not torch.allclose(folded.W_U, llama.W_U)
    torch.testing.assert_close(direct_logits(folded, directions), direct_logits(llama, directions))
