"""Where things are in a model, for both backends: hook points, shapes, a forward pass without the unembedding.

Everything that differs between `HookedTransformer` and `TransformerBridge` and matters to us is here and in
`decoding.py`, so that no other module asks which of the two it has.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, total_ordering
from inspect import signature
from operator import index
from typing import Any, assert_never, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge.generalized_components.gated_mlp import resolve_activation_fn
from transformers import PreTrainedModel

from clas_lens.given import given
from clas_lens.models.attention import lean_attention
from clas_lens.models.backends import HookedTransformer, LensModel
from clas_lens.models.hooking import HookFunction as HookFunction
from clas_lens.models.hooking import hooked as hooked
from clas_lens.models.hooking import refuse_compiled
from clas_lens.models.loading import ModelLoadError
from clas_lens.models.numbers import check_logits
from clas_lens.vocabulary import SiteKind


@dataclass(frozen=True)
@total_ordering
class Site:
    """A place in a model whose activations can be changed; sites are ordered as a forward pass reaches them.

    Another kind takes a word in `SiteKind` and its hook point here.

    Attributes:
        kind: "attn" (the outputs of the heads, before the output projection), "up" (the linear branch of a gated MLP), "mlp"
            (MLP neurons), "mlp_out" (what the MLP adds to the residual stream) or "residual" (the output of a layer).
        layer: 0-based.
    """

    kind: SiteKind
    layer: int

    def __lt__(self, other: "Site") -> bool:
        kinds = get_args(SiteKind)
        return (self.layer, kinds.index(self.kind)) < (other.layer, kinds.index(other.kind))

    def hook_name(self, model: "LensModel") -> str:
        """The model's hook point for it.

        Raises:
            ValueError: the model does not have it.
        """
        match self.kind:
            case "attn":
                name = z_name(self.layer)
            case "up":
                name = up_name(self.layer)
            case "mlp":
                name = post_name(self.layer)
            case "mlp_out":
                name = mlp_out_name(self.layer)
            case "residual":
                name = residual_name(self.layer)
            case _:
                assert_never(self.kind)
        if name not in model.hook_dict:
            raise ValueError(f"{model.cfg.model_name} has no {self.kind!r} site in layer {self.layer} ({name})")
        return name


def z_name(layer: int) -> str:
    """What each attention head hands to the output projection: [batch pos head d_head]."""
    return f"blocks.{layer}.attn.hook_z"


def post_name(layer: int) -> str:
    """MLP neuron activations h, the input of the down projection: [batch pos neuron]."""
    return f"blocks.{layer}.mlp.hook_post"


def gate_name(layer: int) -> str:
    """The gate before its nonlinearity (in an MLP without a gate: the pre-activation): [batch pos neuron]."""
    return f"blocks.{layer}.mlp.hook_pre"


def up_name(layer: int) -> str:
    """The linear branch of a gated MLP, W_up x: [batch pos neuron]. MLPs without a gate have no such hook point."""
    return f"blocks.{layer}.mlp.hook_pre_linear"


def mlp_out_name(layer: int) -> str:
    """What the MLP adds to the residual stream, after the norm that some families (Gemma) put behind: [batch pos d_model]."""
    return f"blocks.{layer}.hook_mlp_out"


def residual_name(layer: int) -> str:
    """The residual stream at the output of a layer: [batch pos d_model]."""
    return f"blocks.{layer}.hook_resid_post"


def check_mlp_hooks(model: Any) -> None:
    """Raise unless this is a model of TransformerLens, not compiled, whose every layer has the hook point that we work at."""
    if isinstance(model, PreTrainedModel):
        raise ModelLoadError(
            f"a {type(model).__name__} has no hook points: load_model(model, tokenizer=...) makes them"
        )
    if hasattr(model, "_orig_mod") or isinstance(model, LensModel):
        refuse_compiled(model)
    else:
        raise ModelLoadError(
            f"expected what load_model returns, a HookedTransformer or a TransformerBridge; got a {type(model).__name__}"
        )
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


def run_layers(model: LensModel, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"]) -> None:
    """One forward pass for its hooks alone, without the unembedding."""
    with torch.inference_mode():
        if isinstance(model, HookedTransformer):
            model(tokens, attention_mask=mask, stop_at_layer=model.cfg.n_layers)
            return
        inner: Any = model.original_model.base_model  # what is below the LM head
        options: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask, "use_cache": False}
        if "position_ids" in signature(inner.forward).parameters:
            options["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
        with lean_attention(model):
            inner(**options)


def last_logits(
    model: LensModel, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch d_vocab"]:
    """Logits at the last column, which in a left-padded batch is every row's last real token."""
    return end_logits(model, tokens, mask, 1)[:, -1]


def end_logits(
    model: LensModel, tokens: Int[Tensor, "batch pos"], mask: Int[Tensor, "batch pos"], n: int
) -> Float[Tensor, "batch n d_vocab"]:
    """Logits at the last `n` columns of a left-padded batch; none are computed for the others.

    Raises:
        NonFiniteLogitsError: one is NaN or infinite.
    """
    with torch.inference_mode():
        if isinstance(model, HookedTransformer):
            residual = model(tokens, attention_mask=mask, stop_at_layer=model.cfg.n_layers)
            logits = unembed(model, residual[:, -n:])
        else:
            logits = model(tokens, attention_mask=mask, logits_to_keep=n)
    check_logits(logits)
    return logits


def unembed_last(
    model: HookedTransformer, residual: Float[Tensor, "batch pos d_model"], columns: Sequence[int] | None = None
) -> Float[Tensor, "batch columns"]:
    """Final norm, unembedding and soft cap at the last column only; all of the vocabulary, or some token ids."""
    return unembed(model, residual[:, -1:], columns)[:, -1]


def unembed(
    model: LensModel, residual: Float[Tensor, "batch pos d_model"], columns: Sequence[int] | None = None
) -> Float[Tensor, "batch pos columns"]:
    """The model's final norm, unembedding and soft cap of any residual stream; all of the vocabulary, or some token ids."""
    parts: Any = model
    if model.cfg.normalization_type is not None:
        residual = parts.ln_final(residual)
    if columns is None:
        logits = parts.unembed(residual)
    else:
        chosen = list(columns)
        logits = residual @ model.W_U[:, chosen] + model.b_U[chosen]
    cap = model.cfg.output_logits_soft_cap
    return cap * torch.tanh(logits / cap) if cap > 0 else logits


def down_projection(model: LensModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """W_down: row n is what neuron n writes to the residual stream, per unit of activation."""
    block: Any = model.blocks[check_layers([layer], model.cfg.n_layers)[0]]
    return block.mlp.W_out.detach()


def gate_activation(model: LensModel, layer: int) -> Callable[[Tensor], Tensor]:
    """The nonlinearity that a layer's MLP puts on its gate (in an MLP without a gate: on its pre-activation).

    Raises:
        ModelLoadError: a bridged architecture that keeps it under an unknown name.
    """
    block: Any = model.blocks[layer]
    if isinstance(model, HookedTransformer):
        return block.mlp.act_fn
    if getattr(block.mlp, "_use_processed_weights", False):  # compatibility mode computes the MLP itself
        return resolve_activation_fn(block.mlp.config)
    inner = block.mlp.original_component
    for name in ("act_fn", "act", "activation_fn", "activation", "gelu_impl"):
        if callable(getattr(inner, name, None)):
            return getattr(inner, name)
    raise ModelLoadError(
        f"{model.cfg.model_name}: found no activation function in {type(inner).__name__}, which the statistics of the gate "
        "need. Use backend='hooked'."
    )


@contextmanager
def gate_activations_seen(model: LensModel, see: Callable[[Tensor], None]) -> Iterator[None]:
    """Forward passes inside call `see` with what each MLP's nonlinearity returns, between the layer's hooks at `gate_name` and
    `post_name`: more than once where layers share a module, not at all where a bridge computes its MLPs itself.
    """
    undo: list[Callable[[], object]] = []
    try:
        for layer in range(model.cfg.n_layers):
            function = gate_activation(model, layer)
            if isinstance(function, torch.nn.Module):
                undo.append(function.register_forward_hook(lambda module, inputs, output: see(output)).remove)
            elif isinstance(model, HookedTransformer):
                mlp: Any = model.blocks[layer].mlp
                undo.append(partial(setattr, mlp, "act_fn", function))
                mlp.act_fn = _shown(function, see)
        yield
    finally:
        try:
            _run_all(undo)
        finally:
            _run_all(undo)  # for a Ctrl-C inside the first; a second time changes nothing


def _run_all(functions: Sequence[Callable[[], object]]) -> None:
    for function in functions:
        function()


def _shown(function: Callable[[Tensor], Tensor], see: Callable[[Tensor], None]) -> Callable[[Tensor], Tensor]:
    def shown(values: Tensor) -> Tensor:
        activated = function(values)
        see(activated)
        return activated

    return shown


def device_of(model: LensModel) -> torch.device:
    """The device that tokens must be on: the embedding's. Layers of a model that is spread may be elsewhere."""
    if isinstance(model, HookedTransformer):
        return next(iter(model.parameters())).device
    embedding: Any = model.original_model.get_input_embeddings()
    return next(iter(embedding.parameters())).device


def attention_window(model: LensModel) -> int | None:
    """How many columns back the model's narrowest layers attend, or None if all see everything."""
    if isinstance(model, HookedTransformer):
        return model.cfg.window_size if model.cfg.use_local_attn else None
    config: Any = model.original_model.config
    return getattr(config.get_text_config(), "sliding_window", None)


def counts_columns(model: LensModel) -> bool:
    """Whether positions are told by columns (ALiBi, relative biases), and not by the position ids that masks give."""
    return model.cfg.positional_embedding_type not in ("rotary", "standard")


def direct_logits(
    model: LensModel, directions: Float[Tensor, "direction d_model"]
) -> Float[Tensor, "direction d_vocab"]:
    """What adding each direction to the final residual stream adds to the logits, with the final norm's scale taken as 1.

    The logit lens of a direction: the final norm's gain and W_U, without their biases. Weights with the gain folded into
    W_U and weights without agree. In float32, a block of the vocabulary at a time.
    """
    given(directions, Tensor, "direct_logits needs a tensor [direction d_model]", "a row of down_projection, say")
    norm: Any = getattr(model, "ln_final", None)
    gain = getattr(norm, "w", None)
    scaled = directions.float()
    if gain is not None:
        # Gemma's norm multiplies by 1 + weight; the conversion to a HookedTransformer adds the 1, the bridge does not.
        offset = 1.0 if getattr(model.cfg, "rmsnorm_uses_offset", False) else 0.0
        scaled = scaled * (gain.detach().float() + offset)
    return torch.cat([scaled @ block.float() for block in model.W_U.detach().split(16384, dim=1)], dim=1)


def check_layers(layers: Any, n_layers: int, *, error: type[ValueError] = ValueError) -> tuple[int, ...]:
    """These layers in order, or `error` if they are not different whole numbers in range, at least one."""
    listed = isinstance(layers, Iterable) and not isinstance(layers, str | Mapping)
    asked = list(layers) if listed else layers
    try:
        chosen = tuple(sorted(_whole(layer) for layer in asked)) if listed else ()
    except TypeError:
        chosen = ()
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < n_layers or len(set(chosen)) != len(chosen):
        raise error(f"layers must be different ones among 0..{n_layers - 1}, at least one; got {asked!r}")
    return chosen


def _whole(value: Any) -> int:
    if isinstance(value, bool) or getattr(value, "dtype", None) is torch.bool:  # which have an index too
        raise TypeError("no number")
    return index(value)
