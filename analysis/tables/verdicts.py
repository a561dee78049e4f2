"""A verdict a method, in words that follow from the numbers, and beside it the best control."""

from collections.abc import Collection, Sequence

import pandas as pd

from clas_lens.given import given_each
from clas_lens.significance.compare import Comparison
from clas_lens.vocabulary import CONTROLS

from ..style.numbers import number, signed
from .results import check_alike
from .table import Table, table_of


def is_control(name: str, controls: Collection[str] = CONTROLS) -> bool:
    """Whether an intervention of this name is a control, or a further draw of one ("random-2")."""
    stem, _, draw = name.rpartition("-")
    return name in controls or (draw.isdigit() and stem in controls)


def verdict_table(comparisons: Sequence[Comparison], *, controls: Collection[str] = CONTROLS) -> pd.DataFrame:
    """What each intervention does on average over the languages without the anchor, the controls among them.

    Args:
        comparisons: of different interventions with one baseline, on the same examples.
        controls: the names of those that are controls.

    Returns:
        One row an intervention: `intervention`, `is_control`, `verdict`, `said` (both of `Comparison`), `gain`, `ci_low`,
        `ci_high`, `detectable` (points), and `best_control` with its `control_gain`, the control that gains most; "" and NaN
        where there is none, and in a control's row.

    Raises:
        ValueError: as for `results_table`.
    """
    check_alike(comparisons)
    controls = given_each(controls, str, "controls must be a list of interventions' names", "such as ['random']")
    found = [one for one in comparisons if is_control(one.intervention, controls)]
    best = max(found, key=lambda one: one.targets.estimate, default=None)
    rows = []
    for one in comparisons:
        beside = None if one in found else best
        rows.append(
            {
                "intervention": one.intervention,
                "is_control": one in found,
                "verdict": one.verdict,
                "said": one.said,
                "gain": one.targets.estimate,
                "ci_low": one.targets.low,
                "ci_high": one.targets.high,
                "detectable": one.judged.detectable,
                "best_control": "" if beside is None else beside.intervention,
                "control_gain": float("nan") if beside is None else beside.targets.estimate,
            }
        )
    return pd.DataFrame(rows)


def verdict_view(comparisons: Sequence[Comparison], *, controls: Collection[str] = CONTROLS) -> Table:
    """`verdict_table`, laid out; arguments and errors are its own."""
    table = verdict_table(comparisons, controls=controls)
    first = comparisons[0]
    kinds = [" (control)" if one else "" for one in table["is_control"]]
    shown = pd.DataFrame(
        {
            "intervention": table["intervention"] + kinds,
            "verdict": table["said"],
            "smallest gain detectable": [number(value, 1) for value in table["detectable"]],
            "best control": [
                "" if not name else f"{name} {signed(gain)}"
                for name, gain in zip(table["best_control"], table["control_gain"], strict=True)
            ],
        }
    )
    others = "languages" if first.anchor is None else f"languages without {first.anchor}"
    languages = first.languages
    notes = (
        f"Of the mean gain over the {others}, in points. Helps, harms: a t-test and sign-flips of groups of examples both "
        f"have p below 0.05. No difference: two one-sided tests rule out {first.margin:g} points. Each of these is wrong in "
        "about 5 studies of 100 (by simulation at most 6), for each intervention by itself.",
        "Smallest gain detectable: what these examples would have shown four times in five, from the scores that changed and "
        f"the groups they belong to. In a single language it is {number(float(languages['detectable'].median()), 1)} points "
        f"(median, {first.intervention}).",
        "A method is worth its categories only where it does more than the best control under the same search.",
    )
    return table_of(shown, f"{first.title}: what the examples say", notes=notes)
