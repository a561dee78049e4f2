"""Hostile inputs of inner functions, one kind a line: what is no model, no rows, no path, no language, no tensor."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hostile.case import Case, misused, refused
from hostile.inner_cases import SEEDS
from hostile.measured_cases import WHOLE, _gains

import analysis
import clas_lens as cl

PATHS = {
    "statistics": lambda w, x: w.stats.save(x),
    "representations": lambda w, x: cl.Representations.load(x),
    "categories": lambda w, x: w.cats.save(x),
    "texts": lambda w, x: cl.ParallelCorpus.from_files(x),
    "figures": lambda w, x: analysis.style.export_figures({}, x),
}


def _onto_a_pipe(world: SimpleNamespace) -> Any:
    """What is no plain file is never put away for one."""
    pipe = world.new() / "pipe"
    os.mkfifo(pipe)
    return world.cats.save(pipe)


REFUSALS = "None, a text, a number, a dict, a list"
CASES = [
    *misused("hooked", "load_model(...) gives one", lambda w, x: cl.models.hooked(x, []).__enter__(), REFUSALS),
    *refused(
        "hooked: hooks", "list of pairs", lambda w, x: cl.models.hooked(w.model, x).__enter__(), [None, 5, "x", [5]]
    ),
    *misused("steerings_on", "load_model", lambda w, x: cl.steering.steerings_on(x), REFUSALS),
    *misused("make_decoder", "load_model", lambda w, x: cl.models.make_decoder(x, 1), REFUSALS),
    *misused(
        "direct_logits: model", "load_model", lambda w, x: cl.models.direct_logits(x, torch.ones(1, 32)), REFUSALS
    ),
    *misused("check", "load_model", lambda w, x: w.clas.check(x), f"{REFUSALS}, a Hugging Face model"),
    *misused("check: a vector", "load_model", lambda w, x: cl.AddVector.diff_mean(w.before, 2).check(x), REFUSALS),
    *misused("why_not_compared", "rows are needed", lambda w, x: cl.significance.why_not_compared(x, "en"), REFUSALS),
    Case("why_not_compared: columns", lambda w: cl.significance.why_not_compared(_gains(), "en"), "no column"),
    *refused("bundled_items", "no language", lambda w, x: cl.corpus.bundled_items(x), [None, 5, ["en"], {}, "xx"]),
    *refused("corpus: a language", "no language", lambda w, x: w.corpus[x], [None, 5, ["en"], {}]),
    *refused("task: a language", "no language", lambda w, x: w.task.examples(x), [None, 5, ["en"], {}]),
    *refused("wording", "unknown language", lambda w, x: cl.tasks.load_wording(x), [None, 5, ["en"], {}]),
    *refused(
        "corpus: take", "row numbers", lambda w, x: w.corpus.take(x), [None, 5, "ab", [0.5], [True, False], ["0"]]
    ),
    *refused("corpus: sample: seed", WHOLE, lambda w, x: w.corpus.sample(2, seed=x), SEEDS),
    *refused("corpus_part: part", "part", lambda w, x: cl.corpus.corpus_part(w.corpus, x), [None, 5, "dev", ["test"]]),
    *refused("windows", "different ones", lambda w, x: cl.evaluation.bridge_windows(x, 5), [None, 5, "x", [9], []]),
    *misused("window_bests", "needs a DataFrame", lambda w, x: cl.evaluation.window_bests(x), REFUSALS),
    *misused(
        "selection of",
        "needs a tensor of truth values",
        lambda w, x: cl.NeuronSelection(x, ("en",), "own"),
        REFUSALS,
    ),
    *misused(
        "categories of",
        "needs a tensor of truth values",
        lambda w, x: cl.NeuronCategories(x, ("en", "de")),
        REFUSALS,
    ),
    *misused("recover", "collect_representations", lambda w, x: cl.baselines.Recover.fit(x), REFUSALS),
    *misused("unit vectors", "collect_representations", lambda w, x: cl.baselines.UnitDiffMean.fit(x), REFUSALS),
    *misused("released incline", "collect_representations", lambda w, x: cl.baselines.ReleasedIncline.fit(x), REFUSALS),
    *misused("run_study", "needs a StudyConfig", lambda w, x: cl.study.run_study(x, w.new(), print), REFUSALS),
    *misused("figures", "RunData.open", lambda w, x: analysis.report.run_figures(x), REFUSALS),
    *misused("tables", "RunData.open", lambda w, x: analysis.report.run_tables(x), REFUSALS),
    *[
        case
        for name in ("statistics", "representations", "categories", "texts", "figures")
        for case in refused(name, "must be a path", lambda w, x, name=name: PATHS[name](w, x), [None, 5, [], ""])
    ],
    Case("save onto a folder", lambda w: w.cats.save(w.new()), "is no file that could be replaced"),
    Case("save onto a pipe", _onto_a_pipe, "is no file that could be replaced"),
    Case("save: 250 letters", lambda w: w.cats.save(w.new() / ("x" * 250)).is_file(), None, bool),
    Case("layers: no dimensions", lambda w: cl.Clas(w.cats, layers=np.array(1)), "must be different ones among 0.."),
    Case("tokenizer: a text", lambda w: cl.load_model(w.hf, tokenizer="x"), "needs a tokenizer"),
]
