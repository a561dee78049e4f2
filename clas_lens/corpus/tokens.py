"""Token ids, masks and batches. Masks are built from lengths, never read back from token ids.

A pad token can also be a real token (Llama 3.1 pads with `<|eot_id|>`), and "left" padding is only right if the model is
told which positions are padding; so ids and masks travel together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedTokenizerBase

from clas_lens.corpus.checks import listed_values, text_fault
from clas_lens.given import given, given_each, given_whole, given_word, named
from clas_lens.vocabulary import PaddingSide

# Measured on 2 cores with Gemma 3 270M: 5,500 tokens take 15 s in batches up to this size and 30 s in batches of 16 x 400.
CPU_BATCH_TOKENS = 1536
# What a batch costs there beside its tokens, in tokens; from 16 to 128 it makes no difference. The benchmark of collection
# compares these batches with full ones.
CPU_BATCH_COST = 64


TEXTS_AT_ONCE = 256  # what a tokenizer returns beside the ids, offsets and strings, is many times as large


# So many characters hold more tokens than asked for, in any language; where they do not, twice as many are read.
CHARS_A_TOKEN = 64


# How many tokens fewer a text can have where it meets another.
TOKENS_THAT_JOIN = 2


@dataclass(frozen=True)
class TokenizedTexts:
    """Token ids of some texts.

    Attributes:
        ids: one list of token ids a text, with the BOS token in front if the tokenizer puts one there.
        n_prefix: how many ids in front are not content: 1 with a BOS token, else 0.
        truncated: positions of the texts that were cut at the end to fit.
    """

    ids: tuple[tuple[int, ...], ...]
    n_prefix: int
    truncated: tuple[int, ...]

    @property
    def n_tokens(self) -> int:
        """Content tokens: no padding, no BOS."""
        return sum(len(row) - self.n_prefix for row in self.ids)


@dataclass(frozen=True)
class TokenBatch:
    """A padded batch.

    Attributes:
        tokens: ids.
        attention_mask: 1 at real tokens, 0 at padding.
        content_mask: True at content tokens (real tokens after the BOS).
        rows: which text each batch row is.
    """

    tokens: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    content_mask: Bool[Tensor, "batch pos"]
    rows: tuple[int, ...]


def require_tokenizer(model: object) -> PreTrainedTokenizerBase:
    """The model's tokenizer, or an error that says how to give it one."""
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None:
        raise ValueError(
            "this model has no tokenizer, and texts need one: load_model(hf_model, tokenizer=...) or "
            "model.set_tokenizer(...)"
        )
    return tokenizer


def bos_prefix(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer puts before a text by itself: [BOS] (Llama, Gemma), nothing (Qwen), or others (GLM's two).

    Raises:
        ValueError: no tokenizer.
    """
    if isinstance(tokenizer, Module) or not callable(tokenizer):
        raise ValueError(f"a tokenizer is needed, got {named(tokenizer)}: model.tokenizer, or AutoTokenizer loads one")
    whole, plain = (list(tokenizer("a", add_special_tokens=special)["input_ids"]) for special in (True, False))
    for start in range(len(whole) - len(plain) + 1):
        if whole[start : start + len(plain)] == plain:
            return whole[:start]
    return []


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int | None = None
) -> TokenizedTexts:
    """Tokenise texts one by one, cutting each at `max_tokens` ids (BOS included) and saying which were cut.

    Names of special tokens within a text ("<bos>", "<|eot_id|>") are ordinary text, as they are in prompts.

    Raises:
        ValueError: a text without a single token, or what is no text.
    """
    prefix = bos_prefix(tokenizer)
    if max_tokens is not None and given_whole("max_tokens", max_tokens, least=1) <= len(prefix):
        raise ValueError(f"max_tokens={max_tokens} leaves no room for content after {len(prefix)} BOS token(s)")
    given = listed_values("texts", texts)
    for position, text in enumerate(given):
        wrong = text_fault(text)
        if (wrong and not isinstance(text, str | None)) or (wrong and "surrogate" in wrong):
            raise ValueError(f"text {position} {wrong}")
    plain: list[list[int]] = []
    for start in range(0, len(given), TEXTS_AT_ONCE):
        plain += _contents(tokenizer, given[start : start + TEXTS_AT_ONCE], max_tokens)
    rows = [prefix + ids for ids in plain]
    for position, row in enumerate(rows):
        if len(row) == len(prefix):
            raise ValueError(f"text {position} ({given[position]!r}) has no tokens")
    truncated = tuple(i for i, row in enumerate(rows) if max_tokens is not None and len(row) > max_tokens)
    return TokenizedTexts(tuple(tuple(row[:max_tokens]) for row in rows), len(prefix), truncated)


def _contents(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int | None) -> list[list[int]]:
    """Ids without BOS; of a text far longer than `max_tokens` only its beginning is read, with more ids than those."""
    chars = None if max_tokens is None else max_tokens * CHARS_A_TOKEN
    found = tokenizer([text[:chars] for text in texts], add_special_tokens=False, split_special_tokens=True)[
        "input_ids"
    ]
    for place, text in enumerate(texts):
        if chars is not None and max_tokens is not None and len(text) > chars and len(found[place]) <= max_tokens:
            (found[place],) = _contents(tokenizer, [text], 2 * max_tokens)
    return found


def starts_longer_than(tokenizer: PreTrainedTokenizerBase, text: str, max_tokens: int) -> bool:
    """Whether a text's beginning alone has more than `max_tokens` tokens: asked of texts so long that reading them whole, to
    say how many they have, would take long. False of all others.
    """
    chars = max_tokens * CHARS_A_TOKEN
    while len(text) > chars:
        ids = tokenizer(text[:chars], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if len(ids) > max_tokens + TOKENS_THAT_JOIN:
            return True
        chars *= 2
    return False


def length_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Positions in batches of `batch_size` and similar length, longest first, so that one that does not fit fails at once."""
    batch_size = given_whole("batch_size", batch_size, least=1)
    order = _longest_first(lengths)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _longest_first(lengths: Sequence[int]) -> list[int]:
    return sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


def forward_batches(lengths: Sequence[int], batch_size: int, device: torch.device) -> list[list[int]]:
    """`length_batches` for plain forward passes. On a CPU, where every place of a batch takes its time, also the padding's, the
    batches are bounded in tokens (past that passes get slower) and smaller where full ones would be padded much.
    """
    if device.type != "cpu":
        return length_batches(lengths, batch_size)
    return _cheapest_batches(lengths, given_whole("batch_size", batch_size, least=1))


def _cheapest_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of similar length, longest first, with the least places in all, `CPU_BATCH_COST` added a batch.

    From the longest row on, the cost of the first rows is that of all but the last batch's and the last batch's, whichever of
    its possible beginnings is the cheapest.
    """
    order = _longest_first(lengths)
    costs, starts = [0], [0]
    for end in range(1, len(order) + 1):
        options: list[tuple[int, int]] = []
        for start in range(end - 1, max(end - batch_size, 0) - 1, -1):
            places = lengths[order[start]] * (end - start)
            if places > CPU_BATCH_TOKENS and options:
                break
            options.append((costs[start] + places + CPU_BATCH_COST, start))
        cost, start = min(options)
        costs.append(cost)
        starts.append(start)
    batches, end = [], len(order)
    while end:
        batches.append(order[starts[end] : end])
        end = starts[end]
    return batches[::-1]


def pad(
    ids: Sequence[Sequence[int]],
    rows: Sequence[int],
    *,
    n_prefix: int = 0,
    side: PaddingSide = "left",
    device: torch.device | str = "cpu",
) -> TokenBatch:
    """Pad `ids[row] for row in rows` into one batch. Padding is filled with token 0; the masks say where it is."""
    given_word("padding side", side, get_args(PaddingSide))
    n_prefix = given_whole("n_prefix", n_prefix)
    wanted, how = "pad needs lists of token ids", "TokenizedTexts.ids, say"
    given(ids, Sequence, wanted, how)
    rows = [given_whole("a row", row, most=len(ids) - 1) for row in listed_values("rows", rows)]
    if not rows:
        raise ValueError("pad needs at least one row, got none")
    # Of the others nothing is asked: a corpus has many, and each batch is padded by itself.
    width = max(len(one) for one in given_each([ids[row] for row in rows], Sequence, wanted, how))
    tokens = torch.zeros(len(rows), width, dtype=torch.long)
    attention = torch.zeros(len(rows), width, dtype=torch.long)
    content = torch.zeros(len(rows), width, dtype=torch.bool)
    for i, row in enumerate(rows):
        n = len(ids[row])
        start = width - n if side == "left" else 0
        tokens[i, start : start + n] = torch.tensor(ids[row])
        attention[i, start : start + n] = 1
        content[i, start + n_prefix : start + n] = True
    return TokenBatch(tokens.to(device), attention.to(device), content.to(device), tuple(rows))
