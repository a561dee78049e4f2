"""Interventions by name, made from one run's statistics and categories: CLAS, the baselines and the controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never

from clas_lens.baselines.masks import RescaleMasks, neuron_magnitude
from clas_lens.baselines.noise import MatchedNoise
from clas_lens.baselines.overwrite import Overwrite
from clas_lens.baselines.vectors import AddVector, Incline
from clas_lens.categories.selection import category_selection, lape
from clas_lens.models.sites import LensModel
from clas_lens.representations.sentences import Representations
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import Intervention
from clas_lens.study.config import MethodsConfig
from clas_lens.vocabulary import Method, Pool


@dataclass(frozen=True)
class Ingredients:
    """What interventions are made from.

    Attributes:
        represent: reads the parallel corpus at some layers, pooled as asked; only two methods need that.
    """

    model: LensModel
    statistics: NeuronStatistics
    clas: Clas
    represent: Callable[[Sequence[int], Pool], Representations]


def build_methods(config: MethodsConfig, of: Ingredients) -> dict[str, Intervention | None]:
    """The configured interventions by name.

    Languages without own neurons (Int_mu) are left untouched, which the intervention's settings say. Each has the strength
    that its definition gives it: 1, and for the rescalings CLAS's alpha.
    """
    return {name: build_method(method, config, of, seed=seed) for name, method, seed in config.named()}


def build_method(method: Method, config: MethodsConfig, of: Ingredients, *, seed: int) -> Intervention | None:
    """One intervention; None is the unsteered model."""
    stats, clas = of.statistics, of.clas
    layer = clas.layers[0] if config.vector_layer is None else config.vector_layer
    match method:
        case "base":
            return None
        case "clas":
            return clas
        case "int-mu":
            selection = lape(stats, rate_percentile=config.lape_percentile, share=config.lape_share)
            return Overwrite.int_mu(stats, selection, anchor=clas.anchor, missing="untouched")
        case "int-mu-clas":
            own = category_selection(clas.categories, clas.layers)
            return Overwrite.int_mu(stats, own, site="post", anchor=clas.anchor, missing="untouched")
        case "diff-mean":
            return AddVector.diff_mean(of.represent([layer], "mean"), layer, anchor=clas.anchor)
        case "incline":
            return Incline.fit(of.represent([layer], "last"), layer, anchor=clas.anchor)
        case "random":
            return RescaleMasks.matched_random(clas, neuron_magnitude(of.model, stats), seed=seed)
        case "other-categories":
            return RescaleMasks.other_categories(clas)
        case "uniform":
            return RescaleMasks.uniform(clas)
        case "noise":
            return MatchedNoise.for_model(of.model, clas, seed=seed)
        case _:
            assert_never(method)
