"""The corpus that comes with this package: 24 passages in 16 languages, with questions and hypotheses (CC0)."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

from clas_lens.corpus.checks import CorpusError


@dataclass(frozen=True)
class BundledItem:
    """One passage of the bundled corpus: an extractive question with its answer, and one hypothesis per NLI label."""

    id: str
    topic: str
    passage: str
    question: str
    answer: str
    entailment: str
    neutral: str
    contradiction: str


BUNDLED_TEXT_FIELDS = ("passage", "question", "entailment", "neutral", "contradiction")


def bundled_languages() -> tuple[str, ...]:
    """The 16 languages of the bundled corpus."""
    return tuple(sorted(file.name[:-6] for file in _bundled_folder().iterdir() if file.name.endswith(".jsonl")))


def bundled_items(language: str) -> tuple[BundledItem, ...]:
    """The 24 passages with question, answer and hypotheses in one language.

    Raises:
        CorpusError: no language of the bundled corpus.
    """
    if language not in bundled_languages():
        raise CorpusError(f"bundled: no language {language!r}; available: {', '.join(bundled_languages())}")
    return _read_items(language)


@cache
def _read_items(language: str) -> tuple[BundledItem, ...]:
    text = (_bundled_folder() / f"{language}.jsonl").read_text(encoding="utf-8")
    return tuple(BundledItem(**json.loads(line)) for line in text.rstrip("\n").split("\n"))


def _bundled_folder() -> Traversable:
    return files("clas_lens") / "data" / "parallel"
