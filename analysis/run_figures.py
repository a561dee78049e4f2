"""Every figure that a run folder's tables are enough for, and for every other one the command that brings it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from analysis.alignment_figures import cosine_to_english, gain_vs_alignment
from analysis.curves import TASK_NAMES, alpha_curve, beta_gamma_curve
from analysis.gains import forest, gain_heatmap
from analysis.layers import layer_distribution
from analysis.look import plain
from analysis.maps import tsne_map
from analysis.neurons import neuron_browser, neuron_distribution
from analysis.paper_figures import paper_gains
from analysis.run_data import MAIN, RunData
from analysis.sharing import category_flow, overlap_matrix
from clas_lens.alignment import fit_gain_alignment
from clas_lens.corpus import ParallelCorpus
from clas_lens.report_data import KIND as REPORT_KIND
from clas_lens.sentence_maps import SentenceMap

BROWSED = 12  # neurons in the figure; the report's table has all
MEASURES = ["language", "measure", "before", "after", "chance"]
MAP_FACTS = ("explained", "layer", "anchor", "perplexity", "seed", "n_components")


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure with a file name of its own and the sentence that says how to read it."""

    name: str
    caption: str
    figure: go.Figure


@dataclass(frozen=True)
class Missing:
    """What stands in a figure's place: why it is not there."""

    name: str
    reason: str


Part = Drawn | Missing


def run_figures(data: RunData) -> dict[str, list[Part]]:
    """All figures of a run by the section of the report that they stand in."""
    return {
        "categories": category_figures(data),
        "neurons": neuron_figures(data),
        "changes": change_figures(data),
        "results": result_figures(data),
        "paper": [paper_gains_figure(data)],
    }


def collecting(data: RunData) -> str:
    """The command that reads texts with the run's model for the report."""
    return f"clas-lens report {data.run.root} --collect"


def evaluating(data: RunData, task: str = "xnli") -> str:
    """The command that answers a task."""
    return f"clas-lens evaluate {data.run.root} --task {task}"


def _part(name: str, caption: str, make: Callable[[], go.Figure]) -> Part:
    """The figure, or what its function says of data that cannot be drawn."""
    try:
        return Drawn(name, caption, make())
    except ValueError as error:
        return Missing(name, f"Not drawn: {error}")


def _of_table(
    data: RunData,
    table: str,
    name: str,
    caption: str,
    make: Callable[[pd.DataFrame], go.Figure],
    *,
    kind: str = REPORT_KIND,
    command: str | None = None,
) -> Part:
    """A figure of one table, by default of those that the report's data are in."""
    frame = data.table(table, kind)
    if frame is None:
        return Missing(name, data.why_missing(table, command or collecting(data)))
    return _part(name, caption, partial(make, frame))


# --- neurons ---


def category_figures(data: RunData) -> list[Part]:
    """Figure 1, the overlap of languages, and what other thresholds would say."""
    layers = _of_table(
        data,
        "layer_shares",
        "layer_distribution",
        "A neuron is active in a language where its mean activation over that language's texts is above the threshold. "
        "The dotted lines are what languages independent of each other would give: sharing is what lies apart from them.",
        lambda shares: layer_distribution(
            shares,
            bridge_layers=data.bridge_layers,
            null=data.table("null_shares"),
            sensitivity=data.table("threshold_shares"),
        ),
        kind="layer shares",
        command=f"clas-lens categorize {data.run.root}",
    )
    overlap = _of_table(
        data,
        "language_overlap",
        "overlap_matrix",
        "Each cell: of the neurons active in either language, the share active in both, over all layers.",
        overlap_matrix,
    )
    flow = _of_table(
        data,
        "category_moves",
        "category_flow",
        "How far the categories hang on the threshold: neurons that change category where it is raised.",
        category_flow,
    )
    return [layers, overlap, flow]


def neuron_figures(data: RunData) -> list[Part]:
    """One neuron before and after. (The browser's table stands in the report as a table.)"""

    def distribution(frame: pd.DataFrame) -> go.Figure:
        return neuron_distribution(frame, int(frame["layer"].iloc[0]), int(frame["neuron"].iloc[0]))

    caption = (
        "Of the neurons that CLAS rescales and that are active in about half of the languages, the one whose mean differs "
        "most between languages, in units of its own root mean square. Left halves: unsteered; right halves: steered."
    )
    return [_of_table(data, "neuron_activations", "neuron_distribution", caption, distribution)]


def browser_figure(data: RunData) -> Part:
    """The neuron browser as a figure, for files: the first neurons of each language."""
    caption = "The neurons most selective for a language, with the text that excites each most."
    return _of_table(
        data,
        "top_neurons",
        "neuron_browser",
        caption,
        lambda frame: neuron_browser(frame.groupby("language", sort=False).head(1).head(BROWSED)),
    )


# --- what steering changes ---


def change_figures(data: RunData) -> list[Part]:
    """Figures 2 and 8, and 4."""
    cosine = _of_table(
        data,
        "cosine",
        "cosine_to_english",
        "Each language's parallel sentences against English ones, at the bridge layers. All cosines in a residual stream "
        "are high; the change is what to read.",
        lambda frame: cosine_to_english(_bridge_panels(data, frame)),
    )
    frame = data.table("sentence_map")
    if frame is None:
        return [cosine, Missing("tsne_map", data.why_missing("sentence_map", collecting(data)))]
    return [cosine, *(_map(data, setting, frame[frame["setting"] == setting]) for setting in data.settings)]


def _bridge_panels(data: RunData, frame: pd.DataFrame) -> pd.DataFrame | Mapping[str, pd.DataFrame]:
    bridge = frame[frame["layer"].isin(data.bridge_layers)]
    panels = {text: bridge[bridge["setting"] == setting] for setting, text in data.settings.items()}
    return panels if len(panels) > 1 else next(iter(panels.values()), bridge)


def _map(data: RunData, setting: str, frame: pd.DataFrame) -> Part:
    first = frame.iloc[0]
    sentences = SentenceMap(
        points=frame[["language", "example", "when", "x", "y"]].reset_index(drop=True),
        trustworthiness={str(when): float(part.iloc[0]) for when, part in frame.groupby("when")["trustworthiness"]},
        **{name: first[name].item() if hasattr(first[name], "item") else first[name] for name in MAP_FACTS},
    )
    separation = data.table("separation")
    measures = (
        pd.DataFrame(columns=MEASURES) if separation is None else separation[separation["setting"] == setting][MEASURES]
    )
    caption = (
        "Every point is a sentence; hover to read it. Clusters and the distances between them mean little on such a map: "
        "the numbers beside it are measured in all dimensions."
    )
    if separation is None:
        caption += f" They are missing here. {data.why_missing('separation', collecting(data))}"
    several = len(data.settings) > 1
    title = plain(f"Sentences in the residual stream: {data.settings[setting]}") if several else None
    name = f"tsne_map_{setting}" if several else "tsne_map"
    return _part(name, caption, lambda: tsne_map(sentences, measures, _texts(data), title=title))


def _texts(data: RunData) -> ParallelCorpus | None:
    frame = data.table("sentences")
    if frame is None:
        return None
    texts = {str(language): tuple(part["text"]) for language, part in frame.groupby("language", sort=False)}
    return ParallelCorpus(texts, tuple(frame["example"].unique()))


# --- does it help ---


def result_figures(data: RunData) -> list[Part]:
    """Forest plots, Figures 5 and 6, 7 and 3."""
    if not data.tasks:
        parts: list[Part] = [Missing("scores", f"Not there yet. This brings it: {evaluating(data)}")]
    else:
        parts = [part for task in data.tasks for part in _task_figures(data, task)]
    return [*parts, *_curves(data), *_gains(data)]


def _task_figures(data: RunData, task: str) -> list[Part]:
    comparison = data.main_comparison(task)
    if comparison is None:
        return [Missing(f"forest_{task}", f"{TASK_NAMES[task]}: nothing to compare with the unsteered model.")]
    title = f"{TASK_NAMES[task]}: gain of {plain(comparison.intervention)} over the unsteered model"
    caption = (
        f"Intervals by a bootstrap over groups of examples, shared by all languages. {comparison.anchor or 'No language'} "
        "is the anchor, which steering does not touch."
    )
    return [_part(f"forest_{task}", caption, lambda: forest(_without_anchor(comparison), title=title))]


def _without_anchor(comparison: Any) -> pd.DataFrame:
    return comparison.languages[comparison.languages["language"] != comparison.anchor]


def _curves(data: RunData) -> list[Part]:
    """Curves over alpha of the main method and of all, and over beta and gamma where they were searched."""
    if not data.searches:
        command = f"clas-lens search {data.run.root} --task xnli"
        return [Missing("search_over_strengths", f"Not there yet. This brings it: {command}")]
    along = {name: _one_strength(table) for name, table in data.searches.items()}
    curves = {name: table for name, table in along.items() if table is not None}
    parts: list[Part] = []
    if curves:
        name = MAIN if MAIN in curves else next(iter(curves))
        caption = "On the tuning examples, not those reported on. At 0 the model is unsteered, bit for bit."
        parts.append(_part("alpha_curve", caption, lambda: alpha_curve(curves[name])))
    if len(curves) > 1:
        caption = "Every method has the same search; each has its own unit of strength."
        parts.append(_part("alpha_curve_methods", caption, lambda: _method_curves(curves)))
    for name, table in data.searches.items():
        if along[name] is None:
            parts += _beta_gamma(name, table)
    return parts


def _one_strength(table: pd.DataFrame) -> pd.DataFrame | None:
    """A table of one beta and gamma (0 where the method has none), or None."""
    filled = table.fillna({"beta": 0.0, "gamma": 0.0})
    return filled if filled["beta"].nunique() == filled["gamma"].nunique() == 1 else None


def _method_curves(curves: Mapping[str, pd.DataFrame]) -> go.Figure:
    title = "Score against the strength of each method"
    return alpha_curve(curves, title=title).update_layout(title_subtitle_text="mean over languages")


def _beta_gamma(name: str, table: pd.DataFrame) -> list[Part]:
    caption = f"{name}, at the strength that was searched with most settings; on the tuning examples."
    alpha = float(table["alpha"].mode().iloc[0])
    return [
        _part(f"beta_gamma_{name}_{task}", caption, partial(beta_gamma_curve, rows, alpha=alpha))
        for task, rows in table.groupby("task", sort=False)
    ]


def _gains(data: RunData) -> list[Part]:
    """The heatmap of gains beside changes of alignment, and the fit of one to the other."""
    gains = {task: table for task in data.tasks if (table := data.gains(task)) is not None}
    if not gains:
        if not data.tasks:
            return []
        reason = data.why_missing("cosine", collecting(data))
        return [Missing("gain_vs_alignment", f"Gain against alignment needs both. {reason}")]
    settings = [table.assign(setting=TASK_NAMES[task]) for task, table in gains.items()]
    frame = pd.concat(settings) if len(settings) > 1 else gains[next(iter(gains))]
    heat = _part(
        "gain_heatmap",
        "Languages by mean gain; beside it how much closer to English their sentences came at the bridge layers.",
        lambda: gain_heatmap(frame),
    )
    caption = "Each point is a language. The slope without each one in turn says how far a single language carries it."
    fits = [_part(f"gain_vs_alignment_{task}", caption, partial(_fit, data, table)) for task, table in gains.items()]
    return [heat, *fits]


def _fit(data: RunData, gains: pd.DataFrame) -> go.Figure:
    return gain_vs_alignment(gains, fit_gain_alignment(gains, anchor=data.anchor), anchor=data.anchor)


# --- the paper ---


def paper_gains_figure(data: RunData) -> Part:
    """The paper's printed gains, with one's own where there are some."""
    own = {task: table for task in data.tasks if (table := _own_gains(data, task)) is not None}
    caption = (
        "The gains that the paper prints in its Tables 1 and 2, by language. Its cosines are nowhere printed, so its "
        "Figures 3 and 7 can be drawn this far only."
    )
    return _part("paper_gains", caption, lambda: paper_gains(own, model=data.model))


def _own_gains(data: RunData, task: str) -> pd.DataFrame | None:
    comparison = data.main_comparison(task)
    if comparison is None or comparison.intervention != MAIN:
        return None
    return comparison.languages[["language", "gain"]]


def drawn_figures(data: RunData) -> dict[str, go.Figure]:
    """All figures that can be drawn, by name, the neuron browser among them: what `clas-lens figures` writes."""
    parts = [part for section in run_figures(data).values() for part in section]
    return {part.name: part.figure for part in [*parts, browser_figure(data)] if isinstance(part, Drawn)}
