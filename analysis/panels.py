"""One figure of several settings side by side: (a), (b), ..."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.look import COLUMN, PAGE, plain

T = TypeVar("T")


def panels_of(data: T | Mapping[str, T]) -> dict[str, T]:
    """Data by panel name; data that are not a mapping are one panel without a name.

    Raises:
        ValueError: an empty mapping.
    """
    if not isinstance(data, Mapping):
        return {"": data}
    if not data:
        raise ValueError("nothing to draw: no panels")
    return dict(data)


def panel_row(names: Sequence[str], **options: Any) -> go.Figure:
    """Panels in one row with shared y axes, headed "(a) name" and so on, or one panel without a heading."""
    headings = None if list(names) == [""] else [f"({chr(97 + i)}) {plain(name)}" for i, name in enumerate(names)]
    layout = {"shared_yaxes": True, "horizontal_spacing": 0.04, **options}
    return make_subplots(cols=len(names), subplot_titles=headings, **layout)


def row_width(n_panels: int) -> int:
    """One panel is a column wide, more are a page."""
    return COLUMN if n_panels == 1 else PAGE
