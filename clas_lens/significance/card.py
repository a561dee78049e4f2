"""Evaluation rows as notebooks show them: how much of what was answered, and how well."""

from dataclasses import dataclass, field

import pandas as pd

from clas_lens.display import bars, card, listed
from clas_lens.significance.pairs import facts_of_rows


@dataclass(frozen=True, eq=False)
class RowsCard:
    """Shows the rows of `evaluate`, which stay a plain DataFrame: `RowsCard(rows)` as a cell's last line.

    Scores are percent: the mean over languages of the mean over examples.

    Raises:
        ValueError: no rows, rows of several tasks, or rows that do not name their metric.
    """

    rows: pd.DataFrame = field(repr=False)

    def __post_init__(self) -> None:
        facts_of_rows(self.rows)

    @property
    def task(self) -> str:
        return facts_of_rows(self.rows).task

    @property
    def metric(self) -> str:
        """The column of the scores."""
        return facts_of_rows(self.rows).metric

    @property
    def scores(self) -> dict[str, float]:
        """Percent by intervention."""
        by_language = self.rows.groupby(["intervention", "language"], sort=False)[self.metric].mean()
        means = by_language.groupby("intervention", sort=False).mean()
        return {str(name): 100 * float(score) for name, score in means.items()}

    def __repr__(self) -> str:
        scores = ", ".join(f"{name} {score:.2f}" for name, score in self.scores.items())
        return f"RowsCard({self.task!r}, {len(self.rows)} rows, {self.metric} in percent: {scores})"

    def _repr_html_(self) -> str:
        facts = {
            "rows": f"{len(self.rows):,}: {self.rows['id'].nunique():,} examples, one row a language and intervention",
            "languages": listed(self.rows["language"].unique().tolist()),
            "interventions": listed(self.rows["intervention"].unique().tolist()),
        }
        if "truncated" in self.rows:
            facts["cut to fit"] = f"{int(self.rows['truncated'].sum()):,} of {len(self.rows):,} rows"
        caption = f"{facts_of_rows(self.rows).metric_title}, percent, mean over languages"
        return card("evaluation rows", facts_of_rows(self.rows).title, facts, bars(self.scores, caption, digits=2))
