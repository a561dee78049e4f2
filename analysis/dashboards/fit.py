"""Figures as wide as the panel that they stand in, without the title, which stands over them."""

import math

import plotly.graph_objects as go

from ..style.look import LETTER, QUIET, TEXT_SIZE, WHEN_COLOURS

CLEAR = "rgba(0, 0, 0, 0)"
# Pixels: over the plot, where plotly's buttons are; a legend's row, and the line and gap of an entry.
ABOVE, LEGEND_ROW, LEGEND_MARK = 28, 19, 45


def fitted(figure: go.Figure, width: int, *, paper: str | None = CLEAR) -> go.Figure:
    """A copy of this width in pixels, higher where its legend takes more than the one row that it has room for.

    Args:
        paper: its background; default the page's. None: the figure's own.
    """
    copy = go.Figure(figure)
    margin, more = figure.layout.margin, LEGEND_ROW * (legend_rows(figure, width) - 1)
    copy.update_layout(title=None, width=width, paper_bgcolor=paper, plot_bgcolor=paper)
    copy.update_layout(modebar={"bgcolor": CLEAR, "color": QUIET, "activecolor": WHEN_COLOURS["after"]})
    return copy.update_layout(
        margin={"t": ABOVE, "b": margin.b + more}, height=figure.layout.height - margin.t + ABOVE + more
    )


def legend_rows(figure: go.Figure, width: int) -> int:
    """How many rows the legend below a figure of this width has, at least 1: in one, or else in columns of one width."""
    shown = [trace.name for trace in figure.data if trace.name and trace.showlegend is not False]
    if not figure.layout.showlegend or not shown:
        return 1
    entries = [LEGEND_MARK + LETTER * TEXT_SIZE * len(name) for name in shown]
    columns = len(shown) if sum(entries) <= width else max(1, int(width // max(entries)))
    return math.ceil(len(shown) / columns)
