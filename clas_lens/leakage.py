"""No example is tuned or measured on and then reported on, unless somebody says so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clas_lens.artifacts import content_key
from clas_lens.sites import LensModel
from clas_lens.steering import Edit, Intervention, Positions
from clas_lens.tasks.base import Task


class LeakageError(ValueError):
    """The examples to report on are not new to the intervention."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """An intervention whose strength was chosen on some examples; it remembers them, and does what the inner one does.

    Attributes:
        inner: the intervention.
        tuned_on: keys `<data set>/<id>` of the examples that it was tuned on.
    """

    inner: Intervention
    tuned_on: frozenset[str] = field(repr=False)

    @property
    def positions(self) -> Positions:
        return self.inner.positions

    @property
    def anchor(self) -> str:
        return self.inner.anchor

    @property
    def alpha(self) -> float:
        return self.inner.alpha

    @property
    def source(self) -> Mapping[str, Any]:
        return self.inner.source

    def check(self, model: LensModel) -> None:
        """As the inner one."""
        self.inner.check(model)

    def edits(self, languages: Sequence[str]) -> Mapping[str, Edit]:
        """As the inner one."""
        return self.inner.edits(languages)

    def settings(self) -> dict[str, Any]:
        """As the inner one."""
        return self.inner.settings()

    def fingerprint(self) -> str:
        """The inner one's, and the examples."""
        return content_key(self.inner.fingerprint(), sorted(self.tuned_on))

    def save_pretrained(self, folder: str | Path) -> Path:
        """The inner one's file; the examples are in the search's own."""
        return self.inner.save_pretrained(folder)


def examples_behind(intervention: Intervention) -> frozenset[str]:
    """The keys of the examples that an intervention was measured or tuned on, as far as it knows them."""
    if isinstance(intervention, Tuned):
        return intervention.tuned_on | examples_behind(intervention.inner)
    return frozenset(intervention.source.get("example_keys", ()))


def overlapping(task: Task, intervention: Intervention | None) -> frozenset[str]:
    """The keys of the task's examples that share a unit (article, premise, passage) with what is behind an intervention."""
    if intervention is None:
        return frozenset()
    behind = {task.units[key] for key in examples_behind(intervention) if key in task.units}
    return frozenset(key for key in task.example_keys() if task.units[key] in behind)


def check_overlap(task: Task, interventions: Mapping[str, Intervention | None]) -> None:
    """Raise `LeakageError` if any of the interventions knows some of the task's examples."""
    for name, intervention in interventions.items():
        shared = overlapping(task, intervention)
        if shared:
            raise LeakageError(
                f"{len(shared)} of the {len(task.example_keys())} {task.name} examples to report on share an article, "
                f"premise or passage with examples that {name!r} was measured or tuned on (such as {min(shared)!r}). "
                "Take another split or part, or say allow_overlap=True; the rows and every table then carry it."
            )
