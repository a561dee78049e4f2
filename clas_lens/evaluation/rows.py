"""Model + task + interventions -> one row an example, in chunks that survive a kill."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from clas_lens.evaluation.answers import Answered, answer_item
from clas_lens.evaluation.plan import (
    EvaluationError,
    EvaluationPlan,
    Interventions,
    WorkItem,
    check_task,
    plan_evaluation,
)
from clas_lens.evaluation.store import RowStore
from clas_lens.given import given_path
from clas_lens.models.room import noting_halvings
from clas_lens.models.sites import LensModel
from clas_lens.steering.intervention import Intervention
from clas_lens.tasks.base import Task

BASE = "base"


def evaluate(
    model: LensModel,
    task: Task,
    intervention: Intervention | Interventions | None = None,
    *,
    languages: Sequence[str] | None = None,
    batch_size: int = 16,
    chunk_size: int = 128,
    out: str | Path | None = None,
    allow_overlap: bool = False,
    progress: bool = True,
) -> pd.DataFrame:
    """Answer every example of a task in every language, under one or several interventions.

    Several in one go share what they have in common: the layers below the first one that an intervention changes are run
    once a batch, and what prompts begin with alike (a premise, a paragraph) is run once for all of them. In float32 the
    results do not depend on how prompts are batched but for float error, which can decide between answers whose scores are
    equal to the last few bits. Rows in an intervention's anchor language are those of the unsteered model.

    Args:
        intervention: None for the unsteered model, an intervention, or names to interventions (None among them is the
            unsteered model). By itself None is named "base", an intervention after its class, e.g. "clas".
        languages: default all of the task's.
        batch_size: prompts a forward pass, at most (on a CPU fewer where they are long); half as many where the device has
            no memory for so many, which files of rows record (`halved`).
        chunk_size: examples between two savings, with `out`.
        out: a folder for `<task>/<language>/<name>.parquet`. What is there, from the same model, prompts, settings and
            intervention, is not run again; an interrupted run goes on where it stopped and loses one chunk at most.
        allow_overlap: report also on examples that the intervention was measured or tuned on; the column `overlap` says which.

    Returns:
        One row an example, language and intervention: `task`, `language`, `intervention`, `id` (shared across languages),
        `group`, the task's own columns (gold, prediction, scores, token counts, truncation), `overlap`, and what
        the task is called (`title`), which column counts (`metric`) and what that is called (`metric_title`).

    Raises:
        LeakageError: see `allow_overlap`.
        EvaluationError: no interventions, one that is none or whose name is no file name, no task, an unknown language or one
            twice, or logits that are not finite.
        SteeringError: an intervention of another model.
    """
    options: dict[str, Any] = {
        "languages": languages,
        "batch_size": batch_size,
        "chunk_size": chunk_size,
        "allow_overlap": allow_overlap,
    }
    return run_evaluation(model, task, named(intervention), out=out, progress=progress, **options).rows


def named(intervention: Intervention | Interventions | None) -> dict[str, Intervention | None]:
    """Interventions by name."""
    if intervention is None:
        return {BASE: None}
    if isinstance(intervention, Mapping):
        if not intervention:
            raise EvaluationError("no interventions given; None is the unsteered model")
        return dict(intervention)
    return {getattr(intervention, "name", type(intervention).__name__.lower()): intervention}


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """The rows, and what those cost that were not read from files.

    Attributes:
        passes: prompt passes, in whole forward passes of one prompt.
        answers: how many examples were answered under each intervention.
        halved: of how many prompts those batches were that the device had no memory for, and that were run in halves.
    """

    rows: pd.DataFrame
    passes: float
    answers: "Counter[str]"
    halved: tuple[int, ...] = ()


def run_evaluation(
    model: LensModel,
    task: Task,
    interventions: Interventions,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> EvaluationResult:
    """Plan, run what is not there yet, and return everything; arguments and errors are those of `evaluate`."""
    if out is not None:
        given_path("out", out)
    check_task(task)
    plan = plan_evaluation(model, task, interventions, kept=out is not None, **options)
    store = RowStore(None if out is None else Path(out) / task.name)
    total = sum(len(task.examples(code)) for code in plan.languages) * len(interventions)
    tables: list[pd.DataFrame] = []
    passes, answers = 0.0, Counter[str]()
    with tqdm(total=total, unit="answer", desc=task.name, disable=not progress) as bar, noting_halvings() as halved:
        for language in plan.languages:
            bar.set_postfix_str(language)
            whole, before = plan.item(model, language), len(halved)
            done = _resumed(plan, store, whole)
            bar.update(sum(map(len, done.values())))
            todo = whole.of([name for name in whole.names if name not in done])
            parts: dict[str, list[pd.DataFrame]] = {name: [] for name in todo.names}
            for found in _chunks(model, plan, store, todo, bar.update):
                passes, answers = passes + found.passes, answers + found.answers
                for name, table in found.tables.items():
                    parts[name].append(table)
            for name in todo.names:
                done[name] = pd.concat(parts[name], ignore_index=True)
                store.save(plan, whole, name, done[name], halved=halved[before:])
            tables += [done[name] for name in whole.names]
    return EvaluationResult(pd.concat(tables, ignore_index=True), passes, answers, tuple(halved))


def _chunks(
    model: LensModel, plan: EvaluationPlan, store: RowStore, todo: WorkItem, tell: Callable[[int], object]
) -> Iterator[Answered]:
    """Each chunk of an item in turn: read where it is saved, else answered, all interventions together, and saved."""
    for item in todo.chunks(plan.chunk_size) if todo.names else ():
        tables = _resumed(plan, store, item)
        rest = item.of([name for name in item.names if name not in tables])
        tell(sum(map(len, tables.values())))
        found = answer_item(model, plan, rest, tell=tell) if rest.names else Answered({}, 0.0, Counter())
        for name, table in found.tables.items():
            store.save(plan, item, name, table)
        yield Answered({**tables, **found.tables}, found.passes, found.answers)


def _resumed(plan: EvaluationPlan, store: RowStore, item: WorkItem) -> dict[str, pd.DataFrame]:
    """The rows that are there, by intervention."""
    found = {name: store.resumed(plan, item, name) for name in item.names}
    return {name: table for name, table in found.items() if table is not None}
