"""A run folder's tables, read for figures, tables and text: no model is needed, only what the stages left."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from clas_lens.artifacts import load_table
from clas_lens.evaluation.search import KIND as SEARCH_KIND
from clas_lens.evaluation.store import KIND as ROWS
from clas_lens.evaluation.windows import KIND as WINDOWS
from clas_lens.given import given, given_path
from clas_lens.models.units import site_of
from clas_lens.significance.compare import Comparison
from clas_lens.significance.comparisons import load_comparisons
from clas_lens.significance.pairs import facts_of_rows
from clas_lens.study.folder import REPORT_DATA, RunFolder
from clas_lens.study.tables import WITHOUT_TASK
from clas_lens.tasks.known import TASKS
from clas_lens.vocabulary import CLAS, UnitSite

from ..style.languages import language_name
from ..style.numbers import number

# What a language's gain is set against, by column of `RunData.relations`; `RunData.measures` names the anchor in them.
MEASURES = {
    "change": "change of cosine to {anchor}, bridge layers",
    "separation": "change of silhouette",
    "proximity_initial": "cosine to {anchor} before steering, layer of the map",
    "proximity_final": "cosine to {anchor} after steering, layer of the map",
    "proximity_first": "cosine to {anchor} in the first layer",
    "proximity_last": "cosine to {anchor} in the last layer, unsteered",
    "mean_score": "mean of the scores before and after",
}


@dataclass(frozen=True, eq=False)
class RunData:
    """What a run folder holds so far. Tables that no stage has written yet are None."""

    run: RunFolder
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def given(cls, data: object) -> "RunData":
        """The value, if it is RunData.

        Raises:
            ValueError: anything else.
        """
        return given(data, cls, "RunData is needed", "RunData.open(folder) reads a run folder")

    @classmethod
    def open(cls, root: str | Path) -> "RunData":
        """Read the manifest.

        Raises:
            ArtifactError: not a run folder, or a damaged manifest.
        """
        run = RunFolder(given_path("a run folder", root))
        return cls(run, run.read_manifest())

    def table(self, name: str, kind: str = REPORT_DATA) -> pd.DataFrame | None:
        """A table of the run folder, by default of those that the report's data are in; see `RunFolder.table`."""
        return self.run.table(name, kind)

    @cached_property
    def windows(self) -> pd.DataFrame | None:
        """The searches at every window of layers, of all tasks; None where none was asked for."""
        found = [self.table(path.stem, WINDOWS) for path in sorted(self.run.tables.glob("*_windows.parquet"))]
        return pd.concat([one for one in found if one is not None], ignore_index=True) if found else None

    def why_missing(self, name: str, command: str) -> str:
        """Why there is no such table: the reason that its stage gave, or that `command` was not run."""
        reason = self.facts("report data").get("left_out", {}).get(name)
        return f"Not drawn: {reason}." if reason else f"Not there yet. This brings it: {command}"

    def facts(self, stage: str) -> dict[str, Any]:
        """A stage's entry in the manifest, empty if it has not run."""
        return self.manifest.get(stage, {})

    @property
    def model(self) -> str:
        return str(self.facts("collect").get("model", {}).get("name", "model"))

    @property
    def site(self) -> UnitSite:
        """Whose units were measured."""
        return site_of(self.facts("collect").get("model", {}))

    @property
    def bridge_layers(self) -> tuple[int, ...]:
        return tuple(self.facts("categorize").get("bridge_layers", ()))

    @property
    def anchor(self) -> str:
        steered = self.facts("report data").get("steered", {})
        compared = [one.anchor for found in self.comparisons.values() for one in found if one.anchor is not None]
        return str(next((one["anchor"] for one in steered.values()), next(iter(compared), "en")))

    @property
    def anchor_name(self) -> str:
        """What the anchor is called in texts."""
        return language_name(self.anchor)

    @property
    def measures(self) -> dict[str, str]:
        """`MEASURES` in words."""
        return {column: text.format(anchor=self.anchor_name) for column, text in MEASURES.items()}

    @cached_property
    def settings(self) -> dict[str, str]:
        """What was steered, by setting, as text; of settings that are steered alike only the first, named after all."""
        steered = self.facts("report data").get("steered", {})
        alike: dict[str, list[str]] = {}
        for name, one in steered.items():
            alike.setdefault(json.dumps(one, sort_keys=True), []).append(name)
        titled = {names[0]: [self._setting(name) for name in names] for names in alike.values()}
        return {first: _setting_text(titles, steered[first]["alpha"]) for first, titles in titled.items()}

    def _setting(self, name: str) -> str:
        return "CLAS" if name == WITHOUT_TASK else self.title(name)

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that were evaluated, those of this toolkit first."""
        found = {path.name.removesuffix("_rows.parquet") for path in self.run.tables.glob("*_rows.parquet")}
        return tuple(sorted(found, key=lambda task: (task not in TASKS, [*TASKS, task].index(task), task)))

    def title(self, task: str) -> str:
        """What a task is called, as its rows say."""
        known = [facts_of_rows(self.rows[task]).title] if task in self.rows else []
        return next(iter(known), next((one.title for name, one in TASKS.items() if name == task), task))

    @cached_property
    def rows(self) -> dict[str, pd.DataFrame]:
        """Evaluation rows by task."""
        found = {task: self.table(f"{task}_rows", ROWS) for task in self.tasks}
        return {task: rows for task, rows in found.items() if rows is not None}

    @cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """Every intervention against the unsteered model, by task; a task that was not compared has none."""
        return {task: found for task, (found, _) in self._compared.items()}

    @cached_property
    def _compared(self) -> dict[str, tuple[list[Comparison], str | None]]:
        paths = {task: self.run.comparisons(task) for task in self.tasks}
        none: tuple[list[Comparison], str | None] = ([], None)
        return {task: load_comparisons(path) if path.is_file() else none for task, path in paths.items()}

    def why_not_compared(self, task: str) -> str:
        """Why a task has no comparisons."""
        return self._compared[task][1] or f"it was not; run clas-lens evaluate {self.run.root} --task {task} again"

    def main_comparison(self, task: str) -> Comparison | None:
        """That of CLAS, or else of the first intervention there is."""
        found = sorted(self.comparisons.get(task, []), key=lambda one: one.intervention != CLAS)
        return found[0] if found else None

    @cached_property
    def searches(self) -> dict[str, pd.DataFrame]:
        """Search tables by method, its tasks together."""
        found: dict[str, list[pd.DataFrame]] = {}
        for path in sorted(self.run.search.glob("*/*.parquet")):
            found.setdefault(path.stem, []).append(load_table(path, SEARCH_KIND)[0])
        return {name: pd.concat(tables, ignore_index=True) for name, tables in found.items()}

    @cached_property
    def changes(self) -> pd.DataFrame | None:
        """Change of the cosine to the anchor, mean over the bridge layers: setting, language, change."""
        cosine = self.table("cosine")
        if cosine is None:
            return None
        bridge = cosine[cosine["layer"].isin(self.bridge_layers)]
        return bridge.groupby(["setting", "language"])["change"].mean().reset_index()

    def gains(self, task: str) -> pd.DataFrame | None:
        """Gain in score and change of the cosine: language, gain (points), change; None without either."""
        comparison = self.main_comparison(task)
        if comparison is None or comparison.intervention != CLAS or self.changes is None:
            return None
        changes = self.changes[self.changes["setting"] == task]
        table = comparison.languages[["language", "gain"]].merge(changes[["language", "change"]], on="language")
        return None if table.empty else table

    def relations(self, task: str) -> pd.DataFrame | None:
        """`gains` with everything else that a language's gain may go with, by the columns of `MEASURES`; None without gains.

        A measure that the run's tables do not have is NaN.
        """
        table, comparison = self.gains(task), self.main_comparison(task)
        if table is None or comparison is None:
            return None
        scores = comparison.languages.set_index("language")[["baseline", "score"]].mean(axis=1)
        table = table.assign(mean_score=table["language"].map(scores))
        separation, cosine = self.table("separation"), self.table("cosine")
        found: dict[str, pd.Series] = {}
        if separation is not None:
            apart = separation[(separation["setting"] == task) & (separation["measure"] == "silhouette")]
            by_language = apart.set_index("language")
            found["separation"] = by_language["after"] - by_language["before"]
        if cosine is not None:
            here = cosine[cosine["setting"] == task]
            layers = sorted(here["layer"].unique())
            places = {"first": ("before", layers[0]), "last": ("before", layers[-1])}
            if separation is not None and not separation.empty:
                drawn = int(separation["layer"].iloc[0])
                places |= {"initial": ("before", drawn), "final": ("after", drawn)}
            for name, (when, layer) in places.items():
                found[f"proximity_{name}"] = here[here["layer"] == layer].set_index("language")[when]
        columns = {name: table["language"].map(found[name]) if name in found else float("nan") for name in MEASURES}
        return table.assign(**{name: values for name, values in columns.items() if name not in table})


def _setting_text(names: Sequence[str], alpha: float) -> str:
    what = " and ".join(names)
    return f"{what}, \N{GREEK SMALL LETTER ALPHA} = {number(alpha)}"
