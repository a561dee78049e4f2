"""One restrained look for all figures, applied figure by figure: no global plotly theme is touched."""

import plotly.graph_objects as go

# Okabe and Ito's colours: told apart with any colour vision, and in grey by their lightness.
CATEGORY_COLOURS = {
    "dead": "#7A7A7A",
    "language-specific": "#E69F00",
    "partial-shared": "#0072B2",
    "all-shared": "#009E73",
}
CATEGORY_SYMBOLS = {
    "dead": "x",
    "language-specific": "diamond",
    "partial-shared": "circle",
    "all-shared": "square",
}
BRIDGE_SHADE = "rgba(128, 90, 160, 0.18)"
GRID = "rgba(128, 128, 128, 0.22)"


def apply_look(figure: go.Figure, *, title: str, subtitle: str) -> go.Figure:
    """Fonts, margins and grid; returns the same figure."""
    figure.update_layout(
        template="plotly_white",
        title={"text": title, "subtitle": {"text": subtitle}, "x": 0.01, "xanchor": "left"},
        font={"family": "Inter, Helvetica, Arial, sans-serif", "size": 14},
        legend={"orientation": "h", "y": -0.2, "x": 0, "title": None},
        margin={"l": 64, "r": 24, "t": 88, "b": 72},
        hovermode="x unified",
        width=860,
        height=480,
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    return figure
