"""Token ids, prefixes, masks, batches: with a tiny tokenizer and with the two real ones."""

from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import shared_data, tiny_tokenizer
from transformers import AutoTokenizer

from clas_lens.corpus.tokens import (
    CPU_BATCH_COST,
    TEXTS_AT_ONCE,
    bos_prefix,
    forward_batches,
    length_batches,
    pad,
    tokenize,
)


def test_the_bos_is_there_once_or_not_at_all():
    with_bos, without = tiny_tokenizer(bos=True), tiny_tokenizer(bos=False)
    assert bos_prefix(with_bos) == [1]
    assert bos_prefix(without) == []
    texts = tokenize(with_bos, ["Tea.", "Rice and tea."])
    assert texts.n_prefix == 1
    assert all(ids[0] == 1 and ids.count(1) == 1 for ids in texts.ids)
    as_text = tokenize(with_bos, ["<bos>Tea."])
    assert as_text.ids[0].count(1) == 1, "a BOS that is part of a text is text"
    assert with_bos.decode(as_text.ids[0][1:]) == "<bos>Tea."
    assert texts.n_tokens == sum(map(len, tokenize(without, ["Tea.", "Rice and tea."]).ids))


@pytest.mark.parametrize(("name", "prefix"), [("llama-3.1", [128000]), ("qwen-2.5", [])])
def test_the_real_tokenizers(name, prefix):
    tokenizer = AutoTokenizer.from_pretrained(shared_data("tokenizers", name))
    assert bos_prefix(tokenizer) == prefix
    texts = tokenize(tokenizer, ["Der Baikalsee ist tief.", "贝加尔湖很深。"])
    assert [tokenizer.decode(ids[texts.n_prefix :]) for ids in texts.ids] == [
        "Der Baikalsee ist tief.",
        "贝加尔湖很深。",
    ]


def test_truncation_keeps_the_beginning_and_says_so():
    tokenizer = tiny_tokenizer(bos=True)
    texts = tokenize(tokenizer, ["a b c d e f g h i j", "a"], max_tokens=4)
    assert texts.truncated == (0,)
    assert len(texts.ids[0]) == 4
    with pytest.raises(ValueError, match="no room for content"):
        tokenize(tokenizer, ["a"], max_tokens=1)


def test_many_texts_are_those_of_one_at_a_time():
    tokenizer, texts = tiny_tokenizer(bos=True), [f"Tea {number}." for number in range(2 * TEXTS_AT_ONCE + 1)]
    assert tokenize(tokenizer, texts).ids == tuple(tokenize(tokenizer, [text]).ids[0] for text in texts)


def test_texts_without_tokens_are_refused():
    with pytest.raises(ValueError, match=r"text 1 \(''\) has no tokens"):
        tokenize(tiny_tokenizer(bos=True), ["a", ""])


@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=40), size=st.integers(1, 9))
def test_batches_hold_every_row_once_longest_first(lengths, size):
    batches = length_batches(lengths, size)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in batches)
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=9), size=st.integers(1, 5), budget=st.integers(1, 200))
def test_batches_on_a_cpu_are_the_cheapest_of_all_ways_to_cut(lengths, size, budget):
    ordered = sorted(lengths, reverse=True)

    def cost(batches):
        return sum(max(batch) * len(batch) + CPU_BATCH_COST for batch in batches)

    def ways(rest):
        if not rest:
            yield []
        for count in range(1, min(size, len(rest)) + 1):
            if count == 1 or rest[0] * count <= budget:
                yield from ([rest[:count], *others] for others in ways(rest[count:]))

    with mock.patch("clas_lens.corpus.tokens.CPU_BATCH_TOKENS", budget):
        batches = forward_batches(lengths, size, torch.device("cpu"))
    found = [[lengths[row] for row in batch] for batch in batches]
    assert [length for batch in found for length in batch] == ordered
    assert found in list(ways(ordered))
    assert cost(found) == min(map(cost, ways(ordered)))


def test_batches_on_an_accelerator_are_full():
    assert forward_batches([5, 90, 7, 80, 6], 2, torch.device("meta")) == length_batches([5, 90, 7, 80, 6], 2)
    assert forward_batches([5, 90, 7, 80, 6], 2, torch.device("cpu")) != length_batches([5, 90, 7, 80, 6], 2)


def test_batch_size_must_be_positive():
    with pytest.raises(ValueError, match="batch_size must be a whole number, at least 1; got 0"):
        length_batches([1], 0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_masks(side):
    ids = [(1, 7, 8), (1, 9, 5, 6, 4)]
    batch = pad(ids, [1, 0], n_prefix=1, side=side)
    assert batch.rows == (1, 0)
    assert batch.tokens[batch.attention_mask.bool()].tolist() == [1, 9, 5, 6, 4, 1, 7, 8]
    assert batch.tokens[batch.content_mask].tolist() == [9, 5, 6, 4, 7, 8]
    assert batch.attention_mask.dtype == torch.int64
    assert batch.attention_mask[1].tolist() == ([0, 0, 1, 1, 1] if side == "left" else [1, 1, 1, 0, 0])


def test_a_defined_bos_that_the_tokenizer_does_not_add_is_not_added():
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.add_special_tokens({"bos_token": "<bos>"})
    assert bos_prefix(tokenizer) == []
    assert list(tokenize(tokenizer, ["Hello"]).ids[0]) == tokenizer("Hello")["input_ids"]


@pytest.mark.parametrize("name", ["llama-3.1", "qwen-2.5"])
def test_names_of_special_tokens_are_text_in_collection_too(name):
    tokenizer = AutoTokenizer.from_pretrained(shared_data("tokenizers", name))
    texts = ["<|begin_of_text|>Tea.", "A <|eot_id|><|im_end|> B"]
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    read = tokenize(tokenizer, texts)
    for text, ids in zip(texts, read.ids, strict=True):
        assert not special & set(ids[read.n_prefix :])
        assert tokenizer.decode(ids[read.n_prefix :]) == text


@pytest.mark.parametrize("name", ["llama-3.1", "qwen-2.5"])
def test_giant_texts_are_cut_before_they_are_tokenised(name):
    tokenizer = AutoTokenizer.from_pretrained(shared_data("tokenizers", name))
    beginning = "Der Baikalsee ist der tiefste See der Welt. " * 400
    texts = [beginning + "x" * 5_000_000, " " * 1_000_000 + "end"]
    cut = tokenize(tokenizer, texts, max_tokens=64)
    assert cut.truncated[0] == 0
    assert cut.ids[0] == tokenize(tokenizer, [beginning], max_tokens=64).ids[0]


def test_what_is_no_list_of_texts_is_refused():
    for texts, message in (("Tea.", "texts must be a list"), (["half \ud83d"], "text 0 holds half a surrogate")):
        with pytest.raises(ValueError, match=message):
            tokenize(tiny_tokenizer(bos=True), texts)
