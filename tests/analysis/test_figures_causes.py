"""Heatmaps of causes carry the table's numbers, in its order, and mark what is sure."""

import numpy as np
import pandas as pd
import pytest

import analysis


def scanned():
    rows = [
        {
            "language": language,
            "layer": layer,
            "component": component,
            "measure": measure,
            "n_units": 4,
            "n": 6,
            "change": change,
            "low": change - 0.5,
            "high": change + 0.5,
            "beyond": change / 2,
            "beyond_low": change / 2 - 0.1,
            "beyond_high": change / 2 + 0.1,
        }
        for component in ("MLP", "attention", "<b>$x$")
        for place, language in enumerate(("sw", "en"))
        for layer in (2, 10)
        for measure in ("log_prob", "kl")
        for change in ((1 + place) * layer / 10 - 0.2 if measure == "log_prob" else 3.0,)
    ]
    return pd.DataFrame(rows)


def test_a_panel_a_component_languages_by_layer():
    frame = scanned()
    figure = analysis.cause_heatmap(frame, measure="log_prob")
    panels = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [note.text for note in figure.layout.annotations] == ["MLP", "attention", "&lt;b&gt;&#36;x&#36;"]
    for panel in panels:
        assert list(panel.x) == ["2", "10"]
        assert list(panel.y) == ["sw", "en"]
        assert np.array(panel.z) == pytest.approx(np.array([[0.0, 0.8], [0.2, 1.8]]))
    dots = [trace for trace in figure.data if trace.type == "scatter"]
    assert [(dot.x, dot.y) for dot in dots] == [(("10", "10"), ("sw", "en"))] * 3
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == pytest.approx((-1.8, 1.8))
    beyond = analysis.cause_heatmap(frame, measure="log_prob", value="beyond", dark=True)
    assert np.array(beyond.data[0].z) == pytest.approx(np.array([[0.0, 0.4], [0.1, 0.9]]))
    specific = analysis.cause_heatmap(frame, measure="log_prob", value="specific")
    assert np.array(specific.data[0].z) == pytest.approx(np.array([[-0.2, -1.0], [0.2, 1.0]]))
    assert all(trace.type == "heatmap" for trace in specific.data)


def test_what_differs_from_0_but_not_from_random_units_is_a_ring():
    frame = scanned()
    frame.loc[frame["language"] == "sw", ["beyond_low", "beyond_high"]] = -1.0, 1.0
    dots = [trace for trace in analysis.cause_heatmap(frame).data if trace.type == "scatter"]
    assert [(dot.marker.symbol, dot.y) for dot in dots[:2]] == [("circle", ("en",)), ("circle-open", ("sw",))]
    alone = frame.assign(beyond=np.nan, beyond_low=np.nan, beyond_high=np.nan)  # draws=0
    dots = [trace for trace in analysis.cause_heatmap(alone).data if trace.type == "scatter"]
    assert [(dot.marker.symbol, dot.y) for dot in dots] == [("circle", ("sw", "en"))] * 3


def test_the_highest_control_is_named():
    figure = analysis.recovery_heatmap(patched().assign(control=[12.0, 70.4] * 4))
    assert "another example's activations: at most 70%" in figure.layout.title.subtitle.text.replace("<br>", " ")


def test_a_component_without_units_stays_empty():
    frame = scanned()
    gone = (frame["component"] == "MLP") & (frame["layer"] == 2)
    frame.loc[gone, ["change", "low", "high"]] = np.nan
    figure = analysis.cause_heatmap(frame)
    assert np.isnan(np.array(figure.data[0].z, dtype=float)[:, 0]).all()


def patched(components=("residual stream",), positions=(-2, -1)):
    return pd.DataFrame(
        [
            {
                "source": "en",
                "target": "sw",
                "layer": layer,
                "component": component,
                "position": position,
                "measure": measure,
                "recovery": 10.0 * layer - position + place,
                "gap": 1.0,
            }
            for place, component in enumerate(components)
            for layer in (0, 1)
            for position in positions
            for measure in ("log_prob", "kl")
        ]
    )


def test_recovery_by_layer_and_position_a_panel_a_direction():
    figure = analysis.recovery_heatmap({"en to sw": patched(), "sw to en": patched()})
    assert [note.text for note in figure.layout.annotations] == [
        "(a) en to sw, residual stream",
        "(b) sw to en, residual stream",
    ]
    for panel in figure.data:
        assert list(panel.y) == ["-2", "-1"]
        assert np.array(panel.z).tolist() == [[2.0, 12.0], [1.0, 11.0]]


def test_recovery_of_heads_is_head_by_layer():
    figure = analysis.recovery_heatmap(patched(("head 0", "head 1"), (-1,)))
    (panel,) = figure.data
    assert list(panel.y) == ["head 0", "head 1"]
    assert np.array(panel.z).tolist() == [[1.0, 11.0], [2.0, 12.0]]


def test_what_is_refused():
    frame = scanned()
    with pytest.raises(ValueError, match="no number in 'change' of 'score'"):
        analysis.cause_heatmap(frame, measure="score")
    with pytest.raises(ValueError, match="draws=1"):
        analysis.cause_heatmap(frame.assign(beyond=np.nan), value="beyond")
    with pytest.raises(ValueError, match="'en' alone"):
        analysis.cause_heatmap(frame[frame["language"] == "en"], value="specific")
    with pytest.raises(ValueError, match=r"cause_heatmap needs a DataFrame .*scan"):
        analysis.cause_heatmap(patched())
    with pytest.raises(ValueError, match="available: log_prob, kl"):
        analysis.recovery_heatmap(patched(), measure="score")
    with pytest.raises(ValueError, match=r"recovery_heatmap needs a DataFrame .*patch"):
        analysis.recovery_heatmap(frame)
