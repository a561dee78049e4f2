"""What `HookedTransformer` alone has: weights that share storage, the fast layout, refused variants. TransformerLens 3 only."""

import warnings

import pytest
import torch
from tiny import FAMILIES
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

import clas_lens as cl
from benchmarks.full_size import PAPER_CONFIGS
from clas_lens.models.forward import unembed_last
from clas_lens.models.presets import PRESETS, paper_bridge_layers
from clas_lens.models.sites import post_name

pytest.importorskip("transformer_lens.HookedTransformer", reason="TransformerLens 4 has no HookedTransformer")

from transformer_lens import HookedTransformer, HookedTransformerConfig

from clas_lens.models.hooked import to_hooked_transformer


def test_weights_share_storage_and_forward_copies_nothing(hf_models):
    hf_model = hf_models["llama"]
    model = to_hooked_transformer(hf_model, None, name="tiny")
    for ours, theirs in (
        (model.blocks[0].mlp.W_out, hf_model.model.layers[0].mlp.down_proj.weight),
        (model.blocks[1].mlp.W_gate, hf_model.model.layers[1].mlp.gate_proj.weight),
        (model.unembed.W_U, hf_model.lm_head.weight),
    ):
        assert ours.data_ptr() == theirs.data_ptr()
        assert ours.T.is_contiguous()


@pytest.mark.parametrize("family", FAMILIES)
def test_relayout_is_bit_identical(hf_models, family):
    """A model in TransformerLens's stock layout gives the same bits before and after."""
    model = to_hooked_transformer(hf_models[family], None, name="tiny")
    tokens = torch.arange(3, 40)[None]
    with torch.no_grad():
        for parameter in model.parameters():  # the layout that the stock loader leaves
            parameter.data = parameter.data.clone(memory_format=torch.contiguous_format)
        assert not model.blocks[0].mlp.W_in.T.is_contiguous()
        before, values = model(tokens), [p.clone() for p in model.parameters()]
        assert cl.relayout_weights(model) is model
        assert model.blocks[0].mlp.W_in.T.is_contiguous()
        assert torch.equal(model(tokens), before)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), values, strict=True))


def test_relayout_leaves_plain_mlps_and_ungrouped_attention_right():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(
            n_layers=2, d_model=16, n_ctx=32, d_head=4, n_heads=4, d_mlp=24, d_vocab=40, act_fn="gelu", seed=0
        )
        model = HookedTransformer(cfg)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        before = model(tokens)
        assert torch.equal(cl.relayout_weights(model)(tokens), before)


def test_unsupported_variants_are_refused_not_approximated():
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM

    small = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
    }
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    with pytest.raises(cl.ModelLoadError, match="rope type 'yarn'"):
        cl.load_model(Qwen2ForCausalLM(Qwen2Config(**small, num_key_value_heads=2, rope_parameters=yarn)))
    with pytest.raises(cl.ModelLoadError, match="attention_bias=True"):
        cl.load_model(LlamaForCausalLM(LlamaConfig(**small, attention_bias=True)))


def test_attention_only_models_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        cfg = HookedTransformerConfig(n_layers=2, d_model=16, n_ctx=8, d_head=4, d_vocab=9, attn_only=True, seed=0)
        model = HookedTransformer(cfg)
    with pytest.raises(cl.ModelLoadError, match="no MLP hook point"):
        cl.load_model(model)


@pytest.mark.parametrize("name", list(PAPER_CONFIGS))
def test_paper_models_at_full_size_on_the_meta_device(name):
    config = PAPER_CONFIGS[name]
    with torch.device("meta"):
        hf_model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model = to_hooked_transformer(hf_model, None, name=PRESETS[name].hub_id)
    n_layers, d_mlp, d_vocab = PRESETS[name].signature
    assert (model.cfg.n_layers, model.cfg.d_mlp, model.cfg.d_vocab) == (n_layers, d_mlp, d_vocab)
    assert all(post_name(layer) in model.hook_dict for layer in range(n_layers))
    assert model.blocks[-1].mlp.W_out.shape == (d_mlp, config.hidden_size)
    assert model.W_U.shape == (config.hidden_size, d_vocab)
    assert all(p.dtype == torch.bfloat16 and p.is_meta for p in model.parameters())
    assert PRESETS[name].bridge_layers == ((24, 25, 26, 27, 28, 29) if "llama" in name else (24, 25))
    assert paper_bridge_layers(n_layers, d_mlp, d_vocab) == PRESETS[name].bridge_layers
    seen = {}
    with torch.no_grad():
        residual = model.run_with_hooks(
            torch.zeros(2, 7, dtype=torch.long, device="meta"),
            stop_at_layer=n_layers,
            fwd_hooks=[(post_name(n_layers - 3), lambda h, hook: seen.update(shape=h.shape))],
        )
    assert residual.shape == (2, 7, config.hidden_size)
    assert seen["shape"] == (2, 7, d_mlp)


def test_rotary_frequencies_of_the_full_llama_equal_hugging_face():
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = PAPER_CONFIGS["llama-3.1-8b"]
    with torch.device("meta"):
        hf_model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model = to_hooked_transformer(hf_model, None, name="llama")
    cos, _ = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(512)[None])
    ours = model.blocks[0].attn
    rotary_cos = ours.calculate_sin_cos_rotary(128, 512, base=500000.0, dtype=torch.float32)[1]
    torch.testing.assert_close(rotary_cos, cos[0], atol=2e-4, rtol=0)


def test_last_position_unembedding_equals_the_full_forward(lens_models):
    for family in FAMILIES:
        model = lens_models[family, "hooked"]
        tokens = torch.arange(3, 20)[None]
        with torch.no_grad():
            residual = model(tokens, stop_at_layer=model.cfg.n_layers)
            torch.testing.assert_close(unembed_last(model, residual), model(tokens)[:, -1], atol=1e-5, rtol=1e-5)
