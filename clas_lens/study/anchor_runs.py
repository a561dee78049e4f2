"""Runs with different anchors in one table: the anchor's neurons, how alike the others are to it, what steering gains."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from clas_lens.artifacts import ArtifactError
from clas_lens.given import given_path, named
from clas_lens.significance.comparisons import load_comparisons
from clas_lens.significance.intervals import Interval
from clas_lens.study.folder import REPORT_DATA, RunFolder
from clas_lens.study.run import Run
from clas_lens.vocabulary import CLAS

CATEGORY_SHARES = ("active", "specific", "partial", "shared")


def compare_anchors(runs: Sequence[str | Path | Run]) -> pd.DataFrame:
    """Runs that differ in their anchor, side by side; only what their folders hold is read, no model.

    Args:
        runs: run folders, or `Run`s: of the same model, texts, categories and tasks, each with another anchor.

    Returns:
        One row a run and task: `run` (its folder's name), `anchor`, `task` ("clas" where nothing was evaluated), `alpha`;
        `active`, `specific`, `partial`, `shared` of the anchor and its unsteered `cosine`, as in
        `cl.representations.anchor_frame`; `cosine_change`, what steering adds to it; CLAS's `gain` with `ci_low` and `ci_high`
        in points (NaN where nothing was compared). It is a mean over all languages but the anchor, so each row's is a mean
        over others.

    Raises:
        ArtifactError: not a run folder, a damaged file, or one without the tables of the report.
        ValueError: fewer than two runs, two with the same anchor, or runs that differ in more than that.
    """
    if isinstance(runs, str | Path | Run) or not isinstance(runs, Sequence) or len(runs) < 2:
        raise ValueError(f"compare_anchors needs a list of at least two run folders, got {named(runs)}")
    folders = [one.folder if isinstance(one, Run) else RunFolder(given_path("a run folder", one)) for one in runs]
    _require_alike(folders)
    frame = pd.DataFrame([row for folder in folders for row in _rows(folder)])
    twice = frame.loc[frame.duplicated(["anchor", "task"]), "anchor"]
    if len(twice):
        raise ValueError(f"two runs have the anchor {twice.iloc[0]!r}: give one run an anchor (clas-lens ... --anchor)")
    return frame


def _require_alike(folders: Sequence[RunFolder]) -> None:
    """Raise `ValueError` unless the runs' neurons are the same, and their tasks ask the same questions."""
    first, *others = [(folder.root.name, _compared(folder)) for folder in folders]
    for name, facts in others:
        for fact in sorted({*facts, *first[1]}):
            if facts.get(fact) != first[1].get(fact):
                raise ValueError(
                    f"the runs {first[0]} and {name} differ in more than the anchor: in {fact}. Make both with the same "
                    "command, but for --anchor."
                )


def _compared(folder: RunFolder) -> dict[str, Any]:
    """What must be the same of two runs for their gains to be those of the anchor."""
    manifest = folder.read_manifest()
    if not {"categorize", "report data"} <= set(manifest):
        raise ArtifactError(f"{folder.root} has no tables of the report yet: clas-lens report {folder.root} --collect")
    read = manifest["report data"]
    facts = {"the categories": manifest["categorize"]["categories"], "the texts of the cosines": read["corpus"]}
    facts |= {"the number of texts of the cosines": read["examples"], "the tasks": sorted(read["steered"])}
    for stage, entry in manifest.items():
        if stage.startswith("evaluate "):
            asked = ("task", "source", "languages", "n_examples")
            facts[f"the questions of {stage.removeprefix('evaluate ')}"] = [entry[key] for key in asked]
    return facts


def _rows(folder: RunFolder) -> Iterator[dict[str, Any]]:
    manifest = folder.read_manifest()
    layers = manifest["categorize"]["bridge_layers"]
    candidates, cosine = (_table(folder, name) for name in ("anchors", "cosine"))
    for task, steered in manifest["report data"]["steered"].items():
        own = candidates.set_index("language").loc[steered["anchor"]]
        read = cosine[(cosine["setting"] == task) & cosine["layer"].isin(layers)]
        gain, low, high = _gain(folder, task)
        yield {
            "run": folder.root.resolve().name,
            "anchor": steered["anchor"],
            "task": task,
            "alpha": float(steered["alpha"]),
            **{name: float(own[name]) for name in (*CATEGORY_SHARES, "cosine")},
            "cosine_change": float(read["change"].mean()),
            "gain": gain,
            "ci_low": low,
            "ci_high": high,
        }


def _gain(folder: RunFolder, task: str) -> Interval:
    """CLAS's mean gain over the languages without the anchor, with its interval; NaN where it was not compared."""
    path = folder.comparisons(task)
    found = load_comparisons(path)[0] if path.is_file() else []
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    return next((one.targets for one in found if one.intervention == CLAS), nothing)


def _table(folder: RunFolder, name: str) -> pd.DataFrame:
    found = folder.table(name, REPORT_DATA)
    if found is None:
        raise ArtifactError(f"{folder.root} has no table {name!r}: clas-lens report {folder.root} --collect makes it")
    return found
