"""What is asked of the model, and how its answer is measured: log-probability, KL and whether it would say it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clas_lens.corpus.arguments import given_corpus
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.reading import token_limit
from clas_lens.corpus.tokens import bos_prefix, require_tokenizer, tokenize
from clas_lens.evaluation.plan import check_task_languages
from clas_lens.models.sites import LensModel
from clas_lens.tasks.base import Task
from clas_lens.tasks.prompts import resolve_label_ids
from clas_lens.vocabulary import CauseMeasure


@dataclass(frozen=True)
class Question:
    """Token ids whose last logits are to predict an answer.

    Attributes:
        id, group: the example, and what is resampled together with it.
        ids: what the model reads: the prompt and the answer but for its last token.
        answer: the tokens that the last `len(answer)` logits should predict.
        choices: the token ids that the answer is chosen among; empty for all of the vocabulary.
        n_prefix: how many ids in front (BOS) are no content.
    """

    id: str
    group: str
    ids: tuple[int, ...]
    answer: tuple[int, ...]
    choices: tuple[int, ...]
    n_prefix: int


def questions_of(
    model: LensModel,
    data: Any,
    languages: Sequence[str] | None,
    *,
    answer_tokens: int,
    max_tokens: int,
) -> dict[str, list[Question]]:
    """By language, what the examples of a corpus or of a task ask.

    The answer of a text is its last `answer_tokens` tokens (fewer if it is shorter); that of a task's example is its gold: the
    digit of its label, chosen among the digits, or its text.

    Raises:
        ValueError: no corpus or task, a language that it does not have, or a text of a single token.
    """
    if isinstance(data, Task):
        chosen = check_task_languages(data, languages)
        return {code: _of_task(model, data, code) for code in chosen}
    corpus = given_corpus(data)
    corpus = corpus if languages is None else corpus.select(languages)
    return {code: _of_texts(model, corpus, code, answer_tokens, max_tokens) for code in corpus.languages}


def _of_texts(
    model: LensModel, corpus: ParallelCorpus, language: str, answer_tokens: int, max_tokens: int
) -> list[Question]:
    held = tokenize(require_tokenizer(model), corpus[language], max_tokens=token_limit(model, max_tokens))
    questions = []
    for example, group, ids in zip(corpus.ids, corpus.groups or corpus.ids, held.ids, strict=True):
        n_answer = min(answer_tokens, len(ids) - max(1, held.n_prefix))
        if n_answer < 1:
            raise ValueError(
                f"text {example!r} in {language!r} is a single token: there is nothing to predict it from. Leave it out."
            )
        questions.append(Question(example, group, ids[:-1], ids[-n_answer:], (), held.n_prefix))
    return questions


def _of_task(model: LensModel, task: Task, language: str) -> list[Question]:
    tokenizer: Any = require_tokenizer(model)
    prefix = tuple(bos_prefix(tokenizer))
    questions = []
    for example, prompt in zip(task.examples(language), task.prompts(model, language), strict=True):
        choices: tuple[int, ...] = ()
        if isinstance(example.gold, int):
            choices = resolve_label_ids(tokenizer)
            answer = (choices[example.gold],)
        else:
            spaced = str(tokenizer.decode(prompt.ids))[-1:].isspace()
            text = example.gold if spaced else f" {example.gold}"
            answer = tuple(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        n_prefix = len(prefix) if prompt.ids[: len(prefix)] == prefix else 0
        questions.append(Question(example.id, example.group, (*prompt.ids, *answer[:-1]), answer, choices, n_prefix))
    return questions


def answer_length(questions: Sequence[Question]) -> int:
    """How many logits at the end are needed for all of them."""
    return max(len(question.answer) for question in questions)


class CleanAnswers:
    """What the unedited model says to some questions, once, to hold edited answers against.

    Args:
        logits: of the unedited model, at the last columns.
    """

    def __init__(self, logits: Float[Tensor, "row n d_vocab"], questions: Sequence[Question]) -> None:
        self._questions = list(questions)
        self._logs = [
            logits[row, -len(question.answer) :].float().log_softmax(-1) for row, question in enumerate(self._questions)
        ]
        self._shares = [logs.exp() for logs in self._logs]

    def measured(self, logits: Float[Tensor, "row n d_vocab"]) -> Mapping[CauseMeasure, list[float]]:
        """One number a question.

        `log_prob`: of its answer, in nats, mean over the answer's tokens. `kl`: KL(clean || these), likewise. `score`: the
        share of the answer's tokens that are the most probable, of its choices where it has some (of equal ones the first).
        """
        found: dict[CauseMeasure, list[float]] = {"log_prob": [], "kl": [], "score": []}
        for row, (question, logs, shares) in enumerate(zip(self._questions, self._logs, self._shares, strict=True)):
            own = logits[row, -len(question.answer) :].float().log_softmax(-1)
            answer = torch.tensor(question.answer, device=own.device)[:, None]
            # `sum` adds up in pairs; a product of vectors as wide as a vocabulary would lose its fourth digit in float32.
            kl = (logs - own).mul_(shares).sum(-1)
            found["log_prob"].append(float(own.gather(-1, answer).double().mean()))
            found["kl"].append(float(kl.double().mean()))
            found["score"].append(float(_said(own, answer, question.choices).double().mean()))
        return found


def _said(logs: Float[Tensor, "n d_vocab"], answer: Int[Tensor, "n 1"], choices: Sequence[int]) -> Bool[Tensor, "n"]:
    """Whether each answer's token is the most probable, of its choices where there are some."""
    if choices:
        best = torch.tensor(choices, device=logs.device)[logs[:, list(choices)].argmax(-1)]
        return best == answer[:, 0]
    hit = logs.gather(-1, answer)[:, 0] == logs.amax(-1)
    # argmax takes far longer than amax, and is needed only for which of equal ones is the first.
    return (logs.argmax(-1) == answer[:, 0]) if hit.any() else hit
