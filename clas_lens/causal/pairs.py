"""The same examples in two languages, as prompts to be run clean and corrupted."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from clas_lens.causal.answers import Question, questions_of
from clas_lens.corpus.arguments import given_corpus
from clas_lens.corpus.reading import token_limit
from clas_lens.corpus.tokens import require_tokenizer, tokenize
from clas_lens.evaluation.plan import check_task_languages
from clas_lens.given import named
from clas_lens.models.sites import LensModel
from clas_lens.tasks.base import Task

Texts = str | Sequence[str]


def paired_questions(
    model: LensModel, source: Texts, target: Texts, data: Any, *, max_tokens: int
) -> tuple[list[Question], list[Question]]:
    """The source's and the target's prompts, which end where the answer's first token is to come.

    The answer is the source's gold's first token; a text's is empty here: it is what the unedited model says after the source.

    Raises:
        ValueError: no texts, more of one than of the other, or with `data` no two of its languages.
    """
    if data is None:
        return _of_texts(model, source, max_tokens), _of_texts(model, target, max_tokens, like=source)
    for name, code in (("source", source), ("target", target)):
        if not isinstance(code, str):
            raise ValueError(f"with data=, {name} is the code of one of its languages; got {named(code)}")
    if source == target:
        raise ValueError(f"source and target are both {source!r}: patching compares two languages")
    languages = [str(source), str(target)]
    if isinstance(data, Task):
        check_task_languages(data, languages)
        asked = questions_of(model, data, languages, answer_tokens=1, max_tokens=max_tokens)
        first, second = ([_without_answer(one) for one in asked[code]] for code in languages)
        return first, [replace(other, answer=one.answer) for one, other in zip(first, second, strict=True)]
    corpus = given_corpus(data)
    first, second = (_of_texts(model, corpus.select([code])[code], max_tokens) for code in languages)
    names = list(zip(corpus.ids, corpus.groups or corpus.ids, strict=True))
    return (
        [replace(one, id=name, group=group) for one, (name, group) in zip(first, names, strict=True)],
        [replace(one, id=name, group=group) for one, (name, group) in zip(second, names, strict=True)],
    )


def _without_answer(question: Question) -> Question:
    """The prompt alone, and the first token of the answer."""
    n_extra = len(question.answer) - 1
    return replace(question, ids=question.ids[: len(question.ids) - n_extra], answer=question.answer[:1])


def _of_texts(model: LensModel, texts: Texts, max_tokens: int, *, like: Texts | None = None) -> list[Question]:
    listed, expected = (
        [given] if isinstance(given, str) else given for given in (texts, texts if like is None else like)
    )
    if not listed or len(listed) != len(expected):
        raise ValueError(
            f"patching is between parallel texts, one of each language: got {len(expected)} and {len(listed)}"
        )
    held = tokenize(require_tokenizer(model), listed, max_tokens=token_limit(model, max_tokens))
    return [Question(str(row), str(row), ids, (), (), held.n_prefix) for row, ids in enumerate(held.ids)]
