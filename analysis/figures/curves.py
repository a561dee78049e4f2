"""Figures 5 and 6: the score against the strength of steering, and against its two parts."""

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.given import given_frame

from ..style.languages import language_style
from ..style.look import COLUMN, PAGE, QUIET, SERIES_COLOURS, SERIES_SYMBOLS, apply_look, panels_of, plain
from ..style.numbers import signed

SEARCHED = ("task", "alpha", "beta", "gamma", "language", "score", "n")  # columns of a search table


def alpha_curve(
    table: pd.DataFrame | Mapping[str, pd.DataFrame], *, title: str | None = None, dark: bool = False
) -> go.Figure:
    """Score against alpha, mean over languages, one panel a task (Figure 5).

    Args:
        table: a search table: task, alpha, beta, gamma, language, score (percent), n, and where there are
            such the task's `title` and `metric_title`; of one beta and gamma. Its languages
            are drawn thinly behind their mean. A mapping of names (models, methods) to such tables draws their means only.
            Or what `cl.sweep(...)` gives: then how far the next token moves and how many answers change, a panel each.

    Raises:
        ValueError: more than one beta or gamma, which would mix different curves.
    """
    series = panels_of(table)
    swept = {name: _swept(rows) for name, rows in series.items() if isinstance(rows, pd.DataFrame) and "kl" in rows}
    if swept:
        return _sweep_curve(series, swept, title=title, dark=dark)
    for rows in series.values():
        given_frame(rows, SEARCHED, "alpha_curve", "the table of a search")
        _require_one(rows, "beta")
        _require_one(rows, "gamma")
    tasks = list(dict.fromkeys(task for rows in series.values() for task in rows["task"]))
    figure = make_subplots(cols=len(tasks), subplot_titles=_headings(series, tasks), horizontal_spacing=0.1)
    for column, task in enumerate(tasks, start=1):
        for number, (name, rows) in enumerate(series.items()):
            part = rows[rows["task"] == task]
            if len(series) == 1:
                _add_languages(figure, part, column)
            if not part.empty:
                _add_mean(figure, part, "alpha", name or "mean over languages", number, column=column)
        figure.add_vline(x=0, line={"color": QUIET, "width": 1, "dash": "dot"}, row=1, col=column)
        figure.update_yaxes(title=_unit(_of_task(series, task)), row=1, col=column)
    apply_look(
        figure,
        title=title or "Score against steering strength \N{GREEK SMALL LETTER ALPHA}",
        subtitle=_alpha_subtitle(series),
        dark=dark,
        width=COLUMN if len(tasks) == 1 else PAGE,
    )
    figure.update_xaxes(title="\N{GREEK SMALL LETTER ALPHA} (0 = no steering)")
    return figure


SWEPT = {"kl": "KL of the next token (nats)", "changed": "answers changed (%)"}


def _swept(sweep: pd.DataFrame) -> pd.DataFrame:
    """A sweep as a search table: mean over prompts by measure, alpha and language."""
    given_frame(sweep, ("alpha", "prompt", "language", "kl", "changed"), "alpha_curve", "cl.sweep(...)")
    measured = {"kl": sweep["kl"].astype(float), "changed": 100.0 * sweep["changed"].astype(float)}
    parts = [sweep[["alpha", "language"]].assign(task=name, score=values) for name, values in measured.items()]
    grouped = pd.concat(parts).groupby(["task", "alpha", "language"], sort=False)["score"]
    return grouped.agg(["mean", "size"]).reset_index().rename(columns={"mean": "score", "size": "n"})


def _sweep_curve(
    series: Mapping[str, pd.DataFrame], swept: Mapping[str, pd.DataFrame], *, title: str | None, dark: bool
) -> go.Figure:
    if len(swept) != len(series):
        raise ValueError("alpha_curve: sweeps and tables of searches have different measures; draw them apart")
    figure = make_subplots(cols=2, subplot_titles=list(SWEPT.values()), horizontal_spacing=0.1)
    for column, (measure, unit) in enumerate(SWEPT.items(), start=1):
        for number, (name, rows) in enumerate(swept.items()):
            part = rows[rows["task"] == measure]
            if len(swept) == 1 and part["language"].nunique() > 1:
                _add_languages(figure, part, column)
            _add_mean(figure, part, "alpha", name or "mean over languages", number, column=column)
        figure.update_yaxes(title=unit, rangemode="tozero", row=1, col=column)
    figure.update_traces(hovertemplate="\N{GREEK SMALL LETTER ALPHA} = %{x:g}: %{y:.4g}")
    prompts = max(sweep["prompt"].nunique() for sweep in series.values())
    apply_look(
        figure,
        title=title or "What prompts become against steering strength \N{GREEK SMALL LETTER ALPHA}",
        subtitle=f"{prompts} prompts against the unsteered model; thin: single languages",
        dark=dark,
        width=PAGE,
    )
    return figure.update_xaxes(title="\N{GREEK SMALL LETTER ALPHA} (0 = no steering)")


def _alpha_subtitle(series: Mapping[str, pd.DataFrame]) -> str:
    rows = pd.concat(list(series.values()))
    values = [
        f"{symbol} = {', '.join(f'{value:g}' for value in sorted(set(rows[name])))}"
        for name, symbol in (("beta", "\N{GREEK SMALL LETTER BETA}"), ("gamma", "\N{GREEK SMALL LETTER GAMMA}"))
    ]
    low, high = int(rows["n"].min()), int(rows["n"].max())
    examples = f"{low}" if low == high else f"{low} to {high}"
    thin = ["thin: single languages"] if len(series) == 1 else []
    return ", ".join([*values, f"{examples} examples a language and task", *thin])


def _add_languages(figure: go.Figure, rows: pd.DataFrame, column: int) -> None:
    for language, part in rows.groupby("language", sort=True):
        line = part.sort_values("alpha")
        figure.add_scatter(
            x=line["alpha"],
            y=line["score"],
            customdata=line["n"],
            name=plain(language),
            mode="lines",
            line={"color": language_style(str(language))[0], "width": 1.2},
            opacity=0.55,
            showlegend=False,
            hovertemplate="\N{GREEK SMALL LETTER ALPHA} = %{x:g}: %{y:.1f}% of %{customdata} examples",
            row=1,
            col=column,
        )


def _add_mean(
    figure: go.Figure, rows: pd.DataFrame, along: str, name: str, number: int, *, row: int = 1, column: int
) -> None:
    """The mean over languages as one line, in the colour and symbol of series `number`."""
    means = rows.groupby(along)["score"].agg(["mean", "size"]).reset_index()
    at_zero = means.loc[means[along] == 0, "mean"]
    baseline = float(at_zero.iloc[0]) if along == "alpha" and len(at_zero) else None
    gains = ["" if baseline is None else f" ({signed(score - baseline)} over none)" for score in means["mean"]]
    figure.add_scatter(
        x=means[along],
        y=means["mean"],
        customdata=list(zip(means["size"].tolist(), gains, strict=True)),
        name=plain(name),
        legendgroup=name,
        showlegend=row == 1 and column == 1,
        mode="lines+markers",
        line={"color": SERIES_COLOURS[number % len(SERIES_COLOURS)], "width": 2.5},
        marker={"symbol": SERIES_SYMBOLS[number % len(SERIES_SYMBOLS)], "size": 8},
        hovertemplate=f"{along} = %{{x:g}}: %{{y:.2f}}%%{{customdata[1]}}<br>mean over %{{customdata[0]}} languages",
        row=row,
        col=column,
    )


def beta_gamma_curve(
    table: pd.DataFrame, *, alpha: float | int = 1.0, title: str | None = None, dark: bool = False
) -> go.Figure:
    """Score against beta, a line a gamma, and against gamma, a line a beta, mean over languages (Figure 6).

    Args:
        table: a search table; its rows of another alpha are left out.

    Raises:
        ValueError: no rows of that alpha, or more than one task.
    """
    given_frame(table, SEARCHED, "beta_gamma_curve", "the table of a search")
    rows = table[table["alpha"] == alpha]
    if rows.empty:
        raise ValueError(f"no rows with alpha = {alpha:g}; available: {sorted(set(table['alpha']))}")
    _require_one(rows, "task")
    figure = make_subplots(cols=2, shared_yaxes=True, horizontal_spacing=0.05)
    names = {"beta": "\N{GREEK SMALL LETTER BETA}", "gamma": "\N{GREEK SMALL LETTER GAMMA}"}
    for column, (along, other) in enumerate((("beta", "gamma"), ("gamma", "beta")), start=1):
        for number, (value, part) in enumerate(rows.groupby(other)):
            _add_mean(figure, part, along, f"{names[other]} = {value:g}", number, column=column)
        figure.update_xaxes(title=f"{names[along]}", tickvals=sorted(set(rows[along])), row=1, col=column)
    figure.update_traces(selector=lambda trace: trace.xaxis == "x2", legend="legend2", showlegend=True)
    apply_look(
        figure,
        title=title or "Score against the boost \N{GREEK SMALL LETTER BETA} and the cut \N{GREEK SMALL LETTER GAMMA}",
        subtitle=f"{plain(_title(rows))}, \N{GREEK SMALL LETTER ALPHA} = {alpha:g}, mean over languages",
        dark=dark,
    )
    figure.update_layout(legend2={**figure.layout.legend.to_plotly_json(), "x": 0.98, "xanchor": "right"})
    figure.update_yaxes(title=_unit(rows), col=1)
    return figure


def _require_one(rows: pd.DataFrame, column: str) -> None:
    found = sorted(set(rows[column]))
    if len(found) != 1:
        raise ValueError(f"one {column} a curve, got {found}: choose the rows of one")


def _headings(series: Mapping[str, pd.DataFrame], tasks: list[str]) -> list[str] | None:
    return None if len(tasks) == 1 else [plain(_title(_of_task(series, task))) for task in tasks]


def _of_task(series: Mapping[str, pd.DataFrame], task: str) -> pd.DataFrame:
    return pd.concat([rows[rows["task"] == task] for rows in series.values()])


def _title(rows: pd.DataFrame) -> str:
    return str(rows["title" if "title" in rows else "task"].iloc[0])


def _unit(rows: pd.DataFrame) -> str:
    return f"{plain(str(rows['metric_title'].iloc[0])) if 'metric_title' in rows else 'score'} (%)"
