"""Controls by hand, by their counts, and against Hugging Face with a hook of its own; and the loader of all kinds."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import BACKEND, BACKENDS, logits

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.baselines.load import kinds, load_intervention
from clas_lens.baselines.masks import RescaleMasks, magnitude_bins, neuron_magnitude, shuffled_labels
from clas_lens.baselines.noise import MatchedNoise, smallest_input
from clas_lens.baselines.vectors import AddVector, Incline
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.models.sites import Site

LAYERS = (1, 2)


@pytest.fixture
def cats():
    """Categories at random, that fit every tiny model."""
    active = torch.rand(4, 5, 48, generator=torch.Generator().manual_seed(0)) < 0.4
    return NeuronCategories(active, ("en", "de", "zh", "ar"))


@pytest.fixture
def clas(cats):
    return cl.Clas(cats, layers=LAYERS, alpha=-2.0)


@pytest.fixture
def magnitude():
    return torch.rand(5, 48, generator=torch.Generator().manual_seed(1))


# --- the same rescaling of other neurons ---


def test_rescaled_masks_by_hand(llama):
    boost, cut = torch.tensor([[True, False, False]]), torch.tensor([[False, False, True]])
    masks = RescaleMasks(boost, cut, layers=(0,), alpha=-2.0, beta=0.4, gamma=0.2)
    assert masks.scale("de")[0].tolist() == pytest.approx([0.2, 1.0, 1.4])
    assert masks.scale("en")[0].tolist() == [1.0, 1.0, 1.0]
    (edit,) = masks.edits(llama, ["de", "en"]).values()
    h = torch.tensor([[[10.0, 20.0, -5.0]], [[1.0, 2.0, 3.0]]])
    torch.testing.assert_close(edit(h, [0, 1]), torch.tensor([[[2.0, 20.0, -7.0]], [[1.0, 2.0, 3.0]]]))


def test_clas_own_masks_steer_as_clas_does(model, clas, tokens):
    same = RescaleMasks.other_categories(
        clas, boost=NeuronCategory.PARTIAL_SHARED, cut=NeuronCategory.LANGUAGE_SPECIFIC
    )
    with cl.steer(model, clas, language=["de", "en"]):
        expected = logits(model, tokens)
    with cl.steer(model, same, language=["de", "en"]):
        assert torch.equal(logits(model, tokens), expected)


def test_other_categories(clas, cats):
    masks = RescaleMasks.other_categories(clas)
    assert torch.equal(masks.boost, cats.active.all(0))
    assert torch.equal(masks.cut, ~cats.active.any(0))
    assert (masks.name, masks.alpha, masks.layers) == ("boost_all-shared_cut_dead", -2.0, LAYERS)
    with pytest.raises(cl.SteeringError, match="boost and cut overlap in"):
        RescaleMasks.other_categories(clas, cut=NeuronCategory.ALL_SHARED)


def test_uniform_rescale(clas):
    scale = RescaleMasks.uniform(clas).scale("zh")
    assert sorted(scale) == [1, 2]
    assert all(torch.equal(scale[layer], torch.full((48,), 1 - 2.0 * 0.4, dtype=torch.float64)) for layer in LAYERS)


# --- matched random masks ---


def test_deciles_by_hand():
    values = torch.tensor([5.0, 1.0, 4.0, 1.0, 3.0, 9.0])
    assert magnitude_bins(values, bins=3).tolist() == [2, 0, 1, 0, 1, 2]
    assert magnitude_bins(torch.zeros(4), bins=2).tolist() == [0, 0, 1, 1]


def test_random_masks_match_in_size_and_deciles(clas, cats, magnitude):
    random = RescaleMasks.matched_random(clas, magnitude, seed=3)
    counts = cats.active.sum(0)
    assert not (random.boost & random.cut).any()
    for layer in LAYERS:
        order = np.argsort(magnitude[layer].numpy())
        decile = np.empty(48, dtype=int)
        decile[order] = np.arange(48) * 10 // 48
        for mask, real in ((random.boost, (counts == 2) | (counts == 3)), (random.cut, counts == 1)):
            got, wanted = (np.bincount(decile[m[layer].numpy()], minlength=10) for m in (mask, real))
            assert got.tolist() == wanted.tolist()
    assert not random.boost[0].any()
    assert not torch.equal(random.boost[1], cats.mask(NeuronCategory.PARTIAL_SHARED)[1])


def test_random_masks_are_reproducible(clas, magnitude):
    first, again, other = (RescaleMasks.matched_random(clas, magnitude, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint() == again.fingerprint()
    assert not torch.equal(first.boost, other.boost)
    alone = RescaleMasks.matched_random(replace(clas, layers=(2,)), magnitude, seed=3)
    assert torch.equal(alone.boost[2], first.boost[2])


def test_random_masks_are_uniform_within_a_decile(clas, magnitude):
    """Over many seeds each neuron of a decile is drawn as often as the others."""
    drawn = (
        sum(
            RescaleMasks.matched_random(replace(clas, layers=(1,)), magnitude, seed=s).boost[1].double()
            for s in range(400)
        )
        / 400
    )
    decile = magnitude_bins(magnitude[1])
    for one in range(10):
        rates = drawn[decile == one]
        assert float((rates - rates.mean()).abs().max()) < 0.12


def test_what_matched_random_refuses(clas, magnitude):
    with pytest.raises(cl.SteeringError, match="need specific='union', got 'current'"):
        RescaleMasks.matched_random(replace(clas, specific="current"), magnitude, seed=0)
    with pytest.raises(cl.SteeringError, match=r"magnitudes are \(4, 48\), the categories \(5, 48\)"):
        RescaleMasks.matched_random(clas, magnitude[:4], seed=0)


def test_neuron_magnitude_is_the_length_of_the_mean_output(model, small_stats, hf_models):
    got = neuron_magnitude(model, small_stats)
    for layer, neuron in ((0, 0), (3, 17)):
        column = hf_models["llama"].model.layers[layer].mlp.down_proj.weight[:, neuron].detach()
        lengths = [float((small_stats.mean[lang, layer, neuron] * column).norm()) for lang in range(4)]
        assert float(got[layer, neuron]) == pytest.approx(sum(lengths) / 4, rel=1e-5)


def test_magnitudes_of_another_model_are_refused(lens_models, small_stats):
    with pytest.raises(cl.SteeringError, match="with other weights than 'tiny-qwen2'"):
        neuron_magnitude(lens_models["qwen2", BACKEND], small_stats)


# --- norm-matched noise ---


def test_smallest_input_by_hand():
    """Neurons 0 and 1 write (1, 0), neuron 2 writes (0, 2): the least that writes (3, 4) / 5 is shared by the first two."""
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    torch.testing.assert_close(
        smallest_input(weights, torch.tensor([3.0, 4.0])), torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    )
    # What cannot be written is left out: of (3, 4) only (3, 0), which has direction (1, 0).
    flat = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    torch.testing.assert_close(smallest_input(flat, torch.tensor([3.0, 4.0])), torch.tensor([0.5, 0.0]).double())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_noise_moves_the_mlp_output_as_far_as_clas(lens_models, hf_models, clas, tokens, family, backend):
    """One steered layer, in Hugging Face's model: the output of down_proj moves by CLAS's distance, always along n."""
    model, hf = lens_models[family, backend], hf_models[family]
    noise = MatchedNoise.for_model(model, replace(clas, layers=(2,)), seed=5)
    down = hf.model.layers[2].mlp.down_proj
    direction = down.weight.detach().double() @ noise.directions[0]
    assert float(direction.norm()) == pytest.approx(1, abs=1e-6)
    clas_scale = clas.scale("de")[2].float()
    distances = []

    def hook(module, inputs, output):
        with_clas = torch.nn.functional.linear(inputs[0] * clas_scale, module.weight)
        distance = (with_clas - output).norm(dim=-1, keepdim=True)
        distance[1] = 0  # the second row is English
        distances.append(distance)
        return output + distance * direction.float()

    handle = down.register_forward_hook(hook)
    with torch.no_grad():
        expected = hf(tokens).logits
    handle.remove()
    assert float(distances[0][0].min()) > 1e-3
    with cl.steer(model, noise, language=["de", "en"]):
        got = logits(model, tokens)
    torch.testing.assert_close(got.log_softmax(-1), expected.log_softmax(-1), atol=2e-3, rtol=1e-3)
    assert torch.equal(got[1], logits(model, tokens)[1])


def test_noise_without_strength_is_bit_identical(model, clas, tokens):
    noise = MatchedNoise.for_model(model, clas)
    plain = logits(model, tokens)
    for quiet, language in ((replace(noise, alpha=0.0), "de"), (noise, "en")):
        with cl.steer(model, quiet, language=language):
            assert torch.equal(logits(model, tokens), plain)
    with cl.steer(model, noise, language="de"):
        assert not torch.equal(logits(model, tokens), plain)
    assert noise.alpha == noise.clas.alpha == -2.0
    assert replace(noise, alpha=0.5).clas.alpha == 0.5


def test_seeds_of_noise(llama, clas):
    first, again, other = (MatchedNoise.for_model(llama, clas, seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint() == again.fingerprint()
    assert first.fingerprint() != other.fingerprint()
    assert first.settings() == {**clas.settings(), "seed": 1}
    alone = MatchedNoise.for_model(llama, replace(clas, layers=(2,)), seed=1)
    assert torch.equal(alone.directions[0], first.directions[1])


def test_noise_in_bfloat16_is_handed_back_in_bfloat16(llama, clas):
    noise = MatchedNoise.for_model(llama, replace(clas, layers=(1,)))
    h = torch.randn(2, 3, 48, generator=torch.Generator().manual_seed(0)).bfloat16()
    (edit,) = noise.edits(llama, ["de", "en"]).values()
    moved = edit(h, [0, 1])
    assert moved.dtype == torch.bfloat16
    assert torch.equal(moved[1], h[1])
    (edit,) = noise.edits(llama, ["de"]).values()
    exact = edit(h[:1].double(), [0])
    torch.testing.assert_close(moved[:1], exact.bfloat16(), atol=1e-2, rtol=1e-2)


def test_noise_takes_the_weights_of_the_model_that_it_is_put_on(folders, llama, clas, tokens):
    """Checking one model leaves no trace for another."""
    noise = MatchedNoise.for_model(llama, clas)
    twin = cl.load_model(folders["llama"])
    noise.check(twin)
    (one, _), (other, _) = (noise.edits(model, ["de"]).values() for model in (llama, twin))
    h = torch.rand(1, 2, 48, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one(h, [0]), other(h, [0]))
    with torch.no_grad():
        for block in twin.blocks:
            block.mlp.W_out.mul_(2)
    doubled = noise.edits(twin, ["de"])[Site("mlp", 1)](h, [0]) - h
    torch.testing.assert_close(doubled, 2 * (one(h, [0]) - h))
    with pytest.raises(cl.SteeringError, match=r"directions are \(2, 48\), CLAS's layers and neurons \(1, 48\)"):
        replace(noise, clas=replace(clas, layers=(1,)))


# --- shuffled labels ---


def test_shuffled_labels_keep_examples_and_lose_languages(small_corpus):
    shuffled = shuffled_labels(small_corpus, seed=0)
    assert (shuffled.ids, shuffled.languages) == (small_corpus.ids, small_corpus.languages)
    rows, shuffled_rows = (list(zip(*corpus.texts.values(), strict=True)) for corpus in (small_corpus, shuffled))
    assert [sorted(row) for row in rows] == [sorted(row) for row in shuffled_rows]
    homes = {small_corpus.languages[row.index(text)] for row, text in zip(rows, shuffled["de"], strict=True)}
    assert len(homes) > 1
    assert shuffled_labels(small_corpus, seed=0) == shuffled
    assert shuffled_labels(small_corpus, seed=1).texts != shuffled.texts


# --- files ---


def test_every_kind_is_told_by_its_file(llama, clas, magnitude, tmp_path):
    values = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    made = [
        clas,
        RescaleMasks.matched_random(clas, magnitude, seed=1),
        RescaleMasks.uniform(clas),
        MatchedNoise.for_model(llama, clas, seed=2),
        AddVector(values, ("de",), 1),
        Incline(torch.eye(32)[None], ("de",), 1),
    ]
    for place, intervention in enumerate(made):
        loaded = load_intervention(intervention.save_pretrained(tmp_path / str(place)))
        assert type(loaded) is type(intervention)
        assert loaded.settings() == intervention.settings()
        assert loaded.fingerprint() == intervention.fingerprint()
    assert len({intervention.fingerprint() for intervention in made}) == len(made)


def test_noise_from_a_file_steers_the_same(llama, clas, tokens, tmp_path):
    noise = MatchedNoise.for_model(llama, clas)
    with cl.steer(llama, noise, language="de"):
        expected = logits(llama, tokens)
    with cl.steer(llama, load_intervention(noise.save_pretrained(tmp_path)), language="de"):
        assert torch.equal(logits(llama, tokens), expected)


def test_the_loader_names_what_it_finds(clas, cats, tmp_path):
    with pytest.raises(ArtifactError, match=r"no intervention in .*: it has no intervention\.safetensors"):
        load_intervention(tmp_path)
    RescaleMasks.uniform(clas).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match="holds rescaled masks, not clas"):
        cl.Clas.from_pretrained(tmp_path)
    clas.save_pretrained(tmp_path)
    assert isinstance(load_intervention(tmp_path), cl.Clas), "one folder holds one intervention"
    cats.save(tmp_path / "intervention.safetensors")
    with pytest.raises(ArtifactError, match="holds neuron categories, which is none of the interventions: .*added vec"):
        load_intervention(tmp_path)


def test_what_was_tuned_on_is_saved_and_handed_on(llama, clas, magnitude, tmp_path):
    tuned = replace(clas, tuned_on=frozenset({"xnli/2", "xnli/1"}))
    assert tuned.fingerprint() != clas.fingerprint()
    assert tuned.settings() == clas.settings()
    made = [
        tuned,
        RescaleMasks.matched_random(tuned, magnitude, seed=1),
        RescaleMasks.uniform(tuned),
        MatchedNoise.for_model(llama, tuned),
        replace(AddVector(torch.ones(1, 32), ("de",), 1), alpha=2.0, tuned_on=tuned.tuned_on),
    ]
    for place, intervention in enumerate(made):
        loaded = load_intervention(intervention.save_pretrained(tmp_path / str(place)))
        assert loaded.tuned_on == tuned.tuned_on
        assert cl.evaluation.examples_behind(loaded) >= tuned.tuned_on


def test_every_kind_is_an_intervention():
    ours = {kind: made for kind, made in kinds().items() if made.__module__.startswith("clas_lens.")}
    assert len(ours) >= 11
    for kind, made in ours.items():
        assert made.kind == kind
        for name in ("check", "edits", "settings", "fingerprint", "save_pretrained"):
            assert callable(getattr(made, name))
