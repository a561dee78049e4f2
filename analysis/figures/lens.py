"""The latent language: the right word's probability by layer in each language, and the words that come first at each layer."""

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from clas_lens.given import given_frame

from ..style.languages import language_name, language_style
from ..style.look import COLUMN, PAGE, TEXT_SIZE, apply_look, plain
from ..style.numbers import number
from .sharing import SEQUENTIAL

READ = ("language", "source", "prompt", "when", "layer", "word_language", "probability", "low", "high", "control", "n")

TOP = ("layer", "position", "token", "rank", "top", "probability")

HEADINGS = {"before": "not steered", "after": "steered"}

LONGEST = 12  # letters of a word in a cell


def latent_language(frame: pd.DataFrame, *, title: str | None = None, dark: bool = False) -> go.Figure:
    """Mean probability of the right word at each layer, a line a language that it may be in (the logit lens).

    Thick is the language of the input; shaded are its interval and English's; dashed is each line's control, the mean of
    other words in the same language. A row of panels a language of the input, with and without steering side by side.

    Args:
        frame: of `cl.lens.latent_language`; languages stay in its order.

    Raises:
        ValueError: another table, or one of several prompts or sources, which would mix different questions.
    """
    given_frame(frame, READ, "latent_language", "cl.lens.latent_language(...)")
    _require_one(frame)
    inputs, whens = list(dict.fromkeys(frame["language"])), list(dict.fromkeys(frame["when"]))
    panels = [(language, when) for language in inputs for when in whens]
    height = 190 + 240 * len(inputs)
    figure = make_subplots(
        rows=len(inputs),
        cols=len(whens),
        shared_xaxes=True,
        shared_yaxes="all",
        subplot_titles=[_heading(frame, *panel) for panel in panels],
        horizontal_spacing=0.04,
        vertical_spacing=44 / (height - 190) if len(inputs) > 1 else 0.0,
    )
    for code in dict.fromkeys(frame["word_language"]):
        _name_language(figure, code)
    for place, (language, when) in enumerate(panels):
        rows = frame[(frame["language"] == language) & (frame["when"] == when)]
        where = {"row": place // len(whens) + 1, "col": place % len(whens) + 1}
        others_first = sorted(dict.fromkeys(rows["word_language"]), key=lambda code: (code == language, code == "en"))
        for code in others_first:
            line = rows[rows["word_language"] == code].sort_values("layer")
            _add_language(figure, line, code, own=code == language, where=where)
    apply_look(
        figure,
        title=title or "The right word at each layer, by its language",
        subtitle=_subtitle(frame),
        dark=dark,
        width=COLUMN if len(whens) == 1 else PAGE,
        height=height,
    )
    figure.update_xaxes(title="layer", row=len(inputs))
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="mean probability", col=1)
    return figure


def _require_one(frame: pd.DataFrame) -> None:
    """Raise `ValueError` where the rows of a panel answer different questions."""
    asked = frame[["language", "source", "prompt"]].drop_duplicates()
    if asked["language"].duplicated().any() or asked["prompt"].nunique() > 1:
        raise ValueError(
            "latent_language draws one prompt, and one source a language; choose the rows of one of these: "
            + "; ".join(f"{one.language} {one.prompt} from {one.source}" for one in asked.itertuples())
        )


def _heading(frame: pd.DataFrame, language: str, when: str) -> str:
    """What is asked in this panel: "French to German, steered"."""
    rows = frame[frame["language"] == language]
    name, source = (plain(language_name(str(rows[column].iloc[0]))) for column in ("language", "source"))
    asked = f"{source} to {name}" if rows["prompt"].iloc[0] == "translation" else name
    return f"{asked}, {HEADINGS[when]}" if frame["when"].nunique() > 1 or when == "after" else asked


def _subtitle(frame: pd.DataFrame) -> str:
    low, high = int(frame["n"].min()), int(frame["n"].max())
    words = f"{low}" if low == high else f"{low} to {high}"
    notes = [
        f"{plain(frame['prompt'].iloc[0])} prompts",
        f"{words} words a language",
        "thick: the input's language",
        "dashed: other words (control)",
    ]
    return "; ".join([*notes, "shaded: intervals" if frame["low"].notna().any() else "no intervals"])


def _name_language(figure: go.Figure, code: str) -> None:
    """A language's entry in the legend, as wide whichever panel it is thick in."""
    colour, symbol = language_style(code)
    how = {"mode": "lines+markers", "line": {"color": colour, "width": 2}, "marker": {"symbol": symbol, "size": 7}}
    figure.add_scatter(x=[None], y=[None], name=plain(language_name(code)), legendgroup=code, **how)


def _add_language(figure: go.Figure, line: pd.DataFrame, code: str, *, own: bool, where: dict[str, int]) -> None:
    colour, symbol = language_style(code)
    if (own or code == "en") and line["low"].notna().all():
        figure.add_scatter(
            x=[*line["layer"], *line["layer"][::-1]],
            y=[*line["high"], *line["low"][::-1]],
            fill="toself",
            fillcolor=colour,
            opacity=0.14,
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            legendgroup=code,
            showlegend=False,
            **where,
        )
    figure.add_scatter(
        x=line["layer"],
        y=line["control"],
        mode="lines",
        line={"color": colour, "width": 1.2, "dash": "dash"},
        hoverinfo="skip",
        legendgroup=code,
        showlegend=False,
        **where,
    )
    shown = [
        [*(number(float(value), 3) or "unknown" for value in numbers), int(n)]
        for *numbers, n in line[["low", "high", "control", "n"]].to_numpy()
    ]
    figure.add_scatter(
        x=line["layer"],
        y=line["probability"],
        customdata=shown,
        name=plain(language_name(code)),
        mode="lines+markers",
        line={"color": colour, "width": 3 if own else 1.5},
        marker={"symbol": symbol, "size": 8 if own else 6},
        legendgroup=code,
        showlegend=False,
        hovertemplate="layer %{x}: %{y:.3f} (%{customdata[0]} to %{customdata[1]})"
        "<br>other words %{customdata[2]}; %{customdata[3]} words",
        **where,
    )


def top_token_map(frame: pd.DataFrame, *, title: str | None = None, dark: bool = False) -> go.Figure:
    """The word that comes first at each layer (up) and position (across), written in its cell; the colour is its probability.

    Args:
        frame: of `cl.lens.top_tokens`; ranks below the first are in the hover text.

    Raises:
        ValueError: another table.
    """
    given_frame(frame, TOP, "top_token_map", "cl.lens.top_tokens(...)")
    first = frame[frame["rank"] == 1]
    table, words = (first.pivot(index="layer", columns="position", values=name) for name in ("probability", "top"))
    ranks = frame.sort_values("rank").groupby(["layer", "position"])
    listed = ranks[["top", "probability"]].apply(_listed).unstack("position")
    read = first.drop_duplicates("position").set_index("position")["token"]
    layers = [str(layer) for layer in table.index]
    figure = go.Figure(
        go.Heatmap(
            z=table.to_numpy(),
            x=list(table.columns),
            y=layers,
            text=[[_cell(word) for word in line] for line in words.to_numpy()],
            customdata=listed.to_numpy(),
            texttemplate="%{text}",
            coloraxis="coloraxis",
            xgap=1,
            ygap=1,
            hovertemplate="layer %{y}, position %{x}<br>%{customdata}<extra></extra>",
        )
    )
    apply_look(
        figure,
        title=title or "The most probable next word at each layer",
        subtitle="below: the token that is read there; the uppermost row is what the model says",
        dark=dark,
        width=COLUMN if len(table.columns) <= 4 else PAGE,
        height=180 + 24 * len(layers),
        legend=False,
    )
    figure.update_layout(
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": 0,
            "cmax": 1,
            "colorbar": {
                "title": {"text": "probability", "font": {"size": TEXT_SIZE}},
                "thickness": 12,
                "outlinewidth": 0,
            },
        }
    )
    ticks = [f"{_cell(read[position])}<br>{number(int(position))}" for position in table.columns]
    figure.update_xaxes(
        showgrid=False, tickvals=list(table.columns), ticktext=ticks, tickangle=0, title="position from the end"
    )
    figure.update_yaxes(showgrid=False, type="category", title="layer")
    return figure


def _listed(rows: pd.DataFrame) -> str:
    """The words of one cell with their probabilities, a line each."""
    return "<br>".join(
        f"{_cell(word)}: {number(float(value), 3)}"
        for word, value in zip(rows["top"], rows["probability"], strict=True)
    )


def _cell(text: object) -> str:
    """A token as it can be seen: marks for white space that is all of it, a long one cut."""
    token = str(text)
    seen = token.strip() or token.replace("\n", "\N{DOWNWARDS ARROW WITH CORNER LEFTWARDS}").replace(
        " ", "\N{OPEN BOX}"
    )
    return plain(seen if len(seen) <= LONGEST else seen[: LONGEST - 1] + "\N{HORIZONTAL ELLIPSIS}")
