"""The forward loop that pools the residual stream over texts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clas_lens.corpus.tokens import TokenBatch, TokenizedTexts, pad
from clas_lens.models.sites import HookFunction, LensModel, device_of, hooked, residual_name, run_layers
from clas_lens.vocabulary import Pool


@contextmanager
def pooling_residuals(
    model: LensModel, batch: TokenBatch, layers: Sequence[int], pool: Pool = "mean"
) -> Iterator[dict[int, Float[Tensor, "batch d_model"]]]:
    """Gives a dict that the forward passes of `batch` inside fill: the pooled residual stream at each layer's output."""
    pooled: dict[int, Tensor] = {}
    weights = torch.zeros_like(batch.content_mask, dtype=torch.float32)
    match pool:
        case "mean":
            weights += batch.content_mask / batch.content_mask.sum(1, keepdim=True)
        case "last":
            weights[:, -1] = 1  # padding is on the left

    def on_residual(layer: int) -> HookFunction:
        def hook(residual: Tensor, hook: object) -> None:
            pooled[layer] = torch.einsum("bp,bpd->bd", weights, residual.float()).cpu()

        return hook

    with hooked(model, [(residual_name(layer), on_residual(layer)) for layer in layers]):
        yield pooled


def read_texts(
    model: LensModel,
    texts: TokenizedTexts,
    batches: Sequence[Sequence[int]],
    layers: Sequence[int],
    pool: Pool,
    bar: "tqdm[Any]",
) -> Float[Tensor, "example layer d_model"]:
    """One language's representations, in corpus order."""
    values = torch.zeros(len(texts.ids), len(layers), model.cfg.d_model)
    for group in batches:
        rows = list(group)
        batch = pad(texts.ids, rows, n_prefix=texts.n_prefix, device=device_of(model))
        with pooling_residuals(model, batch, layers, pool) as pooled:
            run_layers(model, batch.tokens, batch.attention_mask)
        values[rows] = torch.stack([pooled[layer] for layer in layers], dim=1)
        bar.update()
    return values


def check_finite(values: Float[Tensor, "example layer d_model"], layers: Sequence[int], language: str) -> None:
    """Raise `NonFiniteActivationError` for NaN or infinite values."""
    bad = [layer for place, layer in enumerate(layers) if not values[:, place].isfinite().all()]
    if bad:
        raise NonFiniteActivationError(
            f"NaN or infinite representations in layer {bad[0]}, language {language!r}. "
            "Try dtype=torch.float32 or bfloat16 (float16 overflows), and check the weights."
        )


class NonFiniteActivationError(ValueError):
    """An activation is NaN or infinite."""
