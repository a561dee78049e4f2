"""Where things are in a model, for both backends: hook points, shapes, a forward pass without the unembedding.

Everything that differs between `HookedTransformer` and `TransformerBridge` and matters to us is here and in
`generation.py`, so that no other module asks which of the two it has.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens import HookedTransformer
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge

from clas_lens.loading import ModelLoadError

LensModel: TypeAlias = HookedTransformer | TransformerBridge
HookFunction = Callable[..., Tensor | None]


def post_name(layer: int) -> str:
    """MLP neuron activations h, the input of the down projection: [batch pos neuron]."""
    return f"blocks.{layer}.mlp.hook_post"


def gate_name(layer: int) -> str:
    """The gate before its nonlinearity (in an MLP without a gate: the pre-activation): [batch pos neuron]."""
    return f"blocks.{layer}.mlp.hook_pre"


def residual_name(layer: int) -> str:
    """The residual stream at the output of a layer: [batch pos d_model]."""
    return f"blocks.{layer}.hook_resid_post"


def pattern_name(layer: int) -> str:
    """The attention pattern: [batch head query_pos key_pos]."""
    return f"blocks.{layer}.attn.hook_pattern"


def check_mlp_hooks(model: LensModel) -> None:
    """Raise unless every layer has the hook point that this toolkit works at."""
    points = model.hook_dict
    # The bridge gives mixture-of-experts layers a hook_post that is the layer's output, not its neurons.
    missing = [
        layer
        for layer in range(model.cfg.n_layers)
        if points.get(post_name(layer)) in (None, points.get(f"blocks.{layer}.mlp.hook_out"))
    ]
    if missing:
        mlp_hooks = [name for name in model.hook_dict if name.startswith("blocks.0.") and "hook_post" in name]
        raise ModelLoadError(
            f"{model.cfg.model_name} has no MLP hook point {post_name(missing[0])!r} "
            f"({len(missing)} of {model.cfg.n_layers} layers lack it; found in layer 0: {mlp_hooks[:3] or 'none'}). "
            "Attention-only and mixture-of-experts models are not supported."
        )


@contextmanager
def hooked(model: LensModel, hooks: Sequence[tuple[str, HookFunction]]) -> Iterator[None]:
    """Attach forward hooks and detach exactly these at the end, whatever happens in between.

    The user's own hooks stay, also those that they add inside; `model.reset_hooks()` inside leaves ours in place.

    Raises:
        ValueError: a name that the model does not have (`TransformerBridge.add_hook` may pass over one).
    """
    points = model.hook_dict
    unknown = [name for name, _ in hooks if name not in points]
    if unknown:
        raise ValueError(f"no hook point {unknown[0]!r} in {model.cfg.model_name}")
    with ExitStack() as attached:
        for name, function in hooks:
            attached.callback(_detach, points[name], function)
            points[name].add_hook(function, is_permanent=True)
        yield


def _detach(point: HookPoint, function: HookFunction) -> None:
    for handle in [h for h in point.fwd_hooks if h.user_hook is function]:
        handle.hook.remove()
        point.fwd_hooks.remove(handle)


def run_layers(model: LensModel, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"]) -> None:
    """One forward pass for its hooks alone: the unembedding is skipped (hooked) or done at one position (bridge)."""
    with torch.inference_mode():
        if isinstance(model, HookedTransformer):
            model(tokens, attention_mask=mask, stop_at_layer=model.cfg.n_layers)
        else:
            model(tokens, attention_mask=mask, logits_to_keep=1)


def last_logits(
    model: LensModel, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_vocab"]:
    """Logits at the last column, which in a left-padded batch is every row's last real token."""
    with torch.inference_mode():
        if isinstance(model, HookedTransformer):
            residual = model(tokens, attention_mask=mask, stop_at_layer=model.cfg.n_layers)
            return unembed_last(model, residual)
        return model(tokens, attention_mask=mask, logits_to_keep=1)[:, -1]


def unembed_last(
    model: HookedTransformer, residual: Float[Tensor, "batch pos d_model"]
) -> Float[Tensor, "batch d_vocab"]:
    """Final norm, unembedding and soft cap at the last column only."""
    last = residual[:, -1:]
    if model.cfg.normalization_type is not None:
        last = model.ln_final(last)
    logits = model.unembed(last)[:, -1]
    cap = model.cfg.output_logits_soft_cap
    return cap * torch.tanh(logits / cap) if cap > 0 else logits


def down_projection(model: LensModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """W_down: row n is what neuron n writes to the residual stream, per unit of activation."""
    block: Any = model.blocks[layer]
    return block.mlp.W_out.detach()


def device_of(model: LensModel) -> torch.device:
    """The device that tokens must be on."""
    return next(iter(model.parameters())).device
