"""The paper's printed numbers as a figure, one's own beside them."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from clas_lens.given import given, given_frame, given_word
from clas_lens.tasks.known import TASKS

from ..style.look import PAGE, QUIET, SERIES_COLOURS, SERIES_SYMBOLS, apply_look, panel_row, plain
from ..style.numbers import signed
from ..tables.paper import PAPER_MODELS, PAPER_TASKS, paper_table

MODEL_NAMES = dict(zip(PAPER_MODELS, ("Llama 3.1 8B, paper", "Qwen 2.5 7B, paper"), strict=True))


def paper_gains(
    own: Mapping[str, pd.DataFrame], *, model: str = "your model", title: str | None = None, dark: bool = False
) -> go.Figure:
    """What CLAS gained in the paper, by task and language, and in one's own run.

    Args:
        own: by task (those of `PAPER_TASKS`): language, gain (points). May be empty.
        model: one's own model's name, for the legend.
    """
    given(own, Mapping, "paper_gains needs tables by task", 'such as {"xnli": comparison.languages}')
    for task, frame in own.items():
        given_word("task", task, PAPER_TASKS)
        given_frame(frame, ("language", "gain"), "paper_gains", "Comparison.languages")
    named = [f"{TASKS[task].metric_title} on {TASKS[task].title}" for task in PAPER_TASKS]
    figure = panel_row([TASKS[task].title for task in PAPER_TASKS], shared_yaxes=False, horizontal_spacing=0.08)
    tallest = 0
    for column, task in enumerate(PAPER_TASKS, start=1):
        table = paper_table(task)
        series = {
            MODEL_NAMES[str(name)]: part.rename(columns={"clas_gain": "gain"}) for name, part in table.groupby("model")
        }
        if task in own:
            series[f"{model}, this run"] = own[task]
        order = sorted({str(code) for part in series.values() for code in part["language"]}, reverse=True)
        tallest = max(tallest, len(order))
        for number, (name, part) in enumerate(series.items()):
            _add_series(figure, part, name, number, column=column)
        figure.add_vline(x=0, line={"color": QUIET, "width": 1}, row=1, col=column)
        figure.update_yaxes(
            type="category", categoryorder="array", categoryarray=[plain(code) for code in order], row=1, col=column
        )
    if own and PAPER_TASKS[0] not in own:
        figure.data[-1].showlegend = True
    apply_look(
        figure,
        title=title or "Gain of CLAS over the unsteered model, in the paper and here",
        subtitle=f"{', '.join(named)}; the paper gives no intervals",
        dark=dark,
        width=PAGE,
        height=190 + 22 * tallest,
    )
    return figure.update_xaxes(title="gain (points)")


def _add_series(figure: go.Figure, rows: pd.DataFrame, name: str, number: int, *, column: int) -> None:
    figure.add_scatter(
        x=rows["gain"],
        y=[plain(code) for code in rows["language"]],
        customdata=[signed(gain) for gain in rows["gain"]],
        name=plain(name),
        legendgroup=plain(name),
        showlegend=column == 1,
        mode="markers",
        marker={"color": SERIES_COLOURS[number], "symbol": SERIES_SYMBOLS[number], "size": 9, "opacity": 0.85},
        hovertemplate="<b>%{y}</b>: %{customdata} points",
        row=1,
        col=column,
    )
