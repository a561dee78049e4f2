"""Greedy generation that is batched, exact and steerable: our own masks, a KV cache, no logits that nobody reads."""

from collections.abc import Sequence
from contextlib import ExitStack
from copy import copy
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm
from transformer_lens import HookedTransformer
from transformer_lens.cache.key_value_cache import TransformerLensKeyValueCache
from transformer_lens.model_bridge import TransformerBridge

from clas_lens.sites import LensModel, device_of, unembed_last
from clas_lens.steering import steerings_on
from clas_lens.tokens import length_batches, pad, require_tokenizer, tokenize

Prompt: TypeAlias = str | Sequence[int]
END_OF_TURN = ("<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<end_of_turn>", "<|end_of_text|>", "<|endoftext|>")


def generate(
    model: LensModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 16,
    stop_at_newline: bool = False,
    progress: bool = False,
) -> list[str]:
    """Greedy continuations of prompts, in their order.

    Inside `steer(model, clas, language=[...])` each prompt is steered in its own language, also where batches are sorted by
    length and rows that have finished are dropped.

    Args:
        prompts: texts, which get the tokenizer's BOS, or lists of token ids, which are taken as they are (the output of a
            chat template, say).
        max_new_tokens: at most; a row stops early at an end-of-sequence or end-of-turn token.
        stop_at_newline: also stop a row at the first newline after its first visible character.

    Returns:
        The new text alone, without special tokens.
    """
    tokenizer = require_tokenizer(model)
    rows = generate_tokens(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        stop_at_newline=stop_at_newline,
        progress=progress,
    )
    texts = [str(tokenizer.decode(row, skip_special_tokens=True)) for row in rows]
    return [first_line(text) for text in texts] if stop_at_newline else texts


def generate_tokens(
    model: LensModel,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int = 32,
    batch_size: int = 16,
    stop_at_newline: bool = False,
    progress: bool = False,
) -> list[list[int]]:
    """`generate`, as new token ids; an end token is kept as the last one.

    Raises:
        ValueError: no prompts, an empty prompt, or a prompt that leaves no room for new tokens in the model's context.
    """
    if not prompts:
        raise ValueError("no prompts given")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    ids = prompt_ids(model, prompts)
    longest = max(len(row) for row in ids)
    if longest + max_new_tokens > model.cfg.n_ctx:
        raise ValueError(
            f"the longest prompt has {longest} tokens; with {max_new_tokens} new ones it exceeds the context of "
            f"{model.cfg.n_ctx}. Shorten the prompt or lower max_new_tokens."
        )
    for steering in steerings_on(model):
        steering.check_rows(len(ids))
    results: list[list[int]] = [[] for _ in ids]
    batches = length_batches([len(row) for row in ids], batch_size)
    for rows in tqdm(batches, unit="batch", desc="generate", disable=not progress):
        new = _generate_batch(model, ids, rows, max_new_tokens, stop_at_newline)
        for row, tokens in zip(rows, new, strict=True):
            results[row] = tokens
    return results


def _generate_batch(
    model: LensModel,
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
    max_new_tokens: int,
    stop_at_newline: bool,
) -> list[list[int]]:
    batch = pad(ids, rows, device=device_of(model))
    decoder = make_decoder(model, len(rows))
    with ExitStack() as stack, torch.inference_mode():
        for steering in steerings_on(model):
            stack.enter_context(steering.rows(rows))
        logits = decoder.step(batch.tokens, batch.attention_mask)
        new, _ = greedy(model, decoder, logits, max_new_tokens=max_new_tokens, stop_at_newline=stop_at_newline)
        return new


def greedy(
    model: LensModel,
    decoder: "Decoder",
    logits: Float[Tensor, "batch d_vocab"],
    *,
    max_new_tokens: int,
    stop_at_newline: bool,
) -> tuple[list[list[int]], list[bool]]:
    """Go on greedily from a decoder that has seen the prompts and the logits after them; finished rows are dropped.

    Where the model is steered per row, its languages are the rows of this batch.

    Returns:
        New token ids a row, and whether the row ended by itself: at an end token, or at a newline where that is asked for.
    """
    tokenizer = require_tokenizer(model)
    ends = end_token_ids(model)
    produced: list[list[int]] = [[] for _ in logits]
    ended = [False] * len(logits)
    alive = list(range(len(logits)))
    for step in range(1, max_new_tokens + 1):
        chosen = logits.argmax(-1)
        for row, token in zip(alive, chosen.tolist(), strict=True):
            produced[row].append(token)
            newline = stop_at_newline and "\n" in str(tokenizer.decode(produced[row])).lstrip()
            ended[row] = token in ends or newline
        keep = [place for place, row in enumerate(alive) if not ended[row]]
        if not keep or step == max_new_tokens:
            break
        if len(keep) < len(alive):
            alive = [alive[place] for place in keep]
            decoder.keep(torch.tensor(keep, device=chosen.device))
            chosen = chosen[keep]
        tokens = chosen[:, None]
        with ExitStack() as stack, torch.inference_mode():
            for steering in steerings_on(model):
                stack.enter_context(steering.rows(alive))
            logits = decoder.step(tokens, torch.ones_like(tokens))
    return produced, ended


def prompt_ids(model: LensModel, prompts: Sequence[Prompt]) -> list[tuple[int, ...]]:
    """Token ids of prompts: texts get the tokenizer's BOS, lists of ids are taken as they are."""
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    if len(texts) not in (0, len(prompts)):
        raise ValueError("prompts must be all texts or all lists of token ids")
    if texts:
        return list(tokenize(require_tokenizer(model), texts).ids)
    ids = [tuple(int(token) for token in prompt) for prompt in prompts]
    if not all(ids):
        raise ValueError(f"prompt {ids.index(())} is empty")
    return ids


def end_token_ids(model: LensModel) -> set[int]:
    """End-of-sequence and end-of-turn tokens of the model's tokenizer."""
    tokenizer = require_tokenizer(model)
    # Asking for a few names; get_vocab() takes half a second where there are 262,144. An unknown name gives the unknown token.
    ends = set()
    for name in END_OF_TURN:
        token: Any = tokenizer.convert_tokens_to_ids(name)
        if token is not None and tokenizer.convert_ids_to_tokens(token) == name:
            ends.add(token)
    if tokenizer.eos_token_id is not None:
        ends.add(tokenizer.eos_token_id)
    return ends


def first_line(text: str) -> str:
    """The first line that is not blank."""
    return text.lstrip().split("\n", 1)[0]


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
    return _HookedDecoder(model, batch) if isinstance(model, HookedTransformer) else _BridgeDecoder(model)


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
