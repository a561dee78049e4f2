"""Parts of a data set that never share a paragraph, an article or a premise: for statistics, for tuning, for the test."""

import random
from collections.abc import Mapping, Sequence

from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.vocabulary import Part

# Of XQuAD's 48 articles: 20 with 100 paragraphs (the paper's 100 samples, one a paragraph), 9 with over 200 questions (the
# paper's 200 samples for tuning), and 19 to report on.
SHARES: Mapping[Part, float] = {"statistics": 20 / 48, "tuning": 9 / 48, "test": 19 / 48}


XQUAD_PARAGRAPHS, PARAGRAPHS_AN_ARTICLE = 240, 5


def split_units(units: Sequence[str], seed: int = 0) -> dict[Part, tuple[int, ...]]:
    """Rows by part; all rows of a unit go to one part.

    Args:
        units: the unit of each row (its article, say). The same units in the same order give the same parts.

    Raises:
        ValueError: fewer than three units.
    """
    distinct = list(dict.fromkeys(units))
    if len(distinct) < 3:
        raise ValueError(f"three parts need at least 3 units that share nothing, found {len(distinct)}")
    random.Random(seed).shuffle(distinct)
    first = max(1, round(SHARES["statistics"] * len(distinct)))
    second = first + max(1, round(SHARES["tuning"] * len(distinct)))
    second = min(second, len(distinct) - 1)
    part_of: dict[str, Part] = {}
    for place, unit in enumerate(distinct):
        part_of[unit] = "statistics" if place < first else "tuning" if place < second else "test"
    rows: dict[Part, list[int]] = {part: [] for part in SHARES}
    for row, unit in enumerate(units):
        rows[part_of[unit]].append(row)
    return {part: tuple(found) for part, found in rows.items()}


def xquad_articles(contexts: Sequence[str]) -> list[str]:
    """Each row's article, by name "article-0" ...

    The files carry no titles, but XQuAD is 48 articles of five consecutive paragraphs. For any other number of paragraphs
    than XQuAD's 240 each paragraph counts as an article of its own.
    """
    paragraphs = {context: place for place, context in enumerate(dict.fromkeys(contexts))}
    size = PARAGRAPHS_AN_ARTICLE if len(paragraphs) == XQUAD_PARAGRAPHS else 1
    return [f"article-{paragraphs[context] // size}" for context in contexts]


def corpus_part(corpus: ParallelCorpus, part: Part, seed: int = 0) -> ParallelCorpus:
    """One part of a corpus: whole articles of XQuAD, whole passages of the bundled corpus, single examples of any other."""
    if corpus.name == "xquad" and corpus.groups is not None:
        units = xquad_articles(corpus.groups)
    elif corpus.name == "bundled":
        units = [example.rsplit("/", 1)[0] for example in corpus.ids]
    else:
        units = list(corpus.ids)
    return corpus.take(split_units(units, seed)[part])
