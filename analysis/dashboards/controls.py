"""Controls of more than one widget: a slider as wide as there is room, with a box that takes any number."""

import math
from collections.abc import Sequence
from typing import Any

from ipywidgets import FloatSlider, FloatText, HBox, IntRangeSlider, Layout, Text
from traitlets import Any as AnyValue
from traitlets import Float, Unicode

STEPS = (0.25, 0.05, 0.01, 0.001)


def control_layout(basis: str = "20em") -> Layout:
    """As wide as its share of the row; one a row where the cell is narrow."""
    return Layout(flex=f"1 1 {basis}", width="auto", max_width="100%", min_width="0")


class NumberSlider(HBox):
    """A number, moved by a slider or typed; what is typed may lie outside the slider's limits, which then grow.

    Attributes:
        value: a float.
    """

    value = Float()

    def __init__(self, name: str, value: float, low: float, high: float) -> None:
        wide = Layout(flex="1 1 auto", width="auto", min_width="0")
        self.slider = FloatSlider(description=name, readout=False, continuous_update=False, layout=wide)
        self.box = FloatText(continuous_update=False, step=STEPS[0], layout=Layout(width="5.5em", flex="0 0 auto"))
        self._limits = low, high
        super().__init__([self.slider, self.box], layout=control_layout())
        self._follow(value)
        self.value = value
        for part in (self.slider, self.box):
            part.observe(self._moved, "value")
        self.observe(lambda change: self._follow(change["new"]), "value")

    def _moved(self, change: Any) -> None:
        if math.isfinite(change["new"]):
            self.value = change["new"]
        else:
            self._follow(self.value)

    def _follow(self, value: float) -> None:
        """Slider and box at a value. The front end moves a slider to its nearest step, so the value must be at one."""
        low, high = (limit(end, value) for limit, end in zip((min, max), self._limits, strict=True))
        with self.slider.hold_sync():  # on the way the value may lie outside the limits
            self.slider.min, self.slider.max = min(low, self.slider.value), max(high, self.slider.value)
            self.slider.step, self.slider.value = _step(value), value
            self.slider.min, self.slider.max = low, high
        self.box.value = value


def _step(value: float) -> float:
    return next((size for size in STEPS if math.isclose(value / size, round(value / size), abs_tol=1e-9)), 0.0001)


class LayerChoice(HBox):
    """Some layers: a slider for consecutive ones, a box for any, such as "3, 5-7".

    Attributes:
        value: the layers, a tuple in order.
        wrong: why what was typed last names none, or "".
    """

    value = AnyValue()
    wrong = Unicode()

    def __init__(self, layers: Sequence[int], n_layers: int) -> None:
        self._n_layers = n_layers
        wide = Layout(flex="1 1 auto", width="auto", min_width="0")
        self.slider = IntRangeSlider(
            min=0, max=n_layers - 1, description="layers", readout=False, continuous_update=False, layout=wide
        )
        self.box = Text(continuous_update=False, layout=Layout(width="8em", flex="0 0 auto"))
        super().__init__([self.slider, self.box], layout=control_layout())
        self.value = tuple(layers)
        self._follow()
        self.slider.observe(self._moved, "value")
        self.box.observe(self._typed, "value")
        self.observe(lambda change: self._follow(), "value")

    def _moved(self, change: Any) -> None:
        low, high = change["new"]
        if (low, high) != (min(self.value), max(self.value)):
            self.value = tuple(range(low, high + 1))

    def _typed(self, change: Any) -> None:
        try:
            self.value, self.wrong = layers_of(change["new"], self._n_layers), ""
        except ValueError as error:
            self.wrong = str(error)

    def _follow(self) -> None:
        self.slider.value = min(self.value), max(self.value)
        self.box.value = layer_text(self.value)


def layers_of(text: str, n_layers: int) -> tuple[int, ...]:
    """Layers as they are written in short, "3, 5-7".

    Raises:
        ValueError: none, no such text, or a layer that the model does not have.
    """
    found: set[int] = set()
    for part in filter(None, (one.strip() for one in text.split(","))):
        ends = [end.strip() for end in part.split("-")]
        if len(ends) > 2 or not all(end.isdecimal() for end in ends):
            raise ValueError(f"layers are written as 3, 5-7; got {text!r}")
        if int(ends[0]) > int(ends[-1]):
            raise ValueError(f"the smaller layer comes first, as in 5-7; got {text!r}")
        found |= set(range(int(ends[0]), int(ends[-1]) + 1))
    if not found or max(found) >= n_layers:
        raise ValueError(f"layers 0 to {n_layers - 1} are there, at least one is needed; got {text!r}")
    return tuple(sorted(found))


def layer_text(layers: Sequence[int]) -> str:
    """Layers in short, runs of at least two as first-last: what `layers_of` reads."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return ", ".join(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
