"""Where things are in a model, for both backends: hook points, shapes, gates.

Everything that differs between `HookedTransformer` and `TransformerBridge` and matters to us is here, in `forward.py` and in
`decoding.py`, so that no other module asks which of the two it has.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, total_ordering
from typing import Any, assert_never, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge.generalized_components.gated_mlp import resolve_activation_fn
from transformers import PreTrainedModel

from clas_lens.given import whole_place
from clas_lens.models.backends import HookedTransformer, LensModel, given_lens_model
from clas_lens.models.hooking import HookFunction as HookFunction
from clas_lens.models.hooking import hook_points, refuse_compiled
from clas_lens.models.hooking import hooked as hooked
from clas_lens.models.loading import ModelLoadError
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
        if name not in hook_points(model):
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
    points = hook_points(model)
    # The bridge gives mixture-of-experts layers a hook_post that is the layer's output, not its neurons.
    missing = [
        layer
        for layer in range(model.cfg.n_layers)
        if points.get(post_name(layer)) in (None, points.get(f"blocks.{layer}.mlp.hook_out"))
    ]
    if missing:
        mlp_hooks = [name for name in hook_points(model) if name.startswith("blocks.0.") and "hook_post" in name]
        raise ModelLoadError(
            f"{model.cfg.model_name} has no MLP hook point {post_name(missing[0])!r} "
            f"({len(missing)} of {model.cfg.n_layers} layers lack it; found in layer 0: {mlp_hooks[:3] or 'none'}). "
            "Attention-only and mixture-of-experts models are not supported."
        )


def down_projection(model: LensModel, layer: int) -> Float[Tensor, "neuron d_model"]:
    """W_down: row n is what neuron n writes to the residual stream, per unit of activation."""
    block: Any = given_lens_model(model).blocks[check_layers([layer], model.cfg.n_layers)[0]]
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


def check_layers(layers: Any, n_layers: int, *, error: type[ValueError] = ValueError) -> tuple[int, ...]:
    """These layers in order, or `error` if they are not different whole numbers in range, at least one."""
    listed = isinstance(layers, Iterable) and not isinstance(layers, str | bytes | Mapping)
    asked = layers
    try:
        asked = list(layers) if listed else layers
        chosen = tuple(sorted(map(whole_place, asked))) if listed else ()
    except TypeError:  # also where an array of no dimension is gone through
        chosen = ()
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < n_layers or len(set(chosen)) != len(chosen):
        raise error(f"layers must be different ones among 0..{n_layers - 1}, at least one; got {asked!r}")
    return chosen
