"""Figures for print: drawn at their size on paper, with no text smaller than can be read there."""

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import plotly.graph_objects as go

from .look import LETTER, PAGE, TEXT_SIZE, TITLE_SIZE, template

INCH = 96  # pixels, of SVG, of PDF and of a PNG before its scale


POINT = INCH / 72


SMALLEST = 7.0  # points; no text is set smaller


STACKED_BELOW = 5.0  # inches: panels that stand side by side on a screen stand under each other on a narrower column


INK = "#000000"


def paper_template(text: float | int = TEXT_SIZE) -> go.layout.Template:
    """The light look with black ink, axes as lines, and a fainter grid; `text` in pixels."""
    found = template()
    axis = {
        "gridcolor": "rgba(0, 0, 0, 0.08)",
        "showline": True,
        "linecolor": INK,
        "linewidth": 0.6,
        "ticks": "outside",
    }
    found.layout.update(font={"color": INK}, xaxis={**axis, "ticklen": 3}, yaxis={**axis, "ticklen": 3})
    found.layout.annotationdefaults.font.color = INK
    return found


def printed(
    figure: go.Figure, *, width: float | int, font: float | int = 8.0, title: bool = True, paper: bool = True
) -> go.Figure:
    """A figure of this package as it is printed, one pixel to 1/96 inch; what it shows is the same.

    Args:
        width: inches. On less than `STACKED_BELOW` panels are put under each other.
        font: points of ordinary text. What is smaller on a screen is smaller here, down to `SMALLEST`.
        title: keep title and subtitle; captions in a paper say the same.
        paper: black on white; else the figure's own look.

    Raises:
        ValueError: no width, or a font below `SMALLEST`.
    """
    if width <= 0:
        raise ValueError(f"a printed figure's width is above 0 inches, got {width:g}")
    if font < SMALLEST:
        raise ValueError(
            f"text below {SMALLEST:g} points is not legible in print, got {font:g}: give at least {SMALLEST:g}"
        )
    factor = font * POINT / TEXT_SIZE
    before = figure.layout
    plot_height = factor * (before.height - before.margin.t - before.margin.b)
    content = figure.to_dict()
    content["layout"].pop("template", None)
    headings = [place for place, note in enumerate(before.annotations) if note.yanchor == "bottom" and note.y == 1]
    _scale(content, factor)
    result = go.Figure(content)
    result.layout.template = paper_template(font * POINT) if paper else before.template
    result.layout.font.size = font * POINT
    for axis in [*result.select_xaxes(), *result.select_yaxes()]:
        axis.title.font.size = font * POINT
    pixels = round(width * INCH)
    result.layout.width = pixels
    if width < STACKED_BELOW and before.width >= PAGE:
        plot_height = _stack(result, plot_height, factor, headings)
    else:
        _widen_table(result, headings)
    for axis in result.select_yaxes():
        low, high = axis.domain or (0, 1)
        axis.title.text = _wrapped(axis.title.text, plot_height * (high - low), font * POINT)
    top = _title(result, pixels, factor, keep=title) + (22 * factor if headings else 0)
    bottom = 48 * factor + _legend_rows(result, pixels, font * POINT) * 1.7 * font * POINT
    result.update_layout(
        height=math.ceil(plot_height + top + bottom),
        margin={"t": top, "b": bottom, "l": (before.margin.l or 0) * factor, "r": (before.margin.r or 0) * factor},
    )
    _drop_crowded_cells(result, pixels)
    return result


_SIZES = (
    "size",
    "width",
    "standoff",
    "pad",
    "thickness",
    "ticklabelstandoff",
    "yshift",
    "xshift",
    "height",
    "borderpad",
)


def _scale(node: Any, factor: float, inside: str = "") -> None:
    """Every length in pixels times `factor`; sizes of text are kept above the smallest."""
    if isinstance(node, list | tuple):
        for one in node:
            _scale(one, factor, inside)
        return
    if not isinstance(node, dict):
        return
    for key, value in node.items():
        length = key in _SIZES and not (inside == "data" and key == "width") and inside != "layout"
        if length and isinstance(value, int | float) and not isinstance(value, bool):
            smallest = SMALLEST * POINT if "font" in inside and key == "size" else 0.0
            node[key] = max(value * factor, smallest)
        elif length and isinstance(value, list | tuple):
            node[key] = [one * factor for one in value]
        elif key not in ("x", "y", "z", "customdata", "text", "domain", "margin"):
            _scale(value, factor, key)


def _title(figure: go.Figure, pixels: int, factor: float, *, keep: bool) -> float:
    """Wrapped for the new width, or taken away; returns the height that it takes."""
    old = figure.layout.title
    if not keep:
        figure.layout.title = {}
        return 10 * factor
    sizes = [size * factor for size in (TITLE_SIZE, TEXT_SIZE - 1)]
    sizes = [max(size, SMALLEST * POINT) for size in sizes]
    texts = [
        "<br>".join(
            textwrap.wrap(
                (text or "").replace("<br>", " "), int((pixels - 16) / (LETTER * size)), break_on_hyphens=False
            )
        )
        for text, size in zip((old.text, old.subtitle.text), sizes, strict=True)
    ]
    old.update(text=texts[0], font={"size": sizes[0]}, subtitle={"text": texts[1], "font": {"size": sizes[1]}})
    lines = [text.count("<br>") + 1 if text else 0 for text in texts]
    return 24 * factor + sum(1.35 * size * count for size, count in zip(sizes, lines, strict=True))


def _wrapped(text: str | None, length: float, size: float) -> str | None:
    """Lines of at most `length` pixels in letters of `size`."""
    letters = max(8, int(length / (LETTER * size)))
    return text and "<br>".join(textwrap.wrap(text.replace("<br>", " "), letters, break_on_hyphens=False))


def _legend_rows(figure: go.Figure, pixels: int, text: float) -> int:
    """Rows of the legend below: plotly sets its entries in columns as wide as the widest."""
    names = {trace.name for trace in figure.data if trace.name and trace.showlegend is not False}
    if figure.layout.showlegend is False or not names:
        return 0
    share = 2 if any(trace.legend == "legend2" for trace in figure.data) else 1
    widest = max(map(len, names)) * LETTER * text + 46
    return math.ceil(len(names) / max(1, int(pixels / share / widest)))


def _stack(figure: go.Figure, plot_height: float, factor: float, headings: list[int]) -> float:
    """Panels of a row under each other; returns the height of all."""
    panels = sorted(_panels(figure), key=lambda panel: panel[0])
    gap = 76 * factor
    total = len(panels) * plot_height + (len(panels) - 1) * gap
    first = panels[0][2]
    for place, (_, x, y) in enumerate(panels):
        top = 1 - place * (plot_height + gap) / total
        span = [max(0.0, top - plot_height / total), top]
        if isinstance(y, go.layout.YAxis):
            x.domain, y.domain = [0, 1], span
            if place and isinstance(first, go.layout.YAxis):
                y.showticklabels = first.showticklabels
                y.title = y.title if y.title.text else first.title
        else:
            y.domain = {"x": [0, 1], "y": span}
        if place < len(headings):
            figure.layout.annotations[headings[place]].update(x=0, xanchor="left", y=top)
    return total


def _widen_table(figure: go.Figure, headings: list[int]) -> None:
    """Give a table beside two maps the width that its headings need in print."""
    panels = sorted(_panels(figure), key=lambda panel: panel[0])
    if len(panels) != 3 or not isinstance(panels[2][1], go.Table):
        return
    spans = [[0, 0.27], [0.29, 0.56], [0.59, 1]]
    for (_, panel, _), span, place in zip(panels, spans, headings, strict=True):
        figure.layout.annotations[place].x = sum(span) / 2
        if isinstance(panel, go.Table):
            panel.domain.x = span
        else:
            panel.domain = span


def _panels(figure: go.Figure) -> Iterator[tuple[float, Any, Any]]:
    """Where each panel starts, with its axes, or with its table twice."""
    for x in figure.select_xaxes():
        name = (x.anchor or "y").replace("y", "yaxis", 1)
        yield (x.domain or (0, 1))[0], x, figure.layout[name]
    for trace in figure.select_traces({"type": "table"}):
        yield (trace.domain.x or (0, 1))[0], trace, trace


def _drop_crowded_cells(figure: go.Figure, pixels: int) -> None:
    """Numbers in cells that are narrower than they are; the colour bar says the same."""
    for trace in figure.select_traces({"type": "heatmap"}):
        shown = [str(text) for line in (trace.text if trace.text is not None else []) for text in line]
        columns = len(trace.x) * len(list(figure.select_xaxes()))
        if shown and 0.72 * pixels / columns < max(map(len, shown)) * LETTER * (
            trace.textfont.size or SMALLEST * POINT
        ):
            trace.texttemplate = None
