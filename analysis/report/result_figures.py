"""Figures of what was answered: gains with intervals, curves over the strengths, gain against alignment, the paper's gains."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from clas_lens.representations.alignment import fit_gain, fit_gain_alignment
from clas_lens.study.stages import GRID
from clas_lens.vocabulary import CLAS

from ..figures.alignment import gain_scatter, gain_vs_alignment
from ..figures.curves import alpha_curve, beta_gamma_curve
from ..figures.gains import forest, gain_heatmap
from ..figures.paper import paper_gains
from ..figures.windows import window_scores
from ..style.look import plain
from ..tables.paper import PAPER_TASKS
from .pieces import Missing, Piece, collecting, evaluating, piece
from .run import MEASURES, RunData

RELATION_CAPTIONS = {
    "separation": "Do languages gain that steering sets further apart? (Paper, 4.3.) Silhouettes are in all dimensions, at the "
    "layer of the map.",
    "proximity_initial": "Do languages gain that lie close to {anchor} to begin with? (Paper, 4.3.)",
    "proximity_final": "Do languages gain that lie close to {anchor} in the end? (Paper, 4.3.)",
    "proximity_first": "Do languages gain that are close to {anchor} where nothing but the embedding tells them apart?",
    "proximity_last": "Do languages gain that are close to {anchor} right before the answer?",
    "mean_score": "Do good languages gain more than weak ones? If so, variance grows: the p of this line is Pitman and "
    "Morgan's of equal variances (paper, 4.1).",
}


WINDOW_CAPTION = (
    "CLAS at every window of layers as wide as the bridge, each at the alpha of its best tuning score. The report's scores are "
    "of the bridge alone. A window may be chosen by such tuning scores before anything is reported, never by scores on the "
    "examples that are reported on; and the best of many windows is high by luck, too."
)


def result_figures(data: RunData) -> list[Piece]:
    """Forest plots, Figures 5 and 6, 7 and 3."""
    if not data.tasks:
        pieces: list[Piece] = [Missing("scores", f"Not there yet. This brings it: {evaluating(data)}")]
    else:
        pieces = [piece for task in data.tasks for piece in _task_figures(data, task)]
    return [*pieces, *_curves(data), *_gains(data)]


def _task_figures(data: RunData, task: str) -> list[Piece]:
    comparison = data.main_comparison(task)
    if comparison is None:
        reason = f"{data.title(task)}: not compared with the unsteered model: {data.why_not_compared(task)}."
        reason = f"{data.title(task)}: not compared with the unsteered model: {data.why_not_compared(task)}."
        return [Missing(f"forest_{task}", reason)]
    title = f"{data.title(task)}: gain of {plain(comparison.intervention)} over the unsteered model"
    caption = (
        f"Intervals from groups of examples, shared by all languages. {comparison.anchor or 'No language'} "
        "is the anchor, which steering does not touch."
    )
    return [piece(f"forest_{task}", caption, lambda: forest(_without_anchor(comparison), title=title))]


def _without_anchor(comparison: Any) -> pd.DataFrame:
    return comparison.languages[comparison.languages["language"] != comparison.anchor]


def _curves(data: RunData) -> list[Piece]:
    """Curves over alpha of the main method and of all, and over beta and gamma where they were searched."""
    if not data.searches:
        command = f"clas-lens search {data.run.root} --task {next(iter(data.tasks), PAPER_TASKS[0])}"
        return [Missing("search_over_strengths", f"Not there yet. This brings it: {command}")]
    along = {name: _one_strength(table) for name, table in data.searches.items()}
    curves = {name: table for name, table in along.items() if table is not None}
    pieces: list[Piece] = []
    if curves:
        name = CLAS if CLAS in curves else next(iter(curves))
        caption = "On the tuning examples, not those reported on. At 0 the model is unsteered, bit for bit."
        pieces.append(piece("alpha_curve", caption, lambda: alpha_curve(curves[name])))
    if len(curves) > 1:
        caption = "Every method has the same search; each has its own unit of strength."
        pieces.append(piece("alpha_curve_methods", caption, lambda: _method_curves(curves)))
    for name, table in data.searches.items():
        if along[name] is None:
            pieces += _beta_gamma(name, table)
    return [*pieces, *_windows(data)]


def _windows(data: RunData) -> list[Piece]:
    """What the choice of layers is worth, where a search was asked for it."""
    table = data.windows
    return [] if table is None else [piece("window_scores", WINDOW_CAPTION, lambda: window_scores(table))]


def _one_strength(table: pd.DataFrame) -> pd.DataFrame | None:
    """A table of one beta and gamma (0 where the method has none), or None; of several layers the one with the best setting."""
    filled = table.fillna({"beta": 0.0, "gamma": 0.0})
    if "layer" in filled and filled["layer"].nunique() > 1:
        means = filled.groupby(["layer", "alpha"])["score"].mean().reset_index()
        filled = filled[filled["layer"] == means.sort_values("score")["layer"].iloc[-1]]
    return filled if filled["beta"].nunique() == filled["gamma"].nunique() == 1 else None


def _method_curves(curves: Mapping[str, pd.DataFrame]) -> go.Figure:
    title = "Score against the strength of each method"
    return alpha_curve(curves, title=title).update_layout(title_subtitle_text="mean over languages")


def _beta_gamma(name: str, table: pd.DataFrame) -> list[Piece]:
    alpha = float(table["alpha"].mode().iloc[0])
    caption = (
        f"{CLAS if name == GRID else name} on the tuning examples, at the alpha with most settings. The paper's two curves "
        "are those at 0 of the other."
    )
    stem = GRID if name == GRID else f"{GRID}_{name}"
    return [
        piece(f"{stem}_{task}", caption, partial(beta_gamma_curve, rows, alpha=alpha))
        for task, rows in table.groupby("task", sort=False)
    ]


def _gains(data: RunData) -> list[Piece]:
    """The heatmap of gains beside changes of alignment, and the fit of one to the other."""
    gains = {task: table for task in data.tasks if (table := data.gains(task)) is not None}
    if not gains:
        if not data.tasks:
            return []
        reason = data.why_missing("cosine", collecting(data))
        return [Missing("gain_vs_alignment", f"Gain against alignment needs both. {reason}")]
    settings = [table.assign(setting=data.title(task)) for task, table in gains.items()]
    frame = pd.concat(settings) if len(settings) > 1 else gains[next(iter(gains))]
    heat = piece(
        "gain_heatmap",
        f"Languages by mean gain; beside it how much closer to {data.anchor_name} their sentences came at the bridge layers.",
        lambda: gain_heatmap(frame, anchor=data.anchor),
    )
    caption = "Each point is a language. The slope without each one in turn says how far a single language carries it."
    fits = [piece(f"gain_vs_alignment_{task}", caption, partial(_fit, data, table)) for task, table in gains.items()]
    return [heat, *fits, *(one for task in gains for one in _relations(data, task))]


def _relations(data: RunData, task: str) -> list[Piece]:
    """Every other measure against the gain (the paper's 4.1 and 4.3)."""
    frame = data.relations(task)
    if frame is None:
        return []
    return [
        piece(
            f"gain_vs_{column}_{task}",
            RELATION_CAPTIONS.get(column, "").format(anchor=data.anchor_name),
            partial(_relation, data, frame, column),
        )
        for column in MEASURES
        if column != "change"
    ]


def _relation(data: RunData, frame: pd.DataFrame, column: str) -> go.Figure:
    fit = fit_gain(frame, column, anchor=data.anchor)
    return gain_scatter(frame, fit, column, data.measures[column], anchor=data.anchor)


def _fit(data: RunData, gains: pd.DataFrame) -> go.Figure:
    return gain_vs_alignment(gains, fit_gain_alignment(gains, anchor=data.anchor), anchor=data.anchor)


def paper_gains_figure(data: RunData) -> Piece:
    """The paper's printed gains, with one's own where there are some."""
    own = {task: table for task in data.tasks if (table := _own_gains(data, task)) is not None}
    caption = (
        "The gains that the paper prints in its Tables 1 and 2, by language. Its cosines are nowhere printed, so its "
        "Figures 3 and 7 can be drawn this far only."
    )
    return piece("paper_gains", caption, lambda: paper_gains(own, model=data.model))


def _own_gains(data: RunData, task: str) -> pd.DataFrame | None:
    comparison = data.main_comparison(task)
    if comparison is None or comparison.intervention != CLAS:
        return None
    return comparison.languages[["language", "gain"]]
