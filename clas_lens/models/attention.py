"""A bridge's attention without the pattern, where nobody reads one: PyTorch's own kernel, memory linear in a text's length.

TransformerLens's bridge computes attention itself, pattern and all, whatever `attn_implementation` says. Inside
`lean_attention` the layers call the Transformers module that they wrap instead.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clas_lens.models.backends import HookedTransformer, LensModel
from clas_lens.models.hooking import hook_points

# Where the kernel computes all that their attention is; others may cap scores or add to them, unseen in a short probe.
PLAIN_ATTENTION = frozenset(f"{stem}ForCausalLM" for stem in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma3"))

_agreed: "weakref.WeakSet[Any]" = weakref.WeakSet()


def allow_lean_attention(model: LensModel) -> None:
    """Remember that the probe found the same neurons with it."""
    _agreed.add(model)


def can_be_lean(model: LensModel) -> bool:
    """Whether the model is a bridge whose attention the kernel computes, and nothing is hooked inside any attention."""
    if isinstance(model, HookedTransformer) or type(model.original_model).__name__ not in PLAIN_ATTENTION:
        return False
    config: Any = model.original_model.config
    if getattr(config, "attn_logit_softcapping", None):
        return False
    hooked = any("attn" in name and point._forward_hooks for name, point in hook_points(model).items())
    blocks: Any = model.blocks
    return not hooked and not any("forward" in vars(block.attn) for block in blocks)


@contextmanager
def lean_attention(model: LensModel, *, probing: bool = False) -> Iterator[None]:
    """Forward passes inside compute no attention pattern, where that is possible and the probe has found it to be the same."""
    if not (can_be_lean(model) and (probing or model in _agreed)):
        yield
        return
    bridge: Any = model
    config, before = bridge.original_model.config, bridge.original_model.config._attn_implementation
    try:
        config._attn_implementation = "sdpa"
        for block in bridge.blocks:
            vars(block.attn)["forward"] = block.attn.original_component.forward
        yield
    finally:
        for block in bridge.blocks:
            vars(block.attn).pop("forward", None)
        config._attn_implementation = before
