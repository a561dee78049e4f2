"""Hostile inputs of what steers: CLAS, `steer`, `generate`, the baselines and controls."""

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hostile.case import Case, misused, refused
from hostile.measured_cases import COUNTS, FINITE, IN_RANGE, INF, LAYERS, MODELS, NAN, WHOLE

import clas_lens as cl

STRENGTHS = [NAN, INF, -INF, "2", None, [1.0], 1e38, 1j, True, torch.tensor([1.0, 2.0]), 10**400]
LANGUAGES = [None, 5, "", "German", "EN", [], [None], {}, [5], {"de": 1}]


def _clas(world: SimpleNamespace, **options: Any) -> Any:
    return cl.Clas(**{"categories": world.cats, "layers": [1], **options})


def _steer(world: SimpleNamespace, **options: Any) -> None:
    with cl.steer(**{"model": world.model, "intervention": world.clas, "language": "de", **options}):
        world.model(torch.tensor([[1, 5, 6]]))


def _copied(world: SimpleNamespace) -> bool:
    with cl.steer(world.model, world.clas, language="de", must_fire=False):
        copied = copy.deepcopy(world.model)
    tokens = torch.tensor([[1, 5, 6]])
    return torch.equal(copied(tokens), world.model(tokens))


def _saved(world: SimpleNamespace, alpha: Any) -> bool:
    clas = _clas(world, layers=np.array([2, 3]), alpha=alpha)
    loaded = cl.load_intervention(clas.save_pretrained(world.new() / "clas"))
    return loaded.alpha == -2 and loaded.fingerprint() == _clas(world, layers=(2, 3), alpha=-2.0).fingerprint()


def _generate(world: SimpleNamespace, prompts: Any = ("Hallo",), **options: Any) -> Any:
    return cl.generate(**{"model": world.model, "prompts": prompts, "max_new_tokens": 1, **options})


def _random(world: SimpleNamespace, **options: Any) -> Any:
    magnitude = world.stats.mean.abs().mean(0)
    return cl.RescaleMasks.matched_random(**{"clas": world.clas, "magnitude": magnitude, "seed": 0, **options})


def _selection(world: SimpleNamespace) -> Any:
    return cl.categories.category_selection(world.cats)


def _int_mu(world: SimpleNamespace, **options: Any) -> Any:
    return cl.Overwrite.int_mu(**{"stats": world.stats, "selection": _selection(world), **options})


STEERING = [
    *misused(
        "Clas",
        "categorize(statistics) makes them",
        lambda w, x: _clas(w, categories=x),
        "None, statistics, a dict, a text, a frame, a model, a class",
    ),
    *refused("Clas: layers", IN_RANGE, lambda w, x: _clas(w, layers=x), [*LAYERS, None, [-1], [14.7], [NAN]]),
    *refused("Clas: alpha", "alpha must be", lambda w, x: _clas(w, alpha=x), STRENGTHS),
    *refused("Clas: beta", "beta must be", lambda w, x: _clas(w, beta=x), STRENGTHS),
    *refused("Clas: gamma", "gamma must be", lambda w, x: _clas(w, gamma=x), STRENGTHS),
    *[
        Case(f"Clas: alpha {x!r}", lambda w, x=x: _saved(w, x), None, bool)
        for x in (np.float32(-2), np.float64(-2), torch.tensor(-2.0), np.int64(-2), -2, np.array(-2.0))
    ],
    *refused("Clas: anchor", "anchor", lambda w, x: _clas(w, anchor=x), ["fr"]),
    *refused("Clas: anchor", "language", lambda w, x: _clas(w, anchor=x), ["", "EN"]),
    *refused("Clas: anchor", "needs a text as anchor", lambda w, x: _clas(w, anchor=x), [None, 5, ["en"]]),
    *refused("Clas: positions", "available: all", lambda w, x: _clas(w, positions=x), ["x", None, ["all"]]),
    *refused("Clas: specific", "available: union", lambda w, x: _clas(w, specific=x), ["x", None, ["union"]]),
    *misused(
        "steer: model", "load_model", lambda w, x: _steer(w, model=x), f"{MODELS}, a Hugging Face model, categories"
    ),
    Case(
        "steer: compiled", lambda w: _steer(w, model=torch.compile(w.model)), "a compiled model does not run its hooks"
    ),
    *misused(
        "steer: intervention",
        "an intervention is needed",
        lambda w, x: _steer(w, intervention=x),
        "None, a text, a dict, categories, statistics, a frame, a class",
    ),
    *refused("steer: language", "language", lambda w, x: _steer(w, language=x), LANGUAGES),
    Case("steer: another model", lambda w: _steer(w, model=w.other), "with other weights than"),
    Case(
        "steer: model and intervention swapped", lambda w: _steer(w, model=w.clas, intervention=w.model), "load_model"
    ),
    Case("steer: a copy made inside", _copied, None, bool),
    *refused("scale", "unknown language", lambda w, x: w.clas.scale(x), [5, None, "", "German"]),
    *refused(
        "generate: prompts",
        "prompt",
        _generate,
        ["Hallo", None, 5, [None], [5], [], {"a": 1}, [["a"]], [NAN], b"x", [b"x"]],
    ),
    Case("generate: an empty prompt", lambda w: _generate(w, [""]), "has no tokens"),
    *refused("generate: max_new_tokens", WHOLE, lambda w, x: _generate(w, max_new_tokens=x), COUNTS),
    *refused("generate: batch_size", WHOLE, lambda w, x: _generate(w, batch_size=x), COUNTS),
    *misused("generate: model", "load_model", lambda w, x: _generate(w, model=x), f"{MODELS}, a Hugging Face model"),
    *refused("load: folder", "folder must be a path", lambda w, x: cl.load_intervention(x), [None, 5, "", " "]),
    *refused("save: folder", "folder must be a path", lambda w, x: w.clas.save_pretrained(x), [None, 5, "", " "]),
    Case("load: nowhere", lambda w: cl.load_intervention("/nowhere"), "which save_pretrained writes"),
    Case("load: long", lambda w: cl.load_intervention("x" * 300), "name that is too long"),
]

BASELINES = [
    *misused(
        "random",
        "matched_random needs a Clas",
        lambda w, x: _random(w, clas=x),
        "None, categories, statistics, a class",
    ),
    *misused("random: magnitude", "neuron_magnitude", lambda w, x: _random(w, magnitude=x), "None, statistics, a list"),
    Case("random: NaN", lambda w: _random(w, magnitude=w.stats.mean[0] * NAN), "magnitudes must be finite"),
    *refused("random: seed", WHOLE, lambda w, x: _random(w, seed=x), ["0", None, 1.5, NAN, -1]),
    *refused("random: bins", WHOLE, lambda w, x: _random(w, bins=x), [0, -1, 2.5, "3", None, 10**6]),
    *misused(
        "other categories",
        "needs a Clas",
        lambda w, x: cl.RescaleMasks.other_categories(x),
        "None, statistics, categories",
    ),
    *refused(
        "other categories",
        "no neuron category",
        lambda w, x: cl.RescaleMasks.other_categories(w.clas, x),
        ["x", None, 9],
    ),
    *misused("uniform", "needs a Clas", lambda w, x: cl.RescaleMasks.uniform(x), "None, statistics, categories"),
    *refused(
        "masks",
        "must be a mask",
        lambda w, x: cl.RescaleMasks(x, x, layers=[0]),
        [None, [[True]], torch.ones(5, 48), torch.ones(5, dtype=torch.bool), np.ones((5, 48), dtype=bool)],
    ),
    *misused(
        "magnitude",
        "run collect_statistics first",
        lambda w, x: cl.baselines.neuron_magnitude(w.model, x),
        "categories, None",
    ),
    *misused(
        "magnitude: model", "load_model", lambda w, x: cl.baselines.neuron_magnitude(x, w.stats), "a Hugging Face model"
    ),
    *misused("noise", "needs a Clas", lambda w, x: cl.MatchedNoise.for_model(w.model, x), "None, categories, a class"),
    *refused("noise: seed", WHOLE, lambda w, x: cl.MatchedNoise.for_model(w.model, w.clas, seed=x), ["x", None, 1.5]),
    *misused("int_mu", "run collect_statistics first", lambda w, x: _int_mu(w, stats=x), "None, categories, a frame"),
    *misused(
        "int_mu: selection", "category_selection", lambda w, x: _int_mu(w, selection=x), "None, categories, statistics"
    ),
    *refused("int_mu: statistic", "unknown statistic", lambda w, x: _int_mu(w, statistic=x), ["x", None]),
    *refused(
        "int_mu: percentile",
        "percentile",
        lambda w, x: _int_mu(w, statistic="percentile", percentile=x),
        [NAN, 101, "5", -1],
    ),
    *refused("int_mu: site", "available: gate", lambda w, x: _int_mu(w, site=x), ["x", None]),
    *refused("int_mu: anchor", "anchor 'fr'", lambda w, x: _int_mu(w, anchor=x), ["fr"]),
    *misused(
        "DiffMean",
        "collect_representations gives them",
        lambda w, x: cl.AddVector.diff_mean(x, 2),
        "None, statistics, a frame",
    ),
    *refused(
        "DiffMean: layer",
        "no representations of layer",
        lambda w, x: cl.AddVector.diff_mean(w.before, x),
        [1, "2", 2.5, [2]],
    ),
    *refused("DiffMean: alpha", "alpha must be", lambda w, x: cl.AddVector.diff_mean(w.before, 2, alpha=x), STRENGTHS),
    Case("DiffMean: steered", lambda w: cl.AddVector.diff_mean(w.after, 2), "of the unsteered model"),
    Case("INCLINE: means", lambda w: cl.Incline.fit(w.before, 2), "collect with pool='last'"),
    *refused("INCLINE: ridge", FINITE, lambda w, x: cl.Incline.fit(w.last, 2, ridge=x), [NAN, -1, "1", None, INF]),
    *misused(
        "shuffled",
        "needs a ParallelCorpus",
        lambda w, x: cl.baselines.shuffled_labels(x, seed=0),
        "statistics, None, a dict",
    ),
    *refused(
        "shuffled: seed", WHOLE, lambda w, x: cl.baselines.shuffled_labels(w.corpus, seed=x), ["0", None, 1.5, [1]]
    ),
]

CASES = [*STEERING, *BASELINES]
