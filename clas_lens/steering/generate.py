"""Greedy generation that is batched, exact and steerable: our own masks, a KV cache, no logits that nobody reads."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clas_lens.corpus.tokens import length_batches, pad, require_tokenizer, tokenize
from clas_lens.models.decoding import Decoder, make_decoder
from clas_lens.models.sites import LensModel, device_of
from clas_lens.steering.steer import steerings_on

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
