"""Single neurons: a browser of a language's own, and one neuron's activations before and after steering."""

import pandas as pd
import plotly.graph_objects as go

from clas_lens.given import given_frame, given_whole

from ..style.look import PAGE, QUIET, WHEN_COLOURS, apply_look, hover_text, plain, quoted
from ..style.numbers import number, signed


def neuron_browser(table: pd.DataFrame, *, title: str | None = None, dark: bool = False) -> go.Figure:
    """A table of neurons with the text that excites each most and the tokens that it promotes.

    Args:
        table: `top_neurons(...)`, or several of them joined; with `with_promoted_tokens` it has their tokens too.
    """
    given_frame(
        table,
        ("language", "layer", "neuron", "category", "selectivity", "firing_rate", "max", "text"),
        "neuron_browser",
        "top_neurons(...)",
    )
    columns = {
        "language": [plain(code) for code in table["language"]],
        "neuron": [f"{row.layer}.{row.neuron}" for row in table.itertuples()],
        "category": table["category"].tolist(),
        "selectivity": [signed(value) for value in table["selectivity"]],
        "fires (%)": [number(100 * value, 0) for value in table["firing_rate"]],
        "max": [number(value, 2) for value in table["max"]],
        "most exciting text": [hover_text(text, width=56, lines=2) for text in table["text"]],
    }
    widths = [1.15, 1.0, 1.7, 1.3, 1.2, 0.8, 5.4]
    if "promoted" in table:
        columns["promotes"] = [", ".join(plain(quoted(token)) for token in tokens) for tokens in table["promoted"]]
        widths.append(3.0)
    left = ["left", "left", "left", "right", "right", "right", "left", "left"]
    figure = go.Figure()
    figure.add_table(
        columnwidth=widths,
        header={"values": [f"<b>{name}</b>" for name in columns], "align": left, "height": 32},
        cells={"values": list(columns.values()), "align": left, "height": 46},
    )
    apply_look(
        figure,
        title=title or "Neurons most selective for a language",
        subtitle="neuron: layer.number; selectivity: mean activation above the other languages' mean, in units of the "
        "neuron's root mean square",
        dark=dark,
        width=PAGE,
        height=136 + 46 * len(table),
        legend=False,
    )
    figure.update_layout(margin={"l": 14, "r": 14, "b": 14})
    return figure


def neuron_distribution(
    frame: pd.DataFrame, layer: int, neuron: int, *, title: str | None = None, dark: bool = False
) -> go.Figure:
    """One neuron's activations in every language, before (left half) and after (right half) steering.

    Args:
        frame: `neuron_activations(...)`: language, example, when ("before", "after"), value.
    """
    given_frame(frame, ("language", "when", "value"), "neuron_distribution", "neuron_activations(...)")
    layer, neuron = given_whole("layer", layer), given_whole("neuron", neuron)
    order = frame[frame["when"] == "before"].groupby("language")["value"].median().sort_values().index.tolist()
    figure = go.Figure()
    for when, side in (("before", "negative"), ("after", "positive")):
        rows = frame[frame["when"] == when]
        if rows.empty:
            continue
        figure.add_violin(
            x=[plain(code) for code in rows["language"]],
            y=rows["value"],
            name=f"{when} steering",
            side=side,
            line={"color": WHEN_COLOURS[when], "width": 1.2},
            meanline={"visible": True},
            points=False,
            spanmode="hard",
            scalemode="width",
            width=0.85,
        )
    apply_look(
        figure,
        title=title or f"Activation of neuron {layer}.{neuron} by language",
        subtitle=f"layer {layer}, neuron {neuron}; mean over each text's tokens; dashes: means",
        dark=dark,
    )
    figure.update_layout(violinmode="overlay", violingap=0)
    figure.update_xaxes(
        title="language", type="category", categoryorder="array", categoryarray=[plain(code) for code in order]
    )
    figure.update_yaxes(title="activation h", zeroline=True, zerolinecolor=QUIET)
    return figure
