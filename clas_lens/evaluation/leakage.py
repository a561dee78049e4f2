"""No example is tuned or measured on and then reported on, unless somebody says so."""

from collections.abc import Mapping

from clas_lens.corpus.content import CONTENT_PREFIX
from clas_lens.given import given
from clas_lens.steering.intervention import Intervention, given_intervention
from clas_lens.tasks.base import Task


class LeakageError(ValueError):
    """The examples to report on are not new to the intervention."""


def examples_behind(intervention: Intervention) -> frozenset[str]:
    """The keys of the examples that an intervention was measured or tuned on, as far as it knows them."""
    given_intervention(intervention)
    return intervention.tuned_on | frozenset(intervention.source.get("example_keys", ()))


def overlapping(task: Task, intervention: Intervention | None) -> frozenset[str]:
    """The keys of the task's examples that share a unit (article, premise, passage) with what is behind an intervention."""
    given(task, Task, "overlapping needs a task", "cl.tasks.XNLI(...) makes one")
    if intervention is None:
        return frozenset()
    behind = {task.units[name] for key in examples_behind(intervention) for name in _names(key) if name in task.units}
    return frozenset(key for key in task.example_keys() if task.units[key] in behind)


def _names(key: str) -> tuple[str, ...]:
    """A key, and the name of the text alone where the key tells it (`text/<hash>/<id>`): ids and rows may be others."""
    parts = key.split("/", 2)
    return (key, "/".join(parts[:2])) if len(parts) == 3 and f"{parts[0]}/" == CONTENT_PREFIX else (key,)


def check_overlap(task: Task, interventions: Mapping[str, Intervention | None]) -> None:
    """Raise `LeakageError` if any of the interventions knows some of the task's examples."""
    given(task, Task, "check_overlap needs a task", "cl.tasks.XNLI(...) makes one")
    given(interventions, Mapping, "check_overlap needs interventions by name", 'give {"clas": clas}')
    for name, intervention in interventions.items():
        shared = overlapping(task, intervention)
        if shared:
            raise LeakageError(
                f"{len(shared)} of the {len(task.example_keys())} {task.name} examples to report on share an article, "
                f"premise or passage with examples that {name!r} was measured or tuned on (such as {min(shared)!r}). "
                "Take another split or part, or say allow_overlap=True; the rows and every table then carry it."
            )
