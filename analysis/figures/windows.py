"""What the choice of bridge layers is worth: the best tuning score at every window of layers of the bridge's width."""

import pandas as pd
import plotly.graph_objects as go

from clas_lens.evaluation.windows import window_bests
from clas_lens.given import given_frame

from ..style.look import COLUMN, PAGE, QUIET, SERIES_COLOURS, apply_look, panel_row, plain
from .curves import SEARCHED


def window_scores(table: pd.DataFrame, *, title: str | None = None, dark: bool = False) -> go.Figure:
    """Best score of each window of layers over the alphas that were tried, one panel a task; the bridge is the filled diamond.

    Args:
        table: of `cl.evaluation.search_windows`; of several tasks one below the other.

    Raises:
        ValueError: another table.
    """
    wanted = (*SEARCHED, "layers", "first", "last", "own", "anchor")
    given_frame(table, wanted, "window_scores", "search_windows(...)")
    bests = window_bests(table)
    tasks = list(dict.fromkeys(table["task"]))
    titles = table.drop_duplicates("task").set_index("task")
    names = [str(titles["title"][task]) if "title" in titles else task for task in tasks]
    figure = panel_row(names if len(tasks) > 1 else [""], shared_yaxes=False, horizontal_spacing=0.1)
    for column, task in enumerate(tasks, start=1):
        _add_task(figure, bests[bests["task"] == task], column)
        unit = plain(str(titles["metric_title"][task])) if "metric_title" in titles else "score"
        figure.update_yaxes(title=f"{unit} (%)", row=1, col=column)
    tried = int(table["alpha"].nunique())
    apply_look(
        figure,
        title=title or "What the choice of layers is worth",
        subtitle="tuning examples, mean over languages but the anchor, each window at the best of "
        f"{tried} \N{GREEK SMALL LETTER ALPHA}; "
        f"{bests['layers'].nunique()} windows; the best of so many is high by luck, too",
        dark=dark,
        width=COLUMN if len(tasks) == 1 else PAGE,
    )
    figure.update_xaxes(title="layers of the window", type="category")
    return figure


def _add_task(figure: go.Figure, bests: pd.DataFrame, column: int) -> None:
    places = [_range(first, last) for first, last in zip(bests["first"], bests["last"], strict=True)]
    for own, name, symbol, colour, size in (
        (False, "other windows", "circle", QUIET, 8),
        (True, "the bridge", "diamond", SERIES_COLOURS[0], 13),
    ):
        chosen = (bests["own"] == own).tolist()
        rows = bests[chosen]
        figure.add_scatter(
            x=[place for place, keep in zip(places, chosen, strict=True) if keep],
            y=rows["score"],
            customdata=rows[["alpha", "layers"]].to_numpy(),
            name=name,
            showlegend=column == 1,
            legendgroup=name,
            mode="markers",
            marker={"symbol": symbol, "size": size, "color": colour},
            hovertemplate="layers %{customdata[1]}: %{y:.1f}% at \N{GREEK SMALL LETTER ALPHA} = %{customdata[0]:g}"
            "<extra></extra>",
            row=1,
            col=column,
        )
    figure.update_xaxes(categoryorder="array", categoryarray=places, row=1, col=column)
    unsteered = float(bests["unsteered"].iloc[0])
    if pd.notna(unsteered):
        figure.add_scatter(
            x=places,
            y=[unsteered] * len(places),
            name="unsteered (\N{GREEK SMALL LETTER ALPHA} = 0)",
            showlegend=column == 1,
            legendgroup="unsteered",
            mode="lines",
            line={"color": QUIET, "width": 1.5, "dash": "dot"},
            hoverinfo="skip",
            row=1,
            col=column,
        )


def _range(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"
