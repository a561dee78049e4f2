"""LAPE and ActProb by hand and against a second calculation written from their definitions, and the selection's files."""

import math

import numpy as np
import pytest
import torch
from tiny import BACKEND

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.categories.percentiles import mean_batch_percentiles
from clas_lens.categories.selection import NeuronSelection, act_prob, category_selection, language_entropy, lape
from clas_lens.corpus.tokens import tokenize
from clas_lens.models.sites import gate_name
from clas_lens.statistics.histogram import bin_edges, quantile, share_above


def stats_with_open_gates(percent):
    """Statistics of 100 tokens a language whose gates are open in so many of them: [language][layer][neuron]."""
    accumulators = {}
    for code, counts in zip(["en", "de", "zh"], torch.tensor(percent), strict=True):
        accumulators[code] = cl.statistics.NeuronAccumulator(*counts.shape)
        accumulators[code].sums.gated += counts
        accumulators[code].count(samples=4, tokens=100)
    return cl.NeuronStatistics.from_accumulators(accumulators)


# Per neuron: open in % of the tokens of en, de, zh.
BY_HAND = {
    (0, 0): (90, 2, 2),  # H = 2 * 2/94 ln 47 + 90/94 ln(94/90) = 0.205
    (0, 1): (60, 60, 60),  # ln 3
    (0, 2): (1, 1, 30),  # 2 * 1/32 ln 32 + 30/32 ln(32/30) = 0.277
    (1, 0): (80, 80, 1),  # about ln 2
    (1, 1): (3, 3, 3),
    (1, 2): (0, 0, 0),
}


@pytest.fixture
def by_hand():
    return stats_with_open_gates(
        [[[BY_HAND[layer, neuron][row] for neuron in range(3)] for layer in range(2)] for row in range(3)]
    )


def chosen(selection):
    return {code: selection.of(code).nonzero().tolist() for code in selection.languages}


def test_lape_by_hand(by_hand):
    # The 18 rates in order: 0 0 0 1 1 1 2 2 3 3 3 30 60 60 60 80 80 90. round(.6 * 18) = 11: the bar is 3, so (1, 1) and
    # (1, 2) are out. Half of the 6 neurons, by entropy: (0, 0), (0, 2), (1, 0).
    selection = lape(by_hand, rate_percentile=60.0, share=0.5)
    assert chosen(selection) == {"en": [[0, 0], [1, 0]], "de": [[1, 0]], "zh": [[0, 2]]}
    assert selection.union.nonzero().tolist() == [[0, 0], [0, 2], [1, 0]]
    assert lape(by_hand, rate_percentile=60.0, share=1 / 6).union.nonzero().tolist() == [[0, 0]]


def test_fewer_neurons_than_asked_for_are_all_that_pass(by_hand):
    # round(.7 * 18) = 13: the bar is 60, which (0, 1) reaches and does not exceed.
    assert chosen(lape(by_hand, rate_percentile=70.0, share=1.0)) == {"en": [[0, 0], [1, 0]], "de": [[1, 0]], "zh": []}


def test_entropies_by_hand():
    rate = torch.tensor([[0.9, 0.6, 0.5, 0.0], [0.02, 0.6, 0.0, 0.0], [0.02, 0.6, 0.0, 0.0]], dtype=torch.float64)
    entropy = language_entropy(rate)
    assert entropy[:3].tolist() == pytest.approx(
        [2 * 2 / 94 * math.log(47) + 90 / 94 * math.log(94 / 90), math.log(3), 0.0]
    )
    assert entropy[3].isnan()


def test_equal_entropies_go_to_the_first_neuron():
    """The same three rates in other languages, and in another proportion, are the same entropy."""
    rates = [(9, 1, 2), (2, 9, 1), (18, 4, 2), (1, 2, 9)]
    stats = stats_with_open_gates([[[rate[row]] for rate in rates] for row in range(3)])
    for count in (1, 2, 3):
        selection = lape(stats, rate_percentile=10.0, share=count / 4)
        assert selection.union.nonzero().tolist() == [[layer, 0] for layer in range(count)]


def lape_by_definition(opened, tokens, percentile, share):
    """METHOD.md, word by word, one neuron at a time; returns {language: {(layer, neuron)}}."""
    n_languages, n_layers, n_neurons = opened.shape
    p = {
        (i, j): [opened[row, i, j] / tokens[row] for row in range(n_languages)]
        for i in range(n_layers)
        for j in range(n_neurons)
    }
    every = sorted(rate for rates in p.values() for rate in rates)
    bar = every[round(len(every) * percentile / 100) - 1]
    entropies = []
    for place, rates in p.items():
        if max(rates) <= bar:
            continue
        entropy = 0.0
        for rate in rates:
            if rate > 0:
                entropy -= rate / sum(rates) * math.log(rate / sum(rates))
        entropies.append((round(entropy, 9), place))
    taken = [place for _, place in sorted(entropies)[: round(share * len(p))]]
    return [{place for place in taken if p[place][row] > bar} for row in range(n_languages)]


@pytest.mark.parametrize(("percentile", "share"), [(95.0, 0.01), (95.0, 0.05), (80.0, 0.1), (50.0, 0.3)])
def test_lape_equals_its_definition(small_stats, percentile, share):
    selection = lape(small_stats, rate_percentile=percentile, share=share)
    expected = lape_by_definition(
        small_stats.sums.gated.numpy().astype(float), small_stats.n_tokens.tolist(), percentile, share
    )
    for row, language in enumerate(small_stats.languages):
        assert {(i, j) for i, j in selection.of(language).nonzero().tolist()} == expected[row]
    assert selection.masks.any()


# --- ActProb ---


def fed_gates(values):
    """Statistics with histograms of a one-layer model from [language][neuron] lists of gate values."""
    accumulators = {}
    for code, gates in zip(["en", "de"], values, strict=True):
        gate = torch.tensor(gates).T
        accumulators[code] = cl.statistics.NeuronAccumulator(1, gate.shape[1], histograms=True)
        weights = torch.ones(len(gate))
        accumulators[code].update_gate(0, gate, weights)
        accumulators[code].update_activated(0, gate.relu(), weights)
        accumulators[code].count(samples=1, tokens=len(gate))
    return cl.NeuronStatistics.from_accumulators(accumulators)


def test_act_prob_by_hand():
    up, down = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 13.0, 26.0, 52.0], [-1.0] * 10
    # Of the 20 tokens of each neuron the 90th percentile is the 18th: 13 in neurons 0 and 2, 0.2 of the languages' tokens
    # above it; in neuron 1 the two languages are alike: the 18th of 20 is 26, exceeded by 0.1 in both.
    stats = fed_gates([[up, up, down], [down, up, up]])
    assert chosen(act_prob(stats, share=1 / 3)) == {"en": [[0, 0]], "de": [[0, 2]]}
    # With two each, neuron 1 comes second: no token of the other language's neuron exceeds its percentile.
    assert chosen(act_prob(stats, share=2 / 3)) == {"en": [[0, 0], [0, 1]], "de": [[0, 1], [0, 2]]}


def test_act_prob_ties_go_to_the_first_neuron():
    same = [0.1, 1.0, 5.0]
    assert chosen(act_prob(fed_gates([[same] * 4, [same] * 4]), share=0.5)) == {
        "en": [[0, 0], [0, 1]],
        "de": [[0, 0], [0, 1]],
    }


@pytest.fixture(scope="module")
def counted(lens_models, small_corpus):
    return cl.collect_statistics(lens_models["llama", BACKEND], small_corpus, histograms=True, progress=False)


def exact_gates(model, corpus, layer):
    """Per language the gates of all content tokens: [token neuron], by TransformerLens's own cache."""
    gates = []
    for language in corpus.languages:
        tokenized = tokenize(model.tokenizer, corpus[language])
        held = []
        for ids in tokenized.ids:
            _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=gate_name(layer))
            held.append(cache[gate_name(layer)][0, tokenized.n_prefix :])
        gates.append(torch.cat(held).double().numpy())
    return gates


def test_act_prob_scores_are_within_one_bin_of_the_exact_ones(llama, small_corpus, counted):
    gates = exact_gates(llama, small_corpus, layer=2)
    threshold = np.quantile(np.concatenate(gates), 0.9, axis=0, method="inverted_cdf")
    histogram = counted.histogram("gate")[:, 2]
    scores = share_above(histogram, quantile(histogram.sum(0), 0.9))
    place = torch.bucketize(torch.tensor(threshold).float(), bin_edges())
    for row, values in enumerate(gates):
        exact = (values > threshold).mean(0)
        mass = histogram[row].gather(-1, place[:, None])[:, 0] / len(values)
        assert (np.abs(scores[row].numpy() - exact) <= mass.numpy() + 2 / len(values)).all()  # float error at the edges
        assert np.corrcoef(scores[row].numpy(), exact)[0, 1] > 0.98


def test_act_prob_takes_the_same_number_in_every_language(counted):
    selection = act_prob(counted, share=0.05)
    assert selection.masks.sum((1, 2)).tolist() == [round(0.05 * 240)] * 4


def test_per_language_every_neuron_scores_what_the_percentile_leaves(counted):
    """Why the percentile is pooled by default: over all of a language's tokens at once there is nothing to choose by."""
    for layer in range(5):
        counts = counted.histogram("gate")[:, layer]
        own = share_above(counts, quantile(counts, 0.9))
        torch.testing.assert_close(own, torch.full_like(own, 0.1), atol=1e-4, rtol=0)
    pooled, language = (act_prob(counted, share=0.05, quantile_over=over) for over in ("pooled", "language"))
    assert pooled.options == {"percentile": 90.0, "share": 0.05, "quantile_over": "pooled"}
    assert language.options["quantile_over"] == "language"
    assert torch.equal(pooled.masks, act_prob(counted, share=0.05).masks)
    assert not torch.equal(pooled.masks, language.masks)


def test_act_prob_with_given_thresholds_by_hand():
    """Of ten tokens 3 are above 3.2 (a bin's edge is near), none above 100, all above -2."""
    values = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 13.0, 26.0, 52.0]
    stats = fed_gates([[values] * 3, [values] * 3])
    thresholds = torch.tensor([[[100.0, -2.0, 10.0]], [[10.0, 100.0, 20.0]]])
    found = act_prob(stats, share=1 / 3, quantile_over="language", thresholds=thresholds)
    assert chosen(found) == {"en": [[0, 1]], "de": [[0, 0]]}
    assert (
        found.options["thresholds"]
        != act_prob(stats, share=1 / 3, quantile_over="language", thresholds=thresholds + 1).options["thresholds"]
    )
    with pytest.raises(ValueError, match="thresholds go with 'language' alone; got 'pooled' with thresholds"):
        act_prob(stats, share=1 / 3, thresholds=thresholds)
    with pytest.raises(ValueError, match=r"thresholds are \(2, 1, 2\), the statistics \(2, 1, 3\)"):
        act_prob(stats, share=1 / 3, quantile_over="language", thresholds=thresholds[..., :2])


def test_batch_percentiles_are_the_released_codes(model, small_corpus):
    """NumPy's percentile of each batch's gates, and then the mean over batches."""
    corpus = small_corpus.select(["en", "zh"]).take(range(4))
    one, two = (
        mean_batch_percentiles(model, corpus, percentile=80.0, batch_size=size, progress=False) for size in (4, 1)
    )
    for row, texts in enumerate(corpus.texts.values()):
        tokenized = tokenize(model.tokenizer, texts)
        held = []
        for ids in tokenized.ids:
            _, cache = model.run_with_cache(torch.tensor([ids]), names_filter=gate_name(3))
            held.append(cache[gate_name(3)][0, tokenized.n_prefix :].numpy())
        np.testing.assert_allclose(one[row, 3], np.percentile(np.concatenate(held), 80, axis=0), atol=1e-4)
        np.testing.assert_allclose(two[row, 3], np.mean([np.percentile(x, 80, axis=0) for x in held], 0), atol=1e-4)
    with pytest.raises(ValueError, match="above 0 and below 100; got 100"):
        mean_batch_percentiles(model, corpus, percentile=100.0, progress=False)


def test_act_prob_needs_histograms(small_stats):
    with pytest.raises(ValueError, match="histograms=True"):
        act_prob(small_stats, share=0.1)


# --- categories, the result, files ---


def test_category_selection(small_cats):
    selection = category_selection(small_cats, layers=(1, 3))
    for code in small_cats.languages:
        assert torch.equal(selection.of(code)[[1, 3]], small_cats.specific_to(code)[[1, 3]])
        assert not selection.of(code)[[0, 2, 4]].any()
    assert torch.equal(category_selection(small_cats).of("de"), small_cats.specific_to("de"))
    with pytest.raises(ValueError, match=r"among 0\.\.4"):
        category_selection(small_cats, layers=(5,))


def test_shares_and_unknown_languages(by_hand):
    selection = lape(by_hand, rate_percentile=60.0, share=0.5)
    table = selection.shares()
    assert list(table.columns) == ["language", "layer", "count", "percent"]
    english = table[table.language == "en"]
    assert english["count"].tolist() == [1, 1]
    assert english["percent"].tolist() == pytest.approx([100 / 3, 100 / 3])
    assert "2 en, 1 de, 1 zh" in repr(selection)
    with pytest.raises(
        ValueError, match="no neurons selected for 'sw': it was not in the statistics; available: en, de, zh"
    ):
        selection.of("sw")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate_percentile": 0.0}, "between 0 and 100, got 0"),
        ({"rate_percentile": 100.5}, "between 0 and 100"),
        ({"share": 0.01}, "share=0.01 of 6 neurons is none"),
        ({"share": 1.5}, "a share is in"),
    ],
)
def test_options_are_checked(by_hand, options, message):
    with pytest.raises(ValueError, match=message):
        lape(by_hand, **{"share": 0.5, **options})


def test_one_language_is_refused(by_hand):
    with pytest.raises(ValueError, match="at least 2 are needed, got en"):
        lape(by_hand.select(["en"]), share=0.5)


def test_save_and_load(tmp_path, small_stats):
    selection = lape(small_stats, share=0.1)
    loaded = NeuronSelection.load(selection.save(tmp_path / "lape.safetensors"))
    assert torch.equal(loaded.masks, selection.masks)
    assert loaded.fingerprint() == selection.fingerprint()
    assert loaded.options == {"rate_percentile": 95.0, "share": 0.1}
    assert loaded.source["pooling"] == "sample"
    with pytest.raises(ArtifactError, match="no neuron selection"):
        NeuronSelection.load(tmp_path / "other.safetensors")
