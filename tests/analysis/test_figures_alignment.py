"""Figures 2, 3, 4, 7 and 8 carry their frames' values, escaped."""

import math
from dataclasses import replace

import pandas as pd
import pytest
import torch

import clas_lens as cl
from analysis import cosine_to_english, forest, gain_heatmap, gain_vs_alignment, language_style, tsne_map
from analysis.style.labels import label_sides
from clas_lens.representations.alignment import fit_gain_alignment
from clas_lens.representations.maps import SentenceMap, separation_frame, tsne_frame
from clas_lens.representations.sentences import Representations

MINUS = "\N{MINUS SIGN}"
NASTY = "<script>alert(1)</script> %{x} $a$"

COSINES = pd.DataFrame(
    {
        "language": ["de", "de", "ar", "ar"],
        "layer": [3, 4, 3, 4],
        "before": [0.8, 0.9, 0.5, 0.7],
        "after": [0.7, 0.9, 0.6, 0.7],
    }
)


def test_cosines_are_means_over_layers_sorted():
    figure = cosine_to_english(COSINES)
    gaps, before, after = figure.data
    assert list(before.y) == list(after.y) == ["ar", "de"]
    assert list(before.x) == pytest.approx([0.6, 0.85])
    assert list(after.x) == pytest.approx([0.65, 0.8])
    assert list(after.customdata) == ["+0.050", f"{MINUS}0.050"]
    assert list(gaps.x) == pytest.approx([0.6, 0.65, None, 0.85, 0.8, None])
    assert "layers 3 to 4" in figure.layout.title.subtitle.text


def test_cosines_side_by_side():
    figure = cosine_to_english({"XNLI": COSINES, "XQuAD": COSINES[COSINES["language"] == "de"]})
    assert [trace.xaxis for trace in figure.data] == ["x"] * 3 + ["x2"] * 3
    assert list(figure.data[4].y) == ["de"]
    assert [trace.showlegend for trace in figure.data] == [False, True, True, False, False, False]


GAINS = pd.DataFrame(
    {
        "language": ["en", "de", "ar", "hi", "ru"],
        "gain": [0.0, 4.0, -2.0, 1.0, 2.0],
        "change": [0.0, -0.2, 0.1, 0.0, -0.1],
    }
)


def test_gain_figure_has_the_scaled_points_and_the_line():
    fit = fit_gain_alignment(GAINS)
    line, points = gain_vs_alignment(GAINS, fit).data
    assert list(points.text) == ["de", "ar", "hi", "ru"]
    assert list(points.x) == [1.0, -0.5, 0.25, 0.5]
    assert list(points.y) == [-1.0, 0.5, 0.0, -0.5]
    assert list(line.x) == [-0.5, 1.0]
    assert list(line.y) == pytest.approx([fit.intercept - 0.5 * fit.slope, fit.intercept + fit.slope])
    assert list(points.customdata[0])[:2] == ["+4.00", f"{MINUS}0.200"]
    assert list(points.marker.color) == [language_style(code)[0] for code in points.text]


def test_gain_figure_states_the_fit():
    fit = fit_gain_alignment(GAINS)
    figure = gain_vs_alignment(GAINS, fit)
    text = figure.layout.title.subtitle.text.replace("<br>", " ").replace("\N{NO-BREAK SPACE}", " ")
    assert f"slope {MINUS}{abs(fit.slope):.2f}" in text
    assert f"leaving one language out {MINUS}{abs(fit.loo_low):.2f} to {MINUS}{abs(fit.loo_high):.2f}" in text
    assert f"p = {fit.p:.3f}, Spearman {MINUS}{abs(fit.spearman):.2f}, 4 languages" in text
    assert figure.layout.xaxis.title.text == "gain (1 = 4 points)"


def test_labels_keep_clear_of_each_other():
    spans = [[0.0, 1.0], [0.0, 1.0]]
    assert label_sides([0.5], [0.5], spans=spans) == ["top center"]
    below, above = label_sides([0.5, 0.5], [0.5, 0.55], spans=spans)
    assert below != "top center"  # the other point is there
    assert above != below
    assert len(set(label_sides([0.5] * 4, [0.5] * 4, spans=spans))) == 4


def test_heatmaps_by_language_and_setting():
    frame = pd.concat([GAINS[1:].assign(setting="XNLI Llama"), GAINS[1:3].assign(setting="<i>", gain=9.0)])
    gain, change = gain_heatmap(frame).data
    assert list(gain.y) == ["hi", "ru", "ar", "de"]  # mean gain 1, 2, 3.5, 6.5
    assert list(gain.x) == ["XNLI<br>Llama", "&lt;i&gt;"]
    assert list(gain.z[3]) == [4.0, 9.0]
    assert math.isnan(gain.z[0][1])
    assert list(gain.text[0]) == ["+1.0", ""]
    assert (gain.zmin, gain.zmax) == (-9.0, 9.0)
    assert (change.zmin, change.zmax) == (-0.2, 0.2)
    assert change.z[2][0] == 0.1


def test_forest_shows_intervals_and_significance():
    frame = pd.DataFrame(
        {
            "language": ["de", "ar", "hi"],
            "gain": [2.0, -1.0, 0.5],
            "ci_low": [1.0, -2.5, -0.5],
            "ci_high": [3.5, -0.5, 1.0],
            "p_holm": [0.001, 0.04, 0.9],
        }
    )
    figure = forest(frame)
    sure, unsure = figure.data
    assert (list(sure.y), list(unsure.y)) == (["ar", "de"], ["hi"])
    assert list(sure.x) == [-1.0, 2.0]
    assert list(sure.error_x.array) == [0.5, 1.5]
    assert list(sure.error_x.arrayminus) == [1.5, 1.0]
    assert unsure.marker.symbol == ("circle-open",)
    assert list(figure.layout.yaxis.categoryarray) == ["ar", "hi", "de"]
    assert list(sure.customdata[0]) == [f"{MINUS}1.00", f"{MINUS}2.50", f"{MINUS}0.50", "0.040"]


# --- the map ---

TEXTS = cl.ParallelCorpus.from_texts({"de": ["eins", NASTY], "en": ["one", "two"]})
MAP = SentenceMap(
    points=pd.DataFrame(
        [
            (language, example, when, x + shift, 2.0 * x)
            for when, shift in (("before", 0.0), ("after", 10.0))
            for language, example, x in (("de", "0", 1.0), ("de", "1", 3.0), ("en", "0", 5.0), ("en", "1", 6.0))
        ],
        columns=["language", "example", "when", "x", "y"],
    ),
    trustworthiness={"before": 0.91, "after": 0.82},
    explained=0.5,
    layer=7,
    anchor="en",
    perplexity=5.0,
    seed=3,
    n_components=4,
)
MEASURES = pd.DataFrame(
    [("all", "silhouette", 0.1, 0.2, 0.0), ("de", "silhouette", 9.0, 9.0, 0.0), ("all", "cka", 0.5, 0.6, math.nan)],
    columns=["language", "measure", "before", "after", "chance"],
)


def test_map_points_centroids_and_sentences():
    figure = tsne_map(MAP, MEASURES, TEXTS)
    german, english, centroids = figure.data[:3]
    assert (list(german.x), list(german.y)) == ([1.0, 3.0], [2.0, 6.0])
    assert (german.xaxis, figure.data[3].xaxis) == ("x", "x2")
    assert list(figure.data[3].x) == [11.0, 13.0]
    assert english.marker.symbol == "star"
    assert (list(centroids.x), list(centroids.y)) == ([2.0, 5.5], [4.0, 11.0])
    assert list(german.customdata[0]) == ["0", "eins"]
    assert german.customdata[1][1] == "&lt;script&gt;alert(1)&lt;/script&gt; %{x} &#36;a&#36;"
    assert "%{x}" not in german.hovertemplate
    assert "script" not in german.hovertemplate
    assert figure.layout.xaxis.range == figure.layout.xaxis2.range


def test_map_shows_the_measures_beside_it():
    figure = tsne_map(MAP, MEASURES)
    assert [list(column) for column in figure.data[-1].cells["values"]] == [
        ["silhouette (cosine)", "linear CKA to anchor", "map's trustworthiness"],
        ["0.10", "0.50", "0.91"],
        ["0.20", "0.60", "0.82"],
        ["0.00", "", ""],
    ]
    subtitle = figure.layout.title.subtitle.text.replace("<br>", " ")
    assert "layer 7" in subtitle
    assert "perplexity 5, on 4 principal components (50% of the variance)" in subtitle
    assert "starting from the first two (no seed decides it)" in subtitle
    drawn = tsne_map(replace(MAP, init="random"), MEASURES).layout.title.subtitle.text
    assert "random start, seed 3" in drawn.replace("<br>", " ")


def test_a_corpus_without_the_sentences_is_refused():
    with pytest.raises(ValueError, match="no example '0' in 'de'"):
        tsne_map(MAP, MEASURES, TEXTS.select(["en"]))


def test_measures_feed_the_figures():
    values = torch.randn(3, 20, 2, 6, generator=torch.Generator().manual_seed(0))
    names = {"languages": ("ar", "de", "en"), "layers": (3, 4), "example_ids": tuple(map(str, range(20)))}
    before, after = Representations(values, **names), Representations(values + 0.1, intervention="x", **names)
    figure = tsne_map(tsne_frame(before, after, 3, perplexity=9), separation_frame(before, after, 3))
    assert len(figure.data) == 2 * 4 + 1
