"""Figures of several runs side by side: a row a model, a column a task, with shared axes."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.representations.alignment import fit_gain_alignment
from clas_lens.study.folder import LAYER_SHARES
from clas_lens.vocabulary import CLAS

from ..figures.alignment import cosine_to_english, gain_vs_alignment
from ..figures.curves import alpha_curve
from ..figures.gains import forest, gain_heatmap
from ..figures.layers import layer_distribution
from ..style.look import PAGE, apply_look, plain
from .run import RunData


def grid_figures(runs: Sequence[RunData]) -> dict[str, go.Figure]:
    """What can be drawn of several runs, by name; each figure shows the runs that have its data.

    Raises:
        ValueError: two runs of one model, which nothing in a figure would tell apart.
    """
    named = {run.model: run for run in runs}
    if len(named) != len(runs):
        raise ValueError(
            f"runs side by side are told apart by their models; got: {', '.join(run.model for run in runs)}"
        )
    shares = {
        name: table for name, run in named.items() if (table := run.table("layer_shares", LAYER_SHARES)) is not None
    }
    anchors = list(dict.fromkeys(run.anchor_name for run in runs))
    anchor = anchors[0] if len(anchors) == 1 else "the anchor"
    found: dict[str, go.Figure] = {}
    if shares:
        bridge = {name: named[name].bridge_layers for name in shares}
        found["layer_distribution"] = layer_distribution(shares, bridge_layers=bridge)
    curves = {name: run.searches[CLAS] for name, run in named.items() if CLAS in run.searches}
    if curves:
        found["alpha_curve"] = alpha_curve(curves)
    gains = [
        table.assign(setting=f"{run.title(task)}, {name}")
        for name, run in named.items()
        for task in run.tasks
        if (table := run.gains(task)) is not None
    ]
    if gains:
        found["gain_heatmap"] = gain_heatmap(
            pd.concat(gains), title=f"Gain in score and change of alignment with {anchor}"
        )
    titles = {task: run.title(task) for run in runs for task in run.tasks}
    makers: Mapping[str, tuple[str, Callable[[RunData, str], go.Figure | None]]] = {
        _cosine_name(runs): (f"Cosine similarity to {anchor} in the residual stream", _cosine),
        "gain_vs_alignment": (f"Change of alignment with {anchor} against the gain in score", _fit),
        "forest": ("Gain in score over the unsteered model, by language", _forest),
    }
    for name, (title, make) in makers.items():
        panels = {
            (model, task): figure
            for model, run in named.items()
            for task in titles
            if (figure := make(run, task)) is not None
        }
        if panels:
            found[name] = panel_grid(panels, titles, title=title)
    return found


def _cosine_name(runs: Sequence[RunData]) -> str:
    return "cosine_to_english" if {run.anchor for run in runs} == {"en"} else "cosine_to_anchor"


def panel_grid(panels: Mapping[tuple[str, str], go.Figure], titles: Mapping[str, str], *, title: str) -> go.Figure:
    """Figures of one plot each as "(a) task, model" and so on, in rows by model and columns by task; x axes are shared."""
    models, tasks = (list(dict.fromkeys(key[place] for key in panels)) for place in (0, 1))
    headings: list[str] = []
    for model in models:
        for task in tasks:
            letter = chr(97 + len([one for one in headings if one]))
            name = f"({letter}) {plain(titles[task])}, {plain(model)}"
            headings.append(name if (model, task) in panels else "")
    figure = make_subplots(
        rows=len(models),
        cols=len(tasks),
        subplot_titles=headings,
        shared_xaxes="all",
        horizontal_spacing=0.12,
        vertical_spacing=0.16 / max(1, len(models) - 1) if len(models) > 1 else 0,
    )
    height, named = 0, set()
    for (model, task), panel in panels.items():
        row, col = models.index(model) + 1, tasks.index(task) + 1
        for trace in panel.data:
            shown = trace.showlegend is not False and trace.name not in named
            named.add(trace.name)
            figure.add_trace(go.Figure(trace).data[0].update(showlegend=shown), row=row, col=col)
        x, y = (axis.to_plotly_json() for axis in (panel.layout.xaxis, panel.layout.yaxis))
        kept = ("title", "type", "categoryorder", "categoryarray", "showgrid", "dtick")
        figure.update_xaxes({key: x[key] for key in kept if key in x}, showticklabels=True, row=row, col=col)
        figure.update_yaxes({key: y[key] for key in kept if key in y}, row=row, col=col)
        height = max(height, panel.layout.height)
    legend = any(panel.layout.showlegend for panel in panels.values())
    return apply_look(figure, title=title, width=PAGE, height=60 + height * len(models), legend=legend)


def _cosine(run: RunData, task: str) -> go.Figure | None:
    frame = run.table("cosine")
    if frame is None:
        return None
    rows = frame[(frame["setting"] == task) & frame["layer"].isin(run.bridge_layers)]
    return None if rows.empty else cosine_to_english(rows, anchor=run.anchor)


def _fit(run: RunData, task: str) -> go.Figure | None:
    gains = run.gains(task)
    try:
        return gains if gains is None else gain_vs_alignment(gains, fit_gain_alignment(gains, anchor=run.anchor))
    except ValueError:  # too few languages for a line
        return None


def _forest(run: RunData, task: str) -> go.Figure | None:
    comparison = run.main_comparison(task)
    if comparison is None:
        return None
    return forest(comparison.languages[comparison.languages["language"] != comparison.anchor])
