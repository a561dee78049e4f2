"""Every intervention of some rows against the unsteered model: made once, kept in one file, read by whoever shows it."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pandas as pd

from clas_lens.artifacts import ArtifactError, load_table, save_table
from clas_lens.given import given, given_each, given_path, given_text
from clas_lens.significance.compare import Comparison, LanguageSummary, compare
from clas_lens.significance.intervals import Interval
from clas_lens.significance.pairs import check_rows
from clas_lens.significance.power import Judged
from clas_lens.vocabulary import BASE

KIND = "comparison"


def why_not_compared(rows: pd.DataFrame, anchor: str | None, *, baseline: str = BASE) -> str | None:
    """Why no intervention of these rows can be compared with the baseline; None if they can.

    Raises:
        ValueError: no rows of `evaluate`.
    """
    check_rows(rows, ("language", "intervention", "id", "group"))
    for name in (baseline, *([] if anchor is None else [anchor])):
        given(name, str, "baseline and anchor are names in the rows", 'such as "base" and "en"')
    names, languages = set(rows["intervention"]), set(rows["language"])
    if baseline not in names:
        return (
            f"there are no rows of the unsteered model ({baseline!r}), only of {', '.join(sorted(names)) or 'nothing'}"
        )
    if names == {baseline}:
        return f"there are rows of {baseline!r} alone"
    if languages == {anchor}:
        return f"there is no other language than the anchor {anchor!r}"
    n_groups = rows["group"].nunique()
    if n_groups < 2:
        return f"all {rows['id'].nunique()} examples belong to {n_groups} group; at least 2 groups are needed"
    return None


def compare_all(rows: pd.DataFrame, anchor: str | None, *, baseline: str = BASE) -> list[Comparison]:
    """Each intervention against the baseline, in the order of the rows; none where `why_not_compared` gives a reason.

    Args:
        anchor: where the rows are in other languages only, there is none.
    """
    if why_not_compared(rows, anchor, baseline=baseline) is not None:
        return []
    known = anchor if anchor in set(rows["language"]) else None
    names = [str(name) for name in rows["intervention"].unique() if name != baseline]
    return [compare(rows, name, baseline=baseline, anchor=known) for name in names]


def save_comparisons(path: Path, comparisons: Sequence[Comparison], *, reason: str | None = None) -> Path:
    """One row a comparison and language; everything else, and why there are none, in the header."""
    given_each(comparisons, Comparison, "save_comparisons needs a list of Comparisons", "compare(rows, ...) makes one")
    if reason is not None:
        given_text("reason", reason)
    tables = [one.languages.assign(intervention=one.intervention, overlap=one.overlap) for one in comparisons]
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame({"language": [], "intervention": []})
    names = [one.name for one in fields(Comparison) if one.name != "languages"]
    facts = [
        {name: getattr(one, name) for name in names} | {"summary": asdict(one.summary), "judged": asdict(one.judged)}
        for one in comparisons
    ]
    save_table(given_path("path", path), KIND, table, {"comparisons": facts, "reason": reason})
    return path


def load_comparisons(path: Path) -> tuple[list[Comparison], str | None]:
    """What `save_comparisons` wrote, and the reason if there are none.

    Raises:
        ArtifactError: missing, damaged or another kind of file, or one that another version wrote.
    """
    table, header = load_table(given_path("path", path, error=ArtifactError), KIND)
    wanted = {one.name for one in fields(Comparison)} - {"languages"}
    if any(set(facts) != wanted for facts in header["comparisons"]):
        raise ArtifactError(f"{path} was written by another version of clas_lens: run clas-lens evaluate again")
    return [_comparison(table, facts) for facts in header["comparisons"]], header["reason"]


def _comparison(table: pd.DataFrame, facts: dict[str, Any]) -> Comparison:
    own = table[table["intervention"] == facts["intervention"]].drop(columns=["intervention", "overlap"])
    intervals = {name: Interval(*facts[name]) for name in ("average", "targets")}
    made = {"summary": LanguageSummary(**facts["summary"]), "judged": Judged(**facts["judged"])}
    return Comparison(**{**facts, **intervals, **made, "languages": own.reset_index(drop=True)})
