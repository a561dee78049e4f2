"""How languages share neurons: overlap between each two, and what a stricter threshold does to the categories."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from clas_lens.categories.categorize import NeuronCategories
from clas_lens.categories.views import language_overlap
from clas_lens.display import CATEGORY_COLOURS
from clas_lens.given import given_frame

from ..style.look import TEXT_SIZE, apply_look, plain
from ..style.numbers import number

FLOW_PAD = 12  # pixels between the bands of a column


SEQUENTIAL = [[0.0, "#F7FBFF"], [0.4, "#9ECAE1"], [0.7, "#4292C6"], [1.0, "#08306B"]]


def overlap_matrix(data: NeuronCategories | pd.DataFrame, *, title: str | None = None, dark: bool = False) -> go.Figure:
    """How far each two languages use the same neurons (Jaccard), with languages that share most side by side.

    Args:
        data: categories, or their `language_overlap(cats, layers)`: language, other, jaccard, both, either.
    """
    frame = language_overlap(data) if isinstance(data, NeuronCategories) else data
    given_frame(
        frame,
        ("language", "other", "jaccard", "both", "either"),
        "overlap_matrix",
        "NeuronCategories or their language_overlap",
    )
    tables = {
        name: frame.pivot(index="language", columns="other", values=name) for name in ("jaccard", "both", "either")
    }
    order = _similar_together(tables["jaccard"])
    z, both, either = (tables[name].loc[order, order] for name in ("jaccard", "both", "either"))
    apart = z.where(z.index.to_numpy()[:, None] != z.columns.to_numpy()[None, :])
    codes = [plain(code) for code in order]
    figure = go.Figure()
    figure.add_heatmap(
        z=z.to_numpy(),
        x=codes,
        y=codes,
        customdata=[
            [[int(b), int(e)] for b, e in zip(*lines, strict=True)]
            for lines in zip(both.to_numpy(), either.to_numpy(), strict=True)
        ],
        text=[[number(value, 2).removeprefix("0") for value in line] for line in z.to_numpy()],
        texttemplate="%{text}" if len(order) <= 16 else None,
        textfont={"size": 10},
        colorscale=SEQUENTIAL,
        zmin=float(np.nanmin(apart.to_numpy())),
        zmax=float(np.nanmax(apart.to_numpy())),  # the diagonal is 1 and would hide all differences
        xgap=1,
        ygap=1,
        colorbar={
            "title": {"text": "Jaccard", "font": {"size": TEXT_SIZE}},
            "thickness": 12,
            "outlinewidth": 0,
            "tickformat": ".2f",
        },
        hovertemplate="<b>%{y}</b> and <b>%{x}</b>: %{z:.3f}<br>active in both: %{customdata[0]:,}<br>active in either: "
        "%{customdata[1]:,}<extra></extra>",
    )
    apply_look(
        figure,
        title=title or "Overlap of active neurons between languages",
        subtitle="Jaccard index: active in both / active in either; similar languages side by side",
        dark=dark,
        height=540,
        legend=False,
    )
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_yaxes(type="category", showgrid=False, autorange="reversed")
    return figure


def _similar_together(jaccard: pd.DataFrame) -> list[str]:
    """Languages in the leaf order of an average-linkage tree of 1 - Jaccard."""
    square = jaccard.loc[jaccard.columns].to_numpy(copy=True)
    distances = 1 - pd.DataFrame((square + square.T) / 2).fillna(0.0).to_numpy(copy=True)
    for i in range(len(distances)):
        distances[i, i] = 0.0
    if len(distances) < 3:
        return list(jaccard.columns)
    tree = linkage(squareform(distances, checks=False), method="average", optimal_ordering=True)
    return [jaccard.columns[int(i)] for i in leaves_list(tree)]


def category_flow(moves: pd.DataFrame, *, title: str | None = None, dark: bool = False) -> go.Figure:
    """Neurons moving between categories as the threshold rises: one column of bands a threshold.

    Args:
        moves: `category_moves(stats, thresholds)`: from_threshold, to_threshold, from_category, to_category, count.
    """
    given_frame(
        moves,
        ("from_threshold", "to_threshold", "from_category", "to_category", "count"),
        "category_flow",
        "category_moves(...)",
    )
    thresholds = sorted({*moves["from_threshold"], *moves["to_threshold"]})
    nodes = _flow_nodes(moves, thresholds)
    places = [*zip(nodes["threshold"], nodes["category"], strict=True)]
    shown = moves[moves["count"] > 0]
    total = int(moves.loc[moves["from_threshold"] == thresholds[0], "count"].sum())
    figure = go.Figure()
    figure.add_sankey(
        arrangement="fixed",
        valueformat=",",
        node={
            "label": [f"{number(100 * share, 0)}%" for share in nodes["share"]],
            "color": [CATEGORY_COLOURS[category] for category in nodes["category"]],
            "customdata": [f"{category} at threshold {number(threshold)}" for threshold, category in places],
            "x": nodes["x"].tolist(),
            "y": nodes["y"].tolist(),
            "thickness": 14,
            "pad": FLOW_PAD,
            "line": {"width": 0},
            "hovertemplate": "%{customdata}: %{value} neurons (%{label})<extra></extra>",
        },
        link={
            "source": [places.index(p) for p in zip(shown["from_threshold"], shown["from_category"], strict=True)],
            "target": [places.index(p) for p in zip(shown["to_threshold"], shown["to_category"], strict=True)],
            "value": shown["count"].tolist(),
            "color": [_faint(CATEGORY_COLOURS[category]) for category in shown["from_category"]],
            "customdata": [f"{number(100 * count / total, 1)}%" for count in shown["count"]],
            "hovertemplate": "%{source.customdata} to %{target.customdata}:<br>%{value} neurons (%{customdata} of all)"
            "<extra></extra>",
        },
    )
    for category, colour in CATEGORY_COLOURS.items():  # a sankey has no legend of its own
        figure.add_scatter(
            x=[None], y=[None], name=category, mode="markers", marker={"color": colour, "symbol": "square", "size": 12}
        )
    apply_look(
        figure,
        title=title or "Categories of neurons as the activity threshold rises",
        subtitle=f"{total:,} neurons; active where the activity is above the threshold below each column",
        dark=dark,
    )
    figure.update_layout(margin={"l": 20, "r": 20, "b": 76})
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    for place, threshold in enumerate(thresholds):
        share = place / (len(thresholds) - 1)
        anchor = {0.0: "left", 1.0: "right"}.get(share, "center")
        figure.add_annotation(
            x=share, y=0, xref="paper", yref="paper", yshift=-4, xanchor=anchor, yanchor="top", text=number(threshold)
        )
    return figure


def _flow_nodes(moves: pd.DataFrame, thresholds: list[float]) -> pd.DataFrame:
    """A node a threshold and category, in the categories' order from the top: its share of the neurons, its centre."""
    counts = {
        **moves.groupby(["to_threshold", "to_category"])["count"].sum().to_dict(),
        **moves.groupby(["from_threshold", "from_category"])["count"].sum().to_dict(),
    }
    gap = FLOW_PAD / 280  # of the plot's height
    rows = []
    for place, threshold in enumerate(thresholds):
        total = sum(counts[threshold, category] for category in CATEGORY_COLOURS)
        top = 0.0
        for category in CATEGORY_COLOURS:
            share = counts[threshold, category] / total
            height = share * (1 - gap * (len(CATEGORY_COLOURS) - 1))
            # A sankey takes a coordinate of exactly 0 or 1 for none at all.
            x = min(max(place / (len(thresholds) - 1), 0.001), 0.999)
            rows.append((threshold, category, share, x, min(max(top + height / 2, 0.001), 0.999)))
            top += height + gap
    return pd.DataFrame(rows, columns=["threshold", "category", "share", "x", "y"])


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.35)"
