"""Figures on disk: a self-contained HTML page and the figure's JSON, or pictures drawn by a Chromium."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import plotly.graph_objects as go
import plotly.io as pio

from clas_lens.artifacts import make_folder, write_text
from clas_lens.given import given, given_path, in_a_row
from clas_lens.vocabulary import FigureFormat

SCALE = 2  # pixels of a PNG per pixel of the layout


DEFAULT = {"width": 700, "height": 500}  # pixels of a figure that names no size


CONFIG = {"displaylogo": False, "displayModeBar": "hover"}  # the bar of buttons only under the pointer


class PictureError(ValueError):
    """Pictures cannot be drawn here."""


def save_figure(figure: go.Figure, stem: str | Path) -> Path:
    """Write `<stem>.html` (works offline) and `<stem>.json`; returns the HTML's path."""
    given(figure, go.Figure, "save_figure needs a figure", "such as layer_distribution(...)")
    given_path("stem", stem)
    page, data = Path(f"{stem}.html"), Path(f"{stem}.json")
    write_text(data, figure.to_json())
    write_text(page, figure.to_html(include_plotlyjs=True, full_html=True, config=CONFIG))
    return page


def export_figures(
    figures: Mapping[str, go.Figure], folder: str | Path, formats: Sequence[FigureFormat] = ("html",)
) -> list[Path]:
    """Write every figure as `<folder>/<name>.<format>`; returns the paths. With "html" comes the figure's JSON.

    Raises:
        PictureError: an unknown format, or pictures without a Chromium to draw them.
    """
    given(figures, Mapping, "export_figures needs figures by name", "such as {name: figure}")
    formats = tuple(formats) if in_a_row(formats) else ()
    if not formats:
        raise PictureError("formats must be a list such as ['html'], with at least one")
    unknown = [name for name in formats if name not in get_args(FigureFormat)]
    if unknown:
        raise PictureError(f"unknown format {unknown[0]!r}; available: {', '.join(get_args(FigureFormat))}")
    target = make_folder(given_path("folder", folder))
    written = [save_figure(figure, target / name) for name, figure in figures.items() if "html" in formats]
    pictures = {
        target / f"{name}.{kind}": figure for kind in formats if kind != "html" for name, figure in figures.items()
    }
    if pictures:
        _draw(pictures)
    return [*written, *pictures]


def drawn_pngs(figures: Sequence[go.Figure]) -> list[bytes]:
    """Each figure as a PNG.

    Raises:
        PictureError: no Chromium draws them.
    """
    with TemporaryDirectory() as folder:
        named = {f"{place}": figure for place, figure in enumerate(figures)}
        return [path.read_bytes() for path in export_figures(named, folder, ["png"])]


def can_draw() -> None:
    """Raise `PictureError` unless there is a Chromium that draws pictures."""
    drawn_pngs([go.Figure()])


def _draw(pictures: Mapping[Path, go.Figure]) -> None:
    """All pictures in one browser: starting it is what takes the time.

    `write_images` takes no notice of a layout's own size, so each is given.
    """
    sizes = {name: [int(figure.layout[name] or DEFAULT[name]) for figure in pictures.values()] for name in DEFAULT}
    try:
        pio.write_images(
            list(pictures.values()),
            [str(path) for path in pictures],
            scale=[SCALE if path.suffix == ".png" else 1 for path in pictures],
            **sizes,
        )
    except RuntimeError as error:  # plotly's, for a missing browser as for a missing kaleido
        raise PictureError(
            "PNG, SVG and PDF are drawn by a Chromium or Chrome, and none was found (or it did not start). Install one, "
            "such as with `apt-get install chromium`, or let kaleido fetch its own with `kaleido_get_chrome`; "
            f"--format html needs none. ({str(error).strip().splitlines()[0]})"
        ) from error
    missing = [str(path) for path in pictures if not path.is_file()]
    if missing:  # a browser that takes too long leaves a picture out without a word
        raise PictureError(f"the browser did not draw {', '.join(missing)}: run it again, with less beside it")
