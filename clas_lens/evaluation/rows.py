"""Model + task + interventions -> one row an example, in chunks that survive a kill."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from clas_lens.cluster.work import Runner, Tell, runner_of
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
from clas_lens.models.sites import LensModel
from clas_lens.steering.intervention import Intervention
from clas_lens.tasks.base import Task
from clas_lens.vocabulary import BASE


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
    cluster: Runner | None = None,
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
        cluster: who answers, such as `cl.cluster.RayCluster(workers=8)`; None is this process. Rows are the same: to the last
            bit on the same kind of hardware.

    Returns:
        One row an example, language and intervention: `task`, `language`, `intervention`, `id` (shared across languages),
        `group`, the task's own columns (gold, prediction, scores, token counts, truncation), `overlap`, and what
        the task is called (`title`), which column counts (`metric`) and what that is called (`metric_title`).

    Raises:
        ClusterError: of the cluster.
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
    return run_evaluation(model, task, named(intervention), out=out, progress=progress, cluster=cluster, **options).rows


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
    cluster: Runner | None = None,
    **options: Any,
) -> EvaluationResult:
    """Plan, run what is not there yet, and return everything; arguments and errors are those of `evaluate`."""
    if out is not None:
        given_path("out", out)
    runner = runner_of(cluster)
    check_task(task)
    plan = plan_evaluation(model, task, interventions, kept=out is not None, **options)
    store = RowStore(None if out is None else Path(out) / task.name)
    total = sum(len(task.examples(code)) for code in plan.languages) * len(interventions)
    passes: dict[tuple[str, int | None], float] = {}  # by item, in their order, in which they need not be done
    answers = Counter[str]()
    with tqdm(total=total, unit="answer", desc=task.name, disable=not progress) as bar:
        rows = _Rows(plan, store, bar.update)

        def items() -> Iterator[WorkItem]:
            for language in plan.languages:
                bar.set_postfix_str(language)
                for item in rows.missing(plan.item(model, language)):
                    passes[language, item.number] = 0.0
                    yield item

        work = partial(answer_item, plan=plan)
        for item, found in runner.results(model, work, items(), bar.update):
            passes[item.language, item.number] = found.passes
            answers += found.answers
            rows.add(item, found)
    return EvaluationResult(rows.all(), sum(passes.values(), 0.0), answers, tuple(rows.halved()))


class _Rows:
    """The rows of one evaluation as they come: saved by chunks, and by languages once all chunks of one are there.

    Args:
        tell: told of the rows that were there already.
    """

    def __init__(self, plan: EvaluationPlan, store: RowStore, tell: Tell) -> None:
        self._plan, self._store, self._tell = plan, store, tell
        self._whole: dict[str, WorkItem] = {}
        self._done: dict[str, dict[str, pd.DataFrame]] = {}  # by language and intervention
        self._parts: dict[tuple[str, str], dict[int, pd.DataFrame]] = {}  # by chunk, of what is not done
        self._halved: dict[str, list[int]] = {}  # by language
        self._made: dict[
            tuple[str, str], list[dict[str, Any]]
        ] = {}  # of chunks that were there, by language and intervention

    def missing(self, whole: WorkItem) -> Iterator[WorkItem]:
        """The chunks of a language that are not saved, each with the interventions whose rows are missing."""
        language = whole.language
        self._whole[language] = whole
        self._done[language] = self._saved(whole)
        names = [name for name in whole.names if name not in self._done[language]]
        self._parts |= {(language, name): {} for name in names}
        for item in whole.of(names).chunks(self._plan.chunk_size) if names else ():
            tables = self._saved(item)
            for name in tables:
                self._made.setdefault((language, name), []).extend(self._store.made(language, name, item.number))
            rest = item.of([name for name in names if name not in tables])
            self._take(item, tables)
            if rest.names:
                yield rest

    def _saved(self, item: WorkItem) -> dict[str, pd.DataFrame]:
        """The rows that are there, by intervention."""
        found = {name: self._store.resumed(self._plan, item, name) for name in item.names}
        tables = {name: table for name, table in found.items() if table is not None}
        self._tell(sum(map(len, tables.values())))
        return tables

    def add(self, item: WorkItem, found: Answered) -> None:
        """Save what was answered."""
        self._halved.setdefault(item.language, []).extend(found.halved)
        for name, table in found.tables.items():
            self._store.save(self._plan, item, name, table, halved=found.halved)
        self._take(item, found.tables)

    def halved(self) -> list[int]:
        """Of how many prompts the batches were that the device had no memory for, language by language."""
        return [count for code in self._plan.languages for count in self._halved.get(code, [])]

    def _take(self, item: WorkItem, tables: Mapping[str, pd.DataFrame]) -> None:
        """Keep a chunk's rows; when they are the last of a language, put its chunks together and save it whole."""
        assert item.number is not None
        whole = self._whole[item.language]
        for name, table in tables.items():
            parts = self._parts[item.language, name]
            parts[item.number] = table
            if sum(map(len, parts.values())) == len(whole.examples):
                self._done[item.language][name] = pd.concat(
                    [parts[number] for number in sorted(parts)], ignore_index=True
                )
                halved = self._halved.get(item.language, [])
                made = self._made.get((item.language, name), ())
                self._store.save(self._plan, whole, name, self._done[item.language][name], halved=halved, made=made)
                del self._parts[item.language, name]

    def all(self) -> pd.DataFrame:
        """Everything, language by language, in the order of the interventions."""
        tables = [self._done[code][name] for code in self._plan.languages for name in self._whole[code].names]
        return pd.concat(tables, ignore_index=True)
