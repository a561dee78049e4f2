"""Greedy generation that is batched, exact and steerable: our own masks, a KV cache, no logits that nobody reads."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from clas_lens.corpus.arguments import given_model
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.tokens import length_batches, pad, require_tokenizer, starts_longer_than, tokenize
from clas_lens.given import given_flag, given_whole, in_a_row
from clas_lens.models.decoding import Decoder, make_decoder
from clas_lens.models.numbers import check_logits
from clas_lens.models.room import in_parts_that_fit
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
        prompts: texts, which get the tokenizer's BOS and in which names of special tokens are ordinary text, or lists of
            token ids, which are taken as they are (the output of a chat template, say).
        max_new_tokens: at most; a row stops early at an end token (`end_token_ids`).
        stop_at_newline: also stop a row at the first newline after its first visible character.

    Returns:
        The new text alone, without special tokens.
    """
    tokenizer = require_tokenizer(given_model(model))
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
        ValueError: no prompts, an empty prompt, a prompt that leaves no room for new tokens in the model's context, or logits
            that are NaN or infinite.
    """
    given_model(model)
    given_whole("max_new_tokens", max_new_tokens, least=1)
    given_whole("batch_size", batch_size, least=1)
    given_flag("stop_at_newline", stop_at_newline)
    ids = prompt_ids(model, prompts, new_tokens=max_new_tokens)
    for steering in steerings_on(model):
        steering.check_rows(len(ids))
    results: list[list[int]] = [[] for _ in ids]
    batches = length_batches([len(row) for row in ids], batch_size)

    def run(rows: Sequence[int]) -> list[list[int]]:
        return continued(model, ids, rows, max_new_tokens, stop_at_newline)[1]

    for batch in tqdm(batches, unit="batch", desc="generate", disable=not progress):
        for rows, new in in_parts_that_fit(batch, run, what="prompts"):
            for row, tokens in zip(rows, new, strict=True):
                results[row] = tokens
    return results


def continued(
    model: LensModel,
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
    max_new_tokens: int,
    stop_at_newline: bool = False,
) -> tuple[Float[Tensor, "row d_vocab"], list[list[int]]]:
    """One batch, of these rows of `ids`: the logits after each prompt, and its greedy continuation."""
    batch = pad(ids, rows, device=device_of(model))
    decoder = make_decoder(model, len(rows))
    with ExitStack() as stack, torch.inference_mode():
        for steering in steerings_on(model):
            stack.enter_context(steering.rows(rows))
        logits = decoder.step(batch.tokens, batch.attention_mask)
        new, _ = greedy(
            model, decoder, logits, max_new_tokens=max_new_tokens, stop_at_newline=stop_at_newline, prompts=rows
        )
        return logits, new


def greedy(
    model: LensModel,
    decoder: "Decoder",
    logits: Float[Tensor, "batch d_vocab"],
    *,
    max_new_tokens: int,
    stop_at_newline: bool,
    prompts: Sequence[int] | None = None,
) -> tuple[list[list[int]], list[bool]]:
    """Go on greedily from a decoder that has seen the prompts and the logits after them; finished rows are dropped.

    Where the model is steered per row, its languages are the rows of this batch.

    Args:
        prompts: which prompts the rows are, for errors; default in their order.

    Returns:
        New token ids a row, and whether the row ended by itself: at an end token, or at a newline where that is asked for.

    Raises:
        NonFiniteLogitsError: a logit that is NaN or infinite.
    """
    tokenizer = require_tokenizer(model)
    ends = end_token_ids(model)
    produced: list[list[int]] = [[] for _ in logits]
    ended = [False] * len(logits)
    alive = list(range(len(logits)))
    for step in range(1, max_new_tokens + 1):
        check_logits(logits, alive if prompts is None else [prompts[row] for row in alive])
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


def prompt_ids(model: LensModel, prompts: Sequence[Prompt], *, new_tokens: int = 0) -> list[tuple[int, ...]]:
    """Token ids of prompts: texts get the tokenizer's BOS, lists of ids are taken as they are.

    Args:
        new_tokens: that many are to follow each prompt.

    Raises:
        ValueError: no list of prompts, an empty one, one that is neither a text nor token ids of the model, or one that with
            the new tokens exceeds the model's context.
    """
    given = checked_prompts(prompts)
    context, size = model.cfg.n_ctx, model.cfg.d_vocab
    after = (
        f"with {new_tokens} new ones it exceeds the context of {context}. Shorten the prompt or lower max_new_tokens."
    )
    if isinstance(given[0], str):
        tokenizer = require_tokenizer(model)
        if any(starts_longer_than(tokenizer, text, context) for text in given):
            raise ValueError(f"the longest prompt has more than {context} tokens; {after}")
        given = list(tokenize(tokenizer, given).ids)
    for place, ids in enumerate(given):
        odd = [token for token in ids if not 0 <= token < size]
        if odd:
            raise ValueError(f"prompt {place}: token id {odd[0]} is not in the model's vocabulary of {size}")
    longest = max(map(len, given))
    if longest + new_tokens > context:
        raise ValueError(f"the longest prompt has {longest} tokens; {after}")
    return given


def _is_id(token: object) -> bool:
    return hasattr(token, "__index__") and not isinstance(token, bool)


def checked_prompts(prompts: Any) -> list[Any]:
    """Prompts as a list of texts or a list of tuples of token ids.

    Raises:
        ValueError: a single prompt, no prompts, an empty prompt, texts and ids mixed, or what is neither.
    """
    if isinstance(prompts, ParallelCorpus) or not in_a_row(prompts):
        raise ValueError(
            f"prompts must be a list of texts or of lists of token ids, got {prompts!r}: give [prompt] for one"
        )
    given = list(prompts)
    if not given:
        raise ValueError("no prompts given")
    if all(isinstance(prompt, str) for prompt in given):
        return given
    if any(isinstance(prompt, str) for prompt in given):
        raise ValueError("prompts must be all texts or all lists of token ids")
    rows = []
    for place, prompt in enumerate(given):
        tokens = prompt.tolist() if hasattr(prompt, "tolist") else prompt
        if not isinstance(tokens, list | tuple) or not all(_is_id(token) for token in tokens):
            raise ValueError(f"prompt {place} is neither a text nor a list of token ids but {prompt!r}")
        if not tokens:
            raise ValueError(f"prompt {place} is empty")
        rows.append(tuple(int(token) for token in tokens))
    return rows


def end_token_ids(model: LensModel) -> set[int]:
    """The tokens that end an answer.

    Those of the model's own generation config, where it has a file of one; else what its configuration and its tokenizer
    have as end of sequence, and the ends of turn that the tokenizer knows by name.
    """
    generation = getattr(model, "generation_config", None)
    if generation is None:
        generation = getattr(getattr(model, "original_model", None), "generation_config", None)
    listed: Any = getattr(generation, "eos_token_id", None)
    ends = set() if listed is None else {int(one) for one in (listed if isinstance(listed, list | tuple) else [listed])}
    if ends and not getattr(generation, "_from_model_config", False):
        return ends
    tokenizer = require_tokenizer(model)
    # Asking for a few names; get_vocab() takes half a second where there are 262,144. An unknown name gives the unknown token.
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
