"""Two run folders side by side: the settings in which they differ, and their numbers in one tidy table."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from clas_lens.artifacts import load_table
from clas_lens.display import card
from clas_lens.evaluation.search import KIND as SEARCH_KIND
from clas_lens.given import given_each, given_path, given_word
from clas_lens.significance.comparisons import load_comparisons
from clas_lens.study.folder import LAYER_SHARES, REPORT_DATA, RunFolder
from clas_lens.study.run import Run

MEASURES = ("share", "score", "gain", "cosine_before", "cosine_after")
COLUMNS = ("run", "measure", "task", "method", "language", "layer", "category", "alpha", "value")


@dataclass(frozen=True, eq=False)
class RunPair:
    """What `compare_runs` found; `analysis.overlay_runs(pair)` draws it.

    Attributes:
        names: of the two runs.
        settings: where they differ: stage, setting, and a column for each run (empty where a run has no such stage).
        rows: tidy: run, measure, task, method, language, layer, category, alpha, value; what a measure has nothing of is empty.
            Measures: "share" (percent of a layer's neurons per category), "score" (percent, of a search, per strength),
            "gain" (points over the unsteered model, per method), "cosine_before" and "cosine_after" (to the anchor).
    """

    names: tuple[str, str]
    settings: pd.DataFrame
    rows: pd.DataFrame = field(repr=False)

    def measure(self, name: str) -> pd.DataFrame:
        """The rows of one measure; none where neither run has it.

        Raises:
            ValueError: no such measure.
        """
        given_word("measure", name, MEASURES)
        return self.rows[self.rows["measure"] == name]

    def _repr_html_(self) -> str:
        lines = self.settings.to_numpy().tolist()
        differ = {f"{stage}.{setting}": f"{first} | {second}" for stage, setting, first, second in lines}
        counts = self.rows.groupby("measure", sort=False).size()
        return card(
            "RunPair", " | ".join(self.names), {**differ, "rows": ", ".join(f"{n} {m}" for m, n in counts.items())}
        )


def compare_runs(a: str | Path | Run, b: str | Path | Run, *, names: tuple[str, str] | None = None) -> RunPair:
    """Two runs in one table, with the settings that differ; only what their folders hold is read, no model.

    Args:
        a, b: run folders, or `Run`s.
        names: of the two; default their folders' names.

    Raises:
        ArtifactError: not a run folder, or a damaged file.
        ValueError: two names that are the same.
    """
    folders = [one.folder if isinstance(one, Run) else RunFolder(given_path("a run folder", one)) for one in (a, b)]
    if names is not None and len(given_each(names, str, "names must be two texts", "one for each run")) != 2:
        raise ValueError(f"names must be two texts, one for each run; got {names!r}")
    called = names or (folders[0].root.resolve().name, folders[1].root.resolve().name)
    if called[0] == called[1]:
        raise ValueError(f"both runs are called {called[0]!r}: give names=(...) that tell them apart")
    manifests = [one.read_manifest() for one in folders]
    rows = [row for name, folder in zip(called, folders, strict=True) for row in _rows(name, folder)]
    return RunPair(called, _differing(called, *manifests), pd.DataFrame(rows, columns=list(COLUMNS)))


def _differing(names: tuple[str, str], a: Mapping[str, Any], b: Mapping[str, Any]) -> pd.DataFrame:
    found = []
    for stage in dict.fromkeys([*a, *b]):
        first, second = (dict(one.get(stage, {}).get("config", {})) for one in (a, b))
        for setting in dict.fromkeys([*first, *second]):
            pair = [str(one[setting]) if setting in one else "" for one in (first, second)]
            if pair[0] != pair[1]:
                found.append((stage, setting, *pair))
    return pd.DataFrame(found, columns=["stage", "setting", *names])


def _rows(name: str, folder: RunFolder) -> Iterator[dict[str, Any]]:
    """The numbers of one run, each with what tells it from the others."""
    shares = folder.table("layer_shares", LAYER_SHARES)
    for row in [] if shares is None else shares.to_dict("records"):
        yield _row(name, "share", row["percent"], layer=row["layer"], category=row["category"])
    for path in sorted(folder.search.glob("*/*.parquet")):
        for row in load_table(path, SEARCH_KIND)[0].to_dict("records"):
            told = {key: row[key] for key in ("task", "language", "alpha")}
            yield _row(name, "score", row["score"], method=path.stem, **told)
    for path in sorted(folder.tables.glob("*_comparison.parquet")):
        task = path.stem.removesuffix("_comparison")
        for one in load_comparisons(path)[0]:
            for row in one.languages.to_dict("records"):
                yield _row(name, "gain", row["gain"], task=task, method=one.intervention, language=row["language"])
    cosine = folder.table("cosine", REPORT_DATA)
    for row in [] if cosine is None else cosine.to_dict("records"):
        told = {"task": row["setting"], "language": row["language"], "layer": row["layer"]}
        for when in ("before", "after"):
            yield _row(name, f"cosine_{when}", row[when], **told)


def _row(run: str, measure: str, value: float, **told: Any) -> dict[str, Any]:
    return {"run": run, "measure": measure, "value": float(value), **told}
