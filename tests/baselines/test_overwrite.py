"""Int_mu against Hugging Face forwards with their own hooks, by hand, on both backends, and all that can go wrong."""

from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from tiny import BACKEND, BACKENDS, logits, needs_hooked
from torch.nn.functional import gelu, silu

import clas_lens as cl
from clas_lens.artifacts import ArtifactError
from clas_lens.baselines.overwrite import Overwrite
from clas_lens.categories.selection import NeuronSelection, category_selection, lape
from clas_lens.corpus.tokens import tokenize
from clas_lens.models.sites import Site, post_name
from clas_lens.steering.edits import LanguageTable, Overwriting, blend
from clas_lens.steering.intervention import Intervention

SITES = ("gate", "post")
ALPHAS = (1.0, 0.5)


@pytest.fixture(scope="module")
def measured(lens_models, small_corpus):
    """Statistics with histograms of every family."""
    corpus = small_corpus.take(range(4))
    return {
        family: cl.collect_statistics(lens_models[family, BACKEND], corpus, histograms=True, progress=False)
        for family in ("llama", "qwen2", "gemma3")
    }


@pytest.fixture(scope="module")
def stats(measured):
    return measured["llama"]


@pytest.fixture(scope="module")
def selection(stats):
    return wide_lape(stats)


def wide_lape(stats):
    """LAPE with so many neurons that every language of a tiny model has some."""
    return lape(stats, rate_percentile=70.0, share=0.3)


@contextmanager
def overwritten_by_hand(hf_model, rows, *, site, alpha):
    """A Hugging Face model whose MLPs are overwritten by its own modules' hooks.

    `rows[batch row]` is None or (masks [layer neuron], constants [layer neuron]). At alpha = 1 and site "gate" this is
    what the paper says: the output of act_fn becomes the constant.
    """
    handles, seen = [], {}

    def overwrite_output(layer):
        def hook(module, args, output):
            output = output.clone()
            for row, own in enumerate(rows):
                if own is not None:
                    output[row][:, own[0][layer]] = own[1][layer][own[0][layer]]
            return output

        return hook

    def see_output(layer):
        def hook(module, args, output):
            seen[layer] = output

        return hook

    def overwrite_input(layer):
        def hook(module, args):
            h = args[0].clone()
            for row, own in enumerate(rows):
                if own is not None:
                    mask, constant = own[0][layer], own[1][layer]
                    target = constant * seen[layer][row] if site == "gate" else constant.expand_as(h[row])
                    h[row] = torch.where(mask, (1 - alpha) * h[row] + alpha * target, h[row])
            return (h,)

        return hook

    for layer, block in enumerate(hf_model.model.layers):
        if site == "gate" and alpha == 1:
            handles.append(block.mlp.act_fn.register_forward_hook(overwrite_output(layer)))
        else:
            handles.append(block.mlp.up_proj.register_forward_hook(see_output(layer)))
            handles.append(block.mlp.down_proj.register_forward_pre_hook(overwrite_input(layer)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hf_logits(hf_model, tokens):
    with torch.no_grad():
        return hf_model(tokens).logits


def own_of(selection, constants, language):
    row = selection.languages.index(language)
    return selection.masks[row], constants[row]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("site", SITES)
def test_equals_the_hugging_face_model_with_its_own_hooks(each_model, hf_models, measured, tokens, site, alpha):
    family = each_model.cfg.model_name.removeprefix("tiny-")
    stats, hf_model = measured[family], hf_models[family]
    selection = wide_lape(stats)
    overwrite = Overwrite.int_mu(stats, selection, site=site, alpha=alpha)
    constants = stats.gate_act_mean if site == "gate" else stats.mean
    with cl.steer(each_model, overwrite, language=["de", "en"]):
        got = logits(each_model, tokens)
    plain = logits(each_model, tokens)
    with overwritten_by_hand(hf_model, [own_of(selection, constants, "de"), None], site=site, alpha=alpha):
        expected = hf_logits(hf_model, tokens)
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
    assert (got[0] - plain[0]).abs().max() > 0.05
    assert torch.equal(got[1], plain[1])


def test_every_row_gets_its_own_languages_neurons(model, hf_models, stats, selection, tokens):
    overwrite = Overwrite.int_mu(stats, selection)
    with cl.steer(model, overwrite, language=["zh", "de"]):
        got = logits(model, tokens)
    own = [own_of(selection, stats.gate_act_mean, code) for code in ("zh", "de")]
    assert not torch.equal(own[0][0], own[1][0])
    with overwritten_by_hand(hf_models["llama"], own, site="gate", alpha=1.0):
        torch.testing.assert_close(got, hf_logits(hf_models["llama"], tokens), atol=1e-4, rtol=1e-4)


# --- the constants ---


def gates_by_hand(hf_model, tokenizer, texts, layer):
    """The gate of every content token, one [token neuron] a text, from the Hugging Face module."""
    seen, tokenized = [], tokenize(tokenizer, texts)
    handle = hf_model.model.layers[layer].mlp.gate_proj.register_forward_hook(lambda m, a, out: seen.append(out[0]))
    with torch.no_grad():
        for ids in tokenized.ids:
            hf_model(torch.tensor([ids]))
    handle.remove()
    return [gate[tokenized.n_prefix :] for gate in seen]


@pytest.mark.parametrize(("family", "act"), [("llama", silu), ("gemma3", lambda x: gelu(x, approximate="tanh"))])
def test_the_mean_is_taken_where_it_is_written(lens_models, hf_models, measured, small_corpus, family, act):
    """After the nonlinearity by default, before it as released: means over a text's tokens, then over texts."""
    stats = measured[family]
    selection = wide_lape(stats)
    tokenizer = lens_models[family, BACKEND].tokenizer
    gates = gates_by_hand(hf_models[family], tokenizer, small_corpus["de"][:4], layer=3)
    row, own = stats.languages.index("de"), selection.of("de")[3]
    after = Overwrite.int_mu(stats, selection).constants[row, 3, own]
    before = Overwrite.int_mu(stats, selection, as_released=True).constants[row, 3, own]
    tolerance = {"atol": 1e-4, "rtol": 1e-3}
    torch.testing.assert_close(after, torch.stack([act(g).mean(0) for g in gates]).mean(0)[own], **tolerance)
    torch.testing.assert_close(before, torch.stack([g.mean(0) for g in gates]).mean(0)[own], **tolerance)
    assert not torch.allclose(after, before, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "of"),
    [({"site": "post"}, "h"), ({}, "gate_act"), ({"as_released": True}, "gate")],
)
def test_percentiles_are_near_the_exact_ones(hf_models, llama, small_corpus, stats, selection, options, of):
    overwrite = Overwrite.int_mu(stats, selection, statistic="percentile", percentile=90.0, **options)
    values = {}
    for code in ("de", "zh"):
        gate = torch.cat(gates_by_hand(hf_models["llama"], llama.tokenizer, small_corpus[code][:4], layer=1))
        if of == "h":
            seen = []
            names = [post_name(1)]
            for ids in tokenize(llama.tokenizer, small_corpus[code][:4]).ids:
                seen.append(llama.run_with_cache(torch.tensor([ids]), names_filter=names)[1][post_name(1)][0, 1:])
            values[code] = torch.cat(seen)
        else:
            values[code] = silu(gate) if of == "gate_act" else gate
    for code, held in values.items():
        row, own = stats.languages.index(code), selection.of(code)[1]
        exact = held[:, own].quantile(0.9, dim=0, interpolation="higher")
        assert ((overwrite.constants[row, 1, own] - exact).abs() <= 0.04 + 0.39 * exact.abs()).all()


def test_zero_is_lapes_deactivation(model, stats, selection, tokens):
    for site in SITES:
        overwrite = Overwrite.int_mu(stats, selection, statistic="zero", site=site)
        with cl.steer(model, overwrite, language="de"):
            _, cache = model.run_with_cache(tokens)
        for layer in range(5):
            assert not cache[post_name(layer)][..., selection.of("de")[layer]].any()


def test_clas_specific_neurons_in_some_layers(model, stats, tokens):
    """The option with CLAS's masks: mean h written over h in two layers, and nowhere else."""
    cats = cl.categorize(stats)
    overwrite = Overwrite.int_mu(stats, category_selection(cats, layers=(2, 3)), site="post")
    _, plain = model.run_with_cache(tokens)
    with cl.steer(model, overwrite, language="de"):
        _, cache = model.run_with_cache(tokens)
    own = cats.specific_to("de")
    row = stats.languages.index("de")
    assert own[[2, 3]].any()
    for layer in (2, 3):
        expected = stats.mean[row, layer, own[layer]].expand(2, 12, -1)
        assert torch.equal(cache[post_name(layer)][..., own[layer]], expected)
    assert torch.equal(cache[post_name(2)][..., ~own[2]], plain[post_name(2)][..., ~own[2]])
    assert torch.equal(cache[post_name(1)], plain[post_name(1)])


def test_layers_restrict_a_selection(llama, stats, selection, tokens):
    overwrite = Overwrite.int_mu(stats, selection, layers=[3])
    assert overwrite.overwritten("de").any(1).nonzero().flatten().tolist() == [3]
    assert list(overwrite.edits(llama, ["de"])) == [Site("up", 3), Site("mlp", 3)]


# --- the arithmetic ---


def test_blend_by_hand():
    old = torch.tensor([[[2.0, 4.0, 7.0]]], dtype=torch.bfloat16)
    mixed = blend(old, torch.tensor([[[10.0, 10.0, 10.0]]]), torch.tensor([[[1.0, 0.25, 0.0]]]))
    assert mixed.tolist() == [[[10.0, 5.5, 7.0]]]
    assert mixed.dtype == torch.bfloat16


def test_one_activation_by_hand():
    """Neurons 1 and 3 of four; the second row has neuron 3 alone."""
    strength = LanguageTable(torch.tensor([[1.0, 1.0], [0.0, 1.0]]), [0, 1])
    constants = LanguageTable(torch.tensor([[10.0, 20.0], [0.0, 30.0]]), [0, 1])
    h, up = torch.ones(2, 1, 4), torch.tensor([[[1.0, 2.0, 3.0, 4.0]], [[5.0, 6.0, 7.0, 8.0]]])
    edit = Overwriting(torch.tensor([1, 3]), strength, constants, gated=True)
    assert edit.see_up(up, [0, 1]) is up
    assert edit(h, [0, 1]).tolist() == [[[1, 20, 1, 80]], [[1, 1, 1, 240]]]
    assert torch.equal(h, torch.ones(2, 1, 4))
    plain = Overwriting(torch.tensor([1, 3]), strength, constants, gated=False)
    assert plain(h, [1, 0]).tolist() == [[[1, 1, 1, 30]], [[1, 10, 1, 20]]]


# --- what must not change ---


@pytest.mark.parametrize("site", SITES)
def test_the_anchor_and_alpha_zero_are_bit_identical(model, stats, selection, tokens, site):
    overwrite = Overwrite.int_mu(stats, selection, site=site)
    assert selection.of("en").any()
    plain = logits(model, tokens)
    for intervention, language in ((overwrite, "en"), (replace(overwrite, alpha=0.0), "de")):
        with cl.steer(model, intervention, language=language):
            assert torch.equal(logits(model, tokens), plain)


@pytest.mark.parametrize("site", SITES)
def test_a_mixed_batch_equals_batches_of_one_language(model, stats, selection, tokens, site):
    overwrite = Overwrite.int_mu(stats, selection, site=site)
    with cl.steer(model, overwrite, language=["de", "en"]):
        mixed = logits(model, tokens)
    with cl.steer(model, overwrite, language="de"):
        alone = logits(model, tokens)
    torch.testing.assert_close(mixed[0], alone[0], atol=1e-6, rtol=1e-6)
    assert torch.equal(mixed[1], logits(model, tokens)[1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_bfloat16_models(folders, measured, tokens, family, backend):
    model = cl.load_model(folders[family], dtype=torch.bfloat16, backend=backend)
    overwrite = Overwrite.int_mu(measured[family], wide_lape(measured[family]))
    plain = logits(model, tokens)
    with cl.steer(model, overwrite, language=["de", "en"]):
        steered = logits(model, tokens)
    assert steered.dtype == torch.bfloat16
    assert torch.equal(steered[1], plain[1])
    assert not torch.equal(steered[0], plain[0])


# --- generation and positions ---


@pytest.mark.parametrize("site", SITES)
def test_generation_with_a_cache_equals_full_forwards(model, hf_models, stats, selection, site):
    overwrite = Overwrite.int_mu(stats, selection, site=site)
    prompt = [1, 5, 9, 33, 12]
    with cl.steer(model, overwrite, language=["de", "en"]):
        generated = cl.generate(model, [prompt, prompt[:3]], max_new_tokens=6)
    constants = stats.gate_act_mean if site == "gate" else stats.mean
    hand = overwritten_by_hand(hf_models["llama"], [own_of(selection, constants, "de")], site=site, alpha=1.0)
    current = list(prompt)
    with hand:
        for _ in range(6):
            current.append(int(hf_logits(hf_models["llama"], torch.tensor([current]))[0, -1].argmax()))
            if current[-1] == model.tokenizer.eos_token_id:
                break
    continuation = current[len(prompt) :]
    assert generated[0] == model.tokenizer.decode(continuation, skip_special_tokens=True)
    assert generated[1] == cl.generate(model, [prompt[:3]], max_new_tokens=6)[0]


@pytest.mark.parametrize("site", SITES)
def test_last_position(model, stats, selection, tokens, site):
    overwrite = Overwrite.int_mu(stats, selection, site=site, positions="last")
    _, plain = model.run_with_cache(tokens)
    with cl.steer(model, overwrite, language="de"):
        _, cache = model.run_with_cache(tokens)
    assert torch.equal(cache[post_name(0)][:, :-1], plain[post_name(0)][:, :-1])
    own = selection.of("de")[0]
    constant = (stats.gate_act_mean if site == "gate" else stats.mean)[stats.languages.index("de"), 0, own]
    if site == "gate":
        constant = constant * plain["blocks.0.mlp.hook_pre_linear"][:, -1][:, own]
    torch.testing.assert_close(cache[post_name(0)][:, -1][:, own], constant.expand(2, -1), atol=1e-6, rtol=1e-5)


def test_generated_positions_leave_the_prompt(model, stats, selection, tokens):
    overwrite = Overwrite.int_mu(stats, selection, positions="generated")
    prompt = tokens[:1]
    with cl.steer(model, overwrite, language="de") as steering:
        first = logits(model, prompt)
        model.generate(prompt, max_new_tokens=4, do_sample=False, verbose=False, stop_at_eos=False)
    assert torch.equal(first, logits(model, prompt))
    assert set(steering.fired.values()) == {3}


def test_gradients_flow_through(llama, stats, selection, tokens):
    overwrite = Overwrite.int_mu(stats, selection, alpha=0.5)
    weight = next(iter(llama.blocks[0].mlp.parameters())).requires_grad_(True)
    try:
        with cl.steer(llama, overwrite, language="de"):
            cl.generate(llama, [[1, 5, 9]], max_new_tokens=2)
            llama(tokens).sum().backward()
        assert weight.grad.abs().sum() > 0
    finally:
        weight.grad = None
        llama.requires_grad_(False)


# --- refusals ---


def test_languages_without_neurons(llama, stats, selection, tokens):
    overwrite = Overwrite.int_mu(stats, selection)
    with pytest.raises(ValueError, match=r"no neurons to overwrite for 'bg'; languages with some: de, zh, ar\."):
        cl.steer(llama, overwrite, language="bg").__enter__()
    plain = logits(llama, tokens)
    tolerant = replace(overwrite, missing="untouched")
    with cl.steer(llama, tolerant, language=["bg", "de"]):
        mixed = logits(llama, tokens)
    assert torch.equal(mixed[0], plain[0])
    assert not torch.equal(mixed[1], plain[1])
    with pytest.raises(ValueError, match="unknown language 'klingon'"):
        tolerant.overwritten("klingon")


def test_a_selected_language_without_neurons_is_missing_too(llama, stats, selection):
    masks = selection.masks.clone()
    masks[selection.languages.index("zh")] = False
    overwrite = Overwrite.int_mu(stats, replace(selection, masks=masks))
    with pytest.raises(ValueError, match="no neurons to overwrite for 'zh'"):
        overwrite.edits(llama, ["zh"])
    assert not replace(overwrite, missing="untouched").overwritten("zh").any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistic": "percentile"}, "needs percentile=0 to 100"),
        ({"percentile": 90.0}, "no other does; got 90"),
        ({"statistic": "percentile", "percentile": 101.0}, "0 to 100"),
        ({"as_released": True, "site": "post"}, "does not go with site='post'"),
        ({"as_released": True, "statistic": "zero"}, "statistic='zero'"),
        ({"alpha": float("inf")}, "alpha must be finite"),
        ({"layers": (7,)}, r"among 0\.\.4"),
        ({"anchor": "EN"}, "written 'en'"),
    ],
)
def test_options_are_checked(stats, selection, options, message):
    with pytest.raises(ValueError, match=message):
        Overwrite.int_mu(stats, selection, **options)


def test_percentiles_need_histograms(small_stats, stats, selection):
    with pytest.raises(ValueError, match="histograms=True"):
        Overwrite.int_mu(small_stats, selection, statistic="percentile", percentile=50.0)


def test_parts_that_do_not_fit_are_refused(measured, stats, selection, lens_models):
    with pytest.raises(ValueError, match="the statistics are of 'tiny-qwen2' and the selection of 'tiny-llama'"):
        Overwrite.int_mu(measured["qwen2"], selection)
    with pytest.raises(ValueError, match="no statistics for 'en'"):
        Overwrite.int_mu(stats.select(["de", "zh"]), selection)
    overwrite = Overwrite.int_mu(stats, selection)
    with pytest.raises(cl.SteeringError, match="one constant a neuron and language"):
        replace(overwrite, constants=overwrite.constants[:2])
    with pytest.raises(cl.SteeringError, match="constants must be finite"):
        replace(overwrite, constants=overwrite.constants + float("nan"))
    with pytest.raises(cl.SteeringError, match="nothing to overwrite"):
        replace(overwrite, selection=replace(selection, masks=torch.zeros_like(selection.masks)))
    with pytest.raises(cl.SteeringError, match="with other weights than 'tiny-qwen2'"):
        overwrite.check(lens_models["qwen2", BACKEND])


@needs_hooked
def test_an_mlp_without_a_gate_takes_site_post(tokens):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=2, d_model=16, n_ctx=32, d_head=8, d_mlp=24, d_vocab=40, act_fn="gelu_new", model_name="plain", seed=0
    )
    plain = HookedTransformer(cfg)
    masks = torch.zeros(1, 2, 24, dtype=torch.bool)
    masks[0, 1, 3] = True
    gate = Overwrite(NeuronSelection(masks, ("de",), "mine"), torch.full((1, 2, 24), 2.0))
    with pytest.raises(cl.SteeringError, match="'plain' has MLPs without a gate: use site='post'"):
        gate.check(plain)
    with cl.steer(plain, replace(gate, site="post"), language="de"):
        _, cache = plain.run_with_cache(tokens)
    assert (cache[post_name(1)][..., 3] == 2.0).all()


# --- files ---


def test_save_and_load(tmp_path, llama, stats, selection, tokens):
    overwrite = Overwrite.int_mu(
        stats, selection, statistic="percentile", percentile=75.0, alpha=0.5, layers=(1, 3), missing="untouched"
    )
    loaded = Overwrite.from_pretrained(overwrite.save_pretrained(tmp_path / "int_mu"))
    assert loaded.settings() == overwrite.settings()
    assert loaded.fingerprint() == overwrite.fingerprint()
    made = {"statistic": "percentile", "percentile": 75.0, "as_released": False, "of": "gate_act"}
    assert {name: loaded.origin[name] for name in made} == made
    assert loaded.source == overwrite.source
    results = []
    for intervention in (overwrite, loaded):
        with cl.steer(llama, intervention, language="de"):
            results.append(logits(llama, tokens))
    assert torch.equal(*results)
    with pytest.raises(ArtifactError, match="no overwrite at"):
        Overwrite.from_pretrained(tmp_path)


def test_fingerprints_tell_interventions_apart(stats, selection):
    overwrite = Overwrite.int_mu(stats, selection)
    others = [
        replace(overwrite, alpha=0.5),
        replace(overwrite, constants=overwrite.constants * 2),
        Overwrite.int_mu(stats, selection, as_released=True),
        Overwrite.int_mu(stats, lape(stats, share=0.2)),
    ]
    assert len({intervention.fingerprint() for intervention in (overwrite, *others)}) == 5
    assert isinstance(overwrite, Intervention)
