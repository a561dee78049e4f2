"""The accumulator against hand-worked numbers, and the frozen result: merging, saving, loading."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import clas_lens as cl
from clas_lens.artifacts import ArtifactError, load_tensors, save_tensors
from clas_lens.corpus.reading import NonFiniteActivationError
from clas_lens.statistics.accumulator import token_weights
from clas_lens.statistics.files import KIND
from clas_lens.statistics.histogram import bin_edges, count_bins, quantile, share_above


def fed(pooling="sample", histograms=False):
    """Two samples of 2 and 1 tokens, one layer, two neurons."""
    accumulator = cl.statistics.NeuronAccumulator(1, 2, pooling=pooling, histograms=histograms)
    post = torch.tensor([[1.0, -2.0], [3.0, 0.0], [-4.0, 6.0]])
    gate = torch.tensor([[1.0, -1.0], [1.0, 0.0], [-1.0, 2.0]])
    lengths = [2, 1]
    accumulator.update(0, post, token_weights(lengths, pooling), torch.tensor([5, 5, 7]), torch.tensor([0, 1, 0]))
    accumulator.update_gate(0, gate, token_weights(lengths, pooling))
    accumulator.update_activated(0, gate.relu(), token_weights(lengths, pooling))
    accumulator.count(samples=2, tokens=3)
    return accumulator


def test_sample_pooling_by_hand():
    stats = cl.NeuronStatistics.from_accumulators({"en": fed(), "de": fed()})
    # neuron 0: ((1 + 3) / 2 + -4) / 2 = -1; neuron 1: ((-2 + 0) / 2 + 6) / 2 = 2.5
    assert stats.mean[0, 0].tolist() == [-1.0, 2.5]
    # squares: ((1 + 9) / 2 + 16) / 2 = 10.5; ((4 + 0) / 2 + 36) / 2 = 19
    assert stats.second_moment[0, 0].tolist() == [10.5, 19.0]
    torch.testing.assert_close(stats.firing_rate[0, 0], torch.tensor([2 / 3, 1 / 3]))
    torch.testing.assert_close(stats.gate_rate[0, 0], torch.tensor([2 / 3, 1 / 3]))
    # gate: ((1 + 1) / 2 + -1) / 2 = 0; ((-1 + 0) / 2 + 2) / 2 = .75; relu: ((1 + 1) / 2 + 0) / 2 = .5; (0 + 2) / 2 = 1
    assert stats.gate_mean[0, 0].tolist() == [0.0, 0.75]
    assert stats.gate_act_mean[0, 0].tolist() == [0.5, 1.0]
    assert stats.max[0, 0].tolist() == [3.0, 6.0]
    assert stats.max_example[0, 0].tolist() == [5, 7]
    assert stats.max_position[0, 0].tolist() == [1, 0]
    assert stats.n_tokens.tolist() == [3, 3]
    assert stats.n_samples.tolist() == [2, 2]


def test_token_pooling_by_hand():
    stats = cl.NeuronStatistics.from_accumulators({"en": fed("token"), "de": fed("token")})
    torch.testing.assert_close(stats.mean[0, 0], torch.tensor([0.0, 4 / 3]))
    torch.testing.assert_close(stats.gate_mean[0, 0], torch.tensor([1 / 3, 1 / 3]))
    torch.testing.assert_close(stats.gate_act_mean[0, 0], torch.tensor([2 / 3, 2 / 3]))


def test_maxima_start_below_every_value_and_ties_go_to_the_earliest():
    accumulator = cl.statistics.NeuronAccumulator(1, 1)
    one = torch.ones(1)
    for example, position in ((4, 2), (3, 5), (3, 1)):
        accumulator.update(0, -2.0 * one[:, None], one, torch.tensor([example]), torch.tensor([position]))
    assert accumulator.sums.max.item() == -2.0
    assert (accumulator.sums.max_example.item(), accumulator.sums.max_position.item()) == (3, 1)


def test_maxima_are_where_argmax_finds_them_first():
    values = torch.randint(-3, 4, (50, 40), generator=torch.Generator().manual_seed(0)).float()
    accumulator = cl.statistics.NeuronAccumulator(1, 40)
    for rows in torch.arange(50).split(20):
        accumulator.update(0, values[rows].clone(), torch.ones(len(rows)), rows, 2 * rows)
    torch.testing.assert_close(accumulator.sums.max[0], values.amax(0))
    assert torch.equal(accumulator.sums.max_example[0], values.argmax(0))
    assert torch.equal(accumulator.sums.max_position[0], 2 * values.argmax(0))


def test_tokens_in_several_blocks_among_rows_that_do_not_count(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    post, gate = (torch.randn(400, 3, generator=draw) for _ in range(2))
    rows = torch.randperm(400, generator=draw)[:300]
    weights, examples, positions = torch.rand(300, generator=draw), torch.arange(300), 2 * torch.arange(300)
    monkeypatch.setattr("clas_lens.statistics.blocks.BLOCK", 3)  # 64 tokens, of which it makes no fewer
    for histograms in (False, True):
        accumulator = cl.statistics.NeuronAccumulator(1, 3, histograms=histograms)
        accumulator.update(0, post, weights, examples, positions, rows)
        accumulator.update_gate(0, gate, weights, rows)
        accumulator.update_activated(0, gate.relu(), weights, rows)
        sums, h, g = accumulator.sums, post[rows].double(), gate[rows].double()
        torch.testing.assert_close(sums.sum[0], weights.double() @ h, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(sums.square_sum[0], weights.double() @ h.square(), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(sums.gate_sum[0], weights.double() @ g, atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(sums.gate_act_sum[0], weights.double() @ g.relu(), atol=1e-4, rtol=1e-5)
        assert torch.equal(sums.fired[0], (h > 0).sum(0))
        assert torch.equal(sums.gated[0], (g > 0).sum(0))
        assert torch.equal(sums.max_example[0], h.argmax(0))
        assert torch.equal(sums.max_position[0], 2 * h.argmax(0))
        if histograms:
            assert torch.equal(sums.histogram[0], count_bins(post[rows]))
            assert torch.equal(sums.gate_histogram[0], count_bins(gate[rows]))
            assert torch.equal(sums.gate_act_histogram[0], count_bins(gate[rows].relu()))


def test_known_maxima_are_kept_and_beaten():
    whole, part = cl.statistics.NeuronAccumulator(1, 2), cl.statistics.NeuronAccumulator(1, 2)
    one = torch.ones(1)
    whole.update(0, torch.tensor([[5.0, 1.0]]), one, torch.tensor([3]), torch.tensor([1]))
    part.know_maxima(whole)
    part.update(0, torch.tensor([[2.0, 2.0]]), one, torch.tensor([0]), torch.tensor([4]))
    whole.merge(part)
    assert whole.sums.max[0].tolist() == [5.0, 2.0]
    assert whole.sums.max_example[0].tolist() == [3, 0]
    assert whole.sums.max_position[0].tolist() == [1, 4]


def test_reading_does_not_change_the_accumulator():
    accumulator = fed()
    before = {name: value.clone() for name, value in accumulator.sums.tensors().items()}
    cl.NeuronStatistics.from_accumulators({"en": accumulator, "de": fed()}).mean.add_(1)
    assert all(torch.equal(before[name], value) for name, value in accumulator.sums.tensors().items())


def test_merging_is_associative_and_refuses_other_settings():
    def chain(order):
        total = cl.statistics.NeuronAccumulator(1, 2, histograms=True)
        for part in order:
            total.merge(part)
        return total.sums.tensors()

    parts = [fed(histograms=True) for _ in range(3)]
    parts[1].sums.max += 1
    forward, backward = chain(parts), chain(parts[::-1])
    assert all(torch.equal(forward[name], backward[name]) for name in forward)
    with pytest.raises(ValueError, match="pooling 'sample' against 'token'"):
        parts[0].merge(fed("token"))
    with pytest.raises(ValueError, match="one of the two has histograms"):
        parts[0].merge(fed())
    with pytest.raises(ValueError, match="shape"):
        parts[0].merge(cl.statistics.NeuronAccumulator(2, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_activations_name_layer_and_language(value):
    accumulator = cl.statistics.NeuronAccumulator(3, 2)
    post = torch.tensor([[1.0, value]])
    accumulator.update(2, post, torch.ones(1), torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(NonFiniteActivationError, match="layer 2, language 'sw'"):
        accumulator.check_finite("sw")


def test_languages_without_samples_are_refused():
    with pytest.raises(ValueError, match="no samples seen for de"):
        cl.NeuronStatistics.from_accumulators({"en": fed(), "de": cl.statistics.NeuronAccumulator(1, 2)})


def test_save_and_load(tmp_path, small_stats):
    small_stats.save(tmp_path)
    loaded = cl.NeuronStatistics.load(tmp_path, small_stats.languages)
    assert loaded.languages == small_stats.languages
    assert loaded.example_ids == small_stats.example_ids
    assert loaded.model == small_stats.model
    assert loaded.texts == small_stats.texts
    held, saved = loaded.sums.tensors(), small_stats.sums.tensors()
    assert held.keys() == saved.keys()
    assert all(torch.equal(held[name], saved[name]) for name in held)
    assert torch.equal(loaded.mean, small_stats.mean)
    assert cl.NeuronStatistics.load(tmp_path).languages == tuple(sorted(small_stats.languages))
    with pytest.raises(ArtifactError, match="no neuron statistics of 'fr' .*available: ar, de, en, zh"):
        cl.NeuronStatistics.load(tmp_path, ["fr"])
    with pytest.raises(ArtifactError, match="no neuron statistics"):
        cl.NeuronStatistics.load(tmp_path / "nowhere")


def test_files_of_different_collections_do_not_mix(tmp_path, small_stats):
    from dataclasses import replace

    small_stats.select(["en"]).save(tmp_path)
    replace(small_stats.select(["de"]), settings={"max_tokens": 7}).save(tmp_path)
    with pytest.raises(ArtifactError, match="differ in settings"):
        cl.NeuronStatistics.load(tmp_path)


def test_damaged_files_say_so(tmp_path, small_stats):
    small_stats.save(tmp_path)
    file = tmp_path / "en.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="is damaged"):
        cl.NeuronStatistics.load(tmp_path, ["en"])


def test_files_of_an_earlier_version_say_so(tmp_path, small_stats):
    small_stats.save(tmp_path)
    tensors, header = load_tensors(tmp_path / "ar.safetensors", KIND)
    old = {name: values for name, values in tensors.items() if not name.startswith("gate_")}
    save_tensors(tmp_path / "ar.safetensors", KIND, old, header)
    with pytest.raises(ArtifactError, match="'ar' was measured by an earlier version, without gate_act_sum, gate_sum"):
        cl.NeuronStatistics.load(tmp_path)


@pytest.mark.parametrize("language", ["en", "de"])
def test_exchanged_files_are_refused(tmp_path, small_stats, language):
    small_stats.save(tmp_path)
    one, other, aside = (tmp_path / f"{name}.safetensors" for name in (language, "zh", "aside"))
    one.rename(aside)
    other.rename(one)
    aside.rename(other)
    with pytest.raises(
        ArtifactError, match=rf"{language}.safetensors holds neuron statistics of 'zh', not of '{language}'"
    ):
        cl.NeuronStatistics.load(tmp_path, [language, "ar"])


def test_files_keep_the_versions_that_they_were_measured_with(tmp_path, small_stats):
    from dataclasses import replace

    old = {"made": "2020-01-01", "versions": {"torch": "1.0"}}
    replace(small_stats, made=dict.fromkeys(small_stats.languages, old)).save(tmp_path / "first")
    loaded = cl.NeuronStatistics.load(tmp_path / "first")
    assert loaded.made["de"] == old
    loaded.save(tmp_path / "second")
    assert load_tensors(tmp_path / "second" / "de.safetensors", KIND)[1]["provenance"] == old


# --- histograms ---

values = st.lists(st.floats(-5000, 5000, width=32), min_size=1, max_size=40)


def test_bins_by_hand():
    edges = bin_edges()
    assert (edges[0].item(), edges[31].item(), edges[62].item()) == (-1000.0, 0.0, 1000.0)
    # 0.1 sinh(asinh(10^4) / 31) = 0.1 sinh(0.31947) = 0.03250; and 0.1 sinh(30 / 31 asinh(10^4)) = 726.5
    assert edges[32].item() == pytest.approx(0.0325, abs=1e-5)
    assert edges[61].item() == pytest.approx(726.5, abs=0.1)
    counts = count_bins(torch.tensor([[0.0], [0.01], [0.0325 / 2], [-2000.0], [2000.0]]))
    filled = {bin_: int(n) for bin_, n in enumerate(counts[0]) if n}
    assert filled == {0: 1, 31: 1, 32: 2, 63: 1}  # a bin holds its upper edge


@given(values=values, q=st.floats(0, 1))
def test_quantiles_are_as_near_as_documented(values, q):
    counts = count_bins(torch.tensor(values, dtype=torch.float32)[:, None])
    exact = np.quantile(np.clip(np.float32(values), -1000, 1000), q, method="inverted_cdf")
    assert abs(quantile(counts, q).item() - exact) <= 0.033 + 0.38 * abs(exact)


@given(values=values, threshold=st.floats(-2000, 2000, width=32))
def test_shares_above_are_off_by_at_most_one_bin(values, threshold):
    held = torch.tensor(values, dtype=torch.float32)
    counts = count_bins(held[:, None])
    edges = [-torch.inf, *bin_edges().tolist(), torch.inf]
    inside = next((low, high) for low, high in pairwise(edges) if low < threshold <= high)
    mass = ((held > inside[0]) & (held <= inside[1])).double().mean().item()
    exact = (held > threshold).double().mean().item()
    share = share_above(counts, torch.tensor([threshold])).item()
    assert abs(share - exact) <= mass + 1e-12
    for edge in (0.0, 1000.0):
        assert share_above(counts, torch.tensor([edge])).item() == pytest.approx((held > edge).double().mean().item())


def test_histograms_by_hand():
    stats = cl.NeuronStatistics.from_accumulators({"en": fed(histograms=True), "de": fed(histograms=True)})
    assert stats.histogram("h").shape == (2, 1, 2, 64)
    # neuron 0: h is 1, 3, -4; the gate 1, 1, -1; relu(gate) 1, 1, 0
    above, below = slice(32, 64), slice(0, 32)
    for of, positive in (("h", [2, 1]), ("gate", [2, 1]), ("gate_act", [2, 1])):
        counts = stats.histogram(of)[0, 0]
        assert counts[:, above].sum(1).tolist() == positive
        assert counts[:, below].sum(1).tolist() == [3 - n for n in positive]
    assert torch.equal(stats.histogram("gate")[0, 0, 0], count_bins(torch.tensor([[1.0], [1.0], [-1.0]]))[0])


def test_without_histograms_the_error_says_how_to_get_them(small_stats):
    with pytest.raises(ValueError, match=r"collect_statistics\(\.\.\., histograms=True\)"):
        small_stats.histogram("gate")
    with pytest.raises(ValueError, match="some languages have histograms and some have none"):
        cl.NeuronStatistics.from_accumulators({"en": fed(histograms=True), "de": fed()})


def test_histograms_survive_files_and_merging(tmp_path):
    stats = cl.NeuronStatistics.from_accumulators({"en": fed(histograms=True), "de": fed(histograms=True)})
    stats.save(tmp_path)
    loaded = cl.NeuronStatistics.load(tmp_path, ["en", "de"])
    assert torch.equal(loaded.histogram("gate_act"), stats.histogram("gate_act"))
    merged = stats.merge(loaded)
    assert torch.equal(merged.histogram("h"), 2 * stats.histogram("h"))
    assert torch.equal(merged.select(["de"]).histogram("h")[0], 2 * stats.histogram("h")[1])
