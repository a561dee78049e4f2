"""What steering changes, against plain definitions."""

import warnings
from dataclasses import replace

import pytest
import torch

import clas_lens as cl
from clas_lens.corpus.tokens import tokenize
from clas_lens.representations.effects import kl_divergence


def test_kl_by_hand():
    before = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    after = torch.log(torch.tensor([[0.25, 0.75], [0.5, 0.5]]))
    expected = 0.5 * torch.log(torch.tensor(2.0)) + 0.5 * torch.log(torch.tensor(2 / 3))
    torch.testing.assert_close(kl_divergence(before, after), torch.stack([expected, torch.tensor(0.0)]).double())


def test_equals_the_definition(model, small_cats, small_corpus):
    clas = cl.Clas(small_cats, layers=(1, 3), alpha=-2.0)
    effects = cl.measure_effects(model, clas, small_corpus, batch_size=5, progress=False).set_index("language")
    sentence = {}

    def run(text):
        logits, cache = model.run_with_cache(text)
        return logits[0, -1], torch.stack([cache[f"blocks.{i}.hook_resid_post"][0, 1:].mean(0) for i in clas.layers])

    for language in ("en", "de"):
        rows = []
        for text in small_corpus[language]:
            assert tokenize(model.tokenizer, [text]).n_prefix == 1
            logits, before = run(text)
            with cl.steer(model, clas, language=language):
                steered, after = run(text)
            rows.append((logits, steered, before, after))
        sentence[language] = rows
    kl, before, after = [], [], []
    for (logits, steered, german, german_steered), (_, _, english, _) in zip(
        sentence["de"], sentence["en"], strict=True
    ):
        p, q = logits.double().softmax(-1), steered.double().softmax(-1)
        kl.append((p * (p / q).log()).sum())
        before.append(torch.cosine_similarity(german, english, dim=-1).mean())
        after.append(torch.cosine_similarity(german_steered, english, dim=-1).mean())
    assert effects.loc["de", "kl"] == pytest.approx(float(torch.stack(kl).mean()), rel=1e-3)
    assert effects.loc["de", "cosine_before"] == pytest.approx(float(torch.stack(before).mean()), abs=1e-4)
    assert effects.loc["de", "cosine_after"] == pytest.approx(float(torch.stack(after).mean()), abs=1e-4)
    assert effects.loc["en", "kl"] == 0
    assert effects.loc["en", "cosine_after"] == pytest.approx(1, abs=1e-6)


def test_finished_languages_are_kept(llama, small_cats, small_corpus, tmp_path, monkeypatch):
    clas = cl.Clas(small_cats, layers=(1,), alpha=-2.0)
    corpus = small_corpus.select(["en", "de"]).take(range(3))
    first = cl.measure_effects(llama, clas, corpus, out=tmp_path, progress=False)
    monkeypatch.setattr(
        "clas_lens.representations.effects._measure", lambda *args, **how: pytest.fail("measured again")
    )
    assert cl.measure_effects(llama, clas, corpus, out=tmp_path, progress=False).equals(first)
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        cl.measure_effects(llama, cl.Clas(small_cats, layers=(1,), alpha=1.0), corpus, out=tmp_path, progress=False)


def test_a_corpus_without_the_anchor_is_refused(llama, small_cats, small_corpus):
    with pytest.raises(ValueError, match="the corpus has no 'en', the anchor"):
        cl.measure_effects(llama, cl.Clas(small_cats, layers=(1,)), small_corpus.select(["de"]), progress=False)


def test_an_intervention_on_generated_tokens_is_refused(llama, small_cats, small_corpus):
    clas = cl.Clas(small_cats, layers=(1,), positions="generated")
    with pytest.raises(ValueError, match="give one with positions='all' or 'last'"):
        cl.measure_effects(llama, clas, small_corpus, progress=False)


def test_a_control_that_does_next_to_nothing_is_told(llama, small_corpus, small_cats):
    """How far is by hand; a factor of 1.0001 is next to nothing, and a random mask as strong as CLAS is not."""
    clas = cl.Clas(small_cats, layers=(1,), alpha=1.0)
    quiet = {"progress": False}
    with pytest.warns(UserWarning, match=r"hardly does anything: no next token changed .* moved by 0\.0"):
        weak = cl.measure_effects(llama, cl.RescaleMasks.uniform(replace(clas, alpha=2.5e-4)), small_corpus, **quiet)
    assert 0 < weak.query("language != 'en'")["moved"].min() < 0.001
    uniform = cl.RescaleMasks.uniform(replace(clas, alpha=20.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strong = cl.measure_effects(llama, uniform, small_corpus, **quiet).set_index("language")
    before = cl.collect_representations(llama, small_corpus, [1], **quiet)
    after = cl.collect_representations(llama, small_corpus, [1], intervention=uniform, **quiet)
    for code in small_corpus.languages:
        one, two = before.at(code, 1), after.at(code, 1)
        assert strong.loc[code, "moved"] == pytest.approx(
            float(((two - one).norm(dim=1) / one.norm(dim=1)).mean()), rel=1e-4
        )
    with pytest.raises(ValueError, match="say where cosines are taken"):
        cl.measure_effects(llama, cl.MatchedNoise.for_model(llama, clas), small_corpus, **quiet)


def test_activations_before_and_after(model, small_cats, small_corpus):
    corpus, layer, neuron = small_corpus.select(["en", "de"]).take(range(4)), 2, 5
    clas = cl.Clas(small_cats, layers=(layer,), alpha=1.0)
    frame = cl.representations.neuron_activations(
        model, corpus, layer, neuron, intervention=clas, batch_size=3, progress=False
    )
    values = frame.set_index(["language", "when", "example"])["value"]
    assert len(values) == 2 * 2 * 4
    for language in ("en", "de"):
        for row, example in enumerate(corpus.ids):
            _, cache = model.run_with_cache(model.to_tokens(corpus[language][row]))
            mean = float(cache[f"blocks.{layer}.mlp.hook_post"][0, 1:, neuron].mean())
            factor = float(clas.scale(language)[layer][neuron])  # the first steered layer: its inputs are unchanged
            assert values[language, "before", example] == pytest.approx(mean, abs=1e-5)
            assert values[language, "after", example] == pytest.approx(mean * factor, abs=1e-5)
    only = cl.representations.neuron_activations(model, corpus, layer, neuron, progress=False)
    assert set(only["when"]) == {"before"}


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_a_neuron_below_between_and_above_the_steered_layers(model, small_cats, small_corpus, layer):
    """Each text alone, from the first layer to the last."""
    corpus, clas = small_corpus.select(["de"]).take(range(3)), cl.Clas(small_cats, layers=(1, 3), alpha=2.0)
    frame = cl.representations.neuron_activations(model, corpus, layer, 5, intervention=clas, progress=False)
    for found, text in zip(frame.query("when == 'after'")["value"], corpus["de"], strict=True):
        with cl.steer(model, clas, "de"):
            _, cache = model.run_with_cache(model.to_tokens(text))
        assert found == pytest.approx(float(cache[f"blocks.{layer}.mlp.hook_post"][0, 1:, 5].mean()), abs=1e-5)


def test_layers_below_the_intervention_are_run_once(model, small_cats, small_corpus, tmp_path):
    """For both passes; what comes of it is what whole passes give."""
    corpus, clas, layers = small_corpus.select(["en", "de"]), cl.Clas(small_cats, layers=(3,), alpha=2.0), range(5)
    ran = []
    handles = [
        block.mlp.register_forward_hook(lambda *_, layer=layer: ran.append(layer))
        for layer, block in enumerate(model.blocks)
    ]
    try:
        cl.measure_effects(model, clas, corpus, layers=layers, representations=tmp_path, progress=False)
    finally:
        for handle in handles:
            handle.remove()
    assert ran
    assert ran == [0, 1, 2, 3, 4, 3, 4] * (len(ran) // 7)
    for name, intervention in (("before", None), ("after", clas)):
        whole = cl.collect_representations(model, corpus, layers, intervention=intervention, progress=False)
        assert len(list((tmp_path / name).iterdir())) == 2
        kept = cl.collect_representations(
            model, corpus, layers, intervention=intervention, out=tmp_path / name, progress=False
        )
        torch.testing.assert_close(kept.values, whole.values)
