"""CLAS against the paper's formula, in every way to run a model, on both backends, and all that can go wrong."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny import BACKEND, BACKENDS, logits, needs_hooked

import clas_lens as cl
from clas_lens.models.sites import post_name
from clas_lens.steering.clas import clas_scale
from clas_lens.steering.edits import LanguageTable, Rescale
from clas_lens.steering.intervention import first_layer

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4

LAYERS = (1, 2)
number = st.floats(-8, 8, allow_nan=False)


@given(
    h=hnp.arrays("float64", 12, elements=st.floats(-1e3, 1e3)),
    label=hnp.arrays("int8", 12, elements=st.integers(0, 3)),
    alpha=number,
    beta=number,
    gamma=number,
)
def test_one_factor_equals_the_papers_three_steps(h, label, alpha, beta, gamma):
    h, label = torch.tensor(h), torch.tensor(label)
    partial, specific = label == 2, label == 1
    h1 = h * (1 + beta * partial.double())
    h2 = h1 * (1 - gamma * specific.double())
    expected = (1 - alpha) * h + alpha * h2
    scale = clas_scale(partial, specific, alpha=alpha, beta=beta, gamma=gamma)
    torch.testing.assert_close(h * scale, expected, atol=1e-9, rtol=1e-9)
    untouched = ~(partial | specific)
    assert torch.equal((h * scale)[untouched], h[untouched])


def test_the_sign_flips_that_the_method_warns_of():
    scale = clas_scale(torch.tensor([True, False]), torch.tensor([False, True]), alpha=-5.0, beta=0.4, gamma=0.2)
    assert scale.tolist() == pytest.approx([-1.0, 2.0])


@pytest.fixture
def clas(small_cats):
    return cl.Clas(small_cats, layers=LAYERS, alpha=-2.0)


def test_clas_is_an_intervention(clas):
    assert isinstance(clas, cl.Intervention)


def by_hand(model, tokens, scales, rows=slice(None)):
    """Logits with h multiplied by hand, through TransformerLens's own hooks."""

    def multiply(layer):
        def hook(h, hook):
            out = h.clone()
            out[rows] = h[rows] * scales[layer].to(h.dtype)
            return out

        return hook

    with torch.no_grad():
        return model.run_with_hooks(
            tokens,
            attention_mask=torch.ones_like(tokens),
            fwd_hooks=[(post_name(layer), multiply(layer)) for layer in scales],
        )


def test_forward_equals_a_hand_written_hook(model, clas, tokens):
    plain = logits(model, tokens)
    with cl.steer(model, clas, language="de"):
        steered = logits(model, tokens)
    torch.testing.assert_close(steered, by_hand(model, tokens, clas.scale("de")), atol=1e-6, rtol=1e-6)
    assert not torch.equal(steered, plain)
    assert torch.equal(logits(model, tokens), plain)


def test_anchor_and_alpha_zero_are_bit_identical(model, clas, small_cats, tokens):
    plain = logits(model, tokens)
    with cl.steer(model, clas, language="en"):
        assert torch.equal(logits(model, tokens), plain)
    with cl.steer(model, cl.Clas(small_cats, layers=LAYERS, alpha=0.0), language="de"):
        assert torch.equal(logits(model, tokens), plain)


def test_mixed_batches(model, clas, tokens):
    plain = logits(model, tokens)
    with cl.steer(model, clas, language=["de", "en"]):
        mixed = logits(model, tokens)
    assert torch.equal(mixed[1], plain[1])
    with cl.steer(model, clas, language="de"):
        assert torch.equal(mixed[0], logits(model, tokens)[0])


def test_a_batch_of_another_size_is_refused_and_leaves_nothing(model, clas, tokens):
    with pytest.raises(cl.SteeringError, match="given 3 languages, one a batch row, but there are 2 rows"):
        with cl.steer(model, clas, language=["de", "en", "zh"]):
            logits(model, tokens)


def test_run_with_cache_sees_steered_activations(model, clas, tokens):
    _, plain = model.run_with_cache(tokens)
    with cl.steer(model, clas, language="de"):
        _, cache = model.run_with_cache(tokens)
    first = LAYERS[0]
    expected = plain[post_name(first)] * clas.scale("de")[first].float()
    assert torch.equal(cache[post_name(first)], expected)
    assert torch.equal(cache[post_name(0)], plain[post_name(0)])


def test_run_with_hooks_runs_inside(model, clas, tokens):
    seen = {}
    with cl.steer(model, clas, language="de"):
        model.run_with_hooks(tokens, fwd_hooks=[(post_name(LAYERS[0]), lambda h, hook: seen.update(h=h.clone()))])
        again = logits(model, tokens)
    _, plain = model.run_with_cache(tokens)
    assert torch.equal(seen["h"], plain[post_name(LAYERS[0])] * clas.scale("de")[LAYERS[0]].float())
    assert not torch.equal(again, logits(model, tokens))


def test_generation_is_steered_at_every_step(model, clas, tokens):
    """The model's own cached generation equals greedy search over full steered forwards."""
    prompt = tokens[:1]
    current = prompt
    for _ in range(6):
        current = torch.cat([current, by_hand(model, current, clas.scale("de"))[:, -1].argmax(-1)[:, None]], dim=1)
    for use_cache in (True, False):
        with cl.steer(model, clas, language="de"):
            got = model.generate(
                prompt, max_new_tokens=6, do_sample=False, use_past_kv_cache=use_cache, verbose=False, stop_at_eos=False
            )
        assert torch.equal(got, current)


def test_nesting_with_itself_and_with_the_users_hooks(model, clas, tokens):
    seen = []

    def users_hook(h, hook):
        seen.append(h.shape)
        return h * 2

    name = post_name(LAYERS[0])
    model.add_hook(name, users_hook)
    try:
        users_own = logits(model, tokens)
        with cl.steer(model, clas, language="de"), cl.steer(model, clas, language="zh"):
            twice = logits(model, tokens)
        assert torch.equal(logits(model, tokens), users_own)
        assert len(model.hook_dict[name].fwd_hooks) == 1
    finally:
        model.reset_hooks()
    scales = {k: v * clas.scale("zh")[k] for k, v in clas.scale("de").items()}
    scales[LAYERS[0]] = scales[LAYERS[0]] * 2
    torch.testing.assert_close(twice, by_hand(model, tokens, scales), atol=1e-5, rtol=1e-5)


def test_reset_hooks_inside_does_not_stop_the_steering(model, clas, tokens):
    with cl.steer(model, clas, language="de"):
        before = logits(model, tokens)
        model.reset_hooks()
        assert torch.equal(logits(model, tokens), before)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_exception(model, clas, tokens, error):
    plain = logits(model, tokens)
    with pytest.raises(error), cl.steer(model, clas, language="de"):
        logits(model, tokens)
        raise error
    assert torch.equal(logits(model, tokens), plain)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_a_steer_that_never_fires_raises(model, clas):
    with (
        pytest.raises(cl.SteeringError, match=r"never fired at blocks\.1\.mlp\.hook_post"),
        cl.steer(model, clas, language="de"),
    ):
        pass


def test_last_position(model, small_cats, tokens):
    clas = cl.Clas(small_cats, layers=(1,), alpha=-2.0, positions="last")
    _, plain = model.run_with_cache(tokens)
    with cl.steer(model, clas, language="de"):
        _, cache = model.run_with_cache(tokens)
    h, before = cache[post_name(1)], plain[post_name(1)]
    assert torch.equal(h[:, :-1], before[:, :-1])
    assert torch.equal(h[:, -1], before[:, -1] * clas.scale("de")[1].float())


def test_generated_positions(model, small_cats, tokens):
    """The prompt pass is untouched, later tokens are steered; without a cache nothing would be, which raises."""
    clas = cl.Clas(small_cats, layers=LAYERS, alpha=-4.0, positions="generated")
    prompt = tokens[:1]
    with cl.steer(model, clas, language="de") as steering:
        first = logits(model, prompt)
        model.generate(prompt, max_new_tokens=5, do_sample=False, verbose=False, stop_at_eos=False)
    assert torch.equal(first, logits(model, prompt))
    assert set(steering.fired.values()) == {4}
    with pytest.raises(cl.SteeringError, match="continue a KV cache"), cl.steer(model, clas, language="de"):
        logits(model, prompt)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3"])
def test_bfloat16_models(folders, small_corpus, tokens, family, backend):
    model = cl.load_model(folders[family], dtype=torch.bfloat16, backend=backend)
    stats = cl.collect_statistics(model, small_corpus, progress=False)
    clas = cl.Clas(cl.categorize(stats), layers=LAYERS, alpha=-2.0)
    assert len(cl.generate(model, [[5, 6, 7], [8, 9]], max_new_tokens=3)) == 2
    plain = logits(model, tokens)
    with cl.steer(model, clas, language=["de", "en"]):
        steered = logits(model, tokens)
    assert steered.dtype == torch.bfloat16
    assert torch.equal(steered[1], plain[1])
    assert not torch.equal(steered[0], plain[0])


def test_rescaling_works_in_float32_or_better():
    scale = torch.full((1, 4), 1.4, dtype=torch.float64)
    h = torch.tensor([[[1.0, 3.0, -7.0, 11.0]]])
    rescale = Rescale(LanguageTable(scale, [0]))
    assert torch.equal(rescale(h.bfloat16(), [0]), (h * 1.4).bfloat16())
    assert torch.equal(rescale(h.double(), [0]), h.double() * 1.4)


def test_a_scale_used_without_gradients_serves_a_pass_with_them(llama, clas, tokens):
    model = cl.load_model(llama)
    weight = next(iter(model.blocks[0].mlp.parameters())).requires_grad_(True)
    try:
        with cl.steer(model, clas, language="de"):
            cl.generate(model, [[1, 5, 9]], max_new_tokens=2)
            model(tokens).sum().backward()
        assert weight.grad.abs().sum() > 0
    finally:
        weight.grad = None
        model.requires_grad_(False)


def test_last_position_refuses_right_padding(llama, small_cats):
    clas = cl.Clas(small_cats, layers=(1,), positions="last")
    llama.tokenizer.padding_side = "right"
    try:
        with pytest.raises(cl.SteeringError, match="pads on the right"), cl.steer(llama, clas, language="de"):
            pass
    finally:
        llama.tokenizer.padding_side = "left"


def test_specific_masks(small_cats):
    def masks(specific, language):
        clas = cl.Clas(small_cats, layers=LAYERS, alpha=1.0, beta=0.0, gamma=1.0, specific=specific)
        return torch.stack([clas.scale(language)[layer] == 0 for layer in LAYERS])

    everyones = small_cats.mask(cl.NeuronCategory.LANGUAGE_SPECIFIC)[list(LAYERS)]
    own = small_cats.specific_to("de")[list(LAYERS)]
    assert torch.equal(masks("union", "de"), everyones)
    assert torch.equal(masks("current", "de"), own)
    assert torch.equal(masks("others", "de"), everyones & ~own)


def test_languages_that_were_not_measured(model, small_cats, tokens):
    union = cl.Clas(small_cats, layers=LAYERS, alpha=-2.0)
    with (
        pytest.warns(UserWarning, match="'bg' was not measured: .* masks of en"),
        cl.steer(model, union, language="bg"),
    ):
        bulgarian = logits(model, tokens)
    with cl.steer(model, union, language="de"):
        assert torch.equal(logits(model, tokens), bulgarian)
    current = cl.Clas(small_cats, layers=LAYERS, alpha=-2.0, specific="current")
    with pytest.raises(ValueError, match="'bg': it was not in the statistics"), cl.steer(model, current, language="bg"):
        pass
    for wrong, message in (("EN", "written 'en'"), ("klingon", "unknown language"), ("", "unknown language")):
        with pytest.raises(ValueError, match=message), cl.steer(model, union, language=wrong):
            pass
    with pytest.raises(cl.SteeringError, match="no languages given"), cl.steer(model, union, language=[]):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": (5,)}, r"among 0\.\.4, at least one; got \[5\]"),
        ({"layers": (-1,)}, r"got \[-1\]"),
        ({"layers": ()}, r"got \[\]"),
        ({"layers": (1, 1)}, "different ones"),
        ({"layers": [14.7]}, r"got \[14\.7\]"),
        ({"layers": ["1"]}, r"got \['1'\]"),
        ({"layers": [True]}, r"got \[True\]"),
        ({"layers": 1}, "at least one; got 1"),
        ({"alpha": float("nan")}, "alpha must be finite"),
        ({"alpha": 1e38}, r"alpha must be finite and at most 1e\+12.* got 1e\+38"),
        ({"gamma": -(10**400)}, "gamma must be finite and at most"),
        ({"alpha": 1e8, "beta": 1e8}, r"alpha \* beta must be finite and at most"),
        ({"alpha": "2"}, "^alpha must be a finite number, got '2'$"),
        ({"beta": True}, "beta must be a finite number, got True"),
        ({"alpha": None}, "alpha must be a finite number, got None"),
        ({"anchor": "fr"}, "the anchor 'fr' is none of the languages that were measured: "),
    ],
)
def test_settings_are_checked(small_cats, options, message):
    with pytest.raises(cl.SteeringError, match=message):
        cl.Clas(small_cats, **{"layers": LAYERS, **options})


def test_numbers_of_numpy_and_torch_are_plain_ones(small_cats, tmp_path):
    clas = cl.Clas(
        small_cats, layers=np.array([2, 1]), alpha=np.float32(-2.5), beta=torch.tensor(0.5), gamma=np.int64(1)
    )
    assert clas.settings() == cl.Clas(small_cats, layers=(1, 2), alpha=-2.5, beta=0.5, gamma=1.0).settings()
    assert {type(value) for value in (clas.alpha, clas.beta, clas.gamma)} == {float}
    assert cl.Clas.from_pretrained(clas.save_pretrained(tmp_path)).alpha == -2.5


def test_empty_masks_are_refused(small_cats):
    from clas_lens.categories.categorize import NeuronCategories

    everywhere = NeuronCategories(torch.ones_like(small_cats.active), small_cats.languages)
    with pytest.raises(cl.SteeringError, match="nothing to steer: layers"):
        cl.Clas(everywhere, layers=LAYERS)


def test_masks_of_other_attention_weights_are_told(lens_models, small_cats):
    model = copy.deepcopy(lens_models["llama", BACKEND])
    clas = cl.Clas(replace(small_cats, model=cl.models.describe_model(model)), layers=LAYERS)
    with torch.no_grad():
        next(weight for name, weight in model.named_parameters() if name.endswith("W_Q") or "q_proj" in name).mul_(1.5)
    told = pytest.warns(UserWarning, match="whose other weights differ")
    with told, cl.steer(model, clas, language="de", must_fire=False):
        pass


@needs_hooked
@pytest.mark.parametrize("matrix", ["q_proj", "k_proj", "v_proj", "o_proj"])
def test_masks_of_other_attention_weights_are_told_across_backends(lens_models, hf_models, small_cats, matrix):
    same = cl.Clas(replace(small_cats, model=cl.models.describe_model(lens_models["llama", "hooked"])), layers=LAYERS)
    with cl.steer(lens_models["llama", "bridge"], same, language="de", must_fire=False):
        pass  # warnings are errors here
    tuned = copy.deepcopy(hf_models["llama"])
    with torch.no_grad():
        tuned.get_submodule(f"model.layers.3.self_attn.{matrix}").weight.mul_(1.5)
    bridge = cl.load_model(tuned, tokenizer=lens_models["llama", "bridge"].tokenizer, backend="bridge")
    told = pytest.warns(UserWarning, match="whose other weights differ")
    with told, cl.steer(bridge, same, language="de", must_fire=False):
        pass


def test_categories_of_another_model_are_refused(lens_models, clas):
    other_weights = lens_models["qwen2", BACKEND]
    with (
        pytest.raises(cl.SteeringError, match=r"'tiny-llama' with other weights than 'tiny-qwen2'"),
        cl.steer(other_weights, clas, language="de"),
    ):
        pass


def test_categories_of_another_shape_are_refused(lens_models, small_cats):
    from clas_lens.categories.categorize import NeuronCategories

    cats = NeuronCategories(small_cats.active[:, :4], small_cats.languages, model={"name": "shallow"})
    with (
        pytest.raises(cl.SteeringError, match="'shallow' with 4 layers x 48 neurons; 'tiny-llama' has 5 x 48"),
        cl.steer(lens_models["llama", BACKEND], cl.Clas(cats, layers=(1,)), language="de"),
    ):
        pass


def test_save_and_load(tmp_path, small_cats):
    clas = cl.Clas(small_cats, layers=LAYERS, alpha=-2.0, beta=0.5, gamma=0.1, specific="current", positions="last")
    loaded = cl.Clas.from_pretrained(clas.save_pretrained(tmp_path / "clas"))
    assert loaded.settings() == clas.settings()
    assert loaded.fingerprint() == clas.fingerprint()
    assert all(torch.equal(loaded.scale("de")[layer], clas.scale("de")[layer]) for layer in LAYERS)


def test_first_layer(llama, small_cats):
    assert first_layer(llama, cl.Clas(small_cats, layers=(3, 1)), ["de", "en"]) == 1
