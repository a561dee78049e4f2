"""Stages that answer questions: interventions from a run folder, their search, their evaluation, their comparison."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import pandas as pd

from clas_lens.artifacts import save_table
from clas_lens.clas import Clas
from clas_lens.config import (
    EvaluateConfig,
    MethodsConfig,
    SearchConfig,
    SteerConfig,
    TaskConfig,
)
from clas_lens.corpus import ParallelCorpus
from clas_lens.evaluation import evaluate
from clas_lens.methods import build_methods
from clas_lens.representations import Pool, Representations, collect_representations
from clas_lens.run_folder import RunFolder
from clas_lens.search import SearchResult, alpha_settings, beta_gamma_settings, search_grids
from clas_lens.significance import compare
from clas_lens.sites import LensModel
from clas_lens.stages import (
    build_clas,
    load_categories,
    load_configured_corpus,
    load_configured_model,
)
from clas_lens.statistics import NeuronStatistics
from clas_lens.steering import Intervention
from clas_lens.tasks import XNLI, Task, XQuAD

Use = Literal["tuning", "test"]
GRID = "beta_gamma"  # the file of the grid over beta and gamma
GRID_ALPHA = 1.0  # the paper's, in Figure 6


def task_for(config: TaskConfig, use: Use) -> Task:
    """The configured task with its examples for tuning or to report on."""
    limit = config.tuning_limit if use == "tuning" else config.limit
    languages = config.languages or ()
    match config.task:
        case "xnli":
            return XNLI(
                config.data or "facebook/xnli",
                languages,
                split="validation" if use == "tuning" else "test",
                limit=limit,
                seed=config.seed,
                instruction=config.instruction,
                style=config.style,
                max_tokens=config.max_tokens,
            )
        case "xquad":
            return XQuAD(
                config.data or "google/xquad",
                languages,
                part=None if config.whole else use,
                limit=limit,
                seed=config.seed,
                instruction=config.instruction,
                style=config.style,
                max_tokens=config.max_tokens,
                max_new_tokens=config.max_new_tokens,
                stop_at_newline=config.stop_at_newline,
            )


def open_run(
    run: RunFolder, methods: MethodsConfig, steer: SteerConfig, *, batch_size: int, progress: bool = True
) -> tuple[LensModel, dict[str, Intervention | None]]:
    """The model of a run folder that was collected and categorised, and interventions made from what is in it."""
    collected = run.collected()
    cats, layers = load_categories(run)
    model = load_configured_model(collected)
    return model, methods_stage(
        methods,
        run,
        model,
        load_configured_corpus(collected),
        NeuronStatistics.load(run.statistics, cats.languages),
        build_clas(steer, cats, layers),
        max_tokens=collected.max_tokens,
        batch_size=batch_size,
        progress=progress,
    )


def methods_stage(
    config: MethodsConfig,
    run: RunFolder,
    model: LensModel,
    corpus: ParallelCorpus,
    stats: NeuronStatistics,
    clas: Clas,
    *,
    max_tokens: int,
    batch_size: int,
    progress: bool,
) -> dict[str, Intervention | None]:
    """The configured interventions; representations are collected only if one needs them."""

    def represent(layers: Sequence[int], pool: Pool) -> Representations:
        return collect_representations(
            model,
            corpus,
            layers,
            pool=pool,
            batch_size=batch_size,
            max_tokens=max_tokens,
            out=run.representations / f"{pool}-{'-'.join(map(str, layers))}",
            progress=progress,
        )

    return build_methods(config, model, stats, clas, represent)


def search_stage(
    config: SearchConfig,
    run: RunFolder,
    model: LensModel,
    task_config: TaskConfig,
    how: EvaluateConfig,
    methods: Mapping[str, Intervention | None],
    clas: Clas | None,
    *,
    progress: bool,
) -> dict[str, SearchResult]:
    """The same search over alpha for each of these methods, in one run, saved as `search/<task>/<method>.parquet`.

    Where the config has betas and gammas, also `clas` at alpha 1 under each pair, for the paper's Figure 6, as "beta_gamma";
    nothing is chosen by that.
    """
    task = task_for(task_config, "tuning")
    alphas = alpha_settings(task, config.alphas)
    grids = {name: (method, alphas) for name, method in methods.items() if method is not None}
    if config.betas and clas is not None:
        grids[GRID] = replace(clas, alpha=GRID_ALPHA), beta_gamma_settings(config.betas, config.gammas)
    options: dict[str, Any] = {
        "batch_size": how.batch_size,
        "chunk_size": how.chunk_size,
        "out": run.search / "rows",
        "allow_overlap": task_config.allow_overlap,
        "progress": progress,
    }
    results = search_grids(model, task, grids, **options) if grids else {}
    for name, result in results.items():
        _keep(run, name, task.name, result)
    chosen = {name: dict(result.chosen) for name, result in results.items() if name != GRID}
    facts = {"chosen": chosen, "examples": sorted(task.example_keys()), "task": task.settings(model)}
    run.update_manifest(f"search {task.name}", config, **facts)
    return results


def _keep(run: RunFolder, name: str, task: str, found: SearchResult) -> None:
    path = run.search / task / f"{name}.parquet"
    if found.passes or not path.is_file():  # what was read from files alone cost what its file says
        found.save(path)


def load_searches(run: RunFolder, task: str, methods: Mapping[str, Intervention | None]) -> dict[str, SearchResult]:
    """The searches of a run folder, for those of the methods that were searched over."""
    found = {}
    for name, intervention in methods.items():
        path = run.search / task / f"{name}.parquet"
        if intervention is not None and path.is_file():
            found[name] = SearchResult.load(path, intervention)
    return found


def evaluate_stage(
    config: EvaluateConfig,
    run: RunFolder,
    model: LensModel,
    task_config: TaskConfig,
    methods: Mapping[str, Intervention | None],
    searches: Mapping[str, SearchResult],
    *,
    progress: bool,
) -> pd.DataFrame:
    """All methods on the examples to report on, each at its searched strength; rows, interventions and comparisons saved."""
    task = task_for(task_config, "test")
    chosen = {name: searches[name].intervention if name in searches else methods[name] for name in methods}
    shutil.rmtree(run.methods / task.name, ignore_errors=True)  # what lies there belongs to the rows
    for name, intervention in chosen.items():
        if intervention is not None:
            intervention.save_pretrained(run.methods / task.name / name)
    rows = evaluate(
        model,
        task,
        chosen,
        batch_size=config.batch_size,
        chunk_size=config.chunk_size,
        out=run.rows,
        allow_overlap=task_config.allow_overlap,
        progress=progress,
    )
    save_table(run.tables / f"{task.name}_rows.parquet", "evaluation rows", rows, {"task": task.settings(model)})
    run.update_manifest(
        f"evaluate {task.name}",
        config,
        task=task.settings(model),
        source=task_config.model_dump(mode="json"),
        languages=list(task.languages),
        n_examples=len(task.example_keys()),
        overlapping=int(rows["overlap"].sum()),
        methods={name: None if one is None else one.settings() for name, one in chosen.items()},
    )
    return rows


def compare_stage(run: RunFolder, task: str, rows: pd.DataFrame, anchor: str) -> pd.DataFrame:
    """Every method against the unsteered model: one row a method and language, in `tables/<task>_comparison.parquet`.

    No rows where there is nothing to compare: without "base", without another language than the anchor, or with examples of
    a single group only.
    """
    path = run.tables / f"{task}_comparison.parquet"
    path.unlink(missing_ok=True)
    names = [name for name in rows["intervention"].unique() if name != "base"]
    few = set(rows["language"]) == {anchor} or rows["group"].nunique() < 2
    if "base" not in set(rows["intervention"]) or not names or few:
        return pd.DataFrame()
    known = anchor if anchor in set(rows["language"]) else None
    tables = []
    for name in names:
        found = compare(rows, name, anchor=known)
        tables.append(found.languages.assign(intervention=name, overlap=found.overlap))
    table = pd.concat(tables, ignore_index=True)
    save_table(path, "comparison", table, {})
    return table
