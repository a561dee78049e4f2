"""`clas-lens figures`: the figures of one run or several as files, for a screen or for print."""

import re
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from clas_lens.given import given_each
from clas_lens.vocabulary import FigureFormat, Theme

from ..style.export import export_figures
from ..style.look import themed
from ..style.printed import printed
from .figures import drawn_figures
from .grids import grid_figures
from .run import RunData

# The paper's figures by the beginning of ours' names.
PAPER_NUMBERS = {
    "layer_distribution": 1,
    "cosine_to_english": 2,
    "cosine_to_anchor": 2,
    "gain_vs_alignment": 3,
    "tsne_map": 4,
    "alpha_curve": 5,
    "beta_gamma": 6,
    "gain_heatmap": 7,
}


PAGE_WIDTH, FONT = 6.9, 8.0  # inches, points


def draw_files(
    roots: Sequence[Path],
    folder: Path | None,
    formats: Sequence[FigureFormat],
    *,
    theme: Theme | None = None,
    width: float | None = None,
    font: float | None = None,
    title: bool = True,
) -> list[Path]:
    """Draw what the run folders have the tables for; returns the files.

    Args:
        roots: one run folder, or several whose figures are drawn as grids of model and task.
        folder: default `figures/` of the first.
        theme, width, font, title: as in `printed`, which draws where a width, a font, no title or the theme "paper" is asked
            for. In print the paper's figure numbers lead the names, and the neuron browser is a table instead
            (`clas-lens tables`).
    """
    runs = [
        RunData.open(root) for root in given_each(roots, (str, Path), "draw_files needs run folders", "give [folder]")
    ]
    if not runs:
        raise ValueError("draw_files needs at least one run folder, got none")
    figures = drawn_figures(runs[0]) if len(runs) == 1 else grid_figures(runs)
    target = folder or runs[0].run.figures
    if theme == "paper" or width is not None or font is not None or not title:
        figures = {
            paper_name(name): printed(
                themed(figure, dark=theme == "dark"),
                width=width or PAGE_WIDTH,
                font=font or FONT,
                title=title,
                paper=theme in (None, "paper"),
            )
            for name, figure in figures.items()
            if not isinstance(figure.data[0], go.Table)
        }
    elif theme == "dark":
        figures = {name: themed(figure, dark=True) for name, figure in figures.items()}
    return export_figures(figures, target, formats)


def paper_name(name: str) -> str:
    """A figure's name with the paper's number of it, where there is one: "figure-4-tsne_map"."""
    number = next((place for stem, place in PAPER_NUMBERS.items() if re.match(rf"{stem}(_|$)", name)), None)
    return name if number is None else f"figure-{number}-{name}"
