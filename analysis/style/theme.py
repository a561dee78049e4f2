"""Figures on a notebook's own paper: its ink and its background, light or dark, and a picture kept where plotly cannot draw."""

import plotly.io as pio

from .export import can_draw

# Texts that stand on the paper, and not on a coloured mark or in a hover box; what the paper shows through.
_TEXTS = (".infolayer text", "[class*='axislayer'] text", ".sankey text", ".table text")
_PAPERS = (".bglayer .bg", ".legend .bg", ".table .cell-rect")
DARK = '[data-jp-theme-light="false"]'  # JupyterLab's pages
DARKENED = (
    "filter: invert(0.93) hue-rotate(180deg)"  # a picture on white paper, its lightness turned round, its hues kept
)


def ink_style(within: str = "") -> str:
    """CSS by which plotly's figures take the text colour and the background of their page, and hide buttons not pointed at.

    Args:
        within: a selector of what holds the figures; default all of the page.
    """

    def of(*places: str) -> str:
        return ", ".join(f"{within} .js-plotly-plot {place}".strip() for place in places)

    return (
        f"{of('.main-svg')} {{background: transparent !important}}\n"
        f"{of(*_PAPERS)} {{fill: transparent !important}}\n"
        f"{of(*_TEXTS)} {{fill: var(--jp-content-font-color1, currentColor) !important}}\n"
        f"{within} .js-plotly-plot:not(:hover, :focus-within) .modebar {{visibility: hidden}}"
    )


def prepare_notebook(*, pictures: bool = True) -> None:
    """Let the figures of this notebook follow its theme, and keep a picture of each beside its data; call it in a first cell.

    The theme is followed where the notebook is trusted, since it takes a style. The dashboards need none of this.

    Args:
        pictures: figures also leave a PNG in the cell's output, which is shown where plotly's extension is missing, on pages
            that run no scripts, and until the pointer comes. Each takes about a second to draw, by a Chromium or Chrome.

    Raises:
        PictureError: pictures are wanted and there is no browser to draw them.
    """
    from IPython.display import HTML, display

    if pictures:
        can_draw()
        pio.renderers.default = "plotly_mimetype+png"
    picture = ".jp-RenderedPlotly .plot-img"  # which plotly's extension shows until it is pointed at
    display(HTML(f"<style>{ink_style()}\n{picture} {{max-width: 100%}}\n{DARK} {picture} {{{DARKENED}}}</style>"))
