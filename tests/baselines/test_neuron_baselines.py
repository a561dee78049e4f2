"""Language Arithmetics, amplified neurons and SADI by hand and against Hugging Face with hooks on act_fn."""

from dataclasses import replace

import pytest
import torch
from tiny import logits

import clas_lens as cl
from clas_lens.baselines.amplify import Amplify, sadi_neurons
from clas_lens.baselines.arithmetic import GateArithmetic, LanguageArithmetics
from clas_lens.baselines.load import load_intervention
from clas_lens.categories.selection import NeuronSelection, lape
from clas_lens.steering.edits import LanguageTable


@pytest.fixture(scope="module")
def selection(small_stats):
    return lape(small_stats, rate_percentile=70.0, share=0.3)


def hf_with(hf_model, change, tokens):
    """Logits with `change(layer, output of act_fn)`."""
    handles = [
        block.mlp.act_fn.register_forward_hook(lambda module, args, out, layer=layer: change(layer, out.clone()))
        for layer, block in enumerate(hf_model.model.layers)
    ]
    try:
        with torch.no_grad():
            return hf_model(tokens).logits
    finally:
        for handle in handles:
            handle.remove()


def test_arithmetic_by_hand():
    """act(gate) = (2, 3, 5), W_up x = (10, 10, 10), h = (20, 30, 50); neuron 0 is switched off, 1 gains 0.5 * 4, 2 stays."""
    keep = LanguageTable.of({"de": torch.tensor([0.0, 1.0, 1.0]), "en": torch.ones(3)}, ["de", "en"])
    add = LanguageTable.of({"de": torch.tensor([0.0, 2.0, 0.0]), "en": torch.zeros(3)}, ["de", "en"])
    edit = GateArithmetic(torch.arange(3), keep, add, gated=True)
    h = torch.tensor([20.0, 30.0, 50.0]).expand(2, 1, 3)
    edit.see_up(torch.full((2, 1, 3), 10.0), [0, 1])
    assert edit(h, [0, 1]).tolist() == [[[0.0, 50.0, 50.0]], [[20.0, 30.0, 50.0]]]
    plain = GateArithmetic(torch.arange(3), keep, add, gated=False)
    assert plain(h, [0, 1])[0].tolist() == [[0.0, 32.0, 50.0]]


@pytest.mark.parametrize(("toward", "d"), [("anchor", 0.0), ("anchor", -0.3), ("own", None)])
def test_arithmetic_equals_the_released_order(model, hf_models, small_stats, selection, tokens, toward, d):
    """Set the source's neurons, then add to the target's, at the output of act_fn."""
    chosen = LanguageArithmetics.of(small_stats, selection, toward=toward, d=d, alpha=1.5)
    target = "en" if toward == "anchor" else "de"
    row = selection.languages.index(target)

    def change(layer, out):
        if d is not None:
            out[0][:, selection.of("de")[layer]] = d
        mask = selection.of(target)[layer]
        out[0][:, mask] += 1.5 * small_stats.gate_act_mean[row, layer, mask]
        return out

    expected, plain = hf_with(hf_models["llama"], change, tokens), logits(model, tokens)
    with cl.steer(model, chosen, language=["de", "en"]):
        got = logits(model, tokens)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(got[1], plain[1])
    assert (got[0] - plain[0]).abs().max() > 0.01
    with cl.steer(model, replace(chosen, alpha=0.0), language="de"):
        assert torch.equal(logits(model, tokens), plain)


def test_amplified_neurons_equal_act_fn_times_a_factor(model, hf_models, selection, tokens):
    def change(layer, out):
        out[0][:, selection.of("zh")[layer]] *= 3.0
        return out

    expected, plain = hf_with(hf_models["llama"], change, tokens), logits(model, tokens)
    with cl.steer(model, Amplify(selection, alpha=2.0), language=["zh", "en"]):
        got = logits(model, tokens)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(got[1], plain[1])


def stats_of_last_tokens(means):
    """[lang layer neuron] means of act(gate) at the last token of one text."""
    accumulators = {}
    for code, mean in zip(("en", "de", "zh"), torch.tensor(means), strict=True):
        accumulators[code] = cl.statistics.NeuronAccumulator(*mean.shape, pooling="last")
        accumulators[code].sums.gate_act_sum += mean
        accumulators[code].count(samples=1, tokens=1)
    return cl.NeuronStatistics.from_accumulators(accumulators)


def test_sadi_by_hand():
    """en - de is ((1, -9), (4, 2)), so that its two are both in layer 1; en - zh is ((0, 5), (-1, 3))."""
    stats = stats_of_last_tokens([[[1.0, 0.0], [4.0, 3.0]], [[0.0, 9.0], [0.0, 1.0]], [[1.0, -5.0], [5.0, 0.0]]])
    chosen = sadi_neurons(stats, k=2)
    assert chosen.languages == ("de", "zh")
    assert chosen.of("de").nonzero().tolist() == [[1, 0], [1, 1]]
    assert chosen.of("zh").nonzero().tolist() == [[0, 1], [1, 1]]
    assert chosen.options == {"k": 2, "anchor": "en"}
    with pytest.raises(ValueError, match="k must be from 1 to 4 neurons, got 5"):
        sadi_neurons(stats, k=5)
    with pytest.raises(ValueError, match="the anchor 'fr' and another language; got en, de, zh"):
        sadi_neurons(stats, anchor="fr", k=1)


def test_sadi_needs_last_tokens(small_stats):
    with pytest.raises(ValueError, match="compares last tokens, got pooling='sample'"):
        sadi_neurons(small_stats)


def test_what_is_refused(small_stats, selection, llama, tokens):
    with pytest.raises(cl.SteeringError, match="the very neurons that d would switch off"):
        LanguageArithmetics.of(small_stats, selection, toward="own")
    with pytest.raises(cl.SteeringError, match="unknown toward 'there'; available: anchor, own"):
        replace(LanguageArithmetics.of(small_stats, selection), toward="there")
    none = NeuronSelection(torch.zeros(2, 5, 48, dtype=torch.bool), ("en", "de"), "mine")
    with pytest.raises(cl.SteeringError, match="nothing to amplify"):
        Amplify(none)
    with pytest.raises(cl.SteeringError, match="the anchor 'en' has no neurons to add to"):
        LanguageArithmetics(none, torch.zeros(2, 5, 48))
    with pytest.raises(ValueError, match="no neurons to amplify for 'fr' among en, de, zh, ar"):
        with cl.steer(llama, Amplify(selection), language="fr"):
            pass
    plain = logits(llama, tokens)
    with cl.steer(llama, Amplify(selection, missing="untouched"), language="fr"):
        assert torch.equal(logits(llama, tokens), plain)


def test_save_and_load(small_stats, selection, tmp_path):
    for made in (
        Amplify(selection, alpha=-0.5, positions="prompt_last"),
        LanguageArithmetics.of(small_stats, selection, toward="own", d=None),
        LanguageArithmetics.of(small_stats, selection, d=0.25),
    ):
        loaded = load_intervention(made.save_pretrained(tmp_path))
        assert loaded.fingerprint() == made.fingerprint()
        assert loaded.settings() == made.settings()
        assert set(loaded.source["example_keys"]) == set(small_stats.source()["example_keys"])
