"""Figure 1: how each layer's neurons divide into the four categories."""

from collections.abc import Sequence
from html import escape

import pandas as pd
import plotly.graph_objects as go

from analysis.look import BRIDGE_SHADE, CATEGORY_COLOURS, CATEGORY_SYMBOLS, apply_look
from clas_lens.categories import NeuronCategories


def layer_distribution(
    data: NeuronCategories | pd.DataFrame, *, bridge_layers: Sequence[int] = (), title: str | None = None
) -> go.Figure:
    """Percent of each layer's MLP neurons per category, bridge layers shaded (the paper's Figure 1).

    Args:
        data: categories, or their tidy `shares()`: layer, category, count, percent.
        bridge_layers: shaded; they need not be consecutive.
    """
    shares = data.shares() if isinstance(data, NeuronCategories) else data
    figure = go.Figure()
    for category, colour in CATEGORY_COLOURS.items():
        rows = shares[shares["category"] == category].sort_values("layer")
        figure.add_scatter(
            x=rows["layer"],
            y=rows["percent"],
            customdata=rows["count"],
            name=category,
            mode="lines+markers",
            line={"color": colour, "width": 2.5},
            marker={"symbol": CATEGORY_SYMBOLS[category], "size": 8},
            hovertemplate="%{y:.1f}% (%{customdata:,} neurons)",
        )
    for layer in bridge_layers:
        figure.add_vrect(x0=layer - 0.5, x1=layer + 0.5, fillcolor=BRIDGE_SHADE, line_width=0, layer="below")
    if bridge_layers:
        figure.add_annotation(
            x=sum(bridge_layers) / len(bridge_layers),
            y=1,
            yref="paper",
            yanchor="bottom",
            text="bridge layers",
            showarrow=False,
        )
    apply_look(
        figure, title=title or "MLP neurons by the number of languages they are active in", subtitle=_subtitle(data)
    )
    last = shares["layer"].max()
    figure.update_xaxes(title="layer", dtick=1 if last < 20 else 4, range=[-0.5, last + 0.5])
    figure.update_yaxes(title="neurons in the layer (%)", range=[0, 100])
    return figure


def _subtitle(data: NeuronCategories | pd.DataFrame) -> str:
    if not isinstance(data, NeuronCategories):
        return ""
    name = escape(str(data.model.get("name", "model")))
    activity = {"mean": "mean activation", "abs_mean": "|mean activation|", "firing_rate": "P(activation > 0)"}[
        data.activity
    ]
    return f"{name}, {len(data.languages)} languages, active where {activity} > {data.threshold:g}"
