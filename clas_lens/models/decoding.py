"""One batch being decoded: a KV cache and the mask of everything in it, the same to the caller on both backends."""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.model_bridge import TransformerBridge

from clas_lens.given import given_whole
from clas_lens.models.backends import HookedTransformer, LensModel, given_lens_model
from clas_lens.models.forward import unembed_last
from clas_lens.models.lean import lean_passes
from clas_lens.models.sites import device_of


@runtime_checkable
class Decoder(Protocol):
    """One batch being decoded: the KV cache of a backend and the mask of everything in it."""

    def step(
        self, tokens: Int[Tensor, "batch new"], mask: Int[Tensor, "batch new"], columns: Sequence[int] | None = None
    ) -> Float[Tensor, "batch columns"]:
        """Feed new tokens and return the logits after the last of them: all, or those of some token ids."""
        ...

    def keep(self, rows: Int[Tensor, "kept"]) -> None:
        """Drop all other batch rows."""
        ...

    def cached(self, layers: int) -> list[Any]:
        """The cache of the first `layers` layers as it is now; going on with this decoder does not change it."""
        ...

    def adopt(self, cached: Sequence[Any], layers: int) -> None:
        """Take the cache of the first `layers` layers, which this decoder has not run, from another decoder's `cached`."""
        ...


def make_decoder(model: LensModel, batch: int) -> Decoder:
    """A fresh KV cache for `batch` rows."""
    given_lens_model(model)
    given_whole("batch", batch, least=1)
    return _HookedDecoder(model, batch) if isinstance(model, HookedTransformer) else _BridgeDecoder(model)


def continues_cache(arguments: Iterable[Any], layer: int) -> bool:
    """Whether a layer that is given these arguments goes on from keys and values of earlier passes.

    A `HookedTransformer`'s block is given its own entry of the cache, a bridge's Transformers' whole cache.
    """
    for one in arguments:
        if hasattr(one, "past_keys"):
            return one.past_keys.shape[1] > 0
        if hasattr(one, "get_seq_length"):
            return one.get_seq_length(layer) > 0
    return False


class _HookedDecoder:
    def __init__(self, model: HookedTransformer, batch: int) -> None:
        self._model = model
        self._cache = TransformerLensKeyValueCache.init_cache(model.cfg, device_of(model), batch)

    def step(self, tokens: Tensor, mask: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        residual = self._model(
            tokens, attention_mask=mask, past_kv_cache=self._cache, stop_at_layer=self._model.cfg.n_layers
        )
        return unembed_last(self._model, residual, columns)

    def keep(self, rows: Tensor) -> None:
        for entry in self._cache.entries:
            here = rows.to(entry.past_keys.device)
            entry.past_keys, entry.past_values = entry.past_keys[here], entry.past_values[here]
        self._cache.previous_attention_mask = self._cache.previous_attention_mask[rows]

    def cached(self, layers: int) -> list[Any]:
        return [copy(entry) for entry in self._cache.entries[:layers]]

    def adopt(self, cached: Sequence[Any], layers: int) -> None:
        for index in range(layers):
            self._cache.entries[index] = copy(cached[index])


class _BridgeDecoder:
    def __init__(self, model: TransformerBridge) -> None:
        self._model = model
        self._cache: Any = None
        self._mask: Tensor | None = None

    def step(self, tokens: Tensor, mask: Tensor, columns: Sequence[int] | None = None) -> Tensor:
        self._mask = mask if self._mask is None else torch.cat([self._mask, mask], dim=1)
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        with lean_passes(self._model):
            output = self._model.original_model(
                input_ids=tokens,
                attention_mask=self._mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = output.past_key_values
        logits = output.logits[:, -1]
        return logits if columns is None else logits[:, list(columns)]

    def keep(self, rows: Tensor) -> None:
        assert self._mask is not None
        self._cache.batch_select_indices(rows)
        self._mask = self._mask[rows]

    def cached(self, layers: int) -> list[Any]:
        return [copy(layer) for layer in self._cache.layers[:layers]]

    def adopt(self, cached: Sequence[Any], layers: int) -> None:
        for index in range(layers):
            self._cache.layers[index] = copy(cached[index])


# A decoder that has seen the prompts, and the logits after them.
Answering: TypeAlias = tuple[Decoder, Float[Tensor, "batch columns"]]
