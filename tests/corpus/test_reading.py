"""The loop that reads texts, with a reader that only writes down what it is given; and what it refuses."""

import inspect

import pytest
import torch
from transformers import AutoModelForCausalLM

import clas_lens as cl
from clas_lens.corpus.arguments import given_corpus, given_model
from clas_lens.corpus.reading import (
    in_corpus_order,
    in_one_pass,
    parallel_readings,
    pooling_residuals,
    read_batches,
    read_items,
    readings,
    tokenize_corpus,
)
from clas_lens.given import given_whole, given_word
from clas_lens.models.sites import residual_name

TEXTS = {"en": ["a b c d e", "a", "a b c"], "de": ["x", "x y z x y z", "x y"]}


@pytest.fixture
def texts(llama):
    return tokenize_corpus(llama, cl.ParallelCorpus.from_texts(TEXTS), 64)


def test_items_hold_every_text_once_longest_first(llama, texts):
    items = readings(llama, texts, 2)
    assert [item.language for item in items] == ["en", "de"]
    assert [item.batches for item in items] == [((0,), (2, 1)), ((1,), (2, 0))]
    together = parallel_readings(llama, texts, 2)
    assert [item.language for item in together] == ["en", "de", "en", "de"]
    assert [item.batches for item in together] == [((1,),), ((1,),), ((0, 2),), ((0, 2),)]


def test_items_are_read_in_order_and_every_batch_is_counted(llama, texts):
    seen, ticks = [], []
    items = readings(llama, texts, 2)

    def read(model, item, tell):
        parts = read_batches(model, item, lambda batch: batch.content_mask.sum(1), lambda n: ticks.append(tell(n)))
        return [(item.language, batch.rows, n.tolist()) for batch, n in parts]

    for item, found in read_items(llama, items, read, what="read", progress=False):
        assert {language for language, *_ in found} == {item.language}
        seen += found
    assert [(language, rows) for language, rows, _ in seen] == [
        ("en", (0,)),
        ("en", (2, 1)),
        ("de", (1,)),
        ("de", (2, 0)),
    ]
    for language, rows, counts in seen:
        assert counts == [len(texts[language].ids[row]) - texts[language].n_prefix for row in rows]
    assert len(ticks) == 4


def test_items_can_be_read_in_any_order(llama, texts):
    def read(model, item, tell):
        one_pass = in_one_pass(model, lambda batch: pooling_residuals(model, batch, [2]))
        parts = ((batch, (pooled,)) for batch, pooled in read_batches(model, item, one_pass, tell))
        return in_corpus_order(item, parts)[0]

    items = readings(llama, texts, 2)
    forward, backward = (
        {item.language: values for item, values in read_items(llama, order, read, what="read", progress=False)}
        for order in (items, items[::-1])
    )
    for language in TEXTS:
        assert torch.equal(forward[language], backward[language])


def test_rows_come_back_in_corpus_order(llama, texts):
    (english, _) = readings(llama, texts, 2)
    one_pass = in_one_pass(llama, lambda batch: pooling_residuals(llama, batch, [1, 3]))
    parts = read_batches(llama, english, one_pass, lambda done: None)
    (values,) = in_corpus_order(english, ((batch, (pooled,)) for batch, pooled in parts))
    for row, text in enumerate(TEXTS["en"]):
        _, cache = llama.run_with_cache(text)
        expected = torch.stack([cache[residual_name(layer)][0, 1:].mean(0) for layer in (1, 3)])
        torch.testing.assert_close(values[row], expected, atol=2e-5, rtol=1e-4)


def test_a_reader_that_no_pass_reached_says_so(llama, texts):
    (batch, _), *_ = read_batches(llama, readings(llama, texts, 2)[0], lambda batch: None, lambda done: None)
    with pytest.raises(ValueError, match="gave the residual of layer 1"), pooling_residuals(llama, batch, [1]):
        pass


def test_a_model_of_another_kind_says_how_to_make_one(folders, llama):
    assert given_model(llama) is llama
    hf_model = AutoModelForCausalLM.from_pretrained(folders["llama"])
    with pytest.raises(ValueError, match=r"give load_model\(model, tokenizer=\.\.\.\)"):
        given_model(hf_model)
    with pytest.raises(ValueError, match="give the model that torch.compile was given"):
        given_model(torch.compile(hf_model))
    for other in (None, "gemma-3-270m", 5):
        with pytest.raises(ValueError, match=r"is needed, got .*; load_model\(\.\.\.\) gives one"):
            given_model(other)


def test_a_corpus_of_another_kind_says_how_to_make_one(small_stats, small_corpus):
    assert given_corpus(small_corpus) is small_corpus
    assert given_corpus(TEXTS).languages == ("en", "de")
    for other, named in ((["a"], "list"), ("a", "str 'a'"), (None, "None"), (small_stats, "NeuronStatistics")):
        with pytest.raises(ValueError, match=f"a ParallelCorpus is needed, got {named}; ParallelCorpus.from_texts"):
            given_corpus(other)


@pytest.mark.parametrize("value", [0, -1, 2.5, 2.0, "4", None, True, [3], float("nan")])
def test_sizes_are_whole_numbers(llama, small_corpus, value):
    assert given_whole("batch_size", torch.tensor(3), least=1) == 3
    collect = inspect.unwrap(cl.collect_statistics)
    for name in ("batch_size", "max_tokens"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number, at least 1; got"):
            collect(llama, small_corpus, progress=False, **{name: value})


def test_choices_name_what_is_available():
    assert given_word("pooling", "last", ("mean", "last")) == "last"
    with pytest.raises(ValueError, match="unknown pooling 'x'; available: mean, last"):
        given_word("pooling", "x", ("mean", "last"))
