"""What all dashboards are: controls over plotly figures as wide as the cell, and a picture of them where widgets do not run."""

from collections.abc import Mapping, Sequence
from typing import Any

import anywidget
import plotly.graph_objects as go
from IPython.display import display
from ipywidgets import HTML, Accordion, Box, Layout, VBox, Widget
from traitlets import Int

from ..style.theme import ink_style
from .fit import fitted
from .markup import alert, heading, paragraph
from .still import live_style, still_html

TEXT_HTML = "text/html"
# Pixels: a cell until the front end tells its width; what a panel of it asks for, and a figure at least; between panels,
# and around what is in them.
START, PANEL, NARROWEST, GAP, EDGE = 880, 420, 240, 16, 4
MARK = "clas-lens"  # the class by which styles find dashboards


class CellWidth(anywidget.AnyWidget):
    """Tells how wide the cell is, in pixels, at first and whenever that changes: a side bar came or went."""

    width = Int(START).tag(sync=True)

    _esm = """
    export default { render({ model, el }) {
        let waiting = null;
        const tell = () => {
            const width = Math.floor(el.getBoundingClientRect().width);
            if (width > 0 && width !== model.get("width")) {
                model.set("width", width);
                model.save_changes();
            }
        };
        const watch = new ResizeObserver(() => {
            clearTimeout(waiting);
            waiting = setTimeout(tell, 200);
        });
        watch.observe(el);
        return () => {
            clearTimeout(waiting);
            watch.disconnect();
        };
    } };
    """


class Dashboard(VBox):
    """What is said on top, controls, figures and a note of HTML below or beside them; all as wide as the cell.

    A cell's output has two parts: a picture of the figures and texts as they were when the cell ran, and the widgets.
    Where a front end runs widgets the picture hides; elsewhere (a notebook reopened without a kernel, a page that runs no
    scripts) the picture stays. `close()` ends a dashboard; ipywidgets keeps it alive until then.

    Args:
        controls: by name.
        figures: as they are at first.
        beside: the note stands beside the figures where there is room.
        more: headings of further texts that open at a click.

    Attributes:
        top, note, more: HTML above and below the figures, and of the further texts.
        originals: the figures with their titles, at their own width.
    """

    def __init__(
        self,
        controls: Mapping[str, Widget],
        figures: Sequence[go.Figure],
        *,
        beside: bool = False,
        more: Sequence[str] = (),
    ) -> None:
        self.controls = dict(controls)
        self.originals = tuple(figures)
        self._cell, self._n_panels = CellWidth(), len(figures) + beside
        self.figures = tuple(go.FigureWidget(fitted(figure, self.panel_width)) for figure in figures)
        self.top, self.note = HTML(), HTML()
        self.more = {name: HTML() for name in more}
        self._headings = tuple(HTML(heading(figure)) for figure in figures)
        self._row = Box(list(controls.values()), layout=_wrapped())
        panels: list[Widget] = [
            VBox([title, figure], layout=_panel()) for title, figure in zip(self._headings, self.figures, strict=True)
        ]
        if beside:
            panels.append(Box([self.note], layout=_panel()))
        closed = [Accordion(list(self.more.values()), titles=tuple(self.more))] if self.more else []
        style = HTML(layout=Layout(display="none"))
        below = [] if beside else [self.note]
        super().__init__([style, self._cell, self.top, self._row, Box(panels, layout=_wrapped()), *below, *closed])
        style.value = f"<style>{ink_style(f'.{MARK}')}\n{live_style(MARK, self.model_id)}</style>"
        self.add_class(MARK).add_class(f"{MARK}-{self.model_id}")
        self._cell.observe(self._fit, "width")

    @property
    def panel_width(self) -> int:
        """Pixels of a figure: the panels share a row as far as each has `PANEL`, as the page lays them out."""
        in_a_row = max(1, min(self._n_panels, (self._cell.width + GAP) // (PANEL + GAP)))
        return max(NARROWEST, (self._cell.width + GAP) // in_a_row - GAP - EDGE)

    def _fit(self, change: Any) -> None:
        for shown, original in zip(self.figures, self.originals, strict=True):
            fit = fitted(original, self.panel_width).layout
            shown.update_layout(width=fit.width, height=fit.height, margin_b=fit.margin.b)

    def show(self, figures: Sequence[go.Figure], note: str) -> None:
        """Let the figures become these, and the note this HTML."""
        self.originals = tuple(figures)
        for shown, title, figure in zip(self.figures, self._headings, figures, strict=True):
            title.value = heading(figure)
            follow(shown, fitted(figure, self.panel_width))
        self.note.value = note

    def exchange_controls(self, controls: Mapping[str, Widget]) -> None:
        """Let the controls become these."""
        self.controls = dict(controls)
        self._row.children = tuple(controls.values())

    def refuse(self, error: ValueError) -> None:
        """Say on top why a setting is not shown; the figures stay as they are."""
        self.top.value = alert(f"Not shown: {error}") + paragraph("The figures are of the setting before.")

    def static_html(self) -> str:
        """The figures as pictures and the texts, without any script."""
        texts = {name: text.value for name, text in self.more.items()}
        return still_html(
            self.originals, self.panel_width, self.top.value, self.note.value, texts, mark=MARK, name=self.model_id
        )

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={control.value!r}" for name, control in self.controls.items())
        return f"{type(self).__name__}({settings})"

    def _ipython_display_(self, **options: Any) -> None:
        for figure in self.figures:
            figure._repr_mimebundle_()  # writes its present state to where a front end that joins late reads it
        display({TEXT_HTML: self.static_html()}, raw=True)
        display(self._repr_mimebundle_(), raw=True)


def follow(shown: go.FigureWidget, figure: go.Figure) -> None:
    """Turn a figure on screen into another one with as many traces, in one message; `figure` is used up."""
    with shown.batch_update():
        for trace, new in zip(shown.data, figure.data, strict=True):
            trace.update(new.to_plotly_json(), overwrite=True)
        shown.layout = figure.layout


def _wrapped() -> Layout:
    return Layout(flex_flow="row wrap", width="100%", align_items="flex-start", grid_gap=f"0 {GAP}px", margin="0")


def _panel() -> Layout:
    return Layout(
        flex=f"1 1 {PANEL}px", min_width="0", max_width="100%", width="auto", overflow="auto hidden", margin="0"
    )
