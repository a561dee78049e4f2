"""Every figure that a run folder's tables are enough for, and for every other one the command that brings it."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go

from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.representations.maps import SentenceMap
from clas_lens.study.folder import HEAD_SHARES, LAYER_SHARES

from ..figures.alignment import cosine_to_english
from ..figures.heads import head_distribution
from ..figures.layers import layer_distribution
from ..figures.maps import tsne_map
from ..figures.neurons import neuron_browser, neuron_distribution
from ..figures.sharing import category_flow, overlap_matrix
from ..style.look import plain
from .pieces import Drawn, Missing, Piece, collecting, of_table, piece
from .result_figures import paper_gains_figure, result_figures
from .run import RunData

BROWSED = 12  # neurons in the figure; the report's table has all


MEASURES = ["language", "measure", "before", "after", "chance"]


MAP_FACTS = ("explained", "layer", "anchor", "perplexity", "seed", "n_components", "init")


def run_figures(data: RunData) -> dict[str, list[Piece]]:
    """All figures of a run by the section of the report that they stand in."""
    RunData.given(data)
    return {
        "categories": category_figures(data),
        "neurons": neuron_figures(data),
        "changes": change_figures(data),
        "results": result_figures(data),
        "paper": [paper_gains_figure(data)],
    }


# --- neurons ---


def category_figures(data: RunData) -> list[Piece]:
    """Figure 1, the overlap of languages, and what other thresholds would say."""
    layers = of_table(
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
            site=data.site,
        ),
        kind=LAYER_SHARES,
        command=f"clas-lens categorize {data.run.root}",
    )
    overlap = of_table(
        data,
        "language_overlap",
        "overlap_matrix",
        "Each cell: of the neurons active in either language, the share active in both, over all layers.",
        overlap_matrix,
    )
    flow = of_table(
        data,
        "category_moves",
        "category_flow",
        "How far the categories hang on the threshold: neurons that change category where it is raised.",
        category_flow,
    )
    return [layers, *_head_figures(data), overlap, flow]


def _head_figures(data: RunData) -> list[Piece]:
    """Figure 1 head by head, of a run that measured attention."""
    if data.site != "attn":
        return []
    caption = "The units of one head, of all that it hands to the output projection, by category."
    heads = of_table(
        data,
        "head_shares",
        "head_distribution",
        caption,
        lambda shares: head_distribution(shares, bridge_layers=data.bridge_layers),
        kind=HEAD_SHARES,
        command=f"clas-lens categorize {data.run.root}",
    )
    return [heads]


def neuron_figures(data: RunData) -> list[Piece]:
    """One neuron before and after. (The browser's table stands in the report as a table.)"""

    def distribution(frame: pd.DataFrame) -> go.Figure:
        return neuron_distribution(frame, int(frame["layer"].iloc[0]), int(frame["neuron"].iloc[0]))

    caption = (
        "Of the neurons that CLAS rescales and that are active in about half of the languages, the one whose mean differs "
        "most between languages, in units of its own root mean square. Left halves: unsteered; right halves: steered."
    )
    return [of_table(data, "neuron_activations", "neuron_distribution", caption, distribution)]


def browser_figure(data: RunData) -> Piece:
    """The neuron browser as a figure, for files: the first neurons of each language."""
    caption = "The neurons most selective for a language, with the text that excites each most."
    return of_table(
        data,
        "top_neurons",
        "neuron_browser",
        caption,
        lambda frame: neuron_browser(frame.groupby("language", sort=False).head(1).head(BROWSED)),
    )


# --- what steering changes ---


def change_figures(data: RunData) -> list[Piece]:
    """Figures 2 and 8, and 4."""
    cosine = of_table(
        data,
        "cosine",
        "cosine_to_english" if data.anchor == "en" else "cosine_to_anchor",
        f"Each language's parallel sentences against those in {data.anchor_name}, at the bridge layers. All cosines in "
        "a residual stream are high; the change is what to read.",
        lambda frame: cosine_to_english(_bridge_panels(data, frame), anchor=data.anchor),
    )
    frame = data.table("sentence_map")
    if frame is None:
        return [cosine, Missing("tsne_map", data.why_missing("sentence_map", collecting(data)))]
    return [cosine, *(_map(data, setting, frame[frame["setting"] == setting]) for setting in data.settings)]


def _bridge_panels(data: RunData, frame: pd.DataFrame) -> pd.DataFrame | Mapping[str, pd.DataFrame]:
    bridge = frame[frame["layer"].isin(data.bridge_layers)]
    panels = {text: bridge[bridge["setting"] == setting] for setting, text in data.settings.items()}
    return panels if len(panels) > 1 else next(iter(panels.values()), bridge)


def _map(data: RunData, setting: str, frame: pd.DataFrame) -> Piece:
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
    return piece(name, caption, lambda: tsne_map(sentences, measures, _texts(data), title=title))


def _texts(data: RunData) -> ParallelCorpus | None:
    frame = data.table("sentences")
    if frame is None:
        return None
    texts = {str(language): tuple(part["text"]) for language, part in frame.groupby("language", sort=False)}
    return ParallelCorpus(texts, tuple(frame["example"].unique()))


def drawn_figures(data: RunData) -> dict[str, go.Figure]:
    """All figures that can be drawn, by name, the neuron browser among them: what `clas-lens figures` writes."""
    RunData.given(data)
    pieces = [piece for section in run_figures(data).values() for piece in section]
    return {piece.name: piece.figure for piece in [*pieces, browser_figure(data)] if isinstance(piece, Drawn)}
