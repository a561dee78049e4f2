"""Parts of a data set that never share a paragraph, an article or a premise: for statistics, for tuning, for the test."""

import random
from collections.abc import Mapping, Sequence

from clas_lens.corpus.checks import CorpusError
from clas_lens.corpus.content import text_hash, xquad_article_of
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.display import shortened
from clas_lens.given import given, given_each, given_whole, given_word
from clas_lens.vocabulary import Part

# Of XQuAD's 48 articles: 20 with 100 paragraphs (the paper's 100 samples, one a paragraph), 9 with over 200 questions (the
# paper's 200 samples for tuning), and 19 to report on.
PART_SHARES: Mapping[Part, float] = {"statistics": 20 / 48, "tuning": 9 / 48, "test": 19 / 48}


XQUAD_ARTICLES = tuple(f"article-{place}" for place in range(48))


def split_units(
    units: Sequence[str], seed: int = 0, *, known: Sequence[str] | None = None
) -> dict[Part, tuple[int, ...]]:
    """Rows by part; all rows of a unit go to one part.

    Args:
        units: the unit of each row (its article, say). The same units in the same order give the same parts.
        known: all units that the data set has, where that is known: then each has its part also where rows are missing or
            stand in another order.

    Raises:
        ValueError: fewer than three units.
    """
    seed = given_whole("seed", seed)
    units = given_each(units, str, "units must be a list of texts", "one a row: its article, or its premise")
    whole = units if known is None else given_each(known, str, "known must be a list of texts", "every unit there is")
    distinct = list(dict.fromkeys(whole))
    if len(distinct) < 3:
        raise ValueError(f"three parts need at least 3 units that share nothing, found {len(distinct)}")
    random.Random(seed).shuffle(distinct)
    first = max(1, round(PART_SHARES["statistics"] * len(distinct)))
    second = first + max(1, round(PART_SHARES["tuning"] * len(distinct)))
    second = min(second, len(distinct) - 1)
    part_of: dict[str, Part] = {}
    for place, unit in enumerate(distinct):
        part_of[unit] = "statistics" if place < first else "tuning" if place < second else "test"
    rows: dict[Part, list[int]] = {part: [] for part in PART_SHARES}
    for row, unit in enumerate(units):
        rows[part_of[unit]].append(row)
    return {part: tuple(found) for part, found in rows.items()}


def xquad_articles(contexts: Sequence[str]) -> list[str] | None:
    """Each row's article, "article-0" to "article-47", or None if any of the paragraphs is not XQuAD's own.

    The files carry no titles, so paragraphs are known by their text, in any of the 12 languages and in any order.
    """
    contexts = given_each(contexts, str, "contexts must be a list of texts", "one a row")
    article_of, place_of = xquad_article_of(), {context: text_hash(context) for context in dict.fromkeys(contexts)}
    if not all(one in article_of for one in place_of.values()):
        return None
    return [XQUAD_ARTICLES[article_of[place_of[context]]] for context in contexts]


def split_articles(contexts: Sequence[str], seed: int = 0) -> dict[Part, tuple[int, ...]]:
    """The rows of XQuAD by part, none of which shares an article with another.

    Raises:
        CorpusError: paragraphs that XQuAD does not have: of which articles they are is not known.
    """
    articles = xquad_articles(contexts)
    if articles is None:
        article_of = xquad_article_of()
        strange = [context for context in dict.fromkeys(contexts) if text_hash(context) not in article_of]
        raise CorpusError(
            f"these paragraphs cannot be split by article: the files name no articles, and {len(strange)} of "
            f"{len(set(contexts))} paragraphs are not known from XQuAD (the first: {shortened(strange[0], 60)!r}). Take all "
            "of them (part=None), and other data for tuning and for statistics."
        )
    return split_units(articles, seed, known=XQUAD_ARTICLES)


def corpus_part(corpus: ParallelCorpus, part: Part, seed: int = 0) -> ParallelCorpus:
    """One part of a corpus: whole articles of XQuAD, whole passages of the bundled corpus, single examples of any other.

    Raises:
        CorpusError: a part that there is not, or XQuAD's name over paragraphs that are not XQuAD's.
    """
    given(corpus, ParallelCorpus, "corpus_part needs a ParallelCorpus", "ParallelCorpus.from_texts makes one")
    given_word("part", part, tuple(PART_SHARES), error=CorpusError)
    if corpus.name == "xquad" and corpus.groups is not None:
        rows = split_articles(corpus.groups, seed)[part]
    elif corpus.name == "bundled":
        rows = split_units([example.rsplit("/", 1)[0] for example in corpus.ids], seed)[part]
    else:
        rows = split_units(corpus.ids, seed)[part]
    if not rows:
        raise CorpusError(f"{corpus.name}: none of the {len(corpus)} examples is of the part {part!r}")
    return corpus.take(rows)
