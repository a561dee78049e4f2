"""Dashboards for notebooks: they need the `notebook` extra, and show a static figure where widgets do not run.

Names are loaded on first use, so that the engines are there without ipywidgets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.dashboards.bench import BenchView
    from analysis.dashboards.bench_engine import SteeringBench
    from analysis.dashboards.bench_result import BenchResult
    from analysis.dashboards.layer_explorer import LayerExplorer
    from analysis.dashboards.neuron_browser import NeuronBrowser

_HOME = {
    "BenchResult": "bench_result",
    "BenchView": "bench",
    "LayerExplorer": "layer_explorer",
    "NeuronBrowser": "neuron_browser",
    "SteeringBench": "bench_engine",
}

__all__ = ["BenchResult", "BenchView", "LayerExplorer", "NeuronBrowser", "SteeringBench"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'analysis.dashboards' has no attribute {name!r}; available: {', '.join(__all__)}")
    try:
        return getattr(import_module(f"analysis.dashboards.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("ipywidgets", "anywidget"):
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'clas-lens[notebook]'") from error
