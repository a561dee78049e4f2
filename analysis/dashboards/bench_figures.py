"""What the steering bench shows: the next token, the layers, and the same in words and tables."""

from collections.abc import Sequence

import plotly.graph_objects as go

from ..style.look import QUIET, WHEN_COLOURS, apply_look, plain, quoted
from ..style.numbers import number
from .bench_result import BenchResult
from .controls import layer_text
from .markup import paragraph, table, text_bar

LENS = "logit lens by layer"


def bench_figures(result: BenchResult, layers: Sequence[int], *, dark: bool = False) -> list[go.Figure]:
    """Next-token probabilities before and after, and each layer's relative change; the steered layers are filled."""
    return [_token_figure(result, dark=dark), _layer_figure(result, layers, dark=dark)]


def _token_figure(result: BenchResult, *, dark: bool) -> go.Figure:
    tokens = result.next_tokens
    places = list(range(len(tokens)))
    figure = go.Figure()
    for when in ("before", "after"):
        figure.add_bar(
            x=100 * tokens[when],
            y=places,
            orientation="h",
            name=f"{when} steering",
            marker={"color": WHEN_COLOURS[when]},
            hovertemplate="%{x:.2f}%",
        )
    apply_look(
        figure,
        title="What the model says next",
        subtitle=f"the likeliest next tokens; KL(before || after) = {number(result.kl, 4)} nats",
        dark=dark,
        height=170 + 30 * len(tokens),
    )
    labels = [plain(quoted(token)) for token in tokens["token"]]
    figure.update_yaxes(tickvals=places, ticktext=labels, autorange="reversed")
    return figure.update_xaxes(title="probability (%)", rangemode="tozero")


def _layer_figure(result: BenchResult, layers: Sequence[int], *, dark: bool) -> go.Figure:
    changes = result.layers
    steered = changes["layer"].isin(layers)
    before, after = (
        [f"{plain(quoted(token))} ({number(100 * p, 1)}%)" for token, p in zip(changes[token], changes[p], strict=True)]
        for token, p in (("token_before", "p_before"), ("token_after", "p_after"))
    )
    figure = go.Figure()
    figure.add_scatter(
        x=changes["layer"],
        y=100 * changes["change"],
        customdata=[f"{one}, steered {other}" for one, other in zip(before, after, strict=True)],
        mode="lines+markers",
        line={"color": QUIET, "width": 1.5},
        marker={"size": 8, "color": [WHEN_COLOURS["after"] if here else "rgba(0, 0, 0, 0)" for here in steered]},
        hovertemplate="layer %{x}: %{y:.2f}%<br>logit lens: %{customdata}<extra></extra>",
    )
    apply_look(
        figure,
        title="What steering changes in each layer",
        subtitle="of the residual stream at the last token; dots: steered layers; hover for the logit lens",
        dark=dark,
        height=170 + 30 * len(result.next_tokens),
        legend=False,
    )
    figure.update_xaxes(title="layer", range=[-0.5, len(changes) - 0.5])
    return figure.update_yaxes(title="|difference| / |before| (%)", rangemode="tozero")


def bench_said(
    result: BenchResult, prompt: str | Sequence[int], language: str, anchor: str, layers: Sequence[int]
) -> str:
    """How the prompt goes on without and with steering, and where that is the same because the language is the anchor."""
    asked = prompt if isinstance(prompt, str) else f"{len(prompt)} tokens"
    said = {
        asked: ["without steering", "steered"],
        "goes on": [quoted(result.continuation_before), quoted(result.continuation_after)],
    }
    where = f"{language}, layers {layer_text(layers)}: KL {number(result.kl, 4)} nats"
    return table(said) + paragraph(f"{language}, anchor: not steered" if language == anchor else where)


def bench_note(result: BenchResult) -> str:
    """The next tokens as a table."""
    tokens = result.next_tokens
    longest = max(tokens["before"].max(), tokens["after"].max())
    shown = {
        "next token": [quoted(token) for token in tokens["token"]],
        **{
            when: [text_bar(p / longest, f"{number(100 * p, 1)}%") for p in tokens[when]]
            for when in ("before", "after")
        },
    }
    return table(shown)


def lens_table(result: BenchResult) -> str:
    """What each layer changes, and what the logit lens reads there."""
    lens = result.layers
    return table(
        {
            "layer": lens["layer"].tolist(),
            "change": [f"{number(100 * change, 2)}%" for change in lens["change"]],
            "logit lens before": [quoted(token) for token in lens["token_before"]],
            "logit lens after": [quoted(token) for token in lens["token_after"]],
        }
    )
