"""The layer explorer: what a stricter or another threshold makes of the categories, at once, from saved statistics."""

import math
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from ipywidgets import Dropdown, FloatSlider

from clas_lens.categories.categorize import activities, categorize, select_bridge_layers
from clas_lens.models.sites import check_layers
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.vocabulary import SHARES, Activity

from ..figures.layers import layer_distribution
from ..figures.sharing import overlap_matrix
from ..style.numbers import number
from .controls import control_layout
from .dashboard import Dashboard
from .markup import paragraph, table, text_bar

STEPS = 200
TAIL = 0.005  # of the values, left out on either side of the slider


class LayerExplorer(Dashboard):
    """Figure 1 and the overlap matrix under a threshold slider and a choice of activity.

    Args:
        stats: of any model; the model itself is not needed.
        bridge_layers: shaded; default those that `select_bridge_layers` chooses, anew for each threshold.

    Attributes:
        cats: the categories shown.
    """

    def __init__(self, stats: NeuronStatistics, *, bridge_layers: Sequence[int] | None = None) -> None:
        self.stats = stats
        self.cats = categorize(stats)
        self._fixed = None if bridge_layers is None else check_layers(bridge_layers, stats.n_layers)
        controls = {
            "activity": Dropdown(
                options=list(get_args(Activity)), description="activity", layout=control_layout("14em")
            ),
            "threshold": FloatSlider(description="threshold", layout=control_layout("30em")),
        }
        _set_range(controls["threshold"], stats, "mean")
        super().__init__(controls, self._figures())
        self.note.value = self._note()
        controls["activity"].observe(self._other_activity, "value")
        controls["threshold"].observe(self._changed, "value")

    @property
    def bridge_layers(self) -> tuple[int, ...]:
        """The layers shaded now; none are proposed for a model of fewer than three."""
        if self._fixed is not None:
            return self._fixed
        return select_bridge_layers(self.cats) if self.cats.n_layers > 2 else ()

    def _figures(self) -> list[Any]:
        return [layer_distribution(self.cats, bridge_layers=self.bridge_layers), overlap_matrix(self.cats)]

    def _note(self) -> str:
        shares = {label: float(np.mean(percent)) for label, percent in self.cats.percent_by_layer().items()}
        columns = {
            "category": list(shares),
            "neurons": [text_bar(percent / 100, f"{number(percent, 1)}%") for percent in shares.values()],
        }
        return paragraph(f"bridge layers: {', '.join(map(str, self.bridge_layers)) or 'none'}") + table(columns)

    def _other_activity(self, change: Any) -> None:
        slider = self.controls["threshold"]
        slider.unobserve(self._changed, "value")
        _set_range(slider, self.stats, self.controls["activity"].value)
        slider.observe(self._changed, "value")
        self._changed(change)

    @property
    def threshold(self) -> float:
        """What the slider says; the front end's 0 is one but for float error, and that would count neurons at 0."""
        slider = self.controls["threshold"]
        return 0.0 if abs(slider.value) < slider.step / 2 else slider.value

    def _changed(self, change: Any) -> None:
        self.cats = categorize(self.stats, self.threshold, self.controls["activity"].value)
        self.show(self._figures(), self._note())


def _set_range(slider: FloatSlider, stats: NeuronStatistics, activity: Activity) -> None:
    """Give the slider the range of an activity's values, without the tails, and its first threshold."""
    low, high, step = 0.0, 1.0 - 1.0 / STEPS, 1.0 / STEPS
    if activity not in SHARES:
        values = activities(stats, activity).numpy()
        low, high = (float(value) for value in np.quantile(values, [TAIL, 1 - TAIL]))
        step = (max(high, 0.0) - min(low, 0.0)) / STEPS or 1.0
        # A front end moves the value to the nearest of low, low + step, ... when it shows the slider: 0 must be one of these.
        low, high = (step * math.trunc(limit / step) for limit in (min(low, 0.0), max(high, 0.0)))
    with slider.hold_trait_notifications():  # on the way the value may lie outside the limits
        slider.min, slider.max, slider.step = low, high, step
        slider.readout_format = f".{max(0, math.ceil(1 - math.log10(step)))}f"
        slider.value = 0.5 if activity in SHARES else 0.0
