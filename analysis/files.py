"""Figures on disk: one self-contained HTML page and the figure's JSON beside it."""

from pathlib import Path

import plotly.graph_objects as go

from clas_lens.artifacts import write_text


def save_figure(figure: go.Figure, stem: str | Path) -> Path:
    """Write `<stem>.html` (works offline) and `<stem>.json`; returns the HTML's path."""
    page, data = Path(f"{stem}.html"), Path(f"{stem}.json")
    write_text(data, figure.to_json())
    write_text(page, figure.to_html(include_plotlyjs=True, full_html=True))
    return page
