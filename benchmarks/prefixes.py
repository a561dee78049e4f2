"""What sharing the beginnings of prompts brings beyond batching: the same batches read whole and in shared segments."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import eq
from statistics import median
from typing import Any
from unittest.mock import patch

import clas_lens as cl
from benchmarks.measure import Row, paired
from benchmarks.models import Size, hf_model, lens_model
from clas_lens import tasks
from clas_lens.evaluation import answers as evaluation_answers
from clas_lens.evaluation.prefixes import Segment, shared_segments, whole_prompts
from clas_lens.models.sites import LensModel
from clas_lens.tasks.base import Task

LANGUAGES = ("de",)
QUESTIONS = 4  # about a passage, as in XQuAD (1190 about 240 paragraphs); the bundled corpus asks one


def run(size: Size, rounds: int) -> list[Row]:
    """XNLI, three hypotheses a premise, and XQuAD, one question a passage (instructions alone are shared) and four."""
    model = lens_model(hf_model(size.model, **size.stack), size.model)
    options: dict[str, Any] = {"limit": size.questions, "max_new_tokens": size.new_tokens}
    cases: dict[str, Task] = {
        "XNLI": tasks.XNLI("bundled", LANGUAGES, split="test", limit=size.hypotheses),
        "XQuAD": tasks.XQuAD("bundled", LANGUAGES, **options),
        f"XQuAD, {QUESTIONS} questions a passage": _several_questions(tasks.XQuAD("bundled", LANGUAGES, **options)),
    }
    return [row for name, task in cases.items() for row in _case(model, name, task, size.batch, rounds)]


def _several_questions(task: tasks.XQuAD) -> tasks.XQuAD:
    """The same questions, each about its own or a neighbour's passage. (No score is taken of the answers.)"""
    chosen = {}
    for language in task.languages:
        examples = task.examples(language)
        leads = [examples[place - place % QUESTIONS] for place in range(len(examples))]
        chosen[language] = tuple(
            replace(one, group=lead.group, fields={**one.fields, "context": lead.fields["context"]})
            for one, lead in zip(examples, leads, strict=True)
        )
    object.__setattr__(task, "chosen", chosen)
    return task


def _case(model: LensModel, name: str, task: Task, batch_size: int, rounds: int) -> list[Row]:
    kept: dict[str, list[Any]] = {}
    tokens: Counter[str] = Counter()

    def whole(
        model: LensModel, ids: Sequence[Any], rows: Sequence[int], *, new_tokens: int | None = 0
    ) -> list[Segment]:
        return whole_prompts(model, ids, rows)

    def contender(label: str, read: Callable[..., list[Segment]]) -> Callable[[], None]:
        def counted(*arguments: Any, **options: Any) -> list[Segment]:
            segments = read(*arguments, **options)
            tokens[label] += sum(segment.tokens.numel() for segment in segments)
            return segments

        def answer() -> None:
            tokens[label] = 0
            with patch.object(evaluation_answers, "shared_segments", counted):
                kept[label] = cl.evaluate(model, task, batch_size=batch_size, progress=False)["prediction"].tolist()

        return answer

    reference, shared = f"{name}: batched, whole prompts", f"{name}: batched, shared beginnings"
    contenders = {reference: contender(reference, whole), shared: contender(shared, shared_segments)}
    ratios = paired(contenders[reference], contenders[shared], rounds)
    same = sum(map(eq, kept[shared], kept[reference]))
    return [
        {"what": reference, "time_ratio": 1.0, "padded_tokens": tokens[reference]},
        {
            "what": shared,
            "time_ratio": round(median(ratios), 3),
            "rounds": [round(ratio, 3) for ratio in ratios],
            "padded_tokens": tokens[shared],
            "same_answers": f"{same}/{len(kept[reference])}",
        },
    ]
