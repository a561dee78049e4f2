"""A bridge's passes without what nobody looks at: attention's pattern, memory quadratic in a text's length, and norms' scales.

TransformerLens's bridge computes both beside what Transformers computes, whatever `attn_implementation` says and whether or
not they are hooked. Inside `lean_passes` the layers call the Transformers modules that they wrap instead: a norm gives the same
to the last bit, attention with PyTorch's own kernel the same but for float error.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from types import MethodType
from typing import Any

from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge.generalized_components.rms_normalization import RMSNormalizationBridge

from clas_lens.models.backends import HookedTransformer, LensModel
from clas_lens.models.hooking import hook_points

# Where the kernel computes all that their attention is; others may cap scores or add to them, unseen in a short probe.
PLAIN_ATTENTION = frozenset(f"{stem}ForCausalLM" for stem in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma3"))

KEPT = "_clas_lens_norms"  # of a bridge: on the model, as its hook points are (`hooking.KEPT`)

_agreed: "weakref.WeakSet[Any]" = weakref.WeakSet()


def allow_lean_attention(model: LensModel) -> None:
    """Remember that the probe found the same neurons and logits with it."""
    _agreed.add(model)


def unseen_attentions(model: LensModel) -> list[Any]:
    """A bridge's attentions, layer by layer, which the kernel computes whole and in which nothing is hooked or replaced.

    Each for itself: what a layer computes does not depend on what is hooked in another.
    """
    if isinstance(model, HookedTransformer) or type(model.original_model).__name__ not in PLAIN_ATTENTION:
        return []
    config: Any = model.original_model.config
    if getattr(config, "attn_logit_softcapping", None):
        return []
    points = hook_points(model).items()
    watched = {name.split(".")[1] for name, point in points if "attn" in name and _is_watched(point)}
    blocks: Any = model.blocks
    return [
        block.attn
        for layer, block in enumerate(blocks)
        if str(layer) not in watched and "forward" not in vars(block.attn)
    ]


class _Direct:
    """A `forward` that calls the Transformers module which a part wraps; in a copy of the model it is the part's own again."""

    def __init__(self, part: Any) -> None:
        self._part = part

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        result = self._part.original_component(*arguments, **options)
        if isinstance(result, Tensor) and result.dtype != arguments[0].dtype:
            return result.to(
                arguments[0].dtype
            )  # as the bridge's norm does, whose weights may be kept in another dtype
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> MethodType:
        part = deepcopy(self._part, memo)
        return MethodType(type(part).forward, part)


@contextmanager
def lean_passes(model: LensModel, *, probing: bool = False) -> Iterator[None]:
    """Forward passes inside compute no attention pattern in layers where nobody looks, if the probe has found that to be the
    same, and of norms that nobody has hooked what they return alone.
    """
    if isinstance(model, HookedTransformer):
        yield
        return
    bridge: Any = model
    attentions = unseen_attentions(model) if probing or model in _agreed else []
    parts = [*_unseen_norms(bridge), *attentions]
    config, before = bridge.original_model.config, bridge.original_model.config._attn_implementation

    def undo() -> None:
        for part in parts:
            vars(part).pop("forward", None)
        if attentions:
            config._attn_implementation = before

    try:
        try:
            if attentions:
                config._attn_implementation = "sdpa"
            for part in parts:
                vars(part)["forward"] = _Direct(part)
            yield
        finally:
            undo()
    finally:  # for a Ctrl-C inside the first; a second time changes nothing
        undo()


def _unseen_norms(bridge: Any) -> list[Any]:
    """The norms that return what the Transformers module returns, and in which nothing is hooked or replaced."""
    norms = vars(bridge).get(KEPT)
    if norms is None:
        norms = [one for one in bridge.original_model.modules() if isinstance(one, RMSNormalizationBridge)]
        vars(bridge)[KEPT] = norms
    return [
        norm
        for norm in norms
        if norm.use_native_layernorm_autograd
        and "forward" not in vars(norm)
        and not any(map(_is_watched, (norm.hook_in, norm.hook_scale, norm.hook_normalized, norm.hook_out)))
    ]


def _is_watched(point: HookPoint) -> bool:
    return bool(point._forward_hooks or point._forward_pre_hooks or point._backward_hooks or point._backward_pre_hooks)
