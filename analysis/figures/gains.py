"""Figure 7 and beyond: what each language gains, and how sure that is."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.given import given_frame, given_number
from clas_lens.vocabulary import check_language

from ..style.languages import language_name, language_style
from ..style.look import QUIET, apply_look, plain
from ..style.numbers import p_value, signed

# Blue for gains, orange-brown for losses: a pair that no colour vision confuses.
DIVERGING = [[0.0, "#E08214"], [0.25, "#FDB863"], [0.5, "#F5F5F5"], [0.75, "#92C5DE"], [1.0, "#4393C3"]]


CELL_INK = "#1F2328"  # legible on all of them


def gain_heatmap(frame: pd.DataFrame, *, anchor: str = "en", title: str | None = None, dark: bool = False) -> go.Figure:
    """Gain in score and change of the cosine to the anchor, a row a language (Figure 7).

    Args:
        frame: language, gain (points), change (of the cosine), and where there are several, `setting` (such as "XNLI,
            Llama"), which becomes a column. Languages are sorted by mean gain; a missing pair stays empty.
        anchor: named in the title.
    """
    given_frame(frame, ("language", "gain", "change"), "gain_heatmap", "gains joined with changes of the cosine")
    for name in ("gain", "change"):
        if not pd.api.types.is_numeric_dtype(frame[name]) or frame[name].isna().all():
            raise ValueError(f"gain_heatmap: no number in column {name!r}")
    rows = frame if "setting" in frame else frame.assign(setting="")
    if rows.duplicated(["language", "setting"]).any():
        raise ValueError("gain_heatmap: a language is there twice in one setting")
    order = rows.groupby("language")["gain"].mean().sort_values().index.tolist()
    settings = list(dict.fromkeys(rows["setting"]))
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.06, subplot_titles=["gain (points)", "change of cosine"]
    )
    for column, (measure, digits) in enumerate((("gain", 1), ("change", 3)), start=1):
        table = rows.pivot(index="language", columns="setting", values=measure).loc[order, settings]
        limit = float(np.nanmax(np.abs(table.to_numpy(dtype=float)))) or 1.0
        shown = [["" if pd.isna(v) else signed(v, digits) for v in line] for line in table.to_numpy()]
        figure.add_heatmap(
            z=table.to_numpy(),
            x=[plain(name).replace(" ", "<br>") or measure for name in settings],
            y=[plain(code) for code in order],
            text=shown,
            texttemplate="%{text}",
            textfont={"color": CELL_INK, "size": 12},
            zmin=-limit,
            zmax=limit,
            colorscale=DIVERGING,
            showscale=False,
            xgap=1,
            ygap=1,
            hoverongaps=False,
            hovertemplate=f"<b>%{{y}}</b> %{{x}}<br>{'gain in points' if measure == 'gain' else 'change of the cosine'}: "
            "%{text}<extra></extra>",
            row=1,
            col=column,
        )
    apply_look(
        figure,
        title=title or f"Gain in score and change of alignment with {plain(language_name(check_language(anchor)))}",
        subtitle="blue: up, orange: down; each half has its own scale, white at 0",
        dark=dark,
        height=(130 if settings == [""] else 172) + 24 * len(order),
        legend=False,
    )
    figure.update_xaxes(showgrid=False, showticklabels=settings != [""], tickangle=0, tickfont={"size": 11})
    figure.update_yaxes(showgrid=False, type="category")
    return figure


def forest(
    frame: pd.DataFrame,
    *,
    level: float = 0.05,
    confidence: float = 0.95,
    title: str | None = None,
    dark: bool = False,
) -> go.Figure:
    """Each language's gain with its confidence interval, sorted (a forest plot).

    Args:
        frame: language, gain, ci_low, ci_high (points) and p_holm, the p value after Holm's correction.
        level: languages with `p_holm` below it are filled, the others open.
        confidence: of the intervals in the frame.
    """
    given_frame(frame, ("language", "gain", "ci_low", "ci_high", "p_holm"), "forest", "Comparison.languages")
    given_number("level", level, above=0, below=1)
    given_number("confidence", confidence, above=0, below=1)
    rows = frame.sort_values("gain").reset_index(drop=True)
    sure = rows["p_holm"] < level
    figure = go.Figure()
    for name, part, filled in ((f"p < {level:g} (Holm)", rows[sure], True), ("not significant", rows[~sure], False)):
        styles = [language_style(str(code)) for code in part["language"]]
        figure.add_scatter(
            x=part["gain"],
            y=[plain(code) for code in part["language"]],
            customdata=[
                [signed(gain), signed(low), signed(high), p_value(p)]
                for gain, low, high, p in part[["gain", "ci_low", "ci_high", "p_holm"]].to_numpy(dtype=float).tolist()
            ],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": part["ci_high"] - part["gain"],
                "arrayminus": part["gain"] - part["ci_low"],
                "color": QUIET,
                "thickness": 1.8,
                "width": 4,
            },
            name=name,
            mode="markers",
            marker={
                "color": [colour for colour, _ in styles],
                "symbol": [symbol if filled else f"{symbol}-open" for _, symbol in styles],
                "size": 10,
                "line": {"width": 2, "color": [colour for colour, _ in styles]},
            },
            hovertemplate="<b>%{y}</b><br>gain: %{customdata[0]} points (%{customdata[1]} to %{customdata[2]})"
            "<br>p after Holm's correction: %{customdata[3]}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": QUIET, "width": 1})
    apply_look(
        figure,
        title=title or "Gain in score over the unsteered model, by language",
        subtitle=f"with {100 * confidence:g}% confidence intervals; filled: p < {level:g} after Holm's correction",
        dark=dark,
        height=150 + 22 * len(rows),
        legend=False,
    )
    figure.update_xaxes(title="gain (points)")
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[plain(code) for code in rows["language"]],
        showgrid=False,
    )
    return figure
