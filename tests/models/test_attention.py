"""Attention without a pattern: the same neurons, only where nobody looks inside, and nothing is left behind."""

import pytest
import torch
from tiny import FAMILIES, tiny_hf_model, tiny_tokenizer

import clas_lens as cl
from clas_lens.corpus.tokens import pad
from clas_lens.models.attention import can_be_lean, lean_attention
from clas_lens.models.forward import run_layers
from clas_lens.models.sites import hooked, post_name

pytestmark = pytest.mark.bridge  # also run with TransformerLens 4
IDS = [tuple(range(3, 40)), (5, 6, 7), tuple(range(50, 70))]


def neurons(model, batch, probing):
    seen = []
    hooks = [(post_name(layer), lambda h, hook: seen.append(h.clone())) for layer in range(model.cfg.n_layers)]
    with hooked(model, hooks), lean_attention(model, probing=probing):
        run_layers(model, batch.tokens, batch.attention_mask)
    return torch.stack(seen)[:, batch.attention_mask.bool()]


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
    assert not any("forward" in vars(block.attn) for block in model.blocks)


def test_a_pattern_that_is_read_is_computed(lens_models, tokens):
    model, seen = lens_models["llama", "bridge"], []
    assert can_be_lean(model)
    with hooked(model, [("blocks.1.attn.hook_pattern", lambda pattern, hook: seen.append(pattern.shape))]):
        assert not can_be_lean(model)
        run_layers(model, tokens, torch.ones_like(tokens))
    assert seen == [(2, 4, 12, 12)]


def test_nothing_is_left_after_an_error(lens_models, tokens):
    model = lens_models["llama", "bridge"]

    def fail(h, hook):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), hooked(model, [(post_name(1), fail)]):
        run_layers(model, tokens, torch.ones_like(tokens))
    assert can_be_lean(model)
