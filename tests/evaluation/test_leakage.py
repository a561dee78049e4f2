"""Examples are known again by what they say: in copies, in another order, under other names and ids."""

import json
import random
from dataclasses import replace

import pytest
from tiny import shared_data

import clas_lens as cl
from clas_lens.corpus.content import text_hash
from clas_lens.evaluation.leakage import LeakageError, check_overlap, overlapping
from clas_lens.tasks.xnli import XNLI
from clas_lens.tasks.xquad import XQuAD

CODES = ("en", "sw")


@pytest.fixture
def clas(small_cats):
    """Measured on bundled passages, which are in neither data set."""
    return cl.Clas(small_cats, layers=(1,))


def measured_on(clas, corpus):
    """An intervention that knows what statistics of a corpus leave in `source["example_keys"]`."""
    keys = [f"{corpus.name}/{one}" for one in corpus.ids] + [f"text/{one}" for one in corpus.content]
    return replace(clas, tuned_on=frozenset(keys))


def tuned_on(clas, task):
    return replace(clas, tuned_on=task.example_keys())


def copied(folder, kind, codes, order=None, files=None):
    """A copy of the shared data in some languages, its rows in another order, its files exchanged."""
    source = shared_data("data", kind)
    for code in codes:
        names = [f"{code}/validation.jsonl", f"{code}/test.jsonl"] if kind == "xnli" else [f"xquad.{code}.jsonl"]
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            lines = (source / (files or {}).get(name, name)).read_text(encoding="utf-8").rstrip("\n").split("\n")
            kept = range(len(lines)) if order is None else order(len(lines))
            (folder / name).write_text("\n".join(lines[row] for row in kept) + "\n", encoding="utf-8")
    return str(folder)


def shuffled(count):
    return random.Random(0).sample(range(count), count)


@pytest.fixture(scope="module")
def xnli_test():
    return XNLI(str(shared_data("data", "xnli")), CODES, split="test", limit=300)


@pytest.fixture(scope="module")
def xquad_parts():
    folder = str(shared_data("data", "xquad"))
    return {part: XQuAD(folder, ("en", "de"), part=part) for part in ("tuning", "test")}


def test_the_splits_of_xnli_share_no_premise(xnli_test, clas):
    folder = str(shared_data("data", "xnli"))
    assert not overlapping(xnli_test, tuned_on(clas, XNLI(folder, ("de",))))


def test_a_validation_file_that_is_the_test_file(tmp_path, xnli_test, clas):
    files = {f"{code}/validation.jsonl": f"{code}/test.jsonl" for code in CODES}
    copy = XNLI(copied(tmp_path, "xnli", CODES, files=files), CODES)
    assert overlapping(xnli_test, tuned_on(clas, copy)) == xnli_test.example_keys()
    with pytest.raises(LeakageError, match="300 of the 300 xnli examples"):
        check_overlap(xnli_test, {"clas": tuned_on(clas, copy)})


def test_a_copy_in_another_order_shares_exactly_its_premises(tmp_path, xnli_test, clas):
    files = {f"{code}/validation.jsonl": f"{code}/test.jsonl" for code in CODES}
    copy = XNLI(copied(tmp_path, "xnli", CODES, shuffled, files), CODES, limit=500, seed=1)
    premises = {text_hash(example.fields["premise"]) for example in copy.examples("en")}
    expected = {
        xnli_test.key(example)
        for example in xnli_test.examples("en")
        if text_hash(example.fields["premise"]) in premises
    }
    assert 0 < len(expected) < 300
    assert overlapping(xnli_test, tuned_on(clas, copy)) == expected


def test_a_corpus_of_premises_under_any_name(xnli_test, clas):
    corpus = cl.ParallelCorpus.xnli(shared_data("data", "xnli"), ["sw"], split="test").sample(400, seed=5)
    found = overlapping(xnli_test, measured_on(clas, corpus))
    assert 0 < len(found) < 300
    renamed = cl.ParallelCorpus.from_texts({"sw": corpus["sw"]}, ids=[f"mine-{row}" for row in range(400)])
    sentences = {example.fields["premise"] for example in xnli_test.examples("sw")}
    shared = overlapping(xnli_test, measured_on(clas, renamed))
    assert shared
    premises = cl.ParallelCorpus.from_texts({"sw": sorted(sentences)[:20]})
    assert len(overlapping(xnli_test, measured_on(clas, premises))) >= 20


@pytest.mark.parametrize("order", [shuffled, lambda count: range(40, count)], ids=["shuffled", "without the first"])
def test_parts_of_a_changed_xquad_share_no_article(tmp_path, xquad_parts, order, clas):
    copy = XQuAD(copied(tmp_path, "xquad", ("en", "de"), order), ("de",), part="tuning")
    assert not overlapping(xquad_parts["test"], tuned_on(clas, copy))
    same_part = XQuAD(copied(tmp_path, "xquad", ("en", "de"), order), ("de",), part="test")
    assert overlapping(xquad_parts["test"], tuned_on(clas, same_part)) == xquad_parts["test"].example_keys()


def test_one_paragraph_stands_for_its_article(xquad_parts, clas):
    example = xquad_parts["test"].examples("de")[0]
    whole = {task.key(e) for task in xquad_parts.values() for e in task.examples("en") if e.unit == example.unit}
    for text in (example.fields["context"], example.fields["question"]):
        corpus = cl.ParallelCorpus.from_texts({"de": [text]}, ids=["anything"])
        assert overlapping(xquad_parts["test"], measured_on(clas, corpus)) == whole
        assert not overlapping(xquad_parts["tuning"], measured_on(clas, corpus))


def test_texts_are_known_in_languages_that_the_corpus_is_not_told_by(llama, xquad_parts):
    """A corpus is told by its English, or its first language; its German is XQuAD's all the same."""
    example = xquad_parts["test"].examples("de")[3]
    corpus = cl.ParallelCorpus.from_texts({"ar": ["شاي"], "de": [example.fields["context"]]}, ids=["z9"])
    stats = cl.collect_statistics(llama, corpus, max_tokens=16, progress=False)
    clas = cl.Clas(cl.categorize(stats), layers=(1,), anchor="ar")
    assert xquad_parts["test"].key(xquad_parts["test"].examples("de")[3]) in overlapping(xquad_parts["test"], clas)
    states = cl.collect_representations(llama, corpus, [1], progress=False)
    assert overlapping(xquad_parts["test"], cl.AddVector.diff_mean(states, 1, "ar"))


def test_statistics_and_representations_name_the_texts(llama, xquad_parts):
    rows = xquad_parts["test"].examples("en")[:3]
    texts = {"en": [row.fields["context"] for row in rows], "de": ["eins", "zwei", "drei"]}
    corpus = cl.ParallelCorpus.from_texts(texts, ids=["a", "b", "c"])
    stats = cl.collect_statistics(llama, corpus, max_tokens=16, progress=False)
    keys = stats.source()["example_keys"]
    assert {f"text/{text_hash(row.fields['context'])}" for row in rows} < set(keys)
    clas = cl.Clas(cl.categorize(stats), layers=(1,))
    with pytest.raises(LeakageError, match="share an article, premise or passage"):
        check_overlap(xquad_parts["test"], {"clas": clas})
    json.dumps(stats.source())
