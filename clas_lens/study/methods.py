"""Interventions by name, made from one run's statistics and categories: CLAS, the baselines and the controls."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from clas_lens.baselines.amplify import Amplify, sadi_neurons
from clas_lens.baselines.arithmetic import LanguageArithmetics
from clas_lens.baselines.masks import RescaleMasks, neuron_magnitude, shuffled_labels
from clas_lens.baselines.noise import MatchedNoise
from clas_lens.baselines.overwrite import Overwrite
from clas_lens.baselines.recover import Recover
from clas_lens.baselines.released_incline import ReleasedIncline, released_texts
from clas_lens.baselines.unit_vectors import UnitDiffMean
from clas_lens.baselines.vectors import AddVector, Incline
from clas_lens.categories.categorize import categorize
from clas_lens.categories.selection import NeuronSelection, category_selection, lape
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.models.sites import LensModel
from clas_lens.representations.sentences import Representations
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import Intervention
from clas_lens.study.config import MethodsConfig
from clas_lens.vocabulary import Method, PassLayers, Pool, Pooling, ReadSite


@dataclass(frozen=True)
class Ingredients:
    """What interventions are made from.

    Attributes:
        corpus: gives the parallel texts that were measured.
        represent: reads texts at some layers and a site, pooled as asked; for the methods that live there.
        measure: collects other statistics than `statistics`: of other texts, or pooled in another way.
    """

    model: LensModel
    corpus: Callable[[], ParallelCorpus]
    statistics: NeuronStatistics
    clas: Clas
    represent: Callable[[ParallelCorpus, Sequence[int], Pool, ReadSite], Representations]
    measure: Callable[[ParallelCorpus, Pooling], NeuronStatistics]


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
    every = range(of.model.cfg.n_layers)
    match method:
        case "base":
            return None
        case "clas":
            return clas
        case "int-mu":
            return Overwrite.int_mu(stats, _lape(config, stats), anchor=clas.anchor, missing="untouched")
        case "int-mu-clas":
            own = category_selection(clas.categories, clas.layers)
            return Overwrite.int_mu(stats, own, site="post", anchor=clas.anchor, missing="untouched")
        case "diff-mean":
            return AddVector.diff_mean(
                of.represent(of.corpus(), [layer], "mean", "residual"), layer, anchor=clas.anchor
            )
        case "diff-mean-unit":
            return UnitDiffMean.fit(of.represent(of.corpus(), every[:-1], "mean", "residual"), anchor=clas.anchor)
        case "incline":
            return Incline.fit(of.represent(of.corpus(), [layer], "last", "residual"), layer, anchor=clas.anchor)
        case "incline-released":
            texts = released_texts(of.corpus(), clas.anchor)
            return ReleasedIncline.fit(of.represent(texts, every, "mean", "mlp_out"), anchor=clas.anchor)
        case "language-arithmetics":
            return LanguageArithmetics.of(stats, _lape(config, stats), anchor=clas.anchor)
        case "amplify":
            return Amplify(_lape(config, stats), anchor=clas.anchor, missing="untouched")
        case "sadi":
            chosen = sadi_neurons(of.measure(of.corpus(), "last"), anchor=clas.anchor)
            return Amplify(chosen, anchor=clas.anchor, missing="untouched", positions="prompt_last")
        case "recover":
            return Recover.fit(of.represent(of.corpus(), every, "mean", "residual"), anchor=clas.anchor)
        case "random":
            return RescaleMasks.matched_random(clas, neuron_magnitude(of.model, stats), seed=seed)
        case "other-categories":
            return RescaleMasks.other_categories(clas)
        case "uniform":
            return RescaleMasks.uniform(clas)
        case "noise":
            return MatchedNoise.for_model(of.model, clas, seed=seed)
        case "shuffled":
            cats, dealt = clas.categories, of.measure(shuffled_labels(of.corpus(), seed=seed), stats.pooling)
            null = categorize(dealt, cats.threshold, cats.activity, quantile=cats.quantile)
            return replace(clas, categories=null)
        case _:
            assert_never(method)


def pass_layers(method: Method) -> PassLayers:
    """The layers that a method's own pass takes; those below are shared with the unsteered one."""
    match method:
        case "base":
            return "none"
        case "clas" | "int-mu-clas" | "diff-mean" | "incline":
            return "bridge"
        case "random" | "other-categories" | "uniform" | "noise" | "shuffled":
            return "bridge"
        case "int-mu" | "language-arithmetics" | "amplify" | "sadi" | "recover" | "incline-released":
            return "all"
        case "diff-mean-unit":
            return "searched"
        case _:
            assert_never(method)


def _lape(config: MethodsConfig, stats: NeuronStatistics) -> NeuronSelection:
    return lape(stats, rate_percentile=config.lape_percentile, share=config.lape_share)
