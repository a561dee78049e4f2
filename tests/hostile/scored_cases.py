"""Hostile inputs of what scores: evaluation, searches, label bias, comparisons, tests on plain numbers."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from hostile.case import Case, misused, refused
from hostile.measured_cases import COUNTS, FINITE, INF, MODELS, NAN, WHOLE, _in_bfloat16, _steered, _to_file

import clas_lens as cl


def _evaluate(world: SimpleNamespace, intervention: Any = None, **options: Any) -> Any:
    return cl.evaluate(
        **{"model": world.model, "task": world.task, "intervention": intervention, "progress": False, **options}
    )


def _search(world: SimpleNamespace, alphas: Any = (1.0,), **options: Any) -> Any:
    given = {"model": world.model, "task": world.task, "intervention": world.clas, "alphas": alphas}
    return cl.search_alpha(**{**given, "allow_overlap": True, "progress": False, **options})


def _alphas(world: SimpleNamespace) -> Any:
    return sorted(set(_search(world, np.linspace(-2, 0, 2, dtype=np.float32), out=world.new()).table["alpha"]))


def _xnli(**columns: Any) -> pd.DataFrame:
    shares = {"p_entailment": [0.3] * 3, "p_neutral": [0.3] * 3, "p_contradiction": [0.4] * 3}
    start = {"language": "de", "intervention": "base", "group": list("abc"), "gold": [0, 1, 2], **shares}
    return pd.DataFrame({**start, **columns})


def grown(world: SimpleNamespace, **columns: Any) -> pd.DataFrame:
    """The world's rows three times, as examples of their own."""
    rows = [world.rows.assign(id=world.rows["id"] + str(n), group=world.rows["group"] + str(n)) for n in range(3)]
    return pd.concat(rows, ignore_index=True).assign(**columns)


def _compare(world: SimpleNamespace, **options: Any) -> Any:
    return cl.compare(**{"rows": grown(world), "intervention": "clas", **options})


def _score(world: SimpleNamespace, first: Any) -> pd.DataFrame:
    rows = grown(world)
    return rows.assign(f1=[first, *[0.5] * (len(rows) - 1)])


SIGNIFICANCE = cl.significance
P_TESTS = (SIGNIFICANCE.paired_t_p, SIGNIFICANCE.wilcoxon_p, SIGNIFICANCE.sign_flip_p)
NO_GAINS = [[1.0, NAN, 2.0], ["a"], [], None, [INF, 1.0], "ab", [[1.0, 2.0], [3.0, 4.0]]]
NO_SHARES = [[0.1, NAN], [-1.0, 0.1], [2.0, 0.1], ["a"], []]

EVALUATION = [
    *misused(
        "evaluate: task",
        "evaluate answers a task",
        lambda w, x: _evaluate(w, task=x),
        "None, a text, a dict, a frame, a corpus",
    ),
    Case("evaluate: task a class", lambda w: _evaluate(w, task=cl.tasks.XQuAD), "is a class: make a task of it"),
    *misused(
        "evaluate: intervention",
        "is no intervention",
        _evaluate,
        "a text, a number, a dict, a list, a frame, statistics, categories, a model",
    ),
    Case("evaluate: a class", lambda w: _evaluate(w, cl.Clas), "is a class: make an intervention of it"),
    *refused(
        "evaluate: name",
        "cannot be a file name",
        lambda w, x: _evaluate(w, {x: None}),
        [5, "", "../x", "..", "x" * 300, None],
    ),
    Case("evaluate: no names", lambda w: _evaluate(w, {}), "no interventions given"),
    *refused("evaluate: languages", "languages must be a list", lambda w, x: _evaluate(w, languages=x), ["de", 5]),
    *refused("evaluate: languages", "more than once", lambda w, x: _evaluate(w, languages=x), [["de", "de"]]),
    *refused("evaluate: languages", "available: en, de", lambda w, x: _evaluate(w, languages=x), [["fr"], [], [None]]),
    *refused("evaluate: batch_size", WHOLE, lambda w, x: _evaluate(w, batch_size=x), COUNTS),
    *refused("evaluate: chunk_size", WHOLE, lambda w, x: _evaluate(w, chunk_size=x), COUNTS),
    *misused("evaluate: model", "load_model", lambda w, x: _evaluate(w, model=x), f"{MODELS}, a Hugging Face model"),
    Case("evaluate: another model", lambda w: _evaluate(w, w.clas, model=w.other), "with other weights than"),
    Case("evaluate inside autocast", _in_bfloat16(_evaluate), "call evaluate outside, or load the model in that dtype"),
    Case("evaluate inside steer", _steered(_evaluate), "call evaluate outside `steer`"),
    *refused("evaluate: out", "out must be a path", lambda w, x: _evaluate(w, out=x), ["", 5]),
    Case("evaluate: out is a file", lambda w: _to_file(w, lambda f: _evaluate(w, out=f)), "under a file"),
    *refused("search: alphas", "alphas must be a", _search, ["123", 1.0, {"a": 1}]),
    *refused(
        "search: alphas", "each of alphas must be a finite number", _search, [[NAN], ["1"], [None], [INF], [True]]
    ),
    *refused("search: alphas", "needs different settings", _search, [[], [1, 1]]),
    Case("search: alphas too large", lambda w: _search(w, [1e38]), "or activations overflow"),
    *misused(
        "search",
        "an intervention is needed",
        lambda w, x: _search(w, intervention=x),
        "None, categories, a class, a text",
    ),
    *misused("search: task", "evaluate answers a task", lambda w, x: _search(w, None, task=x), "None, a text"),
    Case("search: alphas of float32", _alphas, None, lambda alphas: alphas == [-2, 0]),
    *refused("grids", "no grids given", lambda w, x: cl.search_grids(w.model, w.task, x), [{}, [1], None]),
    *refused(
        "grids",
        "needs different settings",
        lambda w, x: cl.search_grids(w.model, w.task, {"a": (w.clas, x)}, allow_overlap=True),
        [[{}], [{"delta": 1.0}], []],
    ),
    *misused(
        "label bias", "a label bias", lambda w, x: cl.evaluation.fit_label_bias(x), "None, a text, a frame, statistics"
    ),
    Case(
        "label bias: NaN", lambda w: cl.evaluation.fit_label_bias(_xnli(p_neutral=[NAN] * 3)), "must be probabilities"
    ),
    *refused(
        "label bias: gold",
        "gold must be 0 to 2",
        lambda w, x: cl.evaluation.fit_label_bias(_xnli(gold=x)),
        [[0, 7, 2], [0, -1, 2]],
    ),
    *refused(
        "label bias: ridge", FINITE, lambda w, x: cl.evaluation.fit_label_bias(_xnli(), ridge=x), [NAN, -1.0, "1", None]
    ),
    *misused(
        "label bias: applied",
        "needs a LabelBias",
        lambda w, x: cl.evaluation.with_label_bias(_xnli(), x),
        "None, a dict",
    ),
]

COMPARISONS = [
    Case("compare", _compare, None, lambda found: found.baseline == "base"),
    *misused(
        "compare",
        "evaluate(...) returns them",
        lambda w, x: _compare(w, rows=x),
        "None, a text, a dict, statistics, a number",
    ),
    *misused("RowsCard", "evaluate(...) returns them", lambda w, x: cl.RowsCard(x), "None, a text, a dict, statistics"),
    *refused(
        "compare without",
        "no column",
        lambda w, x: _compare(w, rows=grown(w).drop(columns=x)),
        ["task", "language", "intervention", "id", "group", "f1", "metric"],
    ),
    Case("compare: no rows", lambda w: _compare(w, rows=grown(w).iloc[:0]), "give the rows of one task"),
    *refused(
        "compare with itself", "against itself", lambda w, x: _compare(w, intervention=x, baseline=x), ["clas", "base"]
    ),
    *refused("compare: baseline", "no rows of intervention", lambda w, x: _compare(w, baseline=x), ["x", ""]),
    *misused(
        "compare: intervention",
        "name in the rows",
        lambda w, x: _compare(w, intervention=x),
        "None, a number, a frame, a class",
    ),
    *refused("compare: anchor", "no scores in the anchor", lambda w, x: _compare(w, anchor=x), ["fr", 5, "", ["en"]]),
    *refused("compare: metric", "no column", lambda w, x: _compare(w, metric=x), ["x", ""]),
    *refused("compare: metric", "metric must name a column", lambda w, x: _compare(w, metric=x), [5, ["f1"]]),
    *refused(
        "compare: metric", "must be a share", lambda w, x: _compare(w, metric=x), ["prediction", "n_prompt_tokens"]
    ),
    *refused("compare: margin", FINITE, lambda w, x: _compare(w, margin=x), [0, -1, NAN, "1", None, INF]),
    *refused("compare: confidence", FINITE, lambda w, x: _compare(w, confidence=x), [0, 1, NAN, 95, "0.9", None]),
    *refused("compare: test", "available: McNemar", lambda w, x: _compare(w, test=x), ["x", None]),
    *refused("compare: interval", "available: t", lambda w, x: _compare(w, interval=x), ["x", None]),
    *refused("compare: seed", WHOLE, lambda w, x: _compare(w, seed=x), ["x", -1, 1.5]),
    *refused("compare: n_boot", WHOLE, lambda w, x: _compare(w, n_boot=x), [0, 1, 2.5, "9", None]),
    *refused(
        "compare: a score", "must be a share", lambda w, x: _compare(w, rows=_score(w, x)), [NAN, INF, -0.5, 50.0]
    ),
    Case("compare: scores as text", lambda w: _compare(w, rows=grown(w, f1="a")), "must be a share"),
    Case("compare: no groups", lambda w: _compare(w, rows=grown(w, group=None)), "has no group"),
    Case("compare: one group", lambda w: _compare(w, rows=grown(w, group="a")), "at least 2 groups"),
    Case("compare: rows twice", lambda w: _compare(w, rows=pd.concat([grown(w), grown(w)])), "more than once"),
    Case("compare: a row missing", lambda w: _compare(w, rows=grown(w).iloc[1:]), "not the same examples"),
    *refused(
        "summary",
        FINITE,
        lambda w, x: SIGNIFICANCE.summarize_languages({"en": x, "de": 1.0}, {"en": 1.0, "de": 2.0}),
        [NAN, "1", None, INF],
    ),
    *refused(
        "summary", "needs scores by language", lambda w, x: SIGNIFICANCE.summarize_languages(x, x), [[1, 2], None, "x"]
    ),
    *refused("control: observed", FINITE, lambda w, x: SIGNIFICANCE.control_p(x, [1.0]), [NAN, "1", None]),
    *refused("control: gains", "control", lambda w, x: SIGNIFICANCE.control_p(1.0, x), [[], [NAN], "ab", None, 5]),
    *[
        one
        for test in P_TESTS
        for one in refused(test.__name__, "gains must be finite", lambda w, x, test=test: test(_array(x)), NO_GAINS)
    ],
    *refused("holm", "p values", lambda w, x: SIGNIFICANCE.holm(np.array(x)), NO_SHARES),
    *refused("Benjamini-Hochberg", "p values", lambda w, x: SIGNIFICANCE.benjamini_hochberg(np.array(x)), NO_SHARES),
    *refused(
        "equivalence", FINITE, lambda w, x: SIGNIFICANCE.equivalence_p(np.array([1.0, 2.0]), margin=x), [NAN, 0, "1"]
    ),
    Case("McNemar of numbers", lambda w: SIGNIFICANCE.mcnemar_p(np.ones(2), np.ones(2)), "true or false"),
]


def _array(values: Any) -> Any:
    return np.array(values) if isinstance(values, list) else values


CASES = [*EVALUATION, *COMPARISONS]
