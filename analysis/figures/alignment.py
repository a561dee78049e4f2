"""Figures 2, 3 and 8: how alike languages are to the anchor, before and after, and what that has to do with the gain."""

from collections.abc import Mapping
from textwrap import wrap

import pandas as pd
import plotly.graph_objects as go

from clas_lens.given import given, given_frame
from clas_lens.representations.alignment import GainFit
from clas_lens.vocabulary import check_language

from ..style.labels import label_sides
from ..style.languages import language_name, language_style
from ..style.look import QUIET, WHEN_COLOURS, apply_look, panel_row, panels_of, plain, row_width
from ..style.numbers import p_value, signed


def cosine_to_english(
    frame: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    anchor: str = "en",
    title: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """Each language's cosine similarity to the anchor before and after steering, mean over layers (Figures 2 and 8).

    Args:
        frame: `cosine_frame(...)`: language, layer, before, after; only the layers to average over (the paper's: the
            bridge layers). Or `measure_effects(...)`, which is that mean already; the anchor's row, a check, is left out. A
            mapping of names to these is drawn side by side.
        anchor: to which they are; it is named in the texts.
    """
    name = plain(language_name(check_language(anchor)))
    panels = panels_of(frame)
    means = {heading: _layer_means(panel, anchor) for heading, panel in panels.items()}
    figure = panel_row(list(panels), shared_yaxes=False, horizontal_spacing=0.1)
    for column, rows in enumerate(means.values(), start=1):
        _add_dumbbells(figure, rows, column)
    layers = sorted({int(layer) for panel in panels.values() if "layer" in panel for layer in panel["layer"]})
    tallest = max(len(rows) for rows in means.values())
    apply_look(
        figure,
        title=title or f"Cosine similarity to {name} in the residual stream",
        subtitle=f"parallel sentences, mean over {_layer_names(layers)}; {name} unsteered in both",
        dark=dark,
        width=row_width(len(panels)),
        height=190 + 22 * tallest,
    )
    figure.update_xaxes(title=f"cosine similarity to {name}", matches="x")
    figure.update_yaxes(type="category", showgrid=False)
    return figure


def _layer_means(frame: pd.DataFrame, anchor: str) -> pd.DataFrame:
    """One row a language, the least alike first."""
    if isinstance(frame, pd.DataFrame) and {"cosine_before", "cosine_after"} <= set(frame.columns):
        of_others = frame[frame["language"] != anchor]
        frame = of_others.rename(columns={"cosine_before": "before", "cosine_after": "after"})
    else:
        given_frame(frame, ("language", "layer", "before", "after"), "cosine_to_english", "cosine_frame(...)")
    means = frame.groupby("language")[["before", "after"]].mean()
    return means.assign(change=means["after"] - means["before"]).sort_values("before").reset_index()


def _layer_names(layers: list[int]) -> str:
    if not layers:
        return "the layers measured"
    if len(layers) == 1:
        return f"layer {layers[0]}"
    if layers == list(range(layers[0], layers[-1] + 1)):
        return f"layers {layers[0]} to {layers[-1]}"
    return f"layers {', '.join(map(str, layers))}"


def _add_dumbbells(figure: go.Figure, rows: pd.DataFrame, column: int) -> None:
    codes = [plain(code) for code in rows["language"]]
    gaps = [
        value for before, after in zip(rows["before"], rows["after"], strict=True) for value in (before, after, None)
    ]
    figure.add_scatter(
        x=gaps,
        y=[code for code in codes for _ in range(3)],
        mode="lines",
        line={"color": QUIET, "width": 2},
        opacity=0.6,
        hoverinfo="skip",
        showlegend=False,
        row=1,
        col=column,
    )
    for when, symbol in (("before", "circle-open"), ("after", "circle")):
        figure.add_scatter(
            x=rows[when],
            y=codes,
            customdata=[signed(change, 3) for change in rows["change"]],
            name=f"{when} steering",
            legendgroup=when,
            showlegend=column == 1,
            mode="markers",
            marker={
                "color": WHEN_COLOURS[when],
                "symbol": symbol,
                "size": 10,
                "line": {"width": 2, "color": WHEN_COLOURS[when]},
            },
            hovertemplate=f"<b>%{{y}}</b><br>{when} steering: %{{x:.3f}}<br>change: %{{customdata}}<extra></extra>",
            row=1,
            col=column,
        )


def gain_vs_alignment(
    frame: pd.DataFrame, fit: GainFit, *, anchor: str = "en", title: str | None = None, dark: bool = False
) -> go.Figure:
    """Change of the cosine to the anchor against the gain in score, with the fitted line (Figure 3).

    Args:
        frame: language, gain (points), change (of the cosine): what `fit` was fitted to. Both axes are divided by the
            largest magnitude, as in `fit_gain_alignment`; the hover text has the numbers themselves.
    """
    given_frame(frame, ("language", "gain", "change"), "gain_vs_alignment", "what the fit was fitted to")
    name = plain(language_name(check_language(anchor)))
    return gain_scatter(
        frame,
        fit,
        "change",
        f"change of cosine to {name}",
        anchor=anchor,
        title=title or f"Change of alignment with {name} against the gain in score",
        dark=dark,
    )


def gain_scatter(
    frame: pd.DataFrame,
    fit: GainFit,
    column: str,
    measure: str,
    *,
    anchor: str = "en",
    title: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """Any measure of the languages against the gain in score, with the fitted line.

    Args:
        frame: language, gain (points) and `column`: what `fit_gain(frame, column)` was fitted to.
        measure: what the column holds, in words.
    """
    given_frame(frame, ("language", "gain", column), "gain_scatter", "what the fit was fitted to")
    given(fit, GainFit, "the figure needs a GainFit", "fit_gain_alignment(frame) or fit_gain(frame, column) makes one")
    rows = frame[frame["language"] != anchor]
    strange = [code for code in rows["language"] if str(code) not in fit.left_out]
    if strange:
        raise ValueError(f"the fit was made without {strange[0]!r}: give the fit of this same frame")
    x, y = (rows["gain"] / fit.gain_scale).tolist(), (rows[column] / fit.change_scale).tolist()
    ends = [min(x), max(x)]
    spans = [[min(0, *values) - 0.12, max(0, *values) + 0.12] for values in (x, y)]
    figure = go.Figure()
    for value in (0, 1):
        figure.add_shape(
            type="line",
            **{f"{'xy'[value]}{end}": 0 for end in (0, 1)},
            **{f"{'yx'[value]}{end}": end for end in (0, 1)},
            **{f"{'yx'[value]}ref": "paper"},
            line={"color": QUIET, "width": 1},
            layer="below",
        )
    figure.add_scatter(
        x=ends,
        y=[fit.intercept + fit.slope * end for end in ends],
        name="least squares",
        mode="lines",
        line={"color": QUIET, "width": 2, "dash": "dash"},
        hoverinfo="skip",
    )
    figure.add_scatter(
        x=x,
        y=y,
        text=[plain(code) for code in rows["language"]],
        customdata=[
            [signed(gain), signed(change, 3), signed(fit.left_out[str(code)])]
            for code, gain, change in zip(rows["language"], rows["gain"], rows[column], strict=True)
        ],
        name="languages",
        mode="markers+text",
        textposition=label_sides(x, y, spans=spans),
        cliponaxis=False,
        marker={
            "color": [language_style(str(code))[0] for code in rows["language"]],
            "symbol": [language_style(str(code))[1] for code in rows["language"]],
            "size": 10,
        },
        hovertemplate="<b>%{text}</b><br>gain: %{customdata[0]} points<br>"
        f"{measure}: %{{customdata[1]}}"
        "<br>slope without it: %{customdata[2]}<extra></extra>",
    )
    apply_look(
        figure,
        title=title or f"{measure[:1].upper()}{measure[1:]} against the gain in score",
        subtitle=_fit_text(fit),
        dark=dark,
        legend=False,
    )
    figure.update_xaxes(title=f"gain (1 = {fit.gain_scale:.3g} points)", range=spans[0], dtick=0.5)
    figure.update_yaxes(
        title="<br>".join(wrap(f"{measure} (1 = {fit.change_scale:.2g})", 34)), range=spans[1], dtick=0.5
    )
    return figure


def _fit_text(fit: GainFit) -> str:
    parts = [
        f"slope {signed(fit.slope)}",
        f"leaving one language out {signed(fit.loo_low)} to {signed(fit.loo_high)}",
        f"r = {signed(fit.r)}",
        f"p {p_value(fit.p, equals='= ')}",
        f"Spearman {signed(fit.spearman)}",
        f"{fit.n} languages",
    ]
    return ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in parts)
