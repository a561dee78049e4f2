"""The accumulator against hand-worked numbers, and the frozen result: merging, saving, loading."""

import pytest
import torch

import clas_lens as cl
from clas_lens.accumulate import NonFiniteActivationError, token_weights
from clas_lens.artifacts import ArtifactError


def fed(pooling="sample"):
    """Two samples of 2 and 1 tokens, one layer, two neurons."""
    accumulator = cl.NeuronAccumulator(1, 2, pooling=pooling)
    post = torch.tensor([[1.0, -2.0], [3.0, 0.0], [-4.0, 6.0]])
    gate = torch.tensor([[1.0, -1.0], [1.0, 0.0], [-1.0, 2.0]])
    lengths = [2, 1]
    accumulator.update(0, post, token_weights(lengths, pooling), torch.tensor([5, 5, 7]), torch.tensor([0, 1, 0]))
    accumulator.update_gate(0, gate)
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
    assert stats.max[0, 0].tolist() == [3.0, 6.0]
    assert stats.max_example[0, 0].tolist() == [5, 7]
    assert stats.max_position[0, 0].tolist() == [1, 0]
    assert stats.n_tokens.tolist() == [3, 3]
    assert stats.n_samples.tolist() == [2, 2]


def test_token_pooling_by_hand():
    stats = cl.NeuronStatistics.from_accumulators({"en": fed("token"), "de": fed("token")})
    torch.testing.assert_close(stats.mean[0, 0], torch.tensor([0.0, 4 / 3]))


def test_maxima_start_below_every_value_and_ties_go_to_the_earliest():
    accumulator = cl.NeuronAccumulator(1, 1)
    one = torch.ones(1)
    for example, position in ((4, 2), (3, 5), (3, 1)):
        accumulator.update(0, -2.0 * one[:, None], one, torch.tensor([example]), torch.tensor([position]))
    assert accumulator.max.item() == -2.0
    assert (accumulator.max_example.item(), accumulator.max_position.item()) == (3, 1)


def test_reading_does_not_change_the_accumulator():
    accumulator = fed()
    before = {name: value.clone() for name, value in accumulator.tensors().items()}
    cl.NeuronStatistics.from_accumulators({"en": accumulator, "de": fed()}).mean.add_(1)
    assert all(torch.equal(before[name], value) for name, value in accumulator.tensors().items())


def test_merging_is_associative_and_refuses_other_settings():
    def chain(order):
        total = cl.NeuronAccumulator(1, 2)
        for part in order:
            total.merge(part)
        return total.tensors()

    parts = [fed(), fed(), fed()]
    parts[1].max += 1
    forward, backward = chain(parts), chain(parts[::-1])
    assert all(torch.equal(forward[name], backward[name]) for name in forward)
    with pytest.raises(ValueError, match="pooling 'sample' against 'token'"):
        parts[0].merge(fed("token"))
    with pytest.raises(ValueError, match="shape"):
        parts[0].merge(cl.NeuronAccumulator(2, 2))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_activations_name_layer_and_language(value):
    accumulator = cl.NeuronAccumulator(3, 2)
    post = torch.tensor([[1.0, value]])
    accumulator.update(2, post, torch.ones(1), torch.tensor([0]), torch.tensor([0]))
    with pytest.raises(NonFiniteActivationError, match="layer 2, language 'sw'"):
        accumulator.check_finite("sw")


def test_languages_without_samples_are_refused():
    with pytest.raises(ValueError, match="no samples seen for de"):
        cl.NeuronStatistics.from_accumulators({"en": fed(), "de": cl.NeuronAccumulator(1, 2)})


def test_save_and_load(tmp_path, small_stats):
    small_stats.save(tmp_path)
    loaded = cl.NeuronStatistics.load(tmp_path, small_stats.languages)
    assert loaded.languages == small_stats.languages
    assert loaded.example_ids == small_stats.example_ids
    assert loaded.model == small_stats.model
    assert loaded.texts == small_stats.texts
    assert all(torch.equal(loaded.sums[name], small_stats.sums[name]) for name in loaded.sums)
    assert torch.equal(loaded.mean, small_stats.mean)
    assert cl.NeuronStatistics.load(tmp_path).languages == tuple(sorted(small_stats.languages))
    with pytest.raises(ArtifactError, match="no statistics for 'fr' .*available: ar, de, en, zh"):
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
