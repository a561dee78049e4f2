"""No article, premise or passage is on both sides of a split."""

import random
from dataclasses import replace

import pytest
from tiny import shared_data

import clas_lens as cl
from clas_lens.corpus.splits import corpus_part, split_units, xquad_articles
from clas_lens.tasks.xquad import XQuAD


def test_units_stay_together_and_every_row_is_somewhere():
    units = [f"u{row // 3}" for row in range(48 * 3)]
    parts = split_units(units, seed=1)
    assert [len(parts[part]) for part in ("statistics", "tuning", "test")] == [60, 27, 57]
    assert sorted(row for rows in parts.values() for row in rows) == list(range(144))
    units_of = [{units[row] for row in rows} for rows in parts.values()]
    assert not (units_of[0] & units_of[1])
    assert not (units_of[0] & units_of[2])
    assert not (units_of[1] & units_of[2])
    assert split_units(units, seed=1) == parts != split_units(units, seed=2)


@pytest.mark.parametrize("count", [3, 4, 7])
def test_few_units_still_make_three_parts(count):
    assert all(split_units([str(unit) for unit in range(count)]).values())
    with pytest.raises(ValueError, match="at least 3 units that share nothing, found 2"):
        split_units(["a", "b", "a"])


def test_articles_are_known_by_their_paragraphs_in_any_order_and_language():
    folder = shared_data("data", "xquad")
    corpus = cl.ParallelCorpus.xquad(folder, ["en", "th"])
    places = {context: place for place, context in enumerate(dict.fromkeys(corpus.groups))}
    expected = [f"article-{places[context] // 5}" for context in corpus.groups]
    assert xquad_articles(corpus.groups) == expected
    order = random.Random(0).sample(range(len(corpus)), 700)
    shuffled = corpus.take(order)
    assert xquad_articles(shuffled.groups) == [expected[row] for row in order]
    thai = cl.ParallelCorpus.xquad(folder, ["th"])
    assert xquad_articles(thai.groups) == expected
    whole = set(corpus_part(corpus, "tuning").ids)
    assert set(corpus_part(shuffled, "tuning").ids) == whole & set(shuffled.ids)


def test_other_paragraphs_are_not_split_by_article():
    texts = {"en": [f"Paragraph {row}." for row in range(240)]}
    corpus = replace(cl.ParallelCorpus.from_texts(texts, groups=texts["en"]), name="xquad")
    assert xquad_articles(texts["en"]) is None
    with pytest.raises(cl.CorpusError, match=r"cannot be split by article: .* 240 of 240 paragraphs are not known"):
        corpus_part(corpus, "test")


def test_corpus_and_task_agree_on_the_parts_of_xquad():
    folder = shared_data("data", "xquad")
    corpus = cl.ParallelCorpus.xquad(folder, ["en", "zh"])
    statistics = corpus_part(corpus, "statistics")
    assert statistics.n_independent == 100
    parts = {part: XQuAD(str(folder), ("zh",), part=part) for part in ("statistics", "tuning", "test")}
    assert {example.id for example in parts["statistics"].examples("zh")} == set(statistics.ids)
    assert sum(map(len, parts.values())) == 1190
    articles = [{task.units[key] for key in task.example_keys()} for task in parts.values()]
    assert not (articles[0] & articles[1])
    assert not (articles[1] & articles[2])
    assert not (articles[0] & articles[2])


def test_the_bundled_corpus_is_split_by_passage():
    corpus = cl.ParallelCorpus.bundled(["en"])
    part = corpus_part(corpus, "test")
    assert len(part) == 50
    assert len({name.split("/")[0] for name in part.ids}) == 10
    task = XQuAD("bundled", ("en",), part="test")
    assert {name.split("/")[0] for name in part.ids} == {example.unit for example in task.examples("en")}
