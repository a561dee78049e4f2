"""clas_lens: measure, categorise and steer the MLP neurons of multilingual models, on TransformerLens.

Names are loaded on first use (PEP 562), so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clas_lens import tasks
    from clas_lens.categories import NeuronCategories, NeuronCategory, categorize, select_bridge_layers
    from clas_lens.clas import Clas
    from clas_lens.collect import collect_statistics
    from clas_lens.controls import RescaleMasks, neuron_magnitude
    from clas_lens.corpus import ParallelCorpus
    from clas_lens.effects import measure_effects
    from clas_lens.evaluation import evaluate
    from clas_lens.evaluation_card import RowsCard
    from clas_lens.generation import generate
    from clas_lens.hooked import relayout_weights
    from clas_lens.instance import instance_shares
    from clas_lens.interventions import load_intervention
    from clas_lens.leakage import LeakageError
    from clas_lens.loading import ModelLoadError
    from clas_lens.models import load_model
    from clas_lens.noise import MatchedNoise
    from clas_lens.overwrite import Overwrite
    from clas_lens.paired_tests import control_p
    from clas_lens.representations import Representations, collect_representations
    from clas_lens.search import (
        SearchResult,
        alpha_settings,
        beta_gamma_settings,
        search_alpha,
        search_beta_gamma,
        search_grids,
    )
    from clas_lens.selection import NeuronSelection, act_prob, category_selection, lape
    from clas_lens.significance import Comparison, compare, summarize_languages
    from clas_lens.statistics import NeuronAccumulator, NeuronStatistics
    from clas_lens.steering import Intervention, SteeringError, steer
    from clas_lens.text_files import CorpusError
    from clas_lens.tuned import Tuned
    from clas_lens.vectors import AddVector, Incline

__version__ = "0.1.0"

_HOME = {
    "AddVector": "vectors",
    "Clas": "clas",
    "Comparison": "significance",
    "CorpusError": "text_files",
    "Incline": "vectors",
    "Intervention": "steering",
    "LeakageError": "leakage",
    "MatchedNoise": "noise",
    "ModelLoadError": "loading",
    "NeuronAccumulator": "statistics",
    "NeuronCategories": "categories",
    "NeuronCategory": "categories",
    "NeuronSelection": "selection",
    "NeuronStatistics": "statistics",
    "Overwrite": "overwrite",
    "ParallelCorpus": "corpus",
    "Representations": "representations",
    "RescaleMasks": "controls",
    "RowsCard": "evaluation_card",
    "SearchResult": "search",
    "SteeringError": "steering",
    "Tuned": "tuned",
    "act_prob": "selection",
    "categorize": "categories",
    "category_selection": "selection",
    "collect_representations": "representations",
    "collect_statistics": "collect",
    "compare": "significance",
    "control_p": "paired_tests",
    "evaluate": "evaluation",
    "generate": "generation",
    "instance_shares": "instance",
    "lape": "selection",
    "load_intervention": "interventions",
    "load_model": "models",
    "measure_effects": "effects",
    "neuron_magnitude": "controls",
    "relayout_weights": "hooked",
    "alpha_settings": "search",
    "beta_gamma_settings": "search",
    "search_alpha": "search",
    "search_beta_gamma": "search",
    "search_grids": "search",
    "select_bridge_layers": "categories",
    "steer": "steering",
    "summarize_languages": "significance",
}

__all__ = [
    "AddVector",
    "Clas",
    "Comparison",
    "CorpusError",
    "Incline",
    "Intervention",
    "LeakageError",
    "MatchedNoise",
    "ModelLoadError",
    "NeuronAccumulator",
    "NeuronCategories",
    "NeuronCategory",
    "NeuronSelection",
    "NeuronStatistics",
    "Overwrite",
    "ParallelCorpus",
    "Representations",
    "RescaleMasks",
    "RowsCard",
    "SearchResult",
    "SteeringError",
    "Tuned",
    "act_prob",
    "alpha_settings",
    "beta_gamma_settings",
    "categorize",
    "category_selection",
    "collect_representations",
    "collect_statistics",
    "compare",
    "control_p",
    "evaluate",
    "generate",
    "instance_shares",
    "lape",
    "load_intervention",
    "load_model",
    "measure_effects",
    "neuron_magnitude",
    "relayout_weights",
    "search_alpha",
    "search_beta_gamma",
    "search_grids",
    "select_bridge_layers",
    "steer",
    "summarize_languages",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name == "tasks":
        return import_module("clas_lens.tasks")
    if name not in _HOME:
        raise AttributeError(f"module 'clas_lens' has no attribute {name!r}; available: {', '.join(__all__)}")
    value = getattr(import_module(f"clas_lens.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
