"""Figure 1 for attention: how the units of each head divide into the four categories."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.categories.categorize import NeuronCategories
from clas_lens.display import CATEGORY_COLOURS
from clas_lens.given import given_frame
from clas_lens.models.sites import check_layers

from ..style.look import PAGE, TEXT_SIZE, apply_look
from .layers import subtitle_of
from .sharing import SEQUENTIAL

OUTLINE = "#D55E00"  # seen on every shade of `SEQUENTIAL`


def head_distribution(
    data: NeuronCategories | pd.DataFrame,
    *,
    bridge_layers: Sequence[int] = (),
    title: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """Percent of each attention head's units per category: a panel a category, layers across, heads up, bridge layers framed.

    Args:
        data: categories of site="attn", or their `by_head()`: layer, head, category, count, percent.

    Raises:
        ValueError: categories of MLP neurons, which have no heads, or a table of something else.
    """
    shares = data.by_head() if isinstance(data, NeuronCategories) else data
    given_frame(
        shares, ("layer", "head", "category", "count", "percent"), "head_distribution", "NeuronCategories.by_head()"
    )
    n_layers, n_heads = int(shares["layer"].max()) + 1, int(shares["head"].max()) + 1
    panel = max(110, 14 * n_heads)  # pixels high
    figure = make_subplots(
        rows=2,
        cols=2,
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=list(CATEGORY_COLOURS),
        horizontal_spacing=0.03,
        vertical_spacing=40 / (2 * panel + 110),
    )
    framed = check_layers(bridge_layers, n_layers) if len(bridge_layers) else ()
    for place, category in enumerate(CATEGORY_COLOURS):
        row, column = place // 2 + 1, place % 2 + 1
        table = shares[shares["category"] == category].pivot(index="head", columns="layer", values=["percent", "count"])
        figure.add_heatmap(
            z=table["percent"].to_numpy(),
            x=list(table["percent"].columns),
            y=list(table.index),
            customdata=table["count"].to_numpy(),
            name=category,
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
            hovertemplate=f"layer %{{x}}, head %{{y}}: %{{z:.1f}}% {category} (%{{customdata}} units)<extra></extra>",
            row=row,
            col=column,
        )
        for first, last in _runs(framed):
            x0, x1 = first - 0.5, last + 0.5
            figure.add_vrect(x0=x0, x1=x1, line={"color": OUTLINE, "width": 2}, row=row, col=column)
    size = int(shares.loc[shares["layer"] == 0].groupby("head")["count"].sum().iloc[0])
    facts = [subtitle_of(data), f"{size} units a head", "framed: bridge layers" if framed else ""]
    apply_look(
        figure,
        title=title or "Units of each attention head by the number of languages they are active in",
        subtitle="; ".join(filter(None, facts)),
        dark=dark,
        width=PAGE,
        height=240 + 2 * panel,
        legend=False,
    )
    figure.update_layout(
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": 0,
            "cmax": float(shares["percent"].max()),  # plotly takes no cmin alone
            "colorbar": {
                "title": {"text": "% of the head", "font": {"size": TEXT_SIZE}},
                "thickness": 12,
                "outlinewidth": 0,
            },
        }
    )
    figure.update_xaxes(showgrid=False, dtick=1 if n_layers < 20 else 4)
    figure.update_yaxes(showgrid=False, dtick=1 if n_heads <= 8 else 4)
    figure.update_xaxes(title="layer", row=2)
    figure.update_yaxes(title="head", col=1)
    return figure


def _runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """First and last of each run of consecutive layers."""
    ordered = list(layers)
    if not ordered:
        return []
    breaks = [place for place, (one, other) in enumerate(pairwise(ordered), start=1) if other != one + 1]
    starts, ends = [0, *breaks], [*breaks, len(ordered)]
    return [(ordered[start], ordered[end - 1]) for start, end in zip(starts, ends, strict=True)]
