"""Passes without what nobody looks at: the same neurons and logits, all of it where somebody looks, nothing left behind."""

import copy

import pytest
import torch
from tiny import FAMILIES, tiny_hf_model, tiny_tokenizer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import clas_lens as cl
from clas_lens.corpus.tokens import pad
from clas_lens.models.decoding import make_decoder
from clas_lens.models.forward import end_logits, run_layers
from clas_lens.models.lean import lean_passes, unseen_attentions
from clas_lens.models.sites import hooked, post_name

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4
IDS = [tuple(range(3, 40)), (5, 6, 7), tuple(range(50, 70))]


def neurons(model, batch, probing):
    seen = []
    hooks = [(post_name(layer), lambda h, hook: seen.append(h.clone())) for layer in range(model.cfg.n_layers)]
    with hooked(model, hooks), lean_passes(model, probing=probing):
        run_layers(model, batch.tokens, batch.attention_mask)
    return torch.stack(seen)[:, batch.attention_mask.bool()]


def replaced(model):
    return [name for name, module in model.named_modules() if "forward" in vars(module)]


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_are_the_same_without_a_pattern(family):
    """`check=False` leaves the model as TransformerLens makes it; Gemma's windows are shorter than the texts."""
    options = {"backend": "bridge", "tokenizer": tiny_tokenizer(bos=True), "device": "cpu"}
    plain = cl.load_model(tiny_hf_model(family), check=False, **options)
    model = cl.load_model(tiny_hf_model(family), **options)
    batch = pad(IDS, range(3))
    before = model.original_model.config._attn_implementation
    torch.testing.assert_close(neurons(model, batch, False), neurons(plain, batch, False), atol=3e-5, rtol=1e-4)
    assert not torch.equal(neurons(model, batch, False), neurons(plain, batch, False))  # it is another way to compute
    assert torch.equal(neurons(plain, batch, True), neurons(model, batch, False))
    assert model.original_model.config._attn_implementation == before
    assert replaced(model) == []


def test_a_pattern_that_is_read_is_computed(lens_models, tokens):
    model, seen = lens_models["llama", "bridge"], []
    assert len(unseen_attentions(model)) == model.cfg.n_layers
    with hooked(model, [("blocks.1.attn.hook_pattern", lambda pattern, hook: seen.append(pattern.shape))]):
        assert unseen_attentions(model) == [block.attn for layer, block in enumerate(model.blocks) if layer != 1]
        run_layers(model, tokens, torch.ones_like(tokens))
    assert seen == [(2, 4, 12, 12)]


@pytest.mark.parametrize("family", FAMILIES)
def test_unhooked_norms_return_the_same_bits(family):
    model = cl.load_model(
        tiny_hf_model(family), check=False, backend="bridge", tokenizer=tiny_tokenizer(bos=True), device="cpu"
    )
    batch = pad(IDS, range(3), side="left")
    with torch.inference_mode(), lean_passes(model):
        inside = replaced(model)
        lean = model(batch.tokens, attention_mask=batch.attention_mask)
    with torch.inference_mode():
        assert torch.equal(lean, model(batch.tokens, attention_mask=batch.attention_mask))
    assert len(inside) >= 2 * model.cfg.n_layers + 1
    assert replaced(model) == []


def test_a_hooked_norm_shows_its_scale_and_takes_what_it_is_given(lens_models, tokens):
    model = lens_models["llama", "bridge"]
    mask, name = torch.ones_like(tokens), "blocks.1.ln2.hook_scale"
    before = end_logits(model, tokens, mask, 1)
    with hooked(model, [(name, lambda scale, hook: 2 * scale)]), pytest.warns(UserWarning, match="edited"):
        changed = end_logits(model, tokens, mask, 1)
    assert not torch.allclose(before, changed)
    assert torch.equal(end_logits(model, tokens, mask, 1), before)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cache_goes_on_with_a_pattern_or_without(family):
    """Somebody may begin to look at a pattern between two steps."""
    options = {"backend": "bridge", "tokenizer": tiny_tokenizer(bos=True), "device": "cpu"}
    model = cl.load_model(tiny_hf_model(family), **options)
    batch = pad(IDS, range(3), side="left")

    def steps(looking):
        decoder, logits = make_decoder(model, 3), []
        with torch.inference_mode():
            for start, end, looks in zip((0, 20, 30, 31), (20, 30, 31, 37), looking, strict=True):
                seen = [("blocks.0.attn.hook_pattern", lambda pattern, hook: None)] if looks else []
                with hooked(model, seen):
                    logits.append(decoder.step(batch.tokens[:, start:end], batch.attention_mask[:, start:end]))
        return torch.stack(logits)

    real = batch.attention_mask[:, [19, 29, 30, 36]].bool().T  # rows that have begun
    expected = steps([True] * 4)[real]
    for looking in ([False] * 4, [False, True, False, True]):
        torch.testing.assert_close(steps(looking)[real], expected, atol=3e-5, rtol=1e-4)


def test_a_copy_made_inside_is_whole_and_the_model_s_no_more(lens_models, tokens):
    model, mask, copies, seen = lens_models["llama", "bridge"], torch.ones_like(tokens), [], []

    def copy_it(h, hook):
        copies.append(copy.deepcopy(model))

    with hooked(model, [(post_name(1), copy_it)]):
        run_layers(model, tokens, mask)
    (other,) = copies
    expected = end_logits(model, tokens, mask, 1)
    torch.testing.assert_close(end_logits(other, tokens, mask, 1), expected, atol=3e-5, rtol=1e-4)
    looks = [
        (name, lambda values, hook: seen.append(hook.name))
        for name in ("blocks.1.ln2.hook_scale", "blocks.1.attn.hook_pattern")
    ]
    with hooked(other, looks):
        run_layers(other, tokens, mask)
    assert len(seen) == 2
    with torch.no_grad():
        model.blocks[1].ln2.weight.mul_(2)
        try:
            torch.testing.assert_close(end_logits(other, tokens, mask, 1), expected, atol=3e-5, rtol=1e-4)
        finally:
            model.blocks[1].ln2.weight.div_(2)


def test_passes_inside_another_leave_it_as_it_is(lens_models, tokens):
    model = lens_models["llama", "bridge"]
    config = model.original_model.config
    before = config._attn_implementation
    with lean_passes(model):
        inside = replaced(model)
        run_layers(model, tokens, torch.ones_like(tokens))
        assert replaced(model) == inside
        assert config._attn_implementation == "sdpa"
    assert replaced(model) == []
    assert config._attn_implementation == before


def test_a_kernel_that_computes_something_else_is_not_used(monkeypatch, folders, lens_models, tokens):
    """The probe decides; then patterns are computed, and the results are the model's."""
    attend = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def wrong(*arguments, **named):
        out, weights = attend(*arguments, **named)
        return 1.1 * out, weights

    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS, "sdpa", wrong)
    model = cl.load_model(folders["llama"], backend="bridge", device="cpu")
    monkeypatch.undo()
    mask = torch.ones_like(tokens)
    with lean_passes(model):
        assert model.original_model.config._attn_implementation == "eager"
    right = end_logits(lens_models["llama", "bridge"], tokens, mask, 1)
    torch.testing.assert_close(end_logits(model, tokens, mask, 1), right, atol=3e-5, rtol=1e-4)


def test_what_is_hooked_in_a_layer_does_not_change_another(lens_models, tokens):
    model, mask = lens_models["gemma3", "bridge"], torch.ones_like(tokens)

    def first_layers(hooks):
        seen = []
        with hooked(model, [(post_name(layer), lambda h, hook: seen.append(h.clone())) for layer in range(3)] + hooks):
            run_layers(model, tokens, mask)
        return torch.stack(seen)

    look = [("blocks.3.attn.hook_pattern", lambda pattern, hook: None)]
    assert torch.equal(first_layers(look), first_layers([]))


def test_nothing_is_left_after_an_error(lens_models, tokens):
    model = lens_models["llama", "bridge"]

    def fail(h, hook):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), hooked(model, [(post_name(1), fail)]):
        run_layers(model, tokens, torch.ones_like(tokens))
    assert replaced(model) == []
