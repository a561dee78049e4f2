"""The same examples scored twice: evaluation rows of two interventions, aligned by language and example."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from clas_lens.given import given, named
from clas_lens.significance.tests import DIGITS, differences


@dataclass(frozen=True)
class RowFacts:
    """What evaluation rows say of their task: its name, its title, the column of its scores and what that is called."""

    task: str
    title: str
    metric: str
    metric_title: str


def labels_of(rows: pd.DataFrame) -> list[str]:
    """The labels that the rows have a probability of (`p_<label>`), in their order; none where answers are texts."""
    return [str(name)[2:] for name in rows if str(name).startswith("p_")]


def facts_of_rows(rows: pd.DataFrame, *, metric: str | None = None) -> RowFacts:
    """The task that all rows are of, from their columns `task`, `title`, `metric` and `metric_title`.

    Args:
        rows: without `title` the task is called by its name, without `metric_title` the metric by its column.
        metric: another column of scores than that which the rows name.

    Raises:
        ValueError: several tasks, no rows, no column `task`, or rows that name no metric or one that is not there.
    """
    check_rows(rows)
    names = _only(rows, "task")
    chosen = _only(rows, "metric") if metric is None and "metric" in rows else metric
    if chosen is None:
        raise ValueError(f"the rows of {names!r} do not say which column counts (no column 'metric'): give metric=")
    given(chosen, str, "metric must name a column of the rows", "leave it out for the one that the rows name")
    if chosen not in rows:
        raise ValueError(f"no column {chosen!r} in the rows; there are: {', '.join(map(str, rows.columns))}")
    own = "metric" in rows and chosen == _only(rows, "metric")
    return RowFacts(
        names,
        _only(rows, "title") if "title" in rows else names,
        chosen,
        _only(rows, "metric_title") if own and "metric_title" in rows else chosen,
    )


def check_rows(rows: object, columns: Iterable[str] = ()) -> None:
    """Raise unless these are evaluation rows, with these columns.

    Raises:
        ValueError: no DataFrame, or one without a column.
    """
    if not isinstance(rows, pd.DataFrame):
        raise ValueError(f"evaluation rows are needed, got {named(rows)}: evaluate(...) returns them, a DataFrame")
    lacking = sorted(set(columns) - set(rows.columns))
    if lacking:
        there = ", ".join(map(str, rows.columns)) or "none"
        raise ValueError(f"no column {lacking[0]!r} in the rows; there are: {there}")


def _only(rows: pd.DataFrame, column: str) -> str:
    """The one value of a column."""
    check_rows(rows, [column])
    found = list(rows[column].unique())
    if len(found) != 1:
        raise ValueError(f"give the rows of one {column}; these are of: {', '.join(map(str, found)) or 'none'}")
    return str(found[0])


@dataclass(frozen=True, eq=False)
class PairedScores:
    """Scores in percent of one set of examples, in every language, before and after an intervention.

    `groups` numbers, from 0, the group that an example belongs to: a paragraph of XQuAD, a premise of XNLI.
    """

    languages: tuple[str, ...]
    before: Float[np.ndarray, "lang example"]
    after: Float[np.ndarray, "lang example"]
    groups: Int[np.ndarray, "example"]

    @cached_property
    def gains(self) -> Float[np.ndarray, "lang example"]:
        """In percentage points."""
        return differences(self.before, self.after)

    @cached_property
    def mean_gains(self) -> Float[np.ndarray, "lang"]:
        """In percentage points."""
        return differences(self.before.mean(1), self.after.mean(1))

    @cached_property
    def group_sizes(self) -> Int[np.ndarray, "group"]:
        """Examples a group."""
        return np.bincount(self.groups)

    @cached_property
    def group_totals(self) -> Float[np.ndarray, "lang group"]:
        """Gains summed over each group."""
        return np.stack([np.bincount(self.groups, weights=gains) for gains in self.gains])

    @cached_property
    def group_gains(self) -> Float[np.ndarray, "lang group"]:
        """One independent number a group, with the mean gain over examples as its mean.

        With groups of one size these are the groups' mean gains; otherwise the linearised ratio of totals to sizes, whose
        spread is that of the mean gain (Cochran, Sampling Techniques, 6.4).
        """
        mean = self.mean_gains[:, None]
        spread = (self.group_totals - mean * self.group_sizes) / self.group_sizes.mean()
        return (mean + spread).round(DIGITS)

    def bootstrap_gains(self, *, n_boot: int = 2000, seed: int = 0) -> Float[np.ndarray, "lang draw"]:
        """Mean gains under resampling of groups: each draw takes the same groups in every language.

        Raises:
            ValueError: fewer than two groups or draws.
        """
        totals, sizes = self.group_totals, self.group_sizes
        if n_boot < 2 or len(sizes) < 2:
            raise ValueError(
                f"a bootstrap needs at least 2 draws and 2 groups of examples; got n_boot={n_boot} and {len(sizes)} group(s)"
            )
        resampled = stats.bootstrap(
            (np.arange(len(sizes)),),
            lambda drawn, axis: totals[:, drawn].sum(axis) / sizes[drawn].sum(axis),
            n_resamples=n_boot,
            batch=64,
            vectorized=True,
            method="percentile",
            rng=seed,
        )
        return resampled.bootstrap_distribution


def pair_scores(rows: pd.DataFrame, before: str, after: str, *, metric: str) -> PairedScores:
    """Align the rows of two interventions; languages and examples in the order in which they first come.

    Args:
        rows: `language`, `intervention`, `id`, `group` and the metric's column, a share from 0 to 1.

    Raises:
        ValueError: a column or an intervention that is missing, an example twice, other examples in one of the two or in
            one language than in another, an example in different groups, a metric that is no share.
    """
    check_rows(rows)
    for name in (before, after):
        if not isinstance(name, str):
            raise ValueError(f"an intervention's name in the rows is needed, got {named(name)}")
    check_rows(rows, ("language", "intervention", "id", "group", metric))
    first, second = (_scores(rows, name, metric) for name in (before, after))
    for one, other, name in ((first, second, after), (second, first, before)):
        _check_none(set(one.index) - set(other.index), f"{before!r} and {after!r} ({name!r} lacks them)")
    languages = tuple(first.index.get_level_values("language").unique())
    ids = first.index.get_level_values("id").unique()
    every = pd.MultiIndex.from_product([languages, list(ids)], names=["language", "id"])
    _check_none(set(every) - set(first.index), "every language")
    shape = (len(languages), len(ids))
    return PairedScores(
        languages,
        before=100 * first.reindex(every).to_numpy(dtype=np.float64).reshape(shape),
        after=100 * second.reindex(every).to_numpy(dtype=np.float64).reshape(shape),
        groups=_groups(rows[rows["intervention"].isin([before, after])], ids),
    )


def _scores(rows: pd.DataFrame, intervention: str, metric: str) -> "pd.Series[float]":
    """One intervention's scores by language and id."""
    chosen = rows[rows["intervention"] == intervention].set_index(["language", "id"])
    if chosen.empty:
        available = ", ".join(sorted(rows["intervention"].unique()))
        raise ValueError(f"no rows of intervention {intervention!r}; there are: {available or 'none'}")
    if chosen.index.has_duplicates:
        twice = chosen.index[chosen.index.duplicated()][0]
        raise ValueError(f"{intervention!r} has the example (language, id) {twice} more than once")
    values = chosen[metric]
    if not pd.api.types.is_numeric_dtype(values) or not values.between(0, 1).all():
        raise ValueError(f"{metric!r} of {intervention!r} must be a share, a number from 0 to 1 in every row")
    return values


def _check_none(missing: set[Any], where: str) -> None:
    if missing:
        shown = ", ".join(map(str, sorted(missing, key=str)[:5])) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"not the same examples in {where}: {len(missing)} missing, as (language, id): {shown}. "
            "Evaluate them too, or take the rows that all share."
        )


def _groups(rows: pd.DataFrame, ids: "pd.Index[Any]") -> Int[np.ndarray, "example"]:
    """The number of each example's group, from 0."""
    named = rows[["id", "group"]].drop_duplicates().set_index("id")["group"]
    if named.isna().any():
        raise ValueError(f"example {named.index[named.isna()][0]!r} has no group; an example alone is its own group")
    if named.index.has_duplicates:
        example = named.index[named.index.duplicated()][0]
        raise ValueError(
            f"example {example!r} is in several groups ({', '.join(map(str, named.loc[[example]]))}): name groups alike in "
            "every language and intervention"
        )
    return pd.factorize(named.loc[ids])[0]
