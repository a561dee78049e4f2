"""Hostile inputs by kind: flags that are words, lists that have no order, tensors of another kind, constructors' fields."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from hostile.case import Case, refused
from hostile.measured_cases import WHOLE, _gains
from hostile.scored_cases import _evaluate, _search, grown
from hostile.steered_cases import _generate, _int_mu, _selection, _steer

import analysis
import clas_lens as cl
from clas_lens.export.parity import probe_tokens
from clas_lens.study.run import Run

NAN = float("nan")
FLAGS = ["no", "False", "", 0, 1, None, [], torch.tensor(True), pd.DataFrame({"a": [1]})]
TENSORS = [
    torch.tensor(1),
    torch.ones(4, 5, 48, dtype=torch.long),
    torch.ones(4, 5, 48),
    torch.ones(4, 5, 48, dtype=torch.complex64),
    torch.ones(4, 5, 48, dtype=torch.bool, device="meta"),
    [[[True]]],
]
NO_ORDER = [{"Tee"}, frozenset(["Tee"]), pd.DataFrame({"Tee": ["a"]}), {"Tee": 1}, b"Tee", np.array("Tee")]
PARTS = [NAN, torch.tensor(1.0), torch.tensor([1.0, NAN]), pd.DataFrame({"de": [1]}), pd.Series(["de"]), b"de"]


def _vector(world: SimpleNamespace, **fields: Any) -> Any:
    start = {"values": torch.ones(1, 32), "languages": ("de",), "layer": 1}
    return cl.AddVector(**{**start, **fields})


def _corpus(**fields: Any) -> Any:
    return cl.ParallelCorpus(**{"texts": {"en": ("a", "b"), "de": ("c", "d")}, "ids": ("0", "1"), **fields})


def _grid(world: SimpleNamespace, settings: Any) -> Any:
    grids = {"a": (world.clas, settings)}
    return cl.search_grids(world.model, world.task, grids, allow_overlap=True, progress=False)["a"]


def _two_axes(world: SimpleNamespace, mask: Any) -> Any:
    return cl.NeuronSelection(mask, ("en", "de", "zh", "ar"), "own")


def _selected(world: SimpleNamespace, **fields: Any) -> Any:
    return cl.NeuronSelection(
        **{"masks": world.cats.active, "languages": world.cats.languages, "method": "own", **fields}
    )


def _noise(world: SimpleNamespace, seed: Any) -> Any:
    return cl.MatchedNoise(world.clas, torch.ones(2, 48), 1.0, seed)


def _masks(world: SimpleNamespace, **fields: Any) -> Any:
    boost, cut = world.clas.every_mask
    return cl.RescaleMasks(boost, cut, [1], **fields)


def _rule(**settings: Any) -> Any:
    return cl.rule(layers=[1], **settings)(lambda h, language: h)


def _scaled(world: SimpleNamespace, mask: Any) -> Any:
    return cl.steering.clas_scale(torch.ones(3, dtype=torch.bool), mask, alpha=1, beta=1, gamma=1)


def _sorted(world: SimpleNamespace, n_languages: Any) -> Any:
    return cl.categories.categories_of(torch.tensor([0, 1, 3]), n_languages)


def _mapped(world: SimpleNamespace, init: Any) -> Any:
    return cl.representations.tsne_frame(world.before, world.after, 2, init=init, perplexity=2)


def _neuron_drawn(world: SimpleNamespace, neuron: Any) -> Any:
    frame = pd.DataFrame({"language": ["de"], "when": ["before"], "value": [0.1]})
    return analysis.neuron_distribution(frame, 1, neuron)


def _compared(world: SimpleNamespace, metric: Any) -> Any:
    return cl.compare(grown(world), "clas", metric=metric)


def _anchored(world: SimpleNamespace, gains: Any) -> Any:
    return cl.representations.anchor_frame(world.cats, world.before, [2, 3], gains)


def _seeded(seed: Any) -> Any:
    return cl.tasks.XNLI("bundled", ("de",), limit=2, seed=seed)


def _pushed(world: SimpleNamespace, private: Any) -> Any:
    return cl.export.push_to_hub(world.clas, "me/x", private=private, api=SimpleNamespace())


FLAGGED = [
    case
    for name, act in {
        "evaluate: allow_overlap": lambda w, x: _evaluate(w, w.clas, allow_overlap=x),
        "search: allow_overlap": lambda w, x: _search(w, allow_overlap=x),
        "steer: must_fire": lambda w, x: _steer(w, must_fire=x),
        "generate: stop_at_newline": lambda w, x: _generate(w, stop_at_newline=x),
        "xquad: stop_at_newline": lambda w, x: cl.tasks.XQuAD("bundled", ("de",), limit=1, stop_at_newline=x),
        "xnli: label_mass": lambda w, x: cl.tasks.XNLI("bundled", ("de",), limit=1, label_mass=x),
        "load_model: check": lambda w, x: cl.load_model(w.folder, check=x),
        "int_mu: as_released": lambda w, x: _int_mu(w, as_released=x),
        "cosine: centred": lambda w, x: cl.representations.cosine_frame(w.before, w.after, centred=x),
        "cosine: centroid": lambda w, x: cl.representations.cosine_frame(w.before, w.after, centroid=x),
        "push: private": _pushed,
        "figure: dark": lambda w, x: analysis.layer_distribution(w.cats, dark=x),
    }.items()
    for case in refused(name, "must be True or False", act, FLAGS)
]

ORDERED = [
    *refused("generate: in no order", "prompts must be a list", _generate, NO_ORDER),
    Case("generate: a corpus", lambda w: _generate(w, w.corpus), "prompts must be a list"),
    *refused(
        "generate: truth values", "neither a text nor a list of token ids", _generate, [[[True]], [np.array([True])]]
    ),
    *refused(
        "tokenize: in no order", "must be a list", lambda w, x: cl.corpus.tokenize(w.model.tokenizer, x), NO_ORDER
    ),
    *refused("texts: in no order", "must be a list", lambda w, x: cl.ParallelCorpus.from_texts({"en": x}), NO_ORDER),
    *refused(
        "ids: in no order", "must be a list", lambda w, x: cl.ParallelCorpus.from_texts({"en": ["a"]}, ids=x), NO_ORDER
    ),
    *refused(
        "steer: in no order", "a list of languages", lambda w, x: _steer(w, language=x), [{"de"}, b"de", np.array("de")]
    ),
    *refused(
        "alphas: in no order", "must be a list", _search, [{1.0, 2.0}, b"12", pd.DataFrame({1: [1]}), torch.tensor(1.0)]
    ),
    *refused("settings", "settings must be a list", lambda w, x: _grid(w, x), ["alpha", [1.0], {"alpha": 1.0}, None]),
    *refused(
        "settings: a number", "must be a finite number", lambda w, x: _grid(w, [{"alpha": x}]), ["1", NAN, None, True]
    ),
    *refused(
        "layers: bytes", "must be different ones", lambda w, x: cl.Clas(w.cats, layers=x), [b"\1", torch.tensor(1)]
    ),
    *refused(
        "thresholds", "thresholds must be", lambda w, x: cl.categories.threshold_shares(w.stats, x), [b"12", {1, 2}]
    ),
    *refused("controls", "control", lambda w, x: cl.control_p(1.0, x), [b"12", {1.0, 2.0}, {1.0: 2}, np.array(1.0)]),
    *refused(
        "languages of no dimension", "languages", lambda w, x: w.corpus.select(x), [np.array("en"), torch.tensor(1)]
    ),
    *refused("probes", "list of texts", lambda w, x: probe_tokens(w.model.tokenizer, "de", x), ["Tee", {"Tee"}, [5]]),
    *refused("formats", "formats must be", lambda w, x: analysis.style.export_figures({}, w.new(), x), [[], {"html"}]),
    Case(
        "statistics: languages gone through once",
        lambda w: w.stats.select(iter(["de", "en"])).languages,
        None,
        lambda found: found == ("de", "en"),
    ),
    Case(
        "settings gone through once",
        lambda w: _grid(w, iter([{"alpha": 1}])).chosen,
        None,
        lambda found: found == {"alpha": 1},
    ),
]

FIELDS = [
    *refused(
        "selection: masks", "a tensor of truth values", lambda w, x: cl.NeuronSelection(x, ("en",), "own"), TENSORS
    ),
    *refused("categories: active", "a tensor of truth values", lambda w, x: cl.NeuronCategories(x, ("en",)), TENSORS),
    Case(
        "categories: a language twice",
        lambda w: cl.NeuronCategories(w.cats.active, ("en", "en", "zh", "ar")),
        "different languages",
    ),
    *refused("masks: two axes", "[layer neuron] mask", _two_axes, [torch.ones(4, dtype=torch.bool)]),
    *refused(
        "selection: method", "needs a text as method", lambda w, x: _selected(w, method=x), [None, 5, ["own"], b"own"]
    ),
    *refused("vector: layer", WHOLE, lambda w, x: _vector(w, layer=x), [None, True, "1", 1.5, -1, torch.ones(2)]),
    *refused("vector: values", "for values", lambda w, x: _vector(w, values=x), [torch.tensor(1.0), torch.ones(2, 3)]),
    *refused("vector: model", "needs a mapping as model", lambda w, x: _vector(w, model=x), [None, "x", ["a"]]),
    *refused(
        "vector: languages", "needs a list of texts", lambda w, x: _vector(w, languages=x), ["de", [1], {"de"}, None]
    ),
    *refused(
        "tuned_on",
        "tuned_on needs keys",
        lambda w, x: _vector(w, tuned_on=x),
        [b"x", "x", {1}, [None], torch.tensor(1)],
    ),
    Case(
        "vector: a layer of NumPy",
        lambda w: _vector(w, layer=np.int64(1)).layer,
        None,
        lambda found: type(found) is int,
    ),
    *refused("noise: seed", "needs a whole number as seed", _noise, [None, "1", 1.5, True]),
    *refused(
        "adaptive: centroids", "as centroids", lambda w, x: cl.Adaptive(w.clas, centroids=x), ["x", 1, *TENSORS[1:2]]
    ),
    *refused("control: name", "needs a text as name", lambda w, x: _masks(w, name=x), [None, 5, ["a"]]),
    *refused("representations: pool", "unknown pool", lambda w, x: replace(w.before, pool=x), ["max", None, 5]),
    *refused("representations: site", "unknown site", lambda w, x: replace(w.before, site=x), ["gate", None]),
    *refused("corpus: ids", "a corpus needs ids", lambda w, x: _corpus(ids=x), ["01", {"0"}, None]),
    *refused("corpus: ids in it", "the id on line 1", lambda w, x: _corpus(ids=x), [(0, 1), (None, "1"), ("", "1")]),
    *refused("corpus: groups", "a list as groups", lambda w, x: _corpus(groups=x), ["gh", {"g"}, 5]),
    *refused("corpus: dropped", WHOLE, lambda w, x: _corpus(dropped=x), [None, -1, "2", NAN]),
    *refused(
        "jsonl: a field", "must be a text", lambda w, x: cl.ParallelCorpus.from_jsonl(w.new(), text_field=x), [None, 5]
    ),
    *refused(
        "jsonl: ids", "must be a text", lambda w, x: cl.ParallelCorpus.from_jsonl(w.new(), id_field=x), [0, [], 5]
    ),
    *refused("rule: source", "needs a mapping as source", lambda w, x: _rule(source=x), [["en"], "", 0, 5]),
    *refused(
        "Run: model", "load_model", lambda w, x: Run(w.new(), Run.open(w.run.root).config, model=x), ["x", 5, [1]]
    ),
    *refused(
        "Run: corpus",
        "ParallelCorpus is needed",
        lambda w, x: Run(w.new(), Run.open(w.run.root).config, corpus=x),
        ["x", 5],
    ),
    *refused("table", "needs a tensor", lambda w, x: cl.steering.LanguageTable(x, [0]), [None, "x", [1.0]]),
    *refused("table: places", WHOLE, lambda w, x: cl.steering.LanguageTable(torch.ones(1, 3), [x]), [1, -1, "0", None]),
    *refused(
        "table of",
        "unknown language",
        lambda w, x: cl.steering.LanguageTable.of({"de": torch.ones(3)}, [x]),
        ["fr", 5, None],
    ),
    *refused("Rescale", "needs a LanguageTable", lambda w, x: cl.steering.Rescale(x), [None, "x", torch.ones(3)]),
    *refused(
        "Steering",
        "intervention",
        lambda w, x: cl.steering.Steering(w.model, x, ["de"], per_row=False),
        [None, "x", cl.Clas],
    ),
    *refused(
        "Steering: languages",
        "languages",
        lambda w, x: cl.steering.Steering(w.model, w.clas, x, per_row=False),
        [[], None, {"de"}, "de"],
    ),
]

PLACES = [
    *refused(
        "scale: a mask",
        "boolean masks",
        _scaled,
        [torch.ones(3), torch.full((3,), NAN), torch.ones(4, dtype=torch.bool)],
    ),
    *refused("masks of a language", "unknown language", lambda w, x: w.clas.masks(x), [None, 5, ["de"], ""]),
    *refused("category", "no neuron category", lambda w, x: w.cats.mask(x), [NAN, *PARTS[2:]]),
    *refused("specific to", "it was not in the statistics", lambda w, x: w.cats.specific_to(x), PARTS),
    *refused("neurons of", "it was not in the statistics", lambda w, x: _selection(w).of(x), PARTS),
    *refused("representations of", "no representations in", lambda w, x: w.before.of(x), PARTS),
    *refused("representations at", "no representations of layer", lambda w, x: w.before.at("en", x), PARTS[2:]),
    *refused("cosine: anchor", "no anchor", lambda w, x: cl.representations.cosine_frame(w.before, w.after, x), PARTS),
    *refused(
        "fit: anchor",
        "language",
        lambda w, x: cl.representations.fit_gain_alignment(_gains(), anchor=x),
        ["EN", None, 5],
    ),
    Case("a model of 300 letters", lambda w: cl.load_model("x" * 300), "name that is too long"),
    Case("task: a seed of NumPy", lambda w: len(_seeded(np.int64(3))), None, lambda found: found == 2),
    *refused("a surrogate in a path", "surrogate", lambda w, x: w.cats.save(x), ["\ud800"]),
    *refused(
        "counts of languages",
        "whole counts",
        lambda w, x: cl.categories.categories_of(x, 4),
        [torch.ones(3), TENSORS[3]],
    ),
    *refused("how many languages", WHOLE, _sorted, [None, "4", 1, 2, 2.5]),
    *refused(
        "rates", "finite rates", lambda w, x: cl.categories.language_entropy(x), [torch.tensor([NAN]), -torch.ones(2)]
    ),
    *refused(
        "counts", "counts must be", lambda w, x: cl.statistics.quantile(x, 0.5), [torch.ones(3), TENSORS[1], TENSORS[4]]
    ),
    *refused(
        "magnitudes", "finite magnitudes", lambda w, x: cl.baselines.magnitude_bins(x), [torch.tensor([1.0, NAN])]
    ),
    *refused("prefix", WHOLE, lambda w, x: cl.corpus.pad([(1, 2)], [0], n_prefix=x), [-1, True, None, "1", 0.5]),
    *refused(
        "a passage", "is a text", lambda w, x: cl.tasks.xquad_prompt("de", context=x, question="a"), [None, 5, ["a"]]
    ),
    *refused("map: start", "unknown init", _mapped, ["x", None, 5]),
    *refused(
        "on_bad", "unknown on_bad", lambda w, x: cl.tasks.XNLI("bundled", ("de",), on_bad=x), ["skip", None, True]
    ),
    *refused("style", "unknown style", lambda w, x: cl.tasks.XNLI("bundled", ("de",), style=x), ["", 0, []]),
    *refused(
        "figure: title",
        "title must be a text",
        lambda w, x: analysis.layer_distribution(w.cats, title=x),
        [3, ["a"], b"a"],
    ),
    *refused("compare: the metric", "metric must name a column", _compared, PARTS),
    *refused("load_model: a backend", "unknown backend", lambda w, x: cl.load_model(w.folder, backend=x), PARTS),
    *refused("anchors: gains", "comparisons by anchor", _anchored, [*PARTS, {"de": None}, {"de": 1.0}, []]),
    *refused(
        "comparisons: a reason",
        "reason must be a text",
        lambda w, x: cl.significance.save_comparisons(w.new() / "a", [], reason=x),
        [*PARTS, 5, ["a"]],
    ),
    *refused("figure: site", "unknown site", lambda w, x: analysis.layer_distribution(w.cats, site=x), ["", "gate", 0]),
    *refused("figure: a neuron", WHOLE, _neuron_drawn, [None, "1", -1, NAN]),
    *refused("figure: anchor", "language", lambda w, x: analysis.gain_heatmap(_gains(), anchor=x), ["EN", "", None, 5]),
]

CASES = [*FLAGGED, *ORDERED, *FIELDS, *PLACES]
