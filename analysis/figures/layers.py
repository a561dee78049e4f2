"""Figure 1: how each layer's neurons divide into the four categories."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import pandas as pd
import plotly.graph_objects as go

from clas_lens.categories.categorize import NeuronCategories
from clas_lens.display import CATEGORY_COLOURS
from clas_lens.given import given_frame, given_word
from clas_lens.models.sites import check_layers
from clas_lens.vocabulary import ACTIVITY_TITLES, UnitSite

from ..style.look import (
    BRIDGE_SHADE,
    CATEGORY_DASHES,
    CATEGORY_SYMBOLS,
    T,
    apply_look,
    panel_row,
    panels_of,
    plain,
    row_width,
)
from ..style.numbers import number

Data = NeuronCategories | pd.DataFrame


Layers = Sequence[int]


def layer_distribution(
    data: Data | Mapping[str, Data],
    *,
    bridge_layers: Layers | Mapping[str, Layers] = (),
    null: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    sensitivity: pd.DataFrame | Mapping[str, pd.DataFrame] | None = None,
    site: UnitSite | None = None,
    title: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """Percent of each layer's MLP neurons (or attention units) per category, bridge layers shaded (the paper's Figure 1).

    Args:
        data: categories, or their tidy `shares()`: layer, category, count, percent. A mapping of names to these draws the
            models side by side; the next three are then mappings with the same names (each may leave some out).
        bridge_layers: shaded; they need not be consecutive.
        null: `null_shares(cats)`: dotted, what languages independent of each other would give.
        sensitivity: `threshold_shares(stats, thresholds)`: a band from the smallest to the largest share.
        site: what is named: MLP neurons or attention's units; default that of the categories, the MLP for tables.
    """
    panels: dict[str, Data] = panels_of(data)
    figure = panel_row(list(panels))
    for column, (name, panel) in enumerate(panels.items(), start=1):
        shares = (
            panel.shares()
            if isinstance(panel, NeuronCategories)
            else _shares_of(panel, "NeuronCategories or their shares()", "count")
        )
        band, chance = _of(sensitivity, name), _of(null, name)
        if band is not None:
            _shares_of(band, "threshold_shares(...)", "threshold")
            _add_bands(figure, band, column)
        if chance is not None:
            _shares_of(chance, "null_shares(...)")
            _add_null(figure, chance, column)
        _add_shares(figure, shares, column)
        shaded = _of(bridge_layers, name)
        if shaded is not None and len(shaded):
            _shade(figure, check_layers(shaded, int(shares["layer"].max()) + 1), column)
        last = shares["layer"].max()
        figure.update_xaxes(
            title="layer", dtick=1 if last < 20 and len(panels) == 1 else 4, range=[-0.5, last + 0.5], col=column
        )
    subtitles = list(dict.fromkeys(filter(None, map(subtitle_of, panels.values()))))
    sites = {panel.site for panel in panels.values() if isinstance(panel, NeuronCategories)}
    if site is not None:
        given_word("site", site, get_args(UnitSite))
    of_neurons = (site or next(iter(sites), "mlp")) == "mlp"
    apply_look(
        figure,
        title=title
        or f"{'MLP neurons' if of_neurons else 'Attention units'} by the number of languages they are active in",
        subtitle="; ".join([*subtitles, *_notes(bridge_layers, null, sensitivity)]),
        dark=dark,
        width=row_width(len(panels)),
    )
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(range=[0, 100])
    figure.update_yaxes(title=f"{'neurons' if of_neurons else 'units'} in the layer (%)", col=1)
    return figure


def _shares_of(table: Any, how: str, *more: str) -> pd.DataFrame:
    return given_frame(table, ("layer", "category", "percent", *more), "layer_distribution", how)


def _of(option: T | Mapping[str, T] | None, name: str) -> T | None:
    """One panel's part of an option."""
    return option.get(name) if isinstance(option, Mapping) else option


def _add_shares(figure: go.Figure, shares: pd.DataFrame, column: int) -> None:
    for category, colour in CATEGORY_COLOURS.items():
        rows = shares[shares["category"] == category].sort_values("layer")
        figure.add_scatter(
            x=rows["layer"],
            y=rows["percent"],
            customdata=rows["count"],
            name=category,
            legendgroup=category,
            showlegend=column == 1,
            mode="lines+markers",
            line={"color": colour, "width": 2.5, "dash": CATEGORY_DASHES[category]},
            marker={"symbol": CATEGORY_SYMBOLS[category], "size": 7},
            hovertemplate="%{y:.1f}% (%{customdata:,} neurons)",
            row=1,
            col=column,
        )


def _add_null(figure: go.Figure, chance: pd.DataFrame, column: int) -> None:
    for category, colour in CATEGORY_COLOURS.items():
        rows = chance[chance["category"] == category].sort_values("layer")
        figure.add_scatter(
            x=rows["layer"],
            y=rows["percent"],
            name=f"{category}, independent languages",
            legendgroup=category,
            showlegend=False,
            mode="lines",
            line={"color": colour, "width": 1.5, "dash": "dot"},
            hovertemplate="%{y:.1f}%",
            row=1,
            col=column,
        )


def _add_bands(figure: go.Figure, shares: pd.DataFrame, column: int) -> None:
    limits = shares.groupby(["category", "layer"])["percent"].agg(["min", "max"]).reset_index()
    for category, colour in CATEGORY_COLOURS.items():
        rows = limits[limits["category"] == category].sort_values("layer")
        figure.add_scatter(
            x=[*rows["layer"], *rows["layer"][::-1]],
            y=[*rows["max"], *rows["min"][::-1]],
            name=f"{category}, all thresholds",
            legendgroup=category,
            showlegend=False,
            mode="lines",
            line={"width": 0},
            fill="toself",
            fillcolor=colour,
            opacity=0.2,
            hoverinfo="skip",
            row=1,
            col=column,
        )


def _shade(figure: go.Figure, layers: Layers, column: int) -> None:
    for layer in layers:
        figure.add_vrect(
            x0=layer - 0.5,
            x1=layer + 0.5,
            fillcolor=BRIDGE_SHADE,
            line_width=0,
            layer="below",
            row=1,
            col=column,
        )


def _notes(bridge_layers: object, null: object, sensitivity: object) -> list[str]:
    notes = ["shaded: bridge layers"] if bridge_layers else []
    if null is not None:
        notes.append("dotted: if languages were independent")
    if isinstance(sensitivity, pd.DataFrame):
        low, high = sensitivity["threshold"].min(), sensitivity["threshold"].max()
        notes.append(f"bands: thresholds {number(low)} to {number(high)}")
    elif sensitivity is not None:
        notes.append("bands: all thresholds tried")
    return notes


def subtitle_of(data: Data) -> str:
    """Model, languages and the bar of activity, where data are categories."""
    if not isinstance(data, NeuronCategories):
        return ""
    name = plain(data.model.get("name", "model"))
    activity = ACTIVITY_TITLES[data.activity]
    bar = number(data.threshold) if data.quantile is None else data.bar
    return f"{name}, {len(data.languages)} languages, active where {activity} > {bar}"
