"""One restrained look for all figures, applied figure by figure: no global plotly theme is touched."""

import textwrap
from collections.abc import Mapping, Sequence
from html import escape, unescape
from typing import Any, TypeVar

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.given import given, given_flag, given_text

CATEGORY_SYMBOLS = {
    "dead": "x",
    "language-specific": "diamond",
    "partial-shared": "circle",
    "all-shared": "square",
}


CATEGORY_DASHES = {
    "dead": "dashdot",
    "language-specific": "dash",
    "partial-shared": "solid",
    "all-shared": "longdash",
}


SERIES_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


SERIES_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "x")


WHEN_COLOURS = {"before": "#8C8C8C", "after": "#0072B2"}


BRIDGE_SHADE = "rgba(128, 90, 160, 0.18)"


GRIDLINE = "rgba(128, 128, 128, 0.22)"


QUIET = "#8C8C8C"  # reference lines, on light and dark paper alike


COLUMN = 560  # pixels; printed as one column of two, its 13-pixel text is 6 points high


PAGE = 1080


TITLE_SIZE, TEXT_SIZE = 16, 13


LETTER = 0.6  # of a font's size: a letter's mean width in the widest of the fonts that may be found


_DARK_INK, _LIGHT_INK = "#E6E8EB", "#1F2328"


_DARK_PAPER, _LIGHT_PAPER = "#14181D", "#FFFFFF"


def template(*, dark: bool = False) -> go.layout.Template:
    """Ink, paper, fonts and grid, for `figure.update_layout(template=...)`; all that differs between light and dark."""
    ink, paper = (_DARK_INK, _DARK_PAPER) if dark else (_LIGHT_INK, _LIGHT_PAPER)
    axis = {
        "gridcolor": GRIDLINE,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": TEXT_SIZE}},
    }
    return go.layout.Template(
        layout={
            "font": {"family": "Inter, Helvetica, Arial, sans-serif", "size": TEXT_SIZE, "color": ink},
            "paper_bgcolor": paper,
            "plot_bgcolor": paper,
            "colorway": list(SERIES_COLOURS),
            "xaxis": axis,
            "yaxis": {**axis, "ticklabelstandoff": 4},
            "hoverlabel": {"align": "left", "bgcolor": paper, "bordercolor": QUIET, "font": {"color": ink}},
            "annotationdefaults": {"font": {"color": ink}, "showarrow": False},
        },
        data={
            "table": [
                {
                    "header": {"fill": {"color": paper}, "line": {"color": GRIDLINE}, "font": {"color": ink}},
                    "cells": {"fill": {"color": paper}, "line": {"color": GRIDLINE}, "font": {"color": ink}},
                }
            ],
            "sankey": [{"textfont": {"color": ink}}],
        },
    )


def apply_look(
    figure: go.Figure,
    *,
    title: str,
    subtitle: str = "",
    dark: bool = False,
    width: int = COLUMN,
    height: int = 420,
    legend: bool = True,
) -> go.Figure:
    """Template, wrapped title and subtitle, margins, a legend below the plot; returns the same figure.

    Annotations that are there already are taken to be the panels' headings.

    Args:
        title, subtitle: plotly's markup; what comes from data goes through `plain` first.
        width, height: pixels; one `COLUMN` or one `PAGE` wide.
        legend: keep room for one row of it.
    """
    given_text("title", title)
    given_flag("dark", dark)
    heading = _broken(title, int((width - 28) / (LETTER * TITLE_SIZE)))
    small = _broken(subtitle, int((width - 28) / (LETTER * (TEXT_SIZE - 1))))
    above = 34 + 20 * (heading.count("<br>") + 1) + 17 * (small.count("<br>") + bool(small))
    if figure.layout.annotations:
        figure.update_annotations(font={"size": TEXT_SIZE})
        above += 24
    figure.update_layout(
        template=template(dark=dark),
        title={
            "text": heading,
            "font": {"size": TITLE_SIZE},
            "subtitle": {"text": small, "font": {"size": TEXT_SIZE - 1}},
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 16, "l": 14},
        },
        legend={
            "orientation": "h",
            "x": 0.015,
            "xref": "container",
            "y": 0.005,
            "yref": "container",
            "yanchor": "bottom",
        },
        showlegend=legend,
        margin={"l": 64, "r": 20, "t": above, "b": 80 if legend else 50},
        width=width,
        height=height,
    )
    return figure


def themed(figure: go.Figure, *, dark: bool) -> go.Figure:
    """A copy of a figure of this package in the light or the dark look; its data are the same."""
    given(figure, go.Figure, "themed needs a figure", "such as layer_distribution(...)")
    return go.Figure(figure).update_layout(template=template(dark=dark))


def words_of(figure: go.Figure) -> str:
    """A figure's title and subtitle as plain text, for who does not see it."""
    title = figure.layout.title
    return ". ".join(unescape(text.replace("<br>", " ")) for text in (title.text, title.subtitle.text) if text)


# Control characters but tab and line feed, as the pictures that Unicode has of them. XML, and so an SVG, can hold none of them.
CONTROL_PICTURES = {
    **{code: 0x2400 + code for code in range(32) if code not in (9, 10)},
    0x7F: 0x2421,
    **dict.fromkeys((*range(0x80, 0xA0), 0xFFFE, 0xFFFF, *range(0xD800, 0xE000)), 0xFFFD),
}


def plain(text: object) -> str:
    """Text from data, so that plotly shows it as it is: no markup, no TeX, no control characters (of which no picture is made).

    Never put it into a `hovertemplate`, where plotly would fill in %{...}: give it as `customdata`, `text` or `name`.
    """
    return escape(str(text).translate(CONTROL_PICTURES), quote=False).replace(
        "$", "&#36;"
    )  # plotly does not decode &quot;, so quotes stay


def quoted(token: str) -> str:
    """A token in quotes, so that its spaces show, on one line."""
    visible = token.replace("\n", "\N{RETURN SYMBOL}")
    return f"\N{LEFT DOUBLE QUOTATION MARK}{visible}\N{RIGHT DOUBLE QUOTATION MARK}"


def hover_text(text: str, *, width: int = 64, lines: int = 5) -> str:
    """A sentence for a hover box: wrapped, cut after some lines, plain."""
    wrapped = textwrap.wrap(text, width) or [""]
    shown = wrapped[:lines]
    if len(wrapped) > lines:
        shown[-1] += " ..."
    return "<br>".join(plain(line) for line in shown)


def _broken(text: str, width: int) -> str:
    """Lines of at most `width` characters; words stay whole, and so do entities and tags without spaces."""
    return "<br>".join(textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False))


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
