"""How time and memory of a collection grow with texts, languages, layers and width; each point a fresh process."""

from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

import clas_lens as cl
from analysis.style.export import export_figures
from analysis.style.look import PAGE, SERIES_COLOURS, apply_look
from benchmarks.measure import Row, in_child, timed
from benchmarks.models import NARROW, Size, hf_model, lens_model

START = {"texts": 100, "languages": 4, "layers": 4, "width": 512}
STEPS = {
    "texts": (100, 200, 400, 800),
    "languages": (2, 4, 8, 16),
    "layers": (2, 4, 8, 16),
    "width": (256, 512, 1024, 2048),
}
UNITS = {"texts": "texts a language", "languages": "languages", "layers": "layers", "width": "neurons a layer"}


def run(size: Size, rounds: int) -> list[Row]:
    """One axis at a time from a common starting point."""
    steps = STEPS if size.growth_texts[-1] > 100 else {axis: values[:2] for axis, values in STEPS.items()}
    rows = []
    for axis, values in steps.items():
        for value in values:
            found = [in_child(collect_child, {**START, axis: value}) for _ in range(rounds)]
            seconds = min(one["seconds"] for one in found)
            above = min(one["peak_mb"] - one["resting_mb"] for one in found)
            rows.append({"what": axis, "value": value, "seconds": round(seconds, 2), "above_mb": round(above)})
    return rows


def collect_child(shape: dict[str, int]) -> Row:
    """One collection."""
    narrow: dict[str, Any] = {**NARROW, "num_hidden_layers": shape["layers"], "intermediate_size": shape["width"]}
    model = lens_model(hf_model("stack", **narrow), "stack")
    bundled = cl.ParallelCorpus.bundled()
    codes = bundled.languages[: shape["languages"]]
    rows = [row % len(bundled) for row in range(shape["texts"])]
    values = {code: tuple(bundled[code][row] for row in rows) for code in codes}
    corpus = cl.ParallelCorpus(values, tuple(f"text-{place}" for place in range(len(rows))))
    return timed(lambda: cl.collect_statistics(model, corpus, progress=False))


def draw(rows: list[Row], folder: Path) -> None:
    """`growth.png`: a panel an axis, time above memory."""
    frame = pd.DataFrame(rows)
    axes = list(STEPS)
    figure: go.Figure = make_subplots(rows=2, cols=len(axes), shared_yaxes="rows", horizontal_spacing=0.03)
    for column, axis in enumerate(axes, start=1):
        part = frame[frame["what"] == axis]
        for row, (name, title) in enumerate(
            (("seconds", "time (s)"), ("above_mb", "memory above the model (MB)")), start=1
        ):
            colour = SERIES_COLOURS[row - 1]
            figure.add_scatter(
                x=part["value"], y=part[name], mode="lines+markers", line={"color": colour}, row=row, col=column
            )
            figure.update_yaxes(rangemode="tozero", row=row, col=column)
            if column == 1:
                figure.update_yaxes(title=title, row=row, col=column)
        figure.update_xaxes(title=UNITS[axis], row=2, col=column)
        figure.update_xaxes(nticks=4, rangemode="tozero", col=column)
    start = ", ".join(f"{value} {UNITS[axis]}" for axis, value in START.items())
    apply_look(
        figure,
        title="Time and memory of a collection",
        subtitle=f"each panel changes one of: {start}",
        width=PAGE,
        height=480,
        legend=False,
    )
    export_figures({"growth": figure}, folder, ("png",))
