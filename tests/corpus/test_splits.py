"""No article, premise or passage is on both sides of a split."""

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


def test_paragraphs_are_articles_by_fives_only_in_the_whole_of_xquad():
    whole = [f"c{row // 2}" for row in range(480)]
    articles = xquad_articles(whole)
    assert articles[:11] == ["article-0"] * 10 + ["article-1"]
    assert len(set(articles)) == 48
    assert len(set(xquad_articles(whole[:100]))) == 50


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
