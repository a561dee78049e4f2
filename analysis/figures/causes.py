"""What parts of the model cause: changes of the answer by language, layer and component; recovery by layer and position."""

from math import ceil
from typing import get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.gains import DIVERGING
from analysis.style.look import COLUMN, PAGE, TEXT_SIZE, apply_look, plain
from analysis.style.numbers import signed
from clas_lens.causal.scan import own_minus_others
from clas_lens.given import given_frame, given_word
from clas_lens.vocabulary import CauseMeasure, CauseValue

UNITS = {"log_prob": "nats a token", "kl": "nats a token", "score": "share of answer tokens"}
TITLES = {
    "log_prob": "log-probability of the answer",
    "kl": "divergence from the unedited model",
    "score": "share of answer tokens that are the most probable",
}
VALUES = {
    "change": "change",
    "beyond": "change beyond that of matched random units",
    "specific": "change, minus the other languages' mean",
}


def cause_heatmap(
    frame: pd.DataFrame,
    *,
    measure: CauseMeasure = "log_prob",
    value: CauseValue = "change",
    title: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """What editing each component does, language by layer, a panel a component; dots where the interval leaves 0 out.

    Args:
        frame: of `cl.causal.scan`; languages stay in its order.
        value: the "change" itself, "beyond" that of matched random units, or "specific": a language's minus the mean of the
            others (without dots).

    Raises:
        ValueError: another table, a measure that it does not have, or no numbers there ("beyond" of a scan with draws=0).
    """
    given_word("measure", measure, get_args(CauseMeasure))
    given_word("value", value, get_args(CauseValue))
    given_frame(frame, ("language", "layer", "component", "measure", "change", "beyond"), "cause_heatmap", "scan(...)")
    rows = own_minus_others(frame) if value == "specific" else frame
    rows = rows[rows["measure"] == measure]
    if rows.empty or rows[value].isna().all():
        raise ValueError(
            f"cause_heatmap: no number in {value!r} of {measure!r}; beyond needs scan(..., draws=1) or more"
        )
    components, languages = list(dict.fromkeys(rows["component"])), list(dict.fromkeys(rows["language"]))
    n_columns = 1 if len(components) == 1 else 2
    n_rows = ceil(len(components) / n_columns)
    panel = max(60, 24 * len(languages))
    height = 200 + n_rows * (panel + 46)
    figure = make_subplots(
        rows=n_rows,
        cols=n_columns,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=[plain(name) for name in components],
        horizontal_spacing=0.04,
        vertical_spacing=46 / (height - 200) if n_rows > 1 else 0.0,
    )
    for place, component in enumerate(components):
        _add_panel(
            figure,
            rows[rows["component"] == component],
            languages,
            value,
            row=place // n_columns + 1,
            column=place % n_columns + 1,
        )
    limit = float(rows[value].abs().max()) or 1.0
    apply_look(
        figure,
        title=title or f"What editing each component does to the {TITLES[measure]}",
        subtitle=_subtitle(rows, value),
        dark=dark,
        width=COLUMN if n_columns == 1 else PAGE,
        height=height,
        legend=False,
    )
    figure.update_layout(coloraxis=_diverging(limit, UNITS[measure].replace(" ", "<br>", 1)))
    n_layers = rows["layer"].nunique()
    figure.update_xaxes(showgrid=False, type="category", nticks=n_layers if n_layers < 20 else 10)
    for column in range(1, n_columns + 1):
        lowest = max(row for row in range(1, n_rows + 1) if (row - 1) * n_columns + column <= len(components))
        figure.update_xaxes(title="layer", showticklabels=True, row=lowest, col=column)
    figure.update_yaxes(showgrid=False, type="category", autorange="reversed")
    return figure


def _subtitle(rows: pd.DataFrame, value: CauseValue) -> str:
    low, high = int(rows["n"].min()), int(rows["n"].max())
    examples = f"{low}" if low == high else f"{low} to {high}"
    dots = "" if value == "specific" else "; dots: the interval leaves 0 out"
    return f"{VALUES[value]}; {examples} examples a language{dots}; empty: no units"


def _add_panel(
    figure: go.Figure, rows: pd.DataFrame, languages: list[str], value: CauseValue, *, row: int, column: int
) -> None:
    layers = sorted(rows["layer"].unique())
    table, units = (
        rows.pivot(index="language", columns="layer", values=name).reindex(index=languages, columns=layers)
        for name in (value, "n_units")
    )
    names = [plain(code) for code in languages]
    shown = [["" if np.isnan(one) else signed(one, 3) for one in line] for line in table.to_numpy(dtype=float)]
    figure.add_heatmap(
        z=table.to_numpy(dtype=float),
        x=[str(layer) for layer in layers],
        y=names,
        text=shown,
        customdata=units.to_numpy(),
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="<b>%{y}</b>, layer %{x}: %{text} (%{customdata} units)<extra></extra>",
        row=row,
        col=column,
    )
    if value == "specific":
        return
    low, high = ("low", "high") if value == "change" else ("beyond_low", "beyond_high")
    sure = rows[(rows[low] > 0) | (rows[high] < 0)]
    figure.add_scatter(
        x=[str(layer) for layer in sure["layer"]],
        y=[plain(code) for code in sure["language"]],
        mode="markers",
        marker={"size": 4, "color": "#1F2328"},
        hoverinfo="skip",
        showlegend=False,
        row=row,
        col=column,
    )


def _diverging(limit: float, unit: str) -> dict[str, object]:
    return {
        "colorscale": DIVERGING,
        "cmin": -limit,
        "cmax": limit,
        "colorbar": {"title": {"text": unit, "font": {"size": TEXT_SIZE}}, "thickness": 12, "outlinewidth": 0},
    }
