"""The layer figure carries the data, escapes text, and touches no global theme."""

import json

import plotly.io as pio
import pytest
import torch

from analysis import layer_distribution, save_figure
from clas_lens.categories import NeuronCategories


def test_traces_carry_the_shares(small_cats):
    figure = layer_distribution(small_cats, bridge_layers=(1, 2))
    shares = small_cats.shares()
    assert [trace.name for trace in figure.data] == ["dead", "language-specific", "partial-shared", "all-shared"]
    for trace in figure.data:
        rows = shares[shares["category"] == trace.name]
        assert list(trace.x) == rows["layer"].tolist()
        assert list(trace.y) == pytest.approx(rows["percent"].tolist())
        assert list(trace.customdata) == rows["count"].tolist()
    assert [(shape.x0, shape.x1) for shape in figure.layout.shapes] == [(0.5, 1.5), (1.5, 2.5)]
    assert "tiny-llama, 4 languages" in figure.layout.title.subtitle.text


def test_tidy_frames_do_as_well(small_cats):
    assert layer_distribution(small_cats.shares()).data == layer_distribution(small_cats).data


def test_names_are_escaped():
    active = torch.zeros(2, 3, 4, dtype=torch.bool)
    cats = NeuronCategories(active, ("en", "de"), model={"name": "<script>alert(1)</script>"})
    assert "<script>" not in layer_distribution(cats).layout.title.subtitle.text


def test_saved_figures_are_self_contained(small_cats, tmp_path):
    theme = pio.templates.default
    page = save_figure(layer_distribution(small_cats), tmp_path / "figures" / "layers")
    html = page.read_text(encoding="utf-8")
    assert "Plotly.newPlot" in html
    assert 'src="http' not in html
    assert len(json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["data"]) == 4
    assert pio.templates.default == theme
