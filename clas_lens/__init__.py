"""clas_lens: measure, categorise and steer the MLP neurons of multilingual models, on TransformerLens.

Names are loaded on first use (PEP 562), so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clas_lens.categories import (
        NeuronCategories,
        NeuronCategory,
        categorize,
        select_bridge_layers,
    )
    from clas_lens.clas import Clas
    from clas_lens.collect import collect_statistics
    from clas_lens.corpus import ParallelCorpus
    from clas_lens.effects import measure_effects
    from clas_lens.generation import generate
    from clas_lens.hooked import relayout_weights
    from clas_lens.instance import instance_shares
    from clas_lens.loading import ModelLoadError
    from clas_lens.models import load_model
    from clas_lens.statistics import NeuronAccumulator, NeuronStatistics
    from clas_lens.steering import Intervention, SteeringError, steer
    from clas_lens.text_files import CorpusError

__version__ = "0.1.0"

_HOME = {
    "Clas": "clas",
    "CorpusError": "text_files",
    "Intervention": "steering",
    "ModelLoadError": "loading",
    "NeuronAccumulator": "statistics",
    "NeuronCategories": "categories",
    "NeuronCategory": "categories",
    "NeuronStatistics": "statistics",
    "ParallelCorpus": "corpus",
    "SteeringError": "steering",
    "categorize": "categories",
    "collect_statistics": "collect",
    "generate": "generation",
    "instance_shares": "instance",
    "load_model": "models",
    "measure_effects": "effects",
    "relayout_weights": "hooked",
    "select_bridge_layers": "categories",
    "steer": "steering",
}

__all__ = [
    "Clas",
    "CorpusError",
    "Intervention",
    "ModelLoadError",
    "NeuronAccumulator",
    "NeuronCategories",
    "NeuronCategory",
    "NeuronStatistics",
    "ParallelCorpus",
    "SteeringError",
    "categorize",
    "collect_statistics",
    "generate",
    "instance_shares",
    "load_model",
    "measure_effects",
    "relayout_weights",
    "select_bridge_layers",
    "steer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'clas_lens' has no attribute {name!r}; available: {', '.join(_HOME)}")
    value = getattr(import_module(f"clas_lens.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
