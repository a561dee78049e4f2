"""How time and memory of a collection grow with texts, languages, layers, width and the length of texts; each point a fresh
process. Length is shown on both backends: the bridge computes no attention pattern where none is read, and the hooked
backend always does.
"""

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
from clas_lens.vocabulary import Backend

START = {"texts": 100, "languages": 4, "layers": 4, "width": 512}
STEPS = {
    "texts": (100, 200, 400, 800),
    "languages": (2, 4, 8, 16),
    "layers": (2, 4, 8, 16),
    "width": (256, 512, 1024, 2048),
    "length": (256, 512, 1024, 2048),
}
LONG = {"texts": 8, "languages": 1}  # where texts are made to be of one length
UNITS = {
    "texts": "texts a language",
    "languages": "languages",
    "layers": "layers",
    "width": "neurons a layer",
    "length": "tokens a text",
}
BACKENDS: dict[str, tuple[Backend, ...]] = {"length": ("bridge", "hooked")}  # else the default one


def run(size: Size, rounds: int) -> list[Row]:
    """One axis at a time from a common starting point."""
    steps = STEPS if size.growth_texts[-1] > 100 else {axis: values[:2] for axis, values in STEPS.items()}
    rows = []
    for axis, values in steps.items():
        for backend in BACKENDS.get(axis, ("hooked",)):
            rows += [_point(axis, value, backend, rounds) for value in values]
    return rows


def _point(axis: str, value: int, backend: Backend, rounds: int) -> Row:
    shape = START | (LONG if axis == "length" else {}) | {axis: value}
    found = [in_child(collect_child, shape, backend) for _ in range(rounds)]
    seconds = min(one["seconds"] for one in found)
    above = min(one["peak_mb"] - one["resting_mb"] for one in found)
    named = {"what": axis, "backend": backend, "value": value}
    return {**named, "seconds": round(seconds, 2), "above_mb": round(above)}


def collect_child(shape: dict[str, int], backend: Backend) -> Row:
    """One collection; without a length, of the bundled texts as they are."""
    length = shape.get("length", 0)
    narrow: dict[str, Any] = {**NARROW, "num_hidden_layers": shape["layers"], "intermediate_size": shape["width"]}
    model = lens_model(hf_model("stack", **narrow, max_position_embeddings=max(4096, length)), "stack", backend)
    bundled = cl.ParallelCorpus.bundled()
    codes = bundled.languages[: shape["languages"]]
    rows = [row % len(bundled) for row in range(shape["texts"])]
    values = {code: tuple(bundled[code][row] for row in rows) for code in codes}
    if length:  # far more than enough, and cut
        values = {code: tuple(" ".join([text] * length) for text in texts) for code, texts in values.items()}
    corpus = cl.ParallelCorpus(values, tuple(f"text-{place}" for place in range(len(rows))))
    options: dict[str, Any] = {"max_tokens": length, "batch_size": len(rows)} if length else {}
    return timed(lambda: cl.collect_statistics(model, corpus, progress=False, **options))


def draw(rows: list[Row], folder: Path) -> None:
    """`growth.png`: a panel an axis, time above memory."""
    frame = pd.DataFrame(rows)
    axes = list(STEPS)
    figure: go.Figure = make_subplots(rows=2, cols=len(axes), shared_yaxes="rows", horizontal_spacing=0.05)
    for column, axis in enumerate(axes, start=1):
        for row, (name, title) in enumerate(
            (("seconds", "time (s)"), ("above_mb", "memory above the model (MB)")), start=1
        ):
            for backend, part in frame[frame["what"] == axis].groupby("backend"):
                several = axis in BACKENDS
                figure.add_scatter(
                    x=part["value"],
                    y=part[name],
                    text=[""] * (len(part) - 1) + [str(backend)] if several else None,
                    textposition="middle left" if backend == "hooked" else "top left",
                    mode="lines+markers+text" if several else "lines+markers",
                    line={"color": SERIES_COLOURS[row - 1], "dash": "dot" if backend == "bridge" else "solid"},
                    row=row,
                    col=column,
                )
            figure.update_yaxes(rangemode="tozero", row=row, col=column)
            if column == 1:
                figure.update_yaxes(title=title, row=row, col=column)
        figure.update_xaxes(title=UNITS[axis], row=2, col=column)
        figure.update_xaxes(nticks=4, rangemode="tozero", col=column)
        if axis == "length":
            figure.update_yaxes(matches=None, showticklabels=True, col=column)
    start = ", ".join(f"{value} {UNITS[axis]}" for axis, value in START.items())
    apply_look(
        figure,
        title="Time and memory of a collection",
        subtitle=f"each panel changes one of: {start}; length: {LONG['texts']} texts in one language, and both backends",
        width=PAGE,
        height=480,
        legend=False,
    )
    export_figures({"growth": figure}, folder, ("png",))
