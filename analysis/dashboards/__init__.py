"""Dashboards for notebooks: they need the `notebook` extra, and show a static figure where widgets do not run.

Names are loaded on first use, so that the engines are there without ipywidgets.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .bench import BenchView
    from .bench_engine import SteeringBench
    from .bench_result import BenchResult
    from .layer_explorer import LayerExplorer
    from .neuron_browser import NeuronBrowser

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
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; available: {', '.join(__all__)}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name not in ("ipywidgets", "anywidget"):
            raise
        raise ImportError(f"{name} needs {error.name}: pip install 'clas-lens[notebook]'") from error
