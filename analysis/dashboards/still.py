"""The picture that stands for a dashboard where its widgets do not run, and the styles by which one of the two is seen."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

import plotly.graph_objects as go

from ..style.export import PictureError, drawn_pngs
from ..style.look import words_of
from ..style.theme import DARK, DARKENED
from .fit import fitted
from .markup import heading, paragraph

SAVED = "As it was when the cell ran; run the cell again to move it."


def still_html(
    figures: Sequence[go.Figure], width: int, top: str, note: str, texts: Mapping[str, str], *, mark: str, name: str
) -> str:
    """Pictures of figures between the texts above and below them, and a style that hides widgets which were not found.

    Without a Chromium to draw them the figures are left out, and the reason is said: the texts have their numbers.

    Args:
        width: pixels of a figure.
        top, note: HTML.
        texts: further HTML by heading.
        mark: the class of the live dashboard.
        name: of this one, in the page.
    """
    more = "".join(f"<details><summary>{escape(title)}</summary>{text}</details>" for title, text in texts.items())
    row = f'<div style="display:flex;flex-wrap:wrap;gap:1em">{_pictures(figures, width)}</div>'
    return (
        f'<div class="{_class(mark, name)}">{top}{row}'
        f"{note}{more}{paragraph(SAVED)}</div><style>{_still_style(mark, name)}</style>"
    )


def live_style(mark: str, name: str) -> str:
    """CSS that hides the picture while the widgets have drawn a figure; it lives and ends with the widgets."""
    drawn = f".{mark}-{name} .js-plotly-plot .main-svg"
    still = _class(mark, name)
    return (
        f"body:has({drawn}) .{still}, body:has({drawn}) .jp-OutputArea-child:has(.{still}) {{display: none !important}}"
    )


def _class(mark: str, name: str) -> str:
    return f"{mark}-still-{name}"


def _still_style(mark: str, name: str) -> str:
    """Hides the next output as long as no dashboard is in it; on dark paper the picture's lightness is turned round."""
    still = f".{_class(mark, name)}"
    return (
        f".jp-OutputArea-child:has({still}) + .jp-OutputArea-child:not(:has(.{mark}-{name})) {{display: none !important}}\n"
        f"{DARK} {still} img {{{DARKENED}}}"
    )


def _pictures(figures: Sequence[go.Figure], width: int) -> str:
    try:
        drawn = drawn_pngs([fitted(figure, width, paper=None) for figure in figures])
    except (PictureError, OSError, TimeoutError) as error:
        return paragraph(f"No picture of the figures: {error}") + "".join(map(heading, figures))
    return "".join(
        f'<div style="width:{width}px;max-width:100%">{heading(figure)}<img alt="{escape(words_of(figure))}" width="{width}" '
        f'style="max-width:100%;height:auto" src="data:image/png;base64,{b64encode(picture).decode()}"/></div>'
        for figure, picture in zip(figures, drawn, strict=True)
    )
