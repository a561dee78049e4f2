"""Tables of what the gains go with: every fitted line in one, and the test of equal variances."""

from ..tables.relations import fit_table, variance_table
from ..tables.table import Table, table_of
from .run import RunData


def relation_tables(data: RunData) -> list[Table]:
    """A task at a time: the lines where its gains are known, and the variances where it was compared."""
    found = [table(data, task) for task in data.tasks for table in (_fits, _variances)]
    return [table for table in found if table is not None]


def _fits(data: RunData, task: str) -> Table | None:
    frame = data.relations(task)
    if frame is None:
        return None
    fits = fit_table(frame, data.measures, anchor=data.anchor)
    shown = fits.rename(columns={"loo_low": "slope, one left out: least", "loo_high": "most", "spearman": "Spearman"})
    note = (
        "Each line is of one number a language against its gain, without the anchor, on axes divided by their largest "
        "magnitude. With several lines of one run a p below 0.05 now and then is chance; and over languages it holds for these "
        "examples only."
    )
    signed = ("slope", "slope, one left out: least", "most", "r", "Spearman")
    return table_of(shown, f"{data.title(task)}: what the gains go with", digits=3, signed=signed, notes=(note,))


def _variances(data: RunData, task: str) -> Table | None:
    comparisons = data.comparisons.get(task, [])
    if not comparisons:
        return None
    shown = variance_table(comparisons).rename(
        columns={
            "sigma_baseline": "\N{GREEK SMALL LETTER SIGMA} before",
            "sigma": "\N{GREEK SMALL LETTER SIGMA} after",
            "p_pitman_morgan": "p (Pitman-Morgan)",
            "p_levene": "p (Levene)",
        }
    )
    note = (
        "\N{GREEK SMALL LETTER SIGMA}: standard deviation of the scores over languages without the anchor. Pitman and Morgan's "
        "test is for pairs; Levene's takes the scores before and after as independent and finds little. Both hold for these "
        "examples only. The paper does not name its test."
    )
    return table_of(shown, f"{data.title(task)}: does the variance over languages stay", digits=3, notes=(note,))
