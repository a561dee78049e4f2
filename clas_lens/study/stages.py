"""The stages of one task: its search, its answers, and their comparison, each written into the run folder."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from clas_lens.artifacts import save_table
from clas_lens.cluster.work import Runner
from clas_lens.evaluation.plan import Interventions
from clas_lens.evaluation.rows import evaluate
from clas_lens.evaluation.search import (
    SearchResult,
    Setting,
    alpha_settings,
    beta_gamma_settings,
    search_grids,
    sweep_settings,
)
from clas_lens.evaluation.store import KIND as ROWS
from clas_lens.evaluation.store import RowStore
from clas_lens.evaluation.windows import KIND as WINDOWS
from clas_lens.evaluation.windows import window_grids, window_table
from clas_lens.models.sites import LensModel
from clas_lens.provenance import each_once
from clas_lens.significance.compare import Comparison
from clas_lens.significance.comparisons import compare_all, save_comparisons, why_not_compared
from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import Intervention
from clas_lens.study.config import EvaluateConfig, SearchConfig, TaskConfig
from clas_lens.study.configured import task_for
from clas_lens.study.folder import RunFolder

Grids = Mapping[str, tuple[Intervention, Sequence[Setting]]]

GRID = "beta_gamma"  # the file of the grid over beta and gamma


GRID_ALPHA = 1.0  # the paper's, in Figure 6


@dataclass(frozen=True)
class Answering:
    """Who answers, how, and in which run folder the answers are kept."""

    folder: RunFolder
    model: LensModel
    config: EvaluateConfig
    progress: bool = True
    cluster: Runner | None = None

    def options(self, source: TaskConfig) -> dict[str, Any]:
        """What `evaluate` and `search_grids` take beside the task and the interventions."""
        return {
            "batch_size": self.config.batch_size,
            "chunk_size": self.config.chunk_size,
            "allow_overlap": source.allow_overlap,
            "progress": self.progress,
            "cluster": self.cluster,
        }


def search_stage(
    by: Answering, source: TaskConfig, config: SearchConfig, methods: Interventions, clas: Clas
) -> dict[str, SearchResult]:
    """Strengths for these methods on a task's tuning examples: `search/<task>/<method>.parquet`, and a table of the windows.

    Raises:
        ValueError: neither a method with a strength nor a grid.
    """
    task = task_for(source, "tuning")
    alphas = alpha_settings(task, config.alphas)
    windows = window_grids(clas, by.model.cfg.n_layers, alphas) if config.windows else {}
    grids = {**searched_grids(alphas, config, methods, clas), **windows}
    if not grids:
        fixed = ", ".join(config.fixed) or "none"
        raise ValueError(
            f"{task.name}: nothing to search: no method has a strength that is not fixed (fixed: {fixed}); name one that has"
        )
    results = search_grids(by.model, task, grids, **by.options(source), out=by.folder.search / "rows")
    if windows:
        table = window_table({name: results.pop(name) for name in windows}, clas.layers)
        save_table(by.folder.windows(task.name), WINDOWS, table, {})
    for name, found in results.items():
        path = by.folder.searched(task.name, name)
        if found.passes or not path.is_file():  # what was read from files alone cost what its file says
            found.save(path)
    chosen = {name: dict(result.chosen) for name, result in results.items() if name != GRID}
    facts = {"chosen": chosen, "examples": sorted(task.example_keys()), "task": task.settings(by.model)}
    by.folder.update_manifest(f"search {task.name}", config, **facts)
    return results


def searched_grids(alphas: Sequence[Setting], config: SearchConfig, methods: Interventions, clas: Clas) -> Grids:
    """The same alphas for each method; and CLAS at alpha 1 under each pair of betas and gammas (Figure 6)."""
    grids = {name: (method, sweep_settings(method, alphas)) for name, method in methods.items() if method is not None}
    if config.betas:
        grids[GRID] = replace(clas, alpha=GRID_ALPHA), beta_gamma_settings(config.betas, config.gammas)
    return grids


def kept_searches(folder: RunFolder, task: str, methods: Interventions) -> dict[str, SearchResult]:
    """What earlier searches over these methods found on a task."""
    paths = {name: folder.searched(task, name) for name in methods}
    return {
        name: SearchResult.load(paths[name], method)
        for name, method in methods.items()
        if method is not None and paths[name].is_file()
    }


def evaluate_stage(by: Answering, source: TaskConfig, methods: Interventions, anchor: str) -> pd.DataFrame:
    """Each method's answers to the examples that are reported on, and their comparison; the methods are kept in `methods/`."""
    task, folder = task_for(source, "test"), by.folder
    shutil.rmtree(folder.methods / task.name, ignore_errors=True)  # what lies there belongs to the rows
    for name, method in methods.items():
        if method is not None:
            method.save_pretrained(folder.methods / task.name / name)
    rows = evaluate(by.model, task, methods, out=folder.rows, **by.options(source))
    settings = task.settings(by.model)
    store = RowStore(folder.rows / task.name)
    made = [one for code in task.languages for name in methods for one in store.made(code, name)]
    save_table(folder.answers(task.name), ROWS, rows, {"task": settings})
    folder.update_manifest(
        f"evaluate {task.name}",
        by.config,
        task=settings,
        source=source.model_dump(mode="json"),
        languages=list(task.languages),
        n_examples=len(task.example_keys()),
        overlapping=int(rows["overlap"].sum()),
        measured=each_once(made),
        methods={name: None if one is None else one.settings() for name, one in methods.items()},
    )
    compare_stage(folder, task.name, rows, anchor)
    return rows


def compare_stage(folder: RunFolder, task: str, rows: pd.DataFrame, anchor: str) -> list[Comparison]:
    """Every method against the unsteered model, in `tables/<task>_comparison.parquet`, with the reason if none can be."""
    comparisons = compare_all(rows, anchor)
    save_comparisons(folder.comparisons(task), comparisons, reason=why_not_compared(rows, anchor))
    return comparisons
