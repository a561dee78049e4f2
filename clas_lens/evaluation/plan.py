"""What an evaluation will do, checked before anything is run: frozen, without a model, cut into items of work."""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clas_lens.artifacts import content_key
from clas_lens.corpus.arguments import given_model, refuse_autocast
from clas_lens.evaluation.leakage import check_overlap, overlapping
from clas_lens.given import given_flag, given_whole, in_a_row
from clas_lens.models.hooking import acting_hooks, hooked_modules
from clas_lens.models.identity import model_fingerprint
from clas_lens.models.sites import LensModel, check_mlp_hooks
from clas_lens.steering.generate import end_token_ids
from clas_lens.steering.intervention import Intervention, why_none
from clas_lens.steering.steer import steerings_on
from clas_lens.tasks.base import Example, Task
from clas_lens.tasks.prompts import EncodedPrompt
from clas_lens.vocabulary import AFTER_PROMPTS

Interventions = Mapping[str, Intervention | None]


FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=,-]*")
LONGEST = 120  # of a name: file systems take 255 bytes, with what is added while a file is written


class EvaluationError(ValueError):
    """An evaluation that was asked for in a way that cannot be run."""


@dataclass(frozen=True)
class WorkItem:
    """Some examples of one language under some interventions; what is answered, or read from files, at once.

    Holds no model and no tensors: with a plan and the model it says everything, on whichever machine.

    Attributes:
        number: which chunk of the language, from 0; None for all of the language.
        names: of the interventions.
    """

    language: str
    number: int | None
    names: tuple[str, ...]
    examples: Sequence[Example] = field(repr=False)
    prompts: Sequence[EncodedPrompt] = field(repr=False)

    def of(self, names: Sequence[str]) -> "WorkItem":
        """The same examples under other interventions."""
        return replace(self, names=tuple(names))

    def chunks(self, size: int) -> Iterator["WorkItem"]:
        """The examples, some at a time."""
        for number, start in enumerate(range(0, len(self.examples), size)):
            part = slice(start, start + size)
            yield replace(self, number=number, examples=self.examples[part], prompts=self.prompts[part])


@dataclass(frozen=True, eq=False)
class EvaluationPlan:
    """The checked arguments of one `evaluate`.

    Attributes:
        columns: token ids of the logits that the task needs after a prompt; None for all.
        overlap: by intervention the keys of the examples that it was measured or tuned on.
        settings: the task's, as headers of files hold them.
        inputs: what rows depend on beside examples, prompts and interventions, for their keys.
    """

    task: Task
    interventions: Interventions
    languages: tuple[str, ...]
    batch_size: int
    chunk_size: int
    columns: tuple[int, ...] | None
    overlap: Mapping[str, frozenset[str]]
    settings: Mapping[str, Any]
    inputs: tuple[Any, ...]

    def item(self, model: LensModel, language: str) -> WorkItem:
        """Everything of one language."""
        examples, prompts = self.task.examples(language), self.task.prompts(model, language)
        return WorkItem(language, None, tuple(self.interventions), examples, prompts)

    def key(self, item: WorkItem, name: str) -> str:
        """What the rows of an item under one intervention follow from; rows with another key are not these."""
        intervention = self.interventions[name]
        return content_key(
            self.inputs,
            None if intervention is None else intervention.fingerprint(),
            [vars(example) for example in item.examples],
            [prompt.ids for prompt in item.prompts],
            sorted(self.overlap[name]),
        )

    def header(self, item: WorkItem, name: str) -> dict[str, Any]:
        """What a file of rows says of itself."""
        intervention = self.interventions[name]
        settings = None if intervention is None else intervention.settings()
        return {"key": self.key(item, name), "settings": dict(self.settings), "intervention": settings}


def plan_evaluation(
    model: LensModel,
    task: Task,
    interventions: Interventions,
    *,
    languages: Sequence[str] | None = None,
    batch_size: int = 16,
    chunk_size: int = 128,
    allow_overlap: bool = False,
    kept: bool = False,
) -> EvaluationPlan:
    """Check the arguments of `evaluate`, which says what they are.

    Args:
        kept: whether the rows go into files.

    Raises:
        EvaluationError, LeakageError, SteeringError: as `evaluate`.
    """
    check_mlp_hooks(given_model(model))
    check_task(task)
    for name, value in (("batch_size", batch_size), ("chunk_size", chunk_size)):
        given_whole(name, value, least=1)
    given_flag("allow_overlap", allow_overlap, error=EvaluationError)
    chosen = check_task_languages(task, languages)
    for name, intervention in interventions.items():
        check_named(name, intervention)
        if intervention is not None:
            _check_fits(model, task, name, intervention, chosen)
            if kept:
                intervention.fingerprint()  # raises now for a rule that has none
    _check_bare(model, kept=kept)
    if not allow_overlap:
        check_overlap(task, interventions)
    settings = task.settings(model)
    scoring = (task.version, task.row_columns, task.metric)
    return EvaluationPlan(
        task=task,
        interventions=dict(interventions),
        languages=chosen,
        batch_size=batch_size,
        chunk_size=chunk_size,
        columns=task.columns(model),
        overlap={name: overlapping(task, one) for name, one in interventions.items()},
        settings=settings,
        inputs=(scoring, settings, model_fingerprint(model), sorted(end_token_ids(model)), *hooked_modules(model)),
    )


def check_task(task: object) -> None:
    """Raise `EvaluationError` unless this is a task, and say what it is instead."""
    if inspect.isclass(task):
        raise EvaluationError(f"{task.__name__} is a class: make a task of it, {task.__name__}(...)")
    if not isinstance(task, Task):
        raise EvaluationError(
            f"evaluate answers a task, such as cl.tasks.XNLI(...) or cl.tasks.XQuAD(...); got {_kind(task)}"
        )


def check_named(name: object, intervention: object) -> None:
    """Raise `EvaluationError` unless this is an intervention, or None, under a name that can be a file's."""
    if not isinstance(name, str) or not FILE_NAME.fullmatch(name) or len(name) > LONGEST:
        raise EvaluationError(
            f"{str(name)[:60]!r} cannot be a file name; use at most {LONGEST} letters, digits and . _ + = , -"
        )
    if inspect.isclass(intervention):
        raise EvaluationError(f"{name!r}: {intervention.__name__} is a class: make an intervention of it")
    if intervention is not None and not isinstance(intervention, Intervention):
        raise EvaluationError(
            f"{name!r} is no intervention but {_kind(intervention)}: {why_none(intervention)}; None is the unsteered model"
        )


def check_task_languages(task: Task, languages: Sequence[str] | None) -> tuple[str, ...]:
    """The languages that are asked for, by default all of the task's.

    Raises:
        EvaluationError: none, an unknown one, one twice, or a string where a list is meant.
    """
    if isinstance(languages, str):
        raise EvaluationError(f"languages must be a list, got the string {languages!r}: give [{languages!r}]")
    if languages is not None and not in_a_row(languages):
        raise EvaluationError(f"languages must be a list, got {languages!r}")
    chosen = tuple(task.languages if languages is None else languages)
    missing = [code for code in chosen if not isinstance(code, str) or code not in task.languages]
    if missing or not chosen:
        asked = f"no language {missing[0]!r}" if missing else "no languages given"
        raise EvaluationError(f"{task.name}: {asked}; available: {', '.join(task.languages)}")
    twice = sorted({code for code in chosen if chosen.count(code) > 1})
    if twice:
        raise EvaluationError(f"{task.name}: {twice[0]!r} is asked for more than once in {', '.join(chosen)}")
    return chosen


def _check_fits(
    model: LensModel, task: Task, name: str, intervention: Intervention, languages: tuple[str, ...]
) -> None:
    intervention.check(model)
    intervention.edits(model, languages)  # raises now, not hours on, for a language that it does not know
    if intervention.positions in AFTER_PROMPTS and not task.generates:
        raise EvaluationError(f"{name!r} steers generated tokens only, and {task.name} generates none")


def _check_bare(model: LensModel, *, kept: bool) -> None:
    """Rows are of the named interventions alone: nothing else may change the model while they are made.

    Raises:
        EvaluationError: inside `steer`; or with hooks of the user's own, if the rows are kept in files.
        ValueError: inside `torch.autocast`.
    """
    refuse_autocast(model, "evaluate")
    if steerings_on(model):
        raise EvaluationError("the model is steered already: call evaluate outside `steer` and name the intervention")
    hooks = acting_hooks(model)
    if kept and hooks:
        raise EvaluationError(
            f"the model has hooks of yours (at {hooks[0][0]!r}), and files of rows cannot say what they do: "
            "evaluate without out=, or remove them"
        )


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
