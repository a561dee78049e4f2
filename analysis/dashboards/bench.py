"""The steering bench: sliders on one side, what the model says next and what each layer makes of it on the other."""

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from ipywidgets import Dropdown, FloatSlider, IntRangeSlider, Layout, Text
from plotly.subplots import make_subplots

from clas_lens.corpus.bundled import bundled_languages
from clas_lens.models.sites import LensModel
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.intervention import Intervention

from ..style.look import QUIET, WHEN_COLOURS, apply_look, plain, quoted
from .bench_engine import SteeringBench
from .bench_result import BenchResult
from .dashboard import WIDTH, Dashboard
from .markup import paragraph, table, text_bar


class BenchView(Dashboard):
    """A steering bench to move sliders on: `BenchView(model, clas, "Die Hauptstadt von", "de")` as a cell's last line.

    The prompt is run once; letting go of a slider runs the layers from the first steered one, and a short continuation.
    Until the range of layers is moved, the layers are the intervention's own, which need not be consecutive. `close()` takes
    the bench's hooks off the model; until then they do nothing but for the bench.

    Args:
        intervention: CLAS, a `rule` of your own, or any other; each has the controls that it can be put at.
        model, prompt, language, options: see `SteeringBench`.
    """

    def __init__(
        self,
        model: LensModel,
        intervention: Intervention,
        prompt: str,
        language: str,
        *,
        stats: NeuronStatistics | None = None,
        **options: Any,
    ) -> None:
        self.bench = SteeringBench(model, intervention, prompt, language, stats=stats, **options)
        self.layers = tuple(dict.fromkeys(site.layer for site in sorted(intervention.edits(model, [language]))))
        self.result = self.bench.run()
        wide = Layout(width="96%")
        controls = {
            "prompt": Text(prompt, description="prompt", continuous_update=False, layout=wide),
            "language": Dropdown(options=_languages(intervention, language), value=language, description="language"),
            **_setting_controls(self.bench, self.layers),
        }
        super().__init__(controls, [bench_figure(self.result, self.layers)], row_length=1)
        self.show([bench_figure(self.result, self.layers)], bench_note(self.result, self.bench.language, self.layers))
        for name in ("prompt", "language"):
            controls[name].observe(self._asked, "value")
        for name in controls.keys() - {"prompt", "language"}:
            controls[name].observe(self._moved if name == "layers" else self._changed, "value")

    def close(self) -> None:
        """Take the widgets and the bench's hooks away."""
        self.bench.close()
        super().close()

    def _asked(self, change: Any) -> None:
        try:
            self.bench.ask(self.controls["prompt"].value, self.controls["language"].value)
        except ValueError as error:
            self.refuse(error)
            return
        self._changed(change)

    def _moved(self, change: Any) -> None:
        low, high = self.controls["layers"].value
        self.layers = tuple(range(low, high + 1))
        self._changed(change)

    def _changed(self, change: Any) -> None:
        numbers: dict[str, Any] = {
            name: self.controls[name].value for name in (*LIMITS, "masks") if name in self.controls
        }
        if "layers" in self.controls:
            numbers["layers"] = self.layers
        try:
            self.result = self.bench.run(**numbers)
        except ValueError as error:
            self.refuse(error)
            return
        self.show([bench_figure(self.result, self.layers)], bench_note(self.result, self.bench.language, self.layers))


LIMITS = {"alpha": (-8.0, 8.0, 0.25), "beta": (0.0, 1.0, 0.05), "gamma": (0.0, 1.0, 0.05)}


def _setting_controls(bench: SteeringBench, layers: Sequence[int]) -> dict[str, Any]:
    """A control for everything that the bench's intervention can be put at."""
    several = len(bench.mask_kinds) > 1
    controls: dict[str, Any] = (
        {"masks": Dropdown(options=list(bench.mask_kinds), description="masks")} if several else {}
    )
    if "layers" in bench.settable:
        controls["layers"] = _range(layers, bench.model.cfg.n_layers)
    sliders = {name: limits for name, limits in LIMITS.items() if name in bench.settable}
    return controls | {name: _slider(name, getattr(bench.given, name), *limits) for name, limits in sliders.items()}


def _languages(intervention: Any, language: str) -> list[str]:
    """Those that the intervention was made for; the bundled corpus's where it takes any."""
    measured = getattr(getattr(intervention, "categories", intervention), "languages", None)
    known = bundled_languages() if measured is None else measured
    return list(dict.fromkeys([*known, intervention.anchor, language]))


def _slider(name: str, value: float, low: float, high: float, step: float) -> FloatSlider:
    # A front end moves the value to the nearest step as soon as it shows the slider: then other numbers would be steered with.
    step = next((size for size in (step, 0.05, 0.01, 0.001) if math.isclose(value / size, round(value / size))), 0.0001)
    limits = {"min": min(low, value), "max": max(high, value), "step": step}
    return FloatSlider(value, description=name, continuous_update=False, **limits)


def _range(layers: Sequence[int], n_layers: int) -> IntRangeSlider:
    limits = {"min": 0, "max": n_layers - 1}
    return IntRangeSlider(value=(min(layers), max(layers)), description="layers", continuous_update=False, **limits)


def bench_figure(result: BenchResult, layers: Sequence[int], *, dark: bool = False) -> go.Figure:
    """Next-token probabilities before and after, and each layer's relative change; the steered layers are filled."""
    tokens, changes = result.next_tokens, result.layers
    figure = make_subplots(cols=2, subplot_titles=["next token (%)", "change of the residual stream (%)"])
    places = list(range(len(tokens)))
    for when in ("before", "after"):
        figure.add_bar(
            x=100 * tokens[when],
            y=places,
            orientation="h",
            name=f"{when} steering",
            marker={"color": WHEN_COLOURS[when]},
            hovertemplate="%{x:.2f}%",
            row=1,
            col=1,
        )
    steered = changes["layer"].isin(layers)
    before, after = (
        [f"{plain(quoted(token))} ({100 * p:.1f}%)" for token, p in zip(changes[token], changes[p], strict=True)]
        for token, p in (("token_before", "p_before"), ("token_after", "p_after"))
    )
    read = [f"{one}, steered {other}" for one, other in zip(before, after, strict=True)]
    figure.add_scatter(
        x=changes["layer"],
        y=100 * changes["change"],
        customdata=read,
        name="change",
        showlegend=False,
        mode="lines+markers",
        line={"color": QUIET, "width": 1.5},
        marker={"size": 8, "color": [WHEN_COLOURS["after"] if here else "rgba(0, 0, 0, 0)" for here in steered]},
        hovertemplate="layer %{x}: %{y:.2f}%<br>logit lens: %{customdata}<extra></extra>",
        row=1,
        col=2,
    )
    apply_look(
        figure,
        title="What steering changes at the next token",
        subtitle=f"KL(before || after) = {result.kl:.4f} nats; the dots mark steered layers; hover for the logit lens",
        dark=dark,
        width=WIDTH,
    )
    labels = [plain(quoted(token)) for token in tokens["token"]]
    figure.update_yaxes(tickvals=places, ticktext=labels, autorange="reversed", col=1)
    figure.update_xaxes(title="probability (%)", rangemode="tozero", col=1)
    figure.update_xaxes(title="layer", range=[-0.5, len(changes) - 0.5], col=2)
    figure.update_yaxes(title="|difference| / |before| (%)", rangemode="tozero", col=2)
    return figure


def bench_note(result: BenchResult, language: str, layers: Sequence[int]) -> str:
    """The same in words and tables: KL, both continuations, next tokens, the logit lens."""
    tokens, lens = result.next_tokens, result.layers
    longest = max(tokens["before"].max(), tokens["after"].max())
    shown = {
        "next token": [quoted(token) for token in tokens["token"]],
        **{when: [f"{text_bar(p / longest)} {100 * p:.1f}%" for p in tokens[when]] for when in ("before", "after")},
    }
    read = {
        "layer": lens["layer"].tolist(),
        "change": [f"{100 * change:.2f}%" for change in lens["change"]],
        "logit lens before": [quoted(token) for token in lens["token_before"]],
        "logit lens after": [quoted(token) for token in lens["token_after"]],
    }
    said = {
        "continuation": ["before", "after"],
        "": [quoted(result.continuation_before), quoted(result.continuation_after)],
    }
    summary = f"{language}, layers {', '.join(map(str, layers))}: KL {result.kl:.4f} nats"
    lens_table = f"<details><summary>logit lens by layer</summary>{table(read)}</details>"
    return paragraph(summary) + table(said) + table(shown) + lens_table
