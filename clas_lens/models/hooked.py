"""A `HookedTransformer` from a Hugging Face model, sharing its storage and laid out for speed.

TransformerLens's own loader checks a list of official names, keeps two to six copies of the weights while it works, and
leaves most matrices in a layout that every forward pass copies. Here the configuration comes from the model at hand, the
weights are TransformerLens's own conversions assigned without a copy, and nothing is folded, centred or otherwise changed.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from transformer_lens import HookedTransformer, HookedTransformerConfig
from transformer_lens.components.mlps.gated_mlp import GatedMLP
from transformer_lens.loading_from_pretrained import (
    get_pretrained_model_config,
    get_pretrained_state_dict,
)
from transformer_lens.pretrained.weight_conversions import (
    convert_gemma_weights,
    convert_llama_weights,
    convert_qwen2_weights,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from clas_lens.given import given
from clas_lens.models.backends import HOW_TO_LOAD, official_hub_id
from clas_lens.models.loading import ModelLoadError

# Architectures whose bridge equals Transformers in the table that `python -m benchmarks coverage` makes.
EXACT_BRIDGES = frozenset(
    f"{stem}ForCausalLM"
    for stem in (
        *(
            "Apertus",
            "Bloom",
            "Falcon",
            "GPTNeoX",
            "Gemma",
            "Gemma2",
            "Gemma3",
            "Glm4",
            "Granite",
            "Llama",
            "Mistral",
            "OPT",
        ),
        *("Olmo2", "Olmo3", "Phi3", "Qwen2", "Qwen3", "SeedOss", "SmolLM3", "StableLm", "Starcoder2", "XGLM"),
    )
) | {"GPT2LMHeadModel"}

CONVERSIONS: dict[str, Callable[..., dict[str, torch.Tensor]]] = {
    "LlamaForCausalLM": convert_llama_weights,
    "Qwen2ForCausalLM": convert_qwen2_weights,
    "Gemma3ForCausalLM": convert_gemma_weights,
}


def to_hooked_transformer(
    hf_model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    name: str,
    folder: Path | None = None,
) -> HookedTransformer:
    """Wrap `hf_model`'s weights in a `HookedTransformer` on the same device, without copying those that need no change.

    Args:
        hf_model: any Llama, Qwen2 or Gemma3 causal LM; other architectures that TransformerLens knows need `folder`.
        tokenizer: set with left padding; without one the model takes token ids only.
        name: what `cfg.model_name` says.
        folder: the Hugging Face folder that the model came from.

    Raises:
        ModelLoadError: an architecture or rope variant that `HookedTransformer` cannot represent.
    """
    from accelerate import init_empty_weights

    given(
        hf_model,
        PreTrainedModel,
        "a Hugging Face model is needed",
        "AutoModelForCausalLM loads one",
        error=ModelLoadError,
    )
    architecture = type(hf_model).__name__
    if hf_model.config.get_text_config() is not hf_model.config:
        raise ModelLoadError(
            f"backend='bridge' loads this {architecture}, text and images: a HookedTransformer has no place for its vision "
            "tower."
        )
    device = next(hf_model.parameters()).device
    if architecture in CONVERSIONS:
        cfg = _own_config(hf_model, name)
        weights = CONVERSIONS[architecture](hf_model, cfg)
    else:
        cfg, weights = _library_config_and_weights(hf_model, name, folder)
    with init_empty_weights(include_buffers=False):
        model = HookedTransformer(
            cfg,
            tokenizer,
            move_to_device=False,
            default_padding_side="left" if tokenizer is not None else None,
        )
    _assign(model, weights)
    # Not model.to(): it would move the parameters one by one a second time and print where to.
    torch.nn.Module.to(model, device)
    relayout_weights(model)
    model.eval().requires_grad_(False)
    return model


def _own_config(hf_model: PreTrainedModel, name: str) -> HookedTransformerConfig:
    """The configuration of a Llama, Qwen2 or Gemma3 model, from its own `config` and from nothing else."""
    config: Any = hf_model.config
    gemma = config.model_type.startswith("gemma")
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    grouped = config.num_key_value_heads != config.num_attention_heads or not _is_llama(config)
    settings: dict[str, Any] = {
        "model_name": name.split("/")[-1],
        "original_architecture": type(hf_model).__name__,
        "d_model": config.hidden_size,
        "d_head": head_dim,
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": config.num_key_value_heads if grouped else None,
        "d_mlp": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "eps": config.rms_norm_eps,
        "d_vocab": config.vocab_size,
        "act_fn": config.hidden_activation if gemma else config.hidden_act,
        "normalization_type": "RMS",
        "positional_embedding_type": "rotary",
        "rotary_adjacent_pairs": False,
        "rotary_dim": head_dim,
        "final_rms": True,
        "gated_mlp": True,
        "dtype": hf_model.dtype,
        "device": str(next(hf_model.parameters()).device),
        "init_weights": False,
        "default_prepend_bos": not config.model_type.startswith("qwen"),
        **_rope_settings(config),
    }
    if gemma:
        settings |= {
            "use_normalization_before_and_after": True,
            "use_qk_norm": True,
            "attn_scale": math.sqrt(config.query_pre_attn_scalar),
            "use_local_attn": True,
            "window_size": config.sliding_window,
            "attn_types": ["local" if kind == "sliding_attention" else "global" for kind in config.layer_types],
        }
    _refuse_unsupported(config)
    return HookedTransformerConfig.from_dict(settings)


def _is_llama(config: Any) -> bool:
    # Llama's conversion writes ungrouped keys and values when no head is shared; the other two always write grouped ones.
    return config.model_type == "llama"


def _rope_settings(config: Any) -> dict[str, Any]:
    rope = config.rope_parameters
    if "full_attention" in rope:  # Gemma 3: one base for global layers, one for local ones
        _require_rope(rope["sliding_attention"], {"default"}, config)
        local = {"rotary_base_local": rope["sliding_attention"]["rope_theta"]}
        rope = rope["full_attention"]
        _require_rope(rope, {"default", "linear"}, config)
        return {
            **local,
            "rotary_base": rope["rope_theta"],
            "rotary_scaling_factor": rope.get("factor", 1.0),
        }
    _require_rope(rope, {"default", "llama3"}, config)
    settings = {"rotary_base": rope["rope_theta"]}
    if rope["rope_type"] == "llama3":
        settings |= {
            "use_NTK_by_parts_rope": True,
            "NTK_by_parts_factor": rope["factor"],
            "NTK_by_parts_low_freq_factor": rope["low_freq_factor"],
            "NTK_by_parts_high_freq_factor": rope["high_freq_factor"],
            "NTK_original_ctx_len": rope["original_max_position_embeddings"],
        }
    return settings


def _require_rope(rope: dict[str, Any], supported: set[str], config: Any) -> None:
    if rope["rope_type"] not in supported:
        raise ModelLoadError(
            f"{config.model_type} with rope type {rope['rope_type']!r} is not supported on backend='hooked' "
            f"(supported: {', '.join(sorted(supported))}). Use backend='bridge'."
        )


def _refuse_unsupported(config: Any) -> None:
    unsupported = {
        "attention_bias": config.model_type == "llama" and getattr(config, "attention_bias", False),
        "mlp_bias": getattr(config, "mlp_bias", False),
        "use_sliding_window": config.model_type == "qwen2" and getattr(config, "use_sliding_window", False),
        "final_logit_softcapping": getattr(config, "final_logit_softcapping", None),
        "attn_logit_softcapping": getattr(config, "attn_logit_softcapping", None),
        "use_bidirectional_attention": getattr(config, "use_bidirectional_attention", False),
    }
    for setting, is_on in unsupported.items():
        if is_on:
            raise ModelLoadError(
                f"this {config.model_type} model sets {setting}={getattr(config, setting)}, which HookedTransformer's "
                "conversion drops. Use backend='bridge'."
            )


def _library_config_and_weights(
    hf_model: PreTrainedModel, name: str, folder: Path | None
) -> tuple[HookedTransformerConfig, dict[str, torch.Tensor]]:
    """TransformerLens's own conversion of any other architecture that it knows: by the folder's config, or by its name."""
    config: Any = hf_model.config
    shape = (config.num_hidden_layers, config.hidden_size, config.vocab_size)
    tried = []
    for source in (folder and str(folder), official_hub_id(name)):
        if source is None:
            continue
        try:
            cfg = get_pretrained_model_config(source, hf_cfg=config.to_dict(), dtype=hf_model.dtype, device="cpu")
        except (NotImplementedError, AttributeError, KeyError, OSError, ValueError, TypeError) as error:
            tried.append(f"{source}: {error}")
            continue
        if (cfg.n_layers, cfg.d_model, cfg.d_vocab) != shape or cfg.original_architecture != type(hf_model).__name__:
            tried.append(f"{source}: TransformerLens takes it for another model, {cfg.original_architecture}")
            continue
        cfg.tokenizer_name = None
        return cfg, get_pretrained_state_dict(source, cfg, hf_model, dtype=hf_model.dtype)
    architecture = type(hf_model).__name__
    first = f"backend='bridge' computes a {architecture} exactly: use it. " if architecture in EXACT_BRIDGES else ""
    last = "" if first else " backend='bridge' knows more architectures, and is checked before it is handed over."
    raise ModelLoadError(
        f"{first}There is no HookedTransformer conversion for this {architecture} ({'; '.join(tried) or 'a bare object'}). "
        f"Converted from their objects: {', '.join(CONVERSIONS)}; others need a folder or a Hub id that TransformerLens "
        f"knows.{last}"
    )


def retype(model: HookedTransformer, dtype: torch.dtype) -> HookedTransformer:
    """Change a model's dtype in place; rotary tables are computed anew rather than rounded and widened again."""
    model.to(dtype)
    for block in model.blocks:
        attention = block.attn
        if model.cfg.positional_embedding_type == "rotary":
            length, device = attention.rotary_sin.shape[0], attention.rotary_sin.device
            sin, cos = attention.calculate_sin_cos_rotary(
                model.cfg.rotary_dim, length, base=attention._rotary_base(), dtype=dtype
            )
            attention.rotary_sin, attention.rotary_cos = sin.to(device), cos.to(device)
    return model


def _assign(model: HookedTransformer, weights: dict[str, torch.Tensor]) -> None:
    """Make `weights` the model's parameters, sharing their storage, and check that nothing is left without a value."""
    expected = dict(model.named_parameters())
    buffers = {name for name, _ in model.named_buffers()}
    missing = expected.keys() - weights.keys()
    unexpected = {name for name in weights.keys() - expected.keys() - buffers if weights[name].count_nonzero() > 0}
    # Some of TransformerLens's conversions leave out biases that their architecture does not have.
    zeros = {name: torch.zeros(expected[name].shape, dtype=expected[name].dtype) for name in missing if ".b_" in name}
    if unexpected or missing - zeros.keys():
        raise ModelLoadError(
            "backend='bridge' may load this model: TransformerLens's conversion to a HookedTransformer does not fit it: "
            f"missing {sorted(missing - zeros.keys())[:4]}, "
            f"unexpected {sorted(unexpected)[:4]}"
        )
    # .to() changes nothing, storage sharing included, but for norm weights that Gemma's conversion leaves in float32.
    given = {name: weights[name].detach().to(expected[name].dtype) for name in expected.keys() & weights.keys()}
    model.load_state_dict({**given, **zeros}, strict=False, assign=True)


def relayout_weights(model: HookedTransformer) -> HookedTransformer:
    """Re-lay a `HookedTransformer`'s matrices in place so that its forward pass stops copying them.

    `HookedTransformer` 3.x computes `F.linear(x, W.T.contiguous())`. For a weight whose transpose is not contiguous that
    copies the whole matrix on every forward, which dominates decoding. Values, shapes and outputs stay bit-identical; only
    strides change. One matrix at a time is duplicated while it is re-laid. Weights already in the good layout (every model
    that `load_model` returns) are left alone, storage sharing included.

    Returns the same model, for chaining.

    Raises:
        ModelLoadError: another kind of model, which has no such matrices.
    """
    given(model, HookedTransformer, "relayout_weights needs a HookedTransformer", HOW_TO_LOAD, error=ModelLoadError)
    for block in model.blocks:
        attention = block.attn
        for name in ("W_Q", "_W_K", "_W_V", "W_K", "W_V"):
            _relay(attention._parameters.get(name), "head d_model d_head", "head d_head d_model")
        _relay(attention._parameters.get("W_O"), "head d_head d_model", "d_model head d_head")
        mlp = getattr(block, "mlp", None)
        if isinstance(mlp, GatedMLP):  # a plain MLP multiplies by its matrices as they lie
            for weight in (mlp.W_in, mlp.W_gate, mlp.W_out):
                _relay(weight, "a b", "b a")
    _relay(model.unembed.W_U, "d_model d_vocab", "d_vocab d_model")
    return model


def _relay(weight: torch.nn.Parameter | None, shape: str, wanted: str) -> None:
    if weight is None:
        return
    turned = rearrange(weight.data, f"{shape} -> {wanted}")
    if not turned.is_contiguous():
        weight.data = rearrange(turned.contiguous(), f"{wanted} -> {shape}")
