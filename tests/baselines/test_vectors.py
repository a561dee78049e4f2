"""DiffMean and INCLINE by hand, against NumPy, and against Hugging Face with a hook of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny import BACKEND, BACKENDS, logits
from transformer_lens.model_bridge import TransformerBridge

import clas_lens as cl
from clas_lens.baselines.vectors import AddVector, Incline, least_squares_map
from clas_lens.representations.collect import collect_representations
from clas_lens.representations.sentences import Representations

LAYER = 2


def representations(values, *, pool="mean", layers=(2,), languages=("en", "de"), intervention=None, model=None):
    ids = tuple(f"example {i}" for i in range(values.shape[1]))
    return Representations(values, languages, layers, ids, pool, intervention, model or {})


def edit(intervention, x, languages, rows=None):
    # Nothing is asked of the model, which may as well be an empty one.
    (change,) = intervention.edits(TransformerBridge.__new__(TransformerBridge), languages).values()
    return change(x, list(range(len(x))) if rows is None else rows)


@pytest.fixture
def random_states():
    return representations(
        torch.randn(3, 7, 1, 32, generator=torch.Generator().manual_seed(1)), pool="last", languages=("en", "de", "zh")
    )


# --- DiffMean ---


def test_diff_mean_by_hand():
    values = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 1.0], [2.0, 7.0]]])[:, :, None]  # means (2, 3) and (1, 4)
    vector = AddVector.diff_mean(representations(values), 2, alpha=0.5)
    assert vector.languages == ("de",)
    assert vector.of("de").tolist() == [1.0, -1.0]
    x = torch.tensor([[[10.0, 10.0]], [[-0.0, 5.0]]])
    moved = edit(vector, x, ["de", "en"])
    assert moved[0].tolist() == [[10.5, 9.5]]
    assert torch.equal(moved[1].view(torch.int32), x[1].view(torch.int32))
    away = edit(replace(vector, alpha=-2.0), x, ["de", "en"])
    assert away[0].tolist() == [[8.0, 12.0]]


def test_one_moves_the_mean_onto_the_anchors(random_states):
    vector = AddVector.diff_mean(random_states, 2)
    moved = edit(vector, random_states.of("zh"), ["zh"], [0] * 7)
    torch.testing.assert_close(moved[:, 0].mean(0), random_states.of("en")[:, 0].mean(0))


def test_the_activations_own_dtype_is_handed_back(random_states):
    for intervention in (AddVector.diff_mean(random_states, 2), Incline.fit(random_states, 2)):
        x = torch.randn(2, 3, 32)
        exact = edit(intervention, x.bfloat16().double(), ["de", "zh"])
        rounded = edit(intervention, x.bfloat16(), ["de", "zh"])
        assert (exact.dtype, rounded.dtype) == (torch.float64, torch.bfloat16)
        torch.testing.assert_close(rounded, exact.bfloat16(), atol=0.0, rtol=8e-3)


# --- INCLINE ---


def test_incline_by_hand():
    """Two examples in two dimensions: W maps (1, 0) to (0, 2) and (0, 1) to (3, 0)."""
    values = torch.tensor([[[0.0, 2.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])[:, :, None]
    incline = Incline.fit(representations(values, pool="last"), 2, alpha=0.25)
    torch.testing.assert_close(incline.of("de"), torch.tensor([[0.0, 3.0], [2.0, 0.0]]))
    x = torch.tensor([[[4.0, 8.0]], [[-0.0, 1.0]]])
    blended = edit(incline, x, ["de", "en"])
    torch.testing.assert_close(blended[0], torch.tensor([[0.75 * 4 + 0.25 * 24, 0.75 * 8 + 0.25 * 8]]))
    assert torch.equal(blended[1].view(torch.int32), x[1].view(torch.int32))
    added = edit(replace(incline, blend="add"), x, ["de", "en"])
    torch.testing.assert_close(added[0], torch.tensor([[4 + 0.25 * 24, 8 + 0.25 * 8]]))


@pytest.mark.parametrize("n", [4, 40])
def test_least_squares_equals_numpy(n):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 10)), rng.normal(size=(n, 10))
    got = least_squares_map(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(got.T.numpy(), np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-10)
    ridge = least_squares_map(torch.tensor(x), torch.tensor(y), ridge=0.3)
    stacked = np.vstack([x, np.sqrt(0.3) * np.eye(10)]), np.vstack([y, np.zeros((10, 10))])
    np.testing.assert_allclose(ridge.T.numpy(), np.linalg.lstsq(*stacked, rcond=None)[0], atol=1e-10)
    with pytest.raises(ValueError, match="ridge must be a finite number, at least 0; got -1"):
        least_squares_map(torch.tensor(x), torch.tensor(y), ridge=-1.0)


def test_incline_maps_its_own_examples_onto_the_anchors(random_states):
    mapped = edit(Incline.fit(random_states, 2), random_states.of("de"), ["de"], [0] * 7)
    torch.testing.assert_close(mapped[:, 0], random_states.of("en")[:, 0], atol=1e-4, rtol=1e-4)


# --- on models ---


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_steering_equals_hugging_face_with_a_hook(lens_models, hf_models, random_states, tokens, family, backend):
    model, hf = lens_models[family, backend], hf_models[family]
    vector, incline = (
        AddVector.diff_mean(random_states, LAYER, alpha=-1.5),
        Incline.fit(random_states, LAYER, alpha=0.7),
    )
    w = np.linalg.lstsq(random_states.of("de")[:, 0].double().numpy(), random_states.of("en")[:, 0].double().numpy())[0]

    def add(x):
        return x + torch.tensor([-1.5, 0.0])[:, None, None] * vector.of("de")

    def blend(x):
        out = x.clone()
        out[0, -1] = 0.3 * x[0, -1] + 0.7 * x[0, -1] @ torch.tensor(w).float()
        return out

    for intervention, change in ((vector, add), (incline, blend)):

        def hook(module, inputs, output, change=change):
            return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

        handle = hf.model.layers[LAYER].register_forward_hook(hook)
        with torch.no_grad():
            expected = hf(tokens).logits
        handle.remove()
        with cl.steer(model, intervention, language=["de", "en"]):
            got = logits(model, tokens)
        torch.testing.assert_close(got.log_softmax(-1), expected.log_softmax(-1), atol=2e-3, rtol=1e-3)


def test_anchor_rows_and_alpha_zero_are_bit_identical(model, random_states, tokens):
    plain = logits(model, tokens)
    for intervention in (AddVector.diff_mean(random_states, LAYER), Incline.fit(random_states, LAYER)):
        with cl.steer(model, intervention, language=["en", "zh"]):
            mixed = logits(model, tokens)
        assert torch.equal(mixed[0], plain[0])
        assert not torch.equal(mixed[1], plain[1])
        for quiet, language in ((intervention, "en"), (replace(intervention, alpha=0.0), ["de", "zh"])):
            with cl.steer(model, quiet, language=language):
                assert torch.equal(logits(model, tokens), plain)


def test_a_model_steered_by_its_own_diff_mean(model, small_corpus):
    """At the steered layer the language's mean comes to lie on the anchor's; the anchor stays."""
    corpus = small_corpus.select(["en", "ar"]).take(range(4))
    before = collect_representations(model, corpus, (LAYER,), progress=False)
    vector = AddVector.diff_mean(before, LAYER)
    after = collect_representations(model, corpus, (LAYER,), intervention=vector, progress=False)
    torch.testing.assert_close(after.at("ar", LAYER).mean(0), before.at("en", LAYER).mean(0), atol=1e-5, rtol=1e-4)
    assert torch.equal(after.of("en"), before.of("en"))
    with pytest.raises(ValueError, match="of the unsteered model, got those under intervention"):
        AddVector.diff_mean(after, LAYER)


def test_a_matrix_used_without_gradients_serves_a_pass_with_them(llama, random_states, tokens):
    weight = next(iter(llama.blocks[0].mlp.parameters())).requires_grad_(True)
    try:
        with cl.steer(llama, Incline.fit(random_states, LAYER), language="de"):
            with torch.inference_mode():
                llama(tokens)
            llama(tokens).sum().backward()
        assert weight.grad.abs().sum() > 0
    finally:
        weight.grad = None
        llama.requires_grad_(False)


# --- refusals and files ---


def test_what_is_refused(llama, lens_models, random_states, small_corpus):
    vector = AddVector.diff_mean(random_states, LAYER)
    with pytest.raises(
        cl.SteeringError, match="AddVector has nothing for 'fr'; available: de, zh, and the anchor 'en'"
    ):
        vector.edits(llama, ["de", "fr"])
    with pytest.raises(ValueError, match="unknown language 'klingon'"):
        vector.edits(llama, ["klingon"])
    with pytest.raises(ValueError, match="last-token states, got pool='mean'"):
        Incline.fit(replace(random_states, pool="mean"), LAYER)
    with pytest.raises(ValueError, match="no representations in 'ru'"):
        AddVector.diff_mean(random_states, LAYER, anchor="ru")
    with pytest.raises(cl.SteeringError, match="at least one besides the anchor 'en'.* got: none"):
        AddVector.diff_mean(random_states.select(["en"]), LAYER)
    with pytest.raises(cl.SteeringError, match="alpha must be finite"):
        replace(vector, alpha=float("inf"))
    with pytest.raises(
        cl.SteeringError, match=r"for layers \[9\] of None, 32 wide; 'tiny-llama' has 5 layers, 32 wide"
    ):
        with cl.steer(llama, replace(vector, layer=9), language="de"):
            pass
    own = collect_representations(lens_models["qwen2", BACKEND], small_corpus.take([0]), (LAYER,), progress=False)
    with pytest.raises(cl.SteeringError, match=r"measured on 'tiny-qwen2' with other weights than 'tiny-llama'"):
        with cl.steer(llama, AddVector.diff_mean(own, LAYER), language="de"):
            pass


def test_save_and_load(random_states, tmp_path):
    vector = AddVector.diff_mean(random_states, LAYER, alpha=-1.5, positions="last")
    incline = Incline.fit(random_states, LAYER, alpha=0.2, ridge=0.1, blend="add", positions="all")
    for made in (vector, incline):
        loaded = type(made).from_pretrained(made.save_pretrained(tmp_path))
        assert loaded.settings() == made.settings()
        assert loaded.fingerprint() == made.fingerprint()
        assert torch.equal(loaded.of("zh"), made.of("zh"))
        assert replace(made, alpha=1.0).fingerprint() != made.fingerprint()
    assert vector.fingerprint() != incline.fingerprint()
    assert incline.settings()["source"]["ridge"] == 0.1
