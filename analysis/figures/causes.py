"""What parts of the model cause: changes of the answer by language, layer and component; recovery by layer and position."""

from collections.abc import Mapping
from math import ceil
from typing import get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.causal.scan import own_minus_others
from clas_lens.given import given_frame, given_word
from clas_lens.vocabulary import CauseMeasure, CauseValue

from ..style.look import COLUMN, PAGE, TEXT_SIZE, apply_look, panel_row, panels_of, plain, row_width
from ..style.numbers import signed
from .gains import CELL_INK, DIVERGING

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
    """What editing each component does, language by layer, a panel a component.

    Filled dots: the interval leaves 0 out, and that beyond matched random units, too; rings: the first alone.

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
    below = {"log_prob": "below 0: less probable", "kl": "0: as unedited", "score": "below 0: fewer"}[
        rows["measure"].iloc[0]
    ]
    notes = [f"{VALUES[value]} ({below})", f"{examples} examples a language"]
    if value == "change" and rows["beyond"].notna().any():
        notes += [
            "filled dots: the interval leaves 0 out, and so does that of the change beyond random units; rings: the first alone"
        ]
    elif value != "specific":
        notes += ["dots: the interval leaves 0 out"]
    if rows[value].isna().any():
        notes += ["empty: no units"]
    return "; ".join(notes)


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
    for sure, symbol in zip(_sure(rows, value), ("circle", "circle-open"), strict=True):
        if sure.empty and symbol == "circle-open":
            continue
        figure.add_scatter(
            x=[str(layer) for layer in sure["layer"]],
            y=[plain(code) for code in sure["language"]],
            mode="markers",
            marker={"size": 5, "color": CELL_INK, "symbol": symbol},
            hoverinfo="skip",
            showlegend=False,
            row=row,
            col=column,
        )


def _sure(rows: pd.DataFrame, value: CauseValue) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells that differ from 0, and from random units where there were some; and those that differ from 0 alone."""
    from_zero, from_null = ((rows[f"{name}low"] > 0) | (rows[f"{name}high"] < 0) for name in ("", "beyond_"))
    if value == "beyond":
        return rows[from_null], rows[:0]
    compared = rows["beyond"].notna()
    return rows[from_zero & (from_null | ~compared)], rows[from_zero & compared & ~from_null]


RECOVERED_IN = {"log_prob": "the answer's log-probability", "kl": "the divergence (KL) from the source's run"}

RECOVERED = ("source", "target", "layer", "component", "position", "measure", "recovery", "gap")


def recovery_heatmap(
    table: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    measure: CauseMeasure = "kl",
    title: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """How far patching brings the clean answer back: layer by position, a panel a direction; of heads layer by head.

    Args:
        table: of `cl.causal.patch`, or several by name, such as both directions. Of one position the rows are the components.

    Raises:
        ValueError: another table, or one without the measure.
    """
    panels = {}
    for name, frame in panels_of(table).items():
        given_frame(frame, RECOVERED, "recovery_heatmap", "patch(...)")
        rows = frame[frame["measure"] == measure]
        if rows.empty or rows["recovery"].isna().all():
            raise ValueError(f"recovery_heatmap: no number in 'recovery' of {measure!r}; available: log_prob, kl")
        for component, part in _panels(rows):
            panels[", ".join(filter(None, (name, component)))] = part
    figure = panel_row(list(panels))
    tallest = 0
    for column, part in enumerate(panels.values(), start=1):
        tallest = max(tallest, _add_recovery(figure, part, column))
    apply_look(
        figure,
        title=title or "How far activations of the source bring its answer back in the target",
        subtitle=f"100%: as the source; 0%: as the target; by {RECOVERED_IN[measure]}{_control(list(panels.values()))}",
        dark=dark,
        width=row_width(len(panels)),
        height=170 + 22 * max(tallest, 3),
        legend=False,
    )
    figure.update_layout(coloraxis=_diverging(100.0, "recovered<br>(%)"))
    figure.update_xaxes(showgrid=False, type="category", title="layer")
    figure.update_yaxes(showgrid=False, type="category")
    return figure


def _control(panels: list[pd.DataFrame]) -> str:
    """How much another example's activations bring back, where that was measured."""
    known = [part["control"].dropna() for part in panels if "control" in part]
    highest = max((float(values.max()) for values in known if len(values)), default=None)
    return "" if highest is None else f"; another example's activations: at most {highest:.0f}%"


def _panels(rows: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """One panel with all components where there is one position, else one a component."""
    if rows["position"].nunique() == 1:
        return [("", rows)]
    return [(str(name), part) for name, part in rows.groupby("component", sort=False)]


def _add_recovery(figure: go.Figure, rows: pd.DataFrame, column: int) -> int:
    """The number of rows drawn."""
    along = "component" if rows["position"].nunique() == 1 else "position"
    table = rows.pivot(index=along, columns="layer", values="recovery")
    table = table.reindex(list(dict.fromkeys(rows[along])))
    figure.add_heatmap(
        z=table.to_numpy(dtype=float),
        x=[str(layer) for layer in table.columns],
        y=[plain(name) for name in table.index],
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        hoverongaps=False,
        hovertemplate="layer %{x}, %{y}: %{z:.1f}% recovered<extra></extra>",
        row=1,
        col=column,
    )
    figure.update_yaxes(title="position from the end" if along == "position" else "", col=1)
    return len(table)


def _diverging(limit: float, unit: str) -> dict[str, object]:
    return {
        "colorscale": DIVERGING,
        "cmin": -limit,
        "cmax": limit,
        "colorbar": {"title": {"text": unit, "font": {"size": TEXT_SIZE}}, "thickness": 12, "outlinewidth": 0},
    }
