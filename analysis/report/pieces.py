"""Pieces that the figures of a run folder share: drawn, or missing with the reason and the command that brings it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pandas as pd
import plotly.graph_objects as go

from clas_lens.study.folder import REPORT_DATA

from ..tables.paper import PAPER_TASKS
from .run import RunData


@dataclass(frozen=True, eq=False)
class Drawn:
    """A figure with a file name of its own and the sentence that says how to read it."""

    name: str
    caption: str
    figure: go.Figure


@dataclass(frozen=True)
class Missing:
    """What stands in a figure's place: why it is not there."""

    name: str
    reason: str


Piece = Drawn | Missing


def collecting(data: RunData) -> str:
    """The command that reads texts with the run's model for the report."""
    return f"clas-lens report {data.run.root} --collect"


def evaluating(data: RunData, task: str = PAPER_TASKS[0]) -> str:
    """The command that answers a task."""
    return f"clas-lens evaluate {data.run.root} --task {task}"


def piece(name: str, caption: str, make: Callable[[], go.Figure]) -> Piece:
    """The figure, or what its function says of data that cannot be drawn."""
    try:
        return Drawn(name, caption, make())
    except ValueError as error:
        return Missing(name, f"Not drawn: {error}")


def of_table(
    data: RunData,
    table: str,
    name: str,
    caption: str,
    make: Callable[[pd.DataFrame], go.Figure],
    *,
    kind: str = REPORT_DATA,
    command: str | None = None,
) -> Piece:
    """A figure of one table, by default of those that the report's data are in."""
    frame = data.table(table, kind)
    if frame is None:
        return Missing(name, data.why_missing(table, command or collecting(data)))
    return piece(name, caption, partial(make, frame))
