"""The layer figure carries the data; all figures share one look, which escapes text and touches no global theme."""

import itertools
import json
from pathlib import Path

import numpy as np
import plotly.io as pio
import pytest
import torch

import analysis
from analysis import language_style, layer_distribution, save_figure, themed
from analysis.style.languages import _STYLES
from analysis.style.look import CATEGORY_DASHES, CATEGORY_SYMBOLS, hover_text, plain
from clas_lens.categories.categorize import NeuronCategories
from clas_lens.categories.views import null_shares, threshold_shares
from clas_lens.display import CATEGORY_COLOURS

CATEGORIES = ["dead", "language-specific", "partial-shared", "all-shared"]


# --- Figure 1 ---


def test_traces_carry_the_shares(small_cats):
    figure = layer_distribution(small_cats, bridge_layers=(1, 2))
    shares = small_cats.shares()
    assert [trace.name for trace in figure.data] == CATEGORIES
    for trace in figure.data:
        rows = shares[shares["category"] == trace.name]
        assert list(trace.x) == rows["layer"].tolist()
        assert list(trace.y) == pytest.approx(rows["percent"].tolist())
        assert list(trace.customdata) == rows["count"].tolist()
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(0.5, 1.5), (1.5, 2.5)]
    assert "tiny-llama, 4 languages" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_tidy_frames_do_as_well(small_cats):
    assert layer_distribution(small_cats.shares()).data == layer_distribution(small_cats).data


def test_models_side_by_side(small_cats):
    other = small_cats.shares().assign(percent=25.0)
    figure = layer_distribution({"one": small_cats, "<b>two": other}, bridge_layers={"<b>two": [3]})
    assert [note.text for note in figure.layout.annotations] == ["(a) one", "(b) &lt;b&gt;two"]
    assert [(trace.name, trace.xaxis) for trace in figure.data] == [
        (category, axis) for axis in ("x", "x2") for category in CATEGORIES
    ]
    assert all(set(trace.y) == {25.0} for trace in figure.data[4:])
    assert [(shape.x0, shape.xref) for shape in figure.layout.shapes] == [(2.5, "x2")]
    assert [trace.showlegend for trace in figure.data] == [True] * 4 + [False] * 4


def test_the_null_and_the_band_are_drawn(small_cats, small_stats):
    null, shares = null_shares(small_cats), threshold_shares(small_stats, [-0.05, 0, 0.05])
    figure = layer_distribution(small_cats, null=null, sensitivity=shares)
    named = {trace.name: trace for trace in figure.data}
    assert list(named["partial-shared, independent languages"].y) == pytest.approx([100 * 10 / 16] * 5)
    band = named["dead, all thresholds"]
    dead = shares[shares["category"] == "dead"].groupby("layer")["percent"]
    assert list(band.y) == pytest.approx([*dead.max(), *dead.min()[::-1]])
    assert list(band.x) == [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    assert "thresholds \N{MINUS SIGN}0.05 to 0.05" in figure.layout.title.subtitle.text.replace("<br>", " ")


# --- the look ---


def test_names_are_escaped():
    active = torch.zeros(2, 3, 4, dtype=torch.bool)
    cats = NeuronCategories(active, ("en", "de"), model={"name": "<script>alert(1)</script>"})
    assert "<script>" not in layer_distribution(cats).layout.title.subtitle.text


def test_text_from_data_is_shown_as_it_is():
    assert plain('<a href="x">$y$ & "z"</a>') == '&lt;a href="x"&gt;&#36;y&#36; &amp; "z"&lt;/a&gt;'
    assert plain("a\x03\x7f\x85\ufffe\n") == "a\N{SYMBOL FOR END OF TEXT}\N{SYMBOL FOR DELETE}\ufffd\ufffd\n"
    wrapped = hover_text("<b> " + "word " * 200, width=20, lines=3)
    assert wrapped.startswith("&lt;b&gt; word")
    assert wrapped.count("<br>") == 2
    assert wrapped.endswith(" ...")
    assert hover_text("") == ""


def test_saved_figures_are_self_contained(small_cats, tmp_path):
    theme = pio.templates.default
    page = save_figure(layer_distribution(small_cats), tmp_path / "figures" / "layers")
    html = page.read_text(encoding="utf-8")
    assert "Plotly.newPlot" in html
    assert 'src="http' not in html
    assert len(json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["data"]) == 4
    assert pio.templates.default == theme


def test_dark_changes_the_template_and_nothing_else(small_cats):
    light = layer_distribution(small_cats)
    dark = themed(light, dark=True)
    assert dark == layer_distribution(small_cats, dark=True)
    assert dark.data == light.data
    papers = [figure.layout.template.layout.paper_bgcolor for figure in (light, dark)]
    assert papers == ["#FFFFFF", "#14181D"]
    assert themed(dark, dark=False) == light


def test_every_public_figure_is_exported():
    for name in analysis.__all__:
        assert callable(getattr(analysis, name)) or (Path(analysis.__file__).parent / name).is_dir()


# --- languages ---


def test_a_language_keeps_its_colour():
    assert language_style("en")[1] == "star"
    assert language_style("ja") == language_style("ja")
    many = ["ja", "ko", "it", "pt", "nl", "pl", "sv", "fi", "cs", "uk", "fa", "he", "id", "zh-Hant"]
    assert not {language_style(code) for code in many} & set(_STYLES.values())


def test_sixteen_languages_are_told_apart_in_any_colour_vision():
    colours, symbols = zip(*_STYLES.values(), strict=True)
    assert len(set(colours)) == len(colours) == 16
    assert symbols.count("star") == 1
    for seen, apart, apart_same_symbol in ((NORMAL, 0.14, 0.14), (DEUTAN, 0.07, 0.14), (PROTAN, 0.07, 0.14)):
        points = oklab(colours, seen)
        for i, j in itertools.combinations(range(16), 2):
            distance = np.linalg.norm(points[i] - points[j])
            assert distance > (apart_same_symbol if symbols[i] == symbols[j] else apart), (colours[i], colours[j])


def test_categories_are_told_apart_in_any_colour_vision_and_in_grey():
    colours = list(CATEGORY_COLOURS.values())
    for seen in (NORMAL, DEUTAN, PROTAN):
        points = oklab(colours, seen)
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(points, 2)) > 0.15
    greys = [float(np.cbrt(linear(colour) @ LUMINANCE)) for colour in colours]
    assert min(abs(a - b) for a, b in itertools.combinations(greys, 2)) > 0.1
    for styles in (CATEGORY_SYMBOLS, CATEGORY_DASHES):
        assert list(styles) == list(CATEGORY_COLOURS)
        assert len(set(styles.values())) == 4
    for light in (float(linear(colour) @ LUMINANCE) for colour in colours):
        assert 1.05 / (light + 0.05) > 2
        assert (light + 0.05) / (float(linear("#14181D") @ LUMINANCE) + 0.05) > 2


def test_colours_stand_out_on_light_and_dark_paper():
    for colour, _ in _STYLES.values():
        light = float(linear(colour) @ LUMINANCE)
        paper = float(linear("#14181D") @ LUMINANCE)
        assert 1.05 / (light + 0.05) > 1.8, colour
        assert (light + 0.05) / (paper + 0.05) > 2.4, colour


LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
NORMAL = np.eye(3)
# Machado et al. 2009, severity 1, on linear RGB.
DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]])
PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])


def linear(colour: str) -> np.ndarray:
    value = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def oklab(colours, seen) -> np.ndarray:
    """Ottosson 2020."""
    to_lms = np.array(
        [
            [0.4122214708, 0.5363325363, 0.0514459929],
            [0.2119034982, 0.6806995451, 0.1073969566],
            [0.0883024619, 0.2817188376, 0.6299787005],
        ]
    )
    to_lab = np.array(
        [
            [0.2104542553, 0.793617785, -0.0040720468],
            [1.9779984951, -2.428592205, 0.4505937099],
            [0.0259040371, 0.7827717662, -0.808675766],
        ]
    )
    return np.array([to_lab @ np.cbrt(to_lms @ np.clip(seen @ linear(colour), 0, 1)) for colour in colours])
