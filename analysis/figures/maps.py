"""Figure 4: the sentences of all languages on a plane, before and after, beside what holds in all dimensions."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.given import given, given_frame
from clas_lens.representations.maps import WHEN, SentenceMap

from ..style.labels import label_sides
from ..style.languages import language_style
from ..style.look import GRIDLINE, PAGE, QUIET, apply_look, hover_text, plain
from ..style.numbers import number

MEASURE_NAMES = {
    "silhouette": "silhouette (cosine)",
    "knn_purity": "neighbours of same language",
    "retrieval": "parallel retrieval @1 (MEXA)",
    "cka": "linear CKA to anchor",
}


def tsne_map(
    sentences: SentenceMap,
    measures: pd.DataFrame,
    texts: ParallelCorpus | None = None,
    *,
    title: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """Two t-SNE maps from one joint fit, with centroids, and the full-dimension measures in a table (Figure 4).

    Args:
        sentences: `tsne_frame(...)`.
        measures: `separation_frame(...)` of the same layer; its rows of "all" languages are shown.
        texts: the corpus, so that a point's hover text is its sentence; else it is the example's id.
    """
    given(sentences, SentenceMap, "tsne_map needs a SentenceMap", "tsne_frame(...) makes one")
    if not isinstance(measures, pd.DataFrame) or len(measures):
        given_frame(measures, ("language", "measure", "before", "after", "chance"), "tsne_map", "separation_frame(...)")
    if texts is not None:
        given(texts, ParallelCorpus, "tsne_map needs a ParallelCorpus for its texts", "give the one that was read")
    figure = make_subplots(
        cols=3,
        column_widths=[0.36, 0.36, 0.28],
        horizontal_spacing=0.02,
        shared_yaxes=True,
        specs=[[{}, {}, {"type": "table"}]],
        subplot_titles=["before steering", "after steering", "in all dimensions"],
    )
    points = sentences.points
    start = (
        "starting from the first two (no seed decides it)"
        if sentences.init == "pca"
        else f"random start, seed {sentences.seed}"
    )
    spans = [_span(points[axis]) for axis in "xy"]
    for column, when in enumerate(WHEN, start=1):
        part = points[points["when"] == when]
        for language, rows in part.groupby("language", sort=False):
            _add_language(figure, rows, str(language), sentences.anchor, texts, column)
        _add_centroids(figure, part, sentences.anchor, spans, column)
    figure.add_trace(_table(sentences, measures), row=1, col=3)
    apply_look(
        figure,
        title=title or f"Sentences of {points['language'].nunique()} languages in the residual stream",
        subtitle=f"output of layer {sentences.layer}; t-SNE of before and after together, perplexity "
        f"{sentences.perplexity:g}, on {sentences.n_components} principal components ({100 * sentences.explained:.0f}% of the "
        f"variance), {start}",
        dark=dark,
        width=PAGE,
        height=520,
    )
    figure.update_layout(legend={"itemsizing": "constant"})
    frame = {"showticklabels": False, "showgrid": False, "showline": True, "mirror": True, "linecolor": GRIDLINE}
    figure.update_xaxes(title="t-SNE 1", range=spans[0], **frame)
    figure.update_yaxes(range=spans[1], **frame)
    figure.update_yaxes(title="t-SNE 2", col=1)
    return figure


def _span(values: pd.Series) -> list[float]:
    low, high = float(values.min()), float(values.max())
    return [low - 0.06 * (high - low), high + 0.06 * (high - low)]


def _add_language(
    figure: go.Figure, rows: pd.DataFrame, language: str, anchor: str, texts: ParallelCorpus | None, column: int
) -> None:
    colour, symbol = language_style(language)
    figure.add_scatter(
        x=rows["x"],
        y=rows["y"],
        customdata=[[plain(example), _sentence(texts, language, example)] for example in rows["example"]],
        name=plain(language),
        legendgroup=language,
        showlegend=column == 1,
        mode="markers",
        marker={
            "color": colour,
            "symbol": "star" if language == anchor else symbol,
            "size": 8 if language == anchor else 5,
            "opacity": 0.75,
        },
        hovertemplate=f"{'anchor, ' if language == anchor else ''}example %{{customdata[0]}}<br>%{{customdata[1]}}",
        row=1,
        col=column,
    )


def _sentence(texts: ParallelCorpus | None, language: str, example: str) -> str:
    if texts is None:
        return ""
    if language not in texts.languages or example not in texts.ids:
        raise ValueError(f"no example {example!r} in {language!r} in {texts!r}")
    return hover_text(texts[language][texts.ids.index(example)])


def _add_centroids(figure: go.Figure, part: pd.DataFrame, anchor: str, spans: list[list[float]], column: int) -> None:
    centroids = part.groupby("language", sort=False)[["x", "y"]].mean()
    styles = [language_style(str(code)) for code in centroids.index]
    figure.add_scatter(
        x=centroids["x"],
        y=centroids["y"],
        text=[f"<b>{plain(code)}</b>" for code in centroids.index],
        name="centroids",
        legendgroup="centroids",
        showlegend=False,
        mode="markers+text",
        textposition=label_sides(centroids["x"].tolist(), centroids["y"].tolist(), spans=spans, reach=18.0),
        marker={
            "color": [colour for colour, _ in styles],
            "symbol": [
                "star" if code == anchor else symbol for code, (_, symbol) in zip(centroids.index, styles, strict=True)
            ],
            "size": [18 if code == anchor else 12 for code in centroids.index],
            "line": {"color": QUIET, "width": 1.5},
        },
        hovertemplate="centroid of %{text} on the map<extra></extra>",
        row=1,
        col=column,
    )


def _table(sentences: SentenceMap, measures: pd.DataFrame) -> go.Table:
    rows = measures[measures["language"] == "all"]
    names = [MEASURE_NAMES.get(name, plain(name)) for name in rows["measure"]]
    trust = [sentences.trustworthiness[when] for when in WHEN]
    cells = [
        [*names, "map's trustworthiness"],
        [*(number(value, 2) for value in rows["before"]), number(trust[0], 2)],
        [*(number(value, 2) for value in rows["after"]), number(trust[1], 2)],
        [*(number(value, 2) for value in rows["chance"]), ""],
    ]
    return go.Table(
        columnwidth=[2.2, 1, 1, 1.05],
        header={
            "values": ["", "before", "after", "chance"],
            "align": ["left", "right"],
            "height": 28,
            "font": {"size": 12},
        },
        cells={"values": cells, "align": ["left", "right"], "height": 40, "font": {"size": 12}},
    )
