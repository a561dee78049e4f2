"""What notebooks show of an object: a small card of HTML, escaped, readable on light and dark paper.

Pictures are SVG inside `<img>`: notebooks that are not trusted take SVG elements out of the page, and leave images. An image
does not know the page's ink, so texts stand beside it, and its marks are of a grey that shows on both papers.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

SHOWN = 24  # names listed before the rest is counted


WIDTH, HEIGHT = 320, 72  # of a picture, in pixels


# Chosen by a search for the largest smallest distance, seen as it is, with deuteranopia, with protanopia, and in grey: none of
# them looks like another (a test measures it), and all stand out on white and on near-black.
CATEGORY_COLOURS = {
    "dead": "#535353",
    "language-specific": "#F2A60D",
    "partial-shared": "#3C67E9",
    "all-shared": "#12A1A1",
}


LINE = CATEGORY_COLOURS["partial-shared"]


MARK = "#8C8C8C"


def card(kind: str, name: object, facts: Mapping[str, object], *pictures: str) -> str:
    """A heading, a table of facts and pictures.

    Args:
        kind: the object's class.
        name: what it is of; from data, as are the facts: all are shortened and escaped here.
        pictures: HTML from this module, put in as it is.
    """
    rows = "".join(
        f'<tr><th style="text-align:left;padding:0 1em 0 0;font-weight:normal;opacity:.7">{escape(shortened(fact))}</th>'
        f'<td style="text-align:left;padding:0">{escape(shortened(str(value), 240))}</td></tr>'
        for fact, value in facts.items()
    )
    return (
        f'<div style="max-width:44em;line-height:1.45"><strong>{escape(kind)}</strong> {escape(shortened(str(name)))}'
        f'<table style="margin:.3em 0">{rows}</table>{"".join(pictures)}</div>'
    )


def listed(names: Sequence[object], *, shown: int = SHOWN) -> str:
    """How many there are, and the first of them: "3: ar de en"."""
    rest = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{len(names)}: {' '.join(map(str, names[:shown]))}{rest}"


def shortened(text: str, length: int = 80) -> str:
    """A text's beginning on one line."""
    line = " ".join(text[: 2 * length].split())
    return line if len(line) <= length and len(text) <= 2 * length else f"{line[:length]}\N{HORIZONTAL ELLIPSIS}"


def bands(shares: Mapping[str, Sequence[float]], *, marked: Sequence[int] = ()) -> str:
    """Shares of a whole by layer, stacked, with a legend.

    Args:
        shares: category to one percentage a layer; a layer's add up to 100.
        marked: layers to point out.
    """
    n_layers = len(next(iter(shares.values())))
    step = WIDTH / n_layers
    edges, tops = [0.0] * n_layers, []
    for category, percent in shares.items():
        edges = [below + part for below, part in zip(edges, percent, strict=True)]
        path = f"M0 {HEIGHT}{_stairs(edges, step)}V{HEIGHT}Z"
        tops.append(f'<path d="{path}" fill="{CATEGORY_COLOURS[category]}"/>')
    ticks = "".join(f"M{layer * step:.1f} {HEIGHT + 4}h{step:.1f}" for layer in marked)
    marks = f'<path d="{ticks}" stroke="{MARK}" stroke-width="4"/>' if ticks else ""
    keys = " ".join(f'<span style="color:{CATEGORY_COLOURS[key]}">&#9632;</span> {escape(key)}' for key in shares)
    note = " &#9644; steered" if ticks else ""
    # Each category is drawn down to the axis, the topmost first, so that the next ones cover all but its own band.
    picture = _picture("".join(reversed(tops)) + marks, "percent of neurons by layer")
    return picture + _caption(f"layer 0 to {n_layers - 1}: {keys}{note}")


def line(values: Sequence[float], low: Sequence[float], high: Sequence[float], caption: str) -> str:
    """A share by layer, 0 to 1, with a band around it."""
    step = WIDTH / len(values)
    middle, lower, upper = ([100 * value for value in part] for part in (values, low, high))
    band = f"M0 {_height(upper[0])}{_stairs(upper, step)}{_stairs(lower, step, back=True)}Z"
    edge = f"M0 {_height(middle[0])}{_stairs(middle, step)}"
    drawn = (
        f'<path d="{band}" fill="{LINE}" opacity=".25"/>'
        f'<path d="{edge}" fill="none" stroke="{LINE}" stroke-width="1.5"/>'
    )
    return _picture(drawn, caption) + _caption(escape(caption))


def bars(values: Mapping[str, float], caption: str, *, digits: int = 0) -> str:
    """A horizontal bar a name, the first of them if there are many; values from 0 up."""
    shown = list(values.items())[:SHOWN]
    longest = max((value for _, value in shown), default=0.0) or 1.0
    cell = '<td style="text-align:left;padding:0 .6em 0 0;font-size:smaller">'
    rows = "".join(
        f"<tr>{cell}{escape(shortened(name, 14))}</td>{cell}{_bar(value / longest)} {value:,.{digits}f}</td></tr>"
        for name, value in shown
    )
    rest = f" (the first {SHOWN} of {len(values)})" if len(values) > SHOWN else ""
    return f'<table style="margin:0">{rows}</table>' + _caption(escape(caption + rest))


def _bar(share: float) -> str:
    """A bar of this share of the longest one's length."""
    return image(f'<rect width="1" height="1" fill="{LINE}"/>', "", width=round(160 * share), height=10, box="0 0 1 1")


def _stairs(percent: Sequence[float], step: float, *, back: bool = False) -> str:
    """A path's steps, one a layer, from the left edge to the right one, or `back`."""
    ends = [(layer if back else layer + 1) * step for layer in range(len(percent))]
    steps = [f"V{_height(value)}H{end:.1f}" for value, end in zip(percent, ends, strict=True)]
    return "".join(reversed(steps) if back else steps)


def _height(percent: float) -> str:
    return f"{HEIGHT * (1 - percent / 100):.1f}"


def _picture(content: str, title: str) -> str:
    height = HEIGHT + 8
    picture = image(content, title, width=WIDTH, height=height, box=f"0 0 {WIDTH} {height}")
    return f"<div>{picture}</div>"


def image(content: str, title: str, *, width: int, height: int, box: str) -> str:
    """SVG content as an `<img>` of this size in pixels, narrower where the page is.

    Args:
        title: for who does not see it.
        box: the SVG's own coordinates, stretched to that size.
    """
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" preserveAspectRatio="none">{content}</svg>'
    source = f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}"
    return f'<img alt="{escape(title)}" width="{width}" height="{height}" style="max-width:100%" src="{source}"/>'


def _caption(html: str) -> str:
    return f'<div style="font-size:smaller;opacity:.8">{html}</div>'
