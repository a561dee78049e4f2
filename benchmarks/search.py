"""A search over alpha and over beta and gamma, against one independent evaluation a setting."""

from dataclasses import replace
from typing import Any

import clas_lens as cl
from benchmarks.measure import Row, compared, interleaved
from benchmarks.models import Size, clas_of, hf_model, lens_model
from clas_lens import tasks
from clas_lens.search import PAPER_ALPHAS, PAPER_BETAS, PAPER_GAMMAS

LAYERS = tuple(range(24, 30))  # of 32, the paper's for Llama 3.1 8B
LANGUAGES = ("de", "zh")


def run(size: Size, rounds: int) -> list[Row]:
    """The paper's two grids for XNLI on a stack of Llama's depth; scores have to be equal, not close."""
    model = lens_model(hf_model("stack", **{**size.stack, "num_hidden_layers": 32}), "stack")
    clas = clas_of(model, size, LAYERS)
    task = tasks.XNLI("bundled", LANGUAGES, split="validation", label_mass=False)
    alphas = PAPER_ALPHAS["xnli"]
    settings = [replace(clas, alpha=alpha) for alpha in alphas]
    settings += [replace(clas, alpha=1.0, beta=beta, gamma=gamma) for beta in PAPER_BETAS for gamma in PAPER_GAMMAS]
    scores: dict[str, list[float]] = {}

    def searches() -> None:
        options: dict[str, Any] = {"batch_size": size.batch, "progress": False}
        first = cl.search_alpha(model, task, clas, alphas, **options)
        second = cl.search_beta_gamma(model, task, replace(clas, alpha=1.0), **options)
        scores["search"] = [*first.table["score"], *second.table["score"]]

    def independent() -> None:
        scores["alone"] = []
        for setting in settings:
            rows = cl.evaluate(model, task, setting, batch_size=size.batch, progress=False)
            scores["alone"] += list(100.0 * rows.groupby("language", sort=False)["correct"].mean())

    reference = "20 independent evaluations"
    seconds = interleaved({reference: independent, "search_alpha and search_beta_gamma": searches}, rounds)
    assert scores["search"] == scores["alone"], "a search has to be exact"
    amount = len(settings) * len(task) * len(LANGUAGES)
    return compared(seconds, reference, amount=amount, unit="prompts")
