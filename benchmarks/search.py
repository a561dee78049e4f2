"""A search over alpha and over beta and gamma, against one independent evaluation a setting."""

from dataclasses import replace
from typing import Any

import pandas as pd

import clas_lens as cl
from benchmarks.measure import Row, compared, interleaved
from benchmarks.models import Size, clas_of, hf_model, lens_model
from clas_lens import tasks

LANGUAGES = ("de", "zh")
Scores = dict[tuple[float, float, float, str], float]


def run(size: Size, rounds: int) -> list[Row]:
    """The paper's two grids for XNLI on a stack of Llama's depth (in size tiny of its own), in the paper's layers; scores have
    to be equal, not close.
    """
    depth = size.stack.get("num_hidden_layers", 32)
    model = lens_model(hf_model("stack", **{**size.stack, "num_hidden_layers": depth}), "stack")
    clas = clas_of(model, size, tuple(range(max(1, depth - 8), depth - 2)))  # 24 to 29 of 32
    prompts = min(size.questions, 12)  # the bundled validation split has no more
    task = tasks.XNLI("bundled", LANGUAGES, split="validation", limit=prompts, label_mass=False)
    at_one = replace(clas, alpha=1.0)
    grids = {
        "alpha": (clas, cl.evaluation.alpha_settings(task)),
        "pairs": (at_one, cl.evaluation.beta_gamma_settings()),
    }
    settings = [replace(of, **dict[str, Any](strengths)) for of, grid in grids.values() for strengths in grid]
    options: dict[str, Any] = {"batch_size": size.batch, "progress": False}
    scores: dict[str, Scores] = {}

    def one_by_one() -> None:
        first = cl.search_alpha(model, task, clas, **options)
        second = cl.evaluation.search_beta_gamma(model, task, at_one, **options)
        scores["one by one"] = _scores(first, second)

    def together() -> None:
        scores["together"] = _scores(*cl.search_grids(model, task, grids, **options).values())

    def independent() -> None:
        scores["alone"] = {}
        for one in settings:
            rows = cl.evaluate(model, task, one, **options)
            for language, right in rows.groupby("language")["correct"]:
                scores["alone"][one.alpha, one.beta, one.gamma, str(language)] = 100.0 * right.mean()

    reference = "20 independent evaluations"
    contenders = {
        reference: independent,
        "search_alpha, then search_beta_gamma": one_by_one,
        "search_grids, both in one run": together,
    }
    seconds = interleaved(contenders, rounds)
    assert scores["one by one"] == scores["together"] == scores["alone"], "a search has to be exact"
    amount = len(settings) * len(task) * len(LANGUAGES)
    return compared(seconds, reference, amount=amount, unit="prompts")


def _scores(*searches: cl.SearchResult) -> Scores:
    """What each setting scored in each language."""
    tables = pd.concat([found.table for found in searches])
    keys = zip(tables["alpha"], tables["beta"], tables["gamma"], tables["language"], strict=True)
    return dict(zip(keys, tables["score"], strict=True))
