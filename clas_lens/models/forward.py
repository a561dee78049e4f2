"""Forward passes that end where they are wanted, for both backends: below the unembedding, or at the last columns."""

from collections.abc import Sequence
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.given import given
from clas_lens.models.backends import HookedTransformer, LensModel, given_lens_model
from clas_lens.models.lean import lean_passes
from clas_lens.models.numbers import check_logits


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
        with lean_passes(model):
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
            with lean_passes(model):
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


def direct_logits(
    model: LensModel, directions: Float[Tensor, "direction d_model"]
) -> Float[Tensor, "direction d_vocab"]:
    """What adding each direction to the final residual stream adds to the logits, with the final norm's scale taken as 1.

    The logit lens of a direction: the final norm's gain and W_U, without their biases. Weights with the gain folded into
    W_U and weights without agree. In float32, a block of the vocabulary at a time.
    """
    given_lens_model(model)
    given(directions, Tensor, "direct_logits needs a tensor [direction d_model]", "a row of down_projection, say")
    norm: Any = getattr(model, "ln_final", None)
    gain = getattr(norm, "w", None)
    scaled = directions.float()
    if gain is not None:
        # Gemma's norm multiplies by 1 + weight; the conversion to a HookedTransformer adds the 1, the bridge does not.
        offset = 1.0 if getattr(model.cfg, "rmsnorm_uses_offset", False) else 0.0
        scaled = scaled * (gain.detach().float() + offset)
    return torch.cat([scaled @ block.float() for block in model.W_U.detach().split(16384, dim=1)], dim=1)
