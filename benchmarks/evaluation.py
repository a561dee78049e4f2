"""XNLI prompts and XQuAD answers a second, against one by one and against plain Hugging Face loops."""

from collections.abc import Callable
from typing import Any

import torch

import clas_lens as cl
from benchmarks.measure import Row, compared, interleaved
from benchmarks.models import Size, hf_model, lens_model, tokenizer
from clas_lens import tasks
from clas_lens.models.sites import LensModel
from clas_lens.tasks.base import Task
from clas_lens.tasks.prompts import resolve_label_ids

LANGUAGES = ("en", "de")


def run(size: Size, rounds: int) -> list[Row]:
    """Both tasks over the bundled passages, each with three hypotheses and, here, one question."""
    plain = hf_model(size.model, **size.stack)
    model = lens_model(plain, size.model)
    xnli = tasks.XNLI("bundled", LANGUAGES, split="test", limit=size.hypotheses)
    lean = tasks.XNLI("bundled", LANGUAGES, split="test", limit=size.hypotheses, label_mass=False)
    xquad = tasks.XQuAD("bundled", LANGUAGES, limit=size.questions, max_new_tokens=size.new_tokens)
    return [*_xnli(model, plain, size, xnli, lean, rounds), *_xquad(model, plain, size, xquad, rounds)]


def _answers(
    model: LensModel, task: Task, batch_size: int, kept: dict[str, list[Any]], name: str
) -> Callable[[], None]:
    def answer() -> None:
        rows = cl.evaluate(model, task, batch_size=batch_size, progress=False)
        kept[name] = rows["prediction"].tolist()

    return answer


def _xnli(model: LensModel, plain: Any, size: Size, task: tasks.XNLI, lean: tasks.XNLI, rounds: int) -> list[Row]:
    kept: dict[str, list[Any]] = {}
    labels = list(resolve_label_ids(tokenizer(size.model)))

    def loop() -> None:
        kept["loop"] = []
        for language in LANGUAGES:
            for prompt in task.prompts(model, language):
                with torch.inference_mode():
                    logits = plain(torch.tensor([prompt.ids], device=plain.device)).logits[0, -1, labels]
                kept["loop"].append(int(logits.argmax()))

    contenders = {
        "XNLI: Hugging Face loop, one by one": loop,
        "XNLI: evaluate, one by one": _answers(model, task, 1, kept, "single"),
        "XNLI: evaluate, batched": _answers(model, task, size.batch, kept, "batched"),
        "XNLI: evaluate, batched, three logits": _answers(model, lean, size.batch, kept, "lean"),
    }
    amount = len(task) * len(LANGUAGES)
    rows = compared(interleaved(contenders, rounds), "XNLI: evaluate, one by one", amount=amount, unit="prompts")
    return _with_agreement(rows, [kept[name] for name in ("loop", "single", "batched", "lean")], kept["single"])


def _xquad(model: LensModel, plain: Any, size: Size, task: tasks.XQuAD, rounds: int) -> list[Row]:
    kept: dict[str, list[Any]] = {}

    def loop() -> None:
        kept["loop"] = []
        for language in LANGUAGES:
            for prompt in task.prompts(model, language):
                tokens = torch.tensor([prompt.ids], device=plain.device)
                made = plain.generate(
                    tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=task.max_new_tokens, do_sample=False
                )[0, tokens.shape[1] :]
                kept["loop"].append(str(tokenizer(size.model).decode(made, skip_special_tokens=True)))

    contenders = {
        "XQuAD: Hugging Face generate, one by one": loop,
        "XQuAD: evaluate, one by one": _answers(model, task, 1, kept, "single"),
        "XQuAD: evaluate, batched": _answers(model, task, size.batch, kept, "batched"),
    }
    amount = len(task) * len(LANGUAGES)
    rows = compared(interleaved(contenders, rounds), "XQuAD: evaluate, one by one", amount=amount, unit="answers")
    return _with_agreement(rows, [kept[name] for name in ("loop", "single", "batched")], kept["single"])


def _with_agreement(rows: list[Row], answers: list[list[Any]], reference: list[Any]) -> list[Row]:
    """How many answers are those of one by one."""
    return [
        {**row, "same_answers": f"{sum(a == b for a, b in zip(own, reference, strict=True))}/{len(reference)}"}
        for row, own in zip(rows, answers, strict=True)
    ]
