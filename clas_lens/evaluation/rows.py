"""Model + task + interventions -> one row an example, in chunks that survive a kill."""

import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from clas_lens.artifacts import content_key, resumed_table, save_table
from clas_lens.evaluation.leakage import check_overlap, overlapping
from clas_lens.evaluation.passes import LayerCount, SharedPrompt, first_layer
from clas_lens.evaluation.prefixes import Segment, prompt_batches, shared_segments, whole_prompts
from clas_lens.models.identity import model_fingerprint
from clas_lens.models.sites import LensModel, check_mlp_hooks, device_of
from clas_lens.steering.generate import end_token_ids
from clas_lens.steering.intervention import Intervention
from clas_lens.steering.steer import steerings_on
from clas_lens.tasks.base import Example, Task
from clas_lens.tasks.prompts import EncodedPrompt

KIND = "evaluation rows"


BASE = "base"


Interventions = Mapping[str, Intervention | None]


FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]*")


class EvaluationError(ValueError):
    """An evaluation that was asked for in a way that cannot be run."""


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
        batch_size: prompts a forward pass, at most (on a CPU fewer where they are long).
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
        EvaluationError: no interventions, a name that is no file name, or an unknown language.
    """
    run = Evaluation(model, task, named(intervention), languages, batch_size, chunk_size, out, allow_overlap, progress)
    return run.rows()


def named(intervention: Intervention | Interventions | None) -> dict[str, Intervention | None]:
    """Interventions by name."""
    if intervention is None:
        return {BASE: None}
    if isinstance(intervention, Mapping):
        if not intervention:
            raise EvaluationError("no interventions given; None is the unsteered model")
        return dict(intervention)
    inner = getattr(intervention, "inner", intervention)
    return {getattr(inner, "name", type(inner).__name__.lower()): intervention}


def _check_bare(model: LensModel, *, kept: bool) -> None:
    """Rows are of the named interventions alone: nothing else may change the model while they are made.

    Raises:
        EvaluationError: inside `steer`; or with hooks of the user's own, if the rows are kept in files.
    """
    if steerings_on(model):
        raise EvaluationError("the model is steered already: call evaluate outside `steer` and name the intervention")
    hooked_at = [name for name, point in model.hook_dict.items() if point.fwd_hooks]
    if kept and hooked_at:
        raise EvaluationError(
            f"the model has hooks of yours (at {hooked_at[0]!r}), and files of rows cannot say what they do: "
            "evaluate without out=, or remove them"
        )


@dataclass
class _Chunk:
    """Some examples of one language, and where their rows go."""

    language: str
    number: int
    examples: Sequence[Example]
    prompts: Sequence[EncodedPrompt]


class Evaluation:
    """One call of `evaluate`: its arguments, checked, and `rows()`, which runs it.

    `count` says how many layers were run, `answered` how many prompts under each intervention; neither what was read.
    """

    def __init__(
        self,
        model: LensModel,
        task: Task,
        interventions: Interventions,
        languages: Sequence[str] | None = None,
        batch_size: int = 16,
        chunk_size: int = 128,
        out: str | Path | None = None,
        allow_overlap: bool = False,
        progress: bool = True,
    ) -> None:
        check_mlp_hooks(model)
        odd = [name for name in interventions if not FILE_NAME.fullmatch(name)]
        if odd:
            raise EvaluationError(f"{odd[0]!r} cannot be a file name; use letters, digits and . _ + = , -")
        if chunk_size < 1:
            raise EvaluationError(f"chunk_size must be at least 1, got {chunk_size}")
        self.languages = tuple(task.languages if languages is None else languages)
        missing = [code for code in self.languages if code not in task.languages]
        if missing or not self.languages:
            asked = f"no language {missing[0]!r}" if missing else "no languages given"
            raise EvaluationError(f"{task.name}: {asked}; available: {', '.join(task.languages)}")
        for name, intervention in interventions.items():
            if intervention is not None:
                intervention.check(model)
                intervention.edits(self.languages)  # raises now, not hours on, for a language that it does not know
                if intervention.positions == "generated" and not task.generates:
                    raise EvaluationError(f"{name!r} steers generated tokens only, and {task.name} generates none")
        _check_bare(model, kept=out is not None)
        if not allow_overlap:
            check_overlap(task, interventions)
        self.model, self.task, self.interventions = model, task, dict(interventions)
        self.batch_size, self.chunk_size, self.progress = batch_size, chunk_size, progress
        self.folder = None if out is None else Path(out) / task.name
        self.count = LayerCount(model.cfg.n_layers)
        self.answered: Counter[str] = Counter()
        self._overlap = {name: overlapping(task, chosen) for name, chosen in interventions.items()}
        self._columns = task.columns(model)
        self._starts: dict[str, int] = {}  # of the interventions that change anything in the language at hand
        self._positions = {name: chosen.positions for name, chosen in interventions.items() if chosen is not None}
        self._new_tokens = task.new_tokens
        self._settings = task.settings(model)
        self._inputs = (
            task.version,
            task.row_columns,
            task.metric,
            self._settings,
            model_fingerprint(model),
            sorted(end_token_ids(model)),
        )

    def rows(self) -> pd.DataFrame:
        """Run what is not there yet and return everything."""
        total = sum(len(self.task.examples(code)) for code in self.languages) * len(self.interventions)
        tables = []
        with tqdm(total=total, unit="answer", desc=self.task.name, disable=not self.progress) as bar:
            for language in self.languages:
                bar.set_postfix_str(language)
                tables.append(self._language(language, bar))
        return pd.concat(tables, ignore_index=True)

    def _language(self, language: str, bar: "tqdm[Any]") -> pd.DataFrame:
        prompts = self.task.prompts(self.model, language)
        whole = _Chunk(language, -1, self.task.examples(language), prompts)
        self._starts = {
            name: first_layer(chosen, [language])
            for name, chosen in self.interventions.items()
            if chosen is not None and chosen.anchor != language
        }
        done = {name: self._resumed(whole, name) for name in self.interventions}
        bar.update(sum(len(table) for table in done.values() if table is not None))
        todo = [name for name, table in done.items() if table is None]
        parts: dict[str, list[pd.DataFrame]] = {name: [] for name in todo}
        for chunk in self._chunks(whole) if todo else ():
            for name, table in self._chunk(chunk, todo, bar).items():
                parts[name].append(table)
        for name in todo:
            table = pd.concat(parts[name], ignore_index=True)
            self._save(whole, name, table)
            done[name] = table
        return pd.concat([done[name] for name in self.interventions], ignore_index=True)

    def _chunks(self, whole: _Chunk) -> Iterator[_Chunk]:
        for number, start in enumerate(range(0, len(whole.examples), self.chunk_size)):
            part = slice(start, start + self.chunk_size)
            yield _Chunk(whole.language, number, whole.examples[part], whole.prompts[part])

    def _chunk(self, chunk: _Chunk, names: Sequence[str], bar: "tqdm[Any]") -> dict[str, pd.DataFrame]:
        """Rows of a chunk by intervention: read where they are saved, else run, together, and saved."""
        tables = {name: self._resumed(chunk, name) for name in names}
        todo = [name for name in names if tables[name] is None]
        bar.update(len(chunk.examples) * (len(names) - len(todo)))
        if todo:
            answers = self._answers(chunk, todo, bar)
            for name in todo:
                table = self._table(chunk, name, answers[name])
                self._save(chunk, name, table)
                tables[name] = table
        return {name: table for name, table in tables.items() if table is not None}

    def _answers(self, chunk: _Chunk, names: Sequence[str], bar: "tqdm[Any]") -> dict[str, list[Any]]:
        answers: dict[str, list[Any]] = {name: [None] * len(chunk.examples) for name in names}
        ids = [prompt.ids for prompt in chunk.prompts]
        groups = [example.group for example in chunk.examples]
        for rows in prompt_batches(ids, groups, self.batch_size, device_of(self.model)):
            for together, segments in self._in_segments(ids, rows, names):
                for name, found in self._answer(chunk.language, together, segments):
                    for row, answer in zip(rows, found, strict=True):
                        answers[name][row] = answer
                    self.answered[name] += len(rows)
                    bar.update(len(rows))
        return answers

    def _in_segments(
        self, ids: Sequence[Sequence[int]], rows: Sequence[int], names: Sequence[str]
    ) -> Iterator[tuple[list[str], list[Segment]]]:
        """Which interventions read the batch in which segments: those on some positions alone need whole prompts."""
        whole = [name for name in names if name in self._starts and self._positions[name] != "all"]
        rest = [name for name in names if name not in whole]
        if rest:
            yield rest, shared_segments(self.model, ids, rows, new_tokens=self._new_tokens)
        if whole:
            yield whole, whole_prompts(self.model, ids, rows)

    def _answer(
        self, language: str, names: Sequence[str], segments: Sequence[Segment]
    ) -> Iterator[tuple[str, list[Any]]]:
        """A batch's answers under each of these interventions."""
        unsteered = [name for name in names if name not in self._starts]
        # A single setting gains nothing from running its lower layers apart.
        starts = {self._starts[name] for name in names if name in self._starts} if len(names) > 1 else set()
        prompt = SharedPrompt(
            self.model, segments, starts, unsteered=bool(unsteered), columns=self._columns, count=self.count
        )
        if unsteered:
            found = self.task.answer(self.model, prompt.unsteered())
            yield from ((name, found) for name in unsteered)
        for name in names:
            intervention = self.interventions[name]
            if name in self._starts and intervention is not None:
                with prompt.steered(intervention, language, self._starts[name]) as answering:
                    found = self.task.answer(self.model, answering)
                yield name, found

    def _table(self, chunk: _Chunk, name: str, answers: Sequence[Any]) -> pd.DataFrame:
        known = self._overlap[name]
        first = {"task": self.task.name, "language": chunk.language, "intervention": name}
        facts = {"title": self.task.title, "metric": self.task.metric, "metric_title": self.task.metric_title}
        return pd.DataFrame(
            [
                {
                    **first,
                    **self.task.row(chunk.language, example, prompt, answer),
                    "overlap": self.task.key(example) in known,
                    **facts,
                }
                for example, prompt, answer in zip(chunk.examples, chunk.prompts, answers, strict=True)
            ]
        )

    # --- files ---

    def _path(self, chunk: _Chunk, name: str) -> Path | None:
        if self.folder is None:
            return None
        stem = self.folder / chunk.language / name
        return Path(f"{stem}.parquet") if chunk.number < 0 else Path(f"{stem}.parts") / f"{chunk.number:05d}.parquet"

    def _key(self, chunk: _Chunk, name: str) -> str:
        intervention = self.interventions[name]
        return content_key(
            self._inputs,
            None if intervention is None else intervention.fingerprint(),
            [vars(example) for example in chunk.examples],
            [prompt.ids for prompt in chunk.prompts],
            sorted(self._overlap[name]),
        )

    def _resumed(self, chunk: _Chunk, name: str) -> pd.DataFrame | None:
        path = self._path(chunk, name)
        return None if path is None else resumed_table(path, KIND, self._key(chunk, name))

    def _save(self, chunk: _Chunk, name: str, table: pd.DataFrame) -> None:
        path = self._path(chunk, name)
        if path is None:
            return
        intervention = self.interventions[name]
        header = {
            "key": self._key(chunk, name),
            "settings": self._settings,
            "intervention": None if intervention is None else intervention.settings(),
        }
        save_table(path, KIND, table, header)
        if chunk.number < 0:
            shutil.rmtree(path.with_suffix(".parts"), ignore_errors=True)
