"""What all dashboards are: controls over plotly figures, and the same figures alone where widgets do not run."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from ipywidgets import HTML, HBox, Layout, VBox, Widget

from .markup import paragraph

TEXT_HTML = "text/html"
WIDTH = 900  # pixels of a wide figure: what JupyterLab leaves beside its file list on a screen of 1366


class Dashboard(VBox):
    """Controls, figures and a note of HTML below them.

    Where a front end runs widgets it shows these; elsewhere it shows the figures and the note as they were when the cell
    ran. `close()` ends a dashboard; ipywidgets keeps it alive until then.

    Args:
        controls: by name, in rows of `row_length`.
        figures: as they are at first.
    """

    def __init__(self, controls: Mapping[str, Widget], figures: Sequence[go.Figure], *, row_length: int = 4) -> None:
        self.controls = dict(controls)
        self.figures = tuple(go.FigureWidget(in_one_title(figure)) for figure in figures)
        self.note = HTML()
        given = list(controls.values())
        wrap = Layout(flex_flow="row wrap")
        rows = [HBox(given[i : i + row_length], layout=wrap) for i in range(0, len(given), row_length)]
        super().__init__([*rows, HBox(list(self.figures), layout=wrap), self.note])

    def show(self, figures: Sequence[go.Figure], note: str) -> None:
        """Let the figures become these, and the note this HTML."""
        for shown, figure in zip(self.figures, figures, strict=True):
            follow(shown, in_one_title(figure))
        self.note.value = note

    def refuse(self, error: ValueError) -> None:
        """Say why a setting is not shown; the figures stay as they are."""
        self.note.value = paragraph(f"Not shown: {error}") + paragraph("The figures are of the setting before.")

    def static_html(self) -> str:
        """The figures and the note without widgets: plotly.js from its public address, tables without any script."""
        parts = [
            go.Figure(figure).to_html(full_html=False, include_plotlyjs="cdn" if place == 0 else False)
            for place, figure in enumerate(self.figures)
        ]
        return "".join(parts) + self.note.value

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={control.value!r}" for name, control in self.controls.items())
        return f"{type(self).__name__}({settings})"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        for figure in self.figures:
            figure._repr_mimebundle_()  # writes its present state to where a front end that joins late reads it
        return {**super()._repr_mimebundle_(**options), TEXT_HTML: self.static_html()}


def in_one_title(figure: go.Figure) -> go.Figure:
    """The figure with its subtitle as a line of its title.

    Plotly places a subtitle by the height of the title, which it cannot measure in a widget that is not on screen yet: the
    two would stand on top of each other.
    """
    title = figure.layout.title
    if not title.subtitle.text:
        return figure
    small = f'<span style="font-size:{title.subtitle.font.size}px">{title.subtitle.text}</span>'
    return go.Figure(figure).update_layout(title_text=f"{title.text}<br>{small}", title_subtitle_text="")


def follow(shown: go.FigureWidget, figure: go.Figure) -> None:
    """Turn a figure on screen into another one with as many traces, in one message; `figure` is used up."""
    with shown.batch_update():
        for trace, new in zip(shown.data, figure.data, strict=True):
            trace.update(new.to_plotly_json(), overwrite=True)
        shown.layout = figure.layout
