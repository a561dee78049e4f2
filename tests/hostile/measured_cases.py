"""Hostile inputs of what measures and sorts: statistics, categories, selections, representations."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from hostile.case import Case, misused, refused

import clas_lens as cl

NAN, INF = float("nan"), float("inf")
FINITE, WHOLE = "must be a finite number", "must be a whole number"
LAYERS = [[9], "1", [1, 1], [], 1, ["1"], [1.5], [True], {"a": 1}]
IN_RANGE = "must be different ones among 0.."
COUNTS = [0, -1, 2.5, "4", None, True, NAN]
MODELS = "None, a text, a dict, a frame, a corpus"


def _collect(world: SimpleNamespace, **options: Any) -> Any:
    return cl.collect_statistics(**{"model": world.model, "corpus": world.corpus, "progress": False, **options})


def _represent(world: SimpleNamespace, layers: Any = (1,), **options: Any) -> Any:
    return cl.collect_representations(world.model, world.corpus, layers, progress=False, **options)


def _steered(act: Any) -> Any:
    def inside(world: SimpleNamespace) -> Any:
        with cl.steer(world.model, world.clas, language="de", must_fire=False):
            return act(world)

    return inside


def _in_bfloat16(act: Any) -> Any:
    def inside(world: SimpleNamespace) -> Any:
        with torch.autocast("cpu"):
            return act(world)

    return inside


def _gains(**columns: Any) -> pd.DataFrame:
    start = {"language": ["de", "zh", "ar", "fr"], "gain": [1.0, 2, 3, 4], "change": [0.1, 0.2, 0.1, 0.4]}
    return pd.DataFrame({**start, **columns})


def _to_file(world: SimpleNamespace, save: Any) -> Any:
    file = world.new() / "a file"
    file.write_text("x")
    return save(file)


STATISTICS = [
    *misused("collect: model", "load_model(...) gives one", lambda w, x: _collect(w, model=x), MODELS),
    *misused(
        "collect: model", "load_model(model, tokenizer=...)", lambda w, x: _collect(w, model=x), "a Hugging Face model"
    ),
    *misused(
        "collect: corpus",
        "from_texts",
        lambda w, x: _collect(w, corpus=x),
        "None, a text, a number, a frame, statistics",
    ),
    *refused("collect: batch_size", WHOLE, lambda w, x: _collect(w, batch_size=x), COUNTS),
    *refused("collect: max_tokens", WHOLE, lambda w, x: _collect(w, max_tokens=x), COUNTS),
    *refused("collect: pooling", "available: sample", lambda w, x: _collect(w, pooling=x), ["x", None, ["sample"]]),
    *refused("collect: padding_side", "available: left", lambda w, x: _collect(w, padding_side=x), ["x", None]),
    *refused("collect: site", "available: mlp, attn", lambda w, x: _collect(w, site=x), ["residual", "z", None, 5]),
    *refused("collect: out", "out must be a path", lambda w, x: _collect(w, out=x), ["", " ", 5, b"x", "a\0b"]),
    Case("collect: out is a file", lambda w: _to_file(w, lambda f: _collect(w, out=f)), "is a file, not a folder"),
    Case("collect: out below a file", lambda w: _to_file(w, lambda f: _collect(w, out=f / "x")), "lies under a file"),
    Case("collect: out of 300 letters", lambda w: _collect(w, out=w.new() / ("x" * 300)), "name that is too long"),
    Case("collect inside autocast", _in_bfloat16(_collect), "call collect_statistics outside"),
    Case("represent inside autocast", _in_bfloat16(_represent), "call collect_representations outside"),
    Case("collect inside steer", _steered(_collect), "call collect_statistics outside `steer`"),
    *refused("statistics: select", "languages", lambda w, x: w.stats.select(x), ["en", [], None, 5]),
    *refused("statistics: select", "no statistics for 'fr'", lambda w, x: w.stats.select(x), [["fr"]]),
    *refused("corpus: select", "languages", lambda w, x: w.corpus.select(x), ["en", [], None]),
    *refused("corpus: select", "given twice", lambda w, x: w.corpus.select(x), [["en", "en"]]),
    *misused(
        "statistics: merge", "merge needs NeuronStatistics", lambda w, x: w.stats.merge(x), "None, categories, a frame"
    ),
    Case("statistics: merge itself", lambda w: w.stats.merge(w.stats), "is in both shards"),
    Case("statistics: load nowhere", lambda w: cl.NeuronStatistics.load("/nowhere"), "no neuron statistics in"),
    *refused(
        "statistics: load",
        "languages",
        lambda w, x: cl.NeuronStatistics.load(w.run.statistics, x),
        ["en", [], 5, [""]][:3],
    ),
    Case("statistics: load twice", lambda w: cl.NeuronStatistics.load(w.run.statistics, ["en", "en"]), "given twice"),
    Case(
        "statistics: load a path", lambda w: cl.NeuronStatistics.load(w.run.statistics, ["../en"]), "unknown language"
    ),
]

CATEGORIES = [
    *misused(
        "categorize",
        "run collect_statistics first",
        lambda w, x: cl.categorize(x),
        "None, a text, a dict, a frame, categories, a model",
    ),
    Case(
        "categorize a class",
        lambda w: cl.categorize(cl.NeuronStatistics),
        "the class NeuronStatistics, not one of its objects",
    ),
    *refused(
        "threshold",
        FINITE,
        lambda w, x: cl.categorize(w.stats, x),
        [NAN, INF, -INF, "0.1", None, [0.0], True, 1j, 10**400],
    ),
    *[
        Case(f"threshold {x!r}", lambda w, x=x: cl.categorize(w.stats, x).threshold, None, lambda found: found == 0.5)
        for x in (np.float32(0.5), torch.tensor(0.5), np.array(0.5), 0.5)
    ],
    *refused(
        "activity", "available: mean", lambda w, x: cl.categorize(w.stats, 0.0, x), ["max", None, "Mean", ["mean"], 0]
    ),
    *refused("rate threshold", "in [0, 1)", lambda w, x: cl.categorize(w.stats, x, "firing_rate"), [1.0, -0.1, 2]),
    *misused(
        "bridge layers of",
        "run categorize first",
        lambda w, x: cl.select_bridge_layers(x),
        "None, statistics, a dict, a text",
    ),
    *refused("bridge layers", IN_RANGE, lambda w, x: cl.select_bridge_layers(w.cats, layers=x), LAYERS),
    *refused(
        "bridge layers",
        "the last two are never taken",
        lambda w, x: cl.select_bridge_layers(w.cats, layers=x),
        [[4], [1, 3], []],
    ),
    *[
        Case(
            f"bridge layers {x!r}",
            lambda w, x=x: cl.select_bridge_layers(w.cats, layers=x),
            None,
            lambda r: r == (1, 2),
        )
        for x in (np.array([1, 2]), torch.tensor([2, 1]), range(1, 3), (np.int64(1), 2))
    ],
    *refused("mask", "available: dead", lambda w, x: w.cats.mask(x), ["partial", None, 7, "Dead", ["dead"], 2.5, NAN]),
    Case("mask by its label", lambda w: w.cats.mask("partial-shared").equal(w.cats.labels == 2), None, bool),
    *refused(
        "specific_to", "it was not in the statistics", lambda w, x: w.cats.specific_to(x), ["fr", None, 5, ["en"], ""]
    ),
    *refused("overlap: layers", IN_RANGE, lambda w, x: cl.categories.language_overlap(w.cats, x), LAYERS),
    *misused(
        "overlap", "run categorize first", lambda w, x: cl.categories.language_overlap(x), "statistics, None, a frame"
    ),
    *misused("null", "run categorize first", lambda w, x: cl.categories.null_shares(x), "statistics, None, a frame"),
    *refused("null: rates", "available: fair", lambda w, x: cl.categories.null_shares(w.cats, rates=x), ["x", None]),
    *refused(
        "thresholds",
        "threshold",
        lambda w, x: cl.categories.category_moves(w.stats, x),
        [[], [NAN], ["a", "b"], 0.1, [0.1, 0.1], [0.2, 0.1], "0.1", None, [0.1]],
    ),
    *misused(
        "moves",
        "run collect_statistics first",
        lambda w, x: cl.categories.category_moves(x, [0.0, 0.1]),
        "categories, None",
    ),
    *misused("lape", "run collect_statistics first", lambda w, x: cl.lape(x), "categories, None, a frame"),
    *refused("lape: share", "share", lambda w, x: cl.lape(w.stats, share=x), [0, NAN, 2, "0.1", None, -1]),
    *refused(
        "lape: percentile", "percentile", lambda w, x: cl.lape(w.stats, rate_percentile=x), [NAN, 101, -1, "95", None]
    ),
    *misused("selection", "run categorize first", lambda w, x: cl.categories.category_selection(x), "statistics, None"),
    *refused("selection: layers", IN_RANGE, lambda w, x: cl.categories.category_selection(w.cats, x), LAYERS),
    *misused(
        "selectivity",
        "run collect_statistics first",
        lambda w, x: cl.categories.selectivity(x, "en"),
        "categories, None",
    ),
    Case(
        "top neurons, swapped",
        lambda w: cl.categories.top_neurons(w.cats, w.stats, w.corpus, "en"),
        "collect_statistics first",
    ),
    *refused(
        "promoted: k", WHOLE, lambda w, x: cl.categories.promoted_tokens(w.model, 1, 2, x), [0, -1, 2.5, "3", None]
    ),
    *refused(
        "promoted: neuron",
        "available: 0..47",
        lambda w, x: cl.categories.promoted_tokens(w.model, 1, x),
        [-1, 48, "1", 1.5, None, True],
    ),
    *misused(
        "promoted", "load_model", lambda w, x: cl.categories.promoted_tokens(x, 1, 2), "a Hugging Face model, None"
    ),
    *misused("cats: load", "path must be a path", lambda w, x: cl.NeuronCategories.load(x), "None, a number, a dict"),
    Case("cats: load another kind", lambda w: cl.NeuronCategories.load(w.run.manifest), "is damaged"),
]

REPRESENTATIONS = [
    *refused("represent: layers", IN_RANGE, _represent, [*LAYERS, None]),
    *refused("represent: pool", "available: mean", lambda w, x: _represent(w, pool=x), ["x", None]),
    *misused(
        "represent: intervention",
        "an intervention is needed",
        lambda w, x: _represent(w, intervention=x),
        "a text, a dict, categories, a class, a frame",
    ),
    Case("represent inside steer", _steered(_represent), "outside `steer`"),
    *refused("representations: select", "languages", lambda w, x: w.before.select(x), ["en", [], None]),
    *refused("representations: select", "given twice", lambda w, x: w.before.select(x), [["en", "en"]]),
    Case("representations: of", lambda w: w.before.of("fr"), "no representations in 'fr'"),
    *refused("representations: at", "no representations of layer", lambda w, x: w.before.at("en", x), [9, "2", None]),
    *misused(
        "cosine",
        "must be Representations",
        lambda w, x: cl.representations.cosine_frame(x, w.after),
        "None, statistics, a frame",
    ),
    Case(
        "cosine, swapped",
        lambda w: cl.representations.cosine_frame(w.after, w.before),
        "before steering were made with",
    ),
    Case("cosine: anchor", lambda w: cl.representations.cosine_frame(w.before, w.after, "fr"), "no anchor 'fr'"),
    *misused(
        "fit",
        "fit_gain_alignment needs a DataFrame with language, gain, change",
        lambda w, x: cl.representations.fit_gain_alignment(x),
        "None, a list, a dict, a frame, statistics",
    ),
    *refused(
        "fit: gains",
        "nothing to fit",
        lambda w, x: cl.representations.fit_gain_alignment(_gains(gain=x)),
        [[1, NAN, 2, 3], [1, INF, 2, 3], list("abcd"), [1.0] * 4],
    ),
    Case(
        "fit: a language twice",
        lambda w: cl.representations.fit_gain_alignment(_gains(language=["de", "de", "zh", "ar"])),
        "one row each",
    ),
    *refused(
        "tsne: perplexity",
        "perplexity must be",
        lambda w, x: cl.representations.tsne_frame(w.before, w.after, 2, perplexity=x),
        [NAN, 0, -1, "30", None, 1e9, INF],
    ),
    *refused(
        "tsne: seed",
        WHOLE,
        lambda w, x: cl.representations.tsne_frame(w.before, w.after, 2, seed=x),
        ["0", -1, 1.5, None],
    ),
    *refused(
        "tsne: pca", WHOLE, lambda w, x: cl.representations.tsne_frame(w.before, w.after, 2, pca=x), [0, -1, 2.5, "5"]
    ),
    *refused(
        "separation: k",
        "k",
        lambda w, x: cl.representations.separation_frame(w.before, w.after, 2, k=x),
        [0, 2.5, "5", 99],
    ),
    *misused(
        "effects",
        "an intervention is needed",
        lambda w, x: cl.measure_effects(w.model, x, w.corpus, progress=False),
        "None, categories, a class, a frame",
    ),
    Case("effects inside steer", _steered(lambda w: cl.measure_effects(w.model, w.clas, w.corpus)), "outside `steer`"),
    *refused(
        "activations: neuron",
        "available: 0..47",
        lambda w, x: cl.representations.neuron_activations(w.model, w.corpus, 1, x, progress=False),
        [48, -1, "1", 1.5, None, True],
    ),
]

CASES = [*STATISTICS, *CATEGORIES, *REPRESENTATIONS]
