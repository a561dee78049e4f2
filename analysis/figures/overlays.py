"""Two runs in one figure each: layers by category, curves over alpha, gains and cosines."""

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.display import CATEGORY_COLOURS
from clas_lens.given import given, given_word
from clas_lens.study.side_by_side import RunPair
from clas_lens.vocabulary import CLAS

from ..style.look import (
    COLUMN,
    PAGE,
    QUIET,
    SERIES_COLOURS,
    SERIES_SYMBOLS,
    apply_look,
    plain,
)
from ..style.numbers import signed


def overlay_runs(pair: RunPair, *, method: str = CLAS, dark: bool = False) -> dict[str, go.Figure]:
    """What both runs of `cl.compare_runs(a, b)` have numbers for, one run over the other.

    Args:
        method: whose curve and gains are drawn.

    Returns:
        Any of "layers" (percent of neurons per category and layer), "alpha" (score against strength, mean over languages, a
        panel a task), "gains" (points by language, a panel a task) and "cosines" (change of the cosine to the anchor by
        language, mean over the layers that both runs read).

    Raises:
        ValueError: not what `compare_runs` found, or a method that neither run has.
    """
    given(pair, RunPair, "overlay_runs needs two runs", "cl.compare_runs(a, b)")
    given_word("method", method, [*pair.rows["method"].dropna().unique()] or [CLAS])
    of_method = pair.rows["method"].isna() | (pair.rows["method"] == method)
    rows = pair.rows[of_method]
    both = {name: part for name, part in rows.groupby("measure") if set(part["run"]) == set(pair.names)}
    found: dict[str, go.Figure] = {}
    if "share" in both:
        found["layers"] = _layers(both["share"], pair.names, dark=dark)
    if "score" in both:
        means = both["score"].groupby(["run", "task", "alpha"])["value"].mean().reset_index()
        found["alpha"] = _alpha(means, pair.names, dark=dark)
    if "gain" in both:
        found["gains"] = _by_language(
            both["gain"], pair.names, "gain (points)", f"Gain of {method} in both runs", 1, dark=dark
        )
    if "cosine_before" in both and "cosine_after" in both:
        changes = _cosine_changes(both["cosine_before"], both["cosine_after"])
        title = "Change of the cosine to the anchor in both runs"
        found["cosines"] = _by_language(changes, pair.names, "change of cosine", title, 3, dark=dark)
    return found


def _style(number: int) -> dict[str, dict]:
    colour = SERIES_COLOURS[number]
    return {
        "line": {"color": colour, "width": 2.5, "dash": ("solid", "dash")[number]},
        "marker": {"color": colour, "symbol": SERIES_SYMBOLS[number], "size": 7},
    }


def _layers(rows: pd.DataFrame, names: Sequence[str], *, dark: bool) -> go.Figure:
    """A panel a category, a line a run."""
    categories = [name for name in CATEGORY_COLOURS if name in set(rows["category"])]
    figure = make_subplots(cols=len(categories), subplot_titles=categories, shared_yaxes=True, horizontal_spacing=0.03)
    for column, category in enumerate(categories, start=1):
        panel = rows[rows["category"] == category]
        _add_lines(figure, panel, "layer", names, column, "%{y:.1f}% of layer %{x}")
    apply_look(figure, title="Neurons per category and layer in both runs", dark=dark, width=PAGE, height=380)
    figure.update_xaxes(title="layer")
    return figure.update_yaxes(title="neurons in the layer (%)", col=1)


def _alpha(rows: pd.DataFrame, names: Sequence[str], *, dark: bool) -> go.Figure:
    tasks = list(dict.fromkeys(rows["task"]))
    figure = make_subplots(cols=len(tasks), subplot_titles=_headings(tasks), horizontal_spacing=0.1)
    for column, task in enumerate(tasks, start=1):
        _add_lines(figure, rows[rows["task"] == task], "alpha", names, column, "at %{x:g}: %{y:.2f}%")
        figure.add_vline(x=0, line={"color": QUIET, "width": 1, "dash": "dot"}, row=1, col=column)
    title = "Score against steering strength \N{GREEK SMALL LETTER ALPHA} in both runs"
    apply_look(
        figure, title=title, subtitle="mean over languages", dark=dark, width=COLUMN if len(tasks) == 1 else PAGE
    )
    figure.update_xaxes(title="\N{GREEK SMALL LETTER ALPHA} (0 = no steering)")
    return figure.update_yaxes(title="score (%)", col=1)


def _add_lines(
    figure: go.Figure, rows: pd.DataFrame, along: str, names: Sequence[str], column: int, hover: str
) -> None:
    for number, name in enumerate(names):
        line = rows[rows["run"] == name].sort_values(along)
        figure.add_scatter(
            x=line[along],
            y=line["value"],
            name=plain(name),
            legendgroup=name,
            showlegend=column == 1,
            mode="lines+markers",
            hovertemplate=hover,
            **_style(number),
            row=1,
            col=column,
        )


def _cosine_changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    keys = ["run", "task", "language", "layer"]
    joined = before.merge(after, on=keys, suffixes=("_before", "_after"))
    shared = set.intersection(*(set(part["layer"]) for _, part in joined.groupby("run")))
    kept = joined[joined["layer"].isin(shared)]
    kept = kept.assign(value=kept["value_after"] - kept["value_before"])
    return kept.groupby(["run", "task", "language"])["value"].mean().reset_index()


def _by_language(
    rows: pd.DataFrame, names: Sequence[str], unit: str, title: str, digits: int, *, dark: bool
) -> go.Figure:
    """A row a language, a mark a run, a panel a task."""
    tasks = list(dict.fromkeys(rows["task"]))
    order = rows.groupby("language")["value"].mean().sort_values().index.tolist()
    figure = make_subplots(cols=len(tasks), subplot_titles=_headings(tasks), shared_yaxes=True, horizontal_spacing=0.06)
    for column, task in enumerate(tasks, start=1):
        for number, name in enumerate(names):
            part = (
                rows[(rows["task"] == task) & (rows["run"] == name)]
                .set_index("language")
                .reindex(order)
                .dropna(subset=["value"])
            )
            figure.add_scatter(
                x=part["value"],
                y=[plain(code) for code in part.index],
                customdata=[signed(value, digits) for value in part["value"]],
                name=plain(name),
                legendgroup=name,
                showlegend=column == 1,
                mode="markers",
                marker={**_style(number)["marker"], "size": 10},
                hovertemplate="<b>%{y}</b>: %{customdata}",
                row=1,
                col=column,
            )
        figure.add_vline(x=0, line={"color": QUIET, "width": 1}, row=1, col=column)
    apply_look(figure, title=title, dark=dark, width=COLUMN if len(tasks) == 1 else PAGE, height=170 + 22 * len(order))
    figure.update_yaxes(type="category", categoryorder="array", categoryarray=[plain(code) for code in order])
    return figure.update_xaxes(title=unit)


def _headings(tasks: Sequence[str]) -> list[str] | None:
    return None if len(tasks) == 1 else [plain(task) for task in tasks]
