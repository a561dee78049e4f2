"""Single stages of a run, over its folder. A stage whose output is there, from the same inputs, is not run again."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from clas_lens.artifacts import ArtifactError, content_key, save_table, tensor_fingerprint
from clas_lens.categories.categorize import NeuronCategories, categorize, select_bridge_layers
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.splits import corpus_part
from clas_lens.evaluation.rows import evaluate
from clas_lens.evaluation.search import SearchResult, alpha_settings, beta_gamma_settings, search_grids
from clas_lens.models.load import load_model
from clas_lens.models.sites import LensModel
from clas_lens.representations.sentences import Representations, collect_representations
from clas_lens.significance.compare import compare
from clas_lens.statistics.collect import collect_statistics
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import Intervention
from clas_lens.study.config import (
    CategorizeConfig,
    CollectConfig,
    DemoConfig,
    EvaluateConfig,
    MethodsConfig,
    SearchConfig,
    SteerConfig,
    TaskConfig,
)
from clas_lens.study.folder import RunFolder
from clas_lens.study.methods import build_methods
from clas_lens.tasks.base import Task
from clas_lens.tasks.xnli import XNLI
from clas_lens.tasks.xquad import XQuAD
from clas_lens.vocabulary import Pool, Use


def load_configured_model(config: CollectConfig) -> LensModel:
    """The model that a configuration names."""
    dtype = None if config.dtype is None else getattr(torch, config.dtype)
    return load_model(config.model, backend=config.backend, dtype=dtype, device=config.device)


def load_configured_corpus(config: CollectConfig) -> ParallelCorpus:
    """The parallel text that a configuration names, sampled as it says."""
    match config.corpus:
        case "bundled":
            corpus = ParallelCorpus.bundled(config.languages)
        case "xquad":
            corpus = ParallelCorpus.xquad(config.data or "google/xquad", config.languages)
        case "xnli":
            corpus = ParallelCorpus.xnli(config.data or "facebook/xnli", config.languages)
        case "files":
            if config.data is None:
                raise ValueError("corpus 'files' needs data: a folder of <language>.txt files")
            corpus = ParallelCorpus.from_files(config.data)
            corpus = corpus if config.languages is None else corpus.select(config.languages)
    if config.part is not None:
        corpus = corpus_part(corpus, config.part)
    limit = config.limit
    if isinstance(config, DemoConfig) and limit is not None and "limit" not in config.model_fields_set:
        limit = min(limit, corpus.n_independent)  # the demo's own default, not something that was asked for
    return corpus if limit is None else corpus.sample(limit, seed=config.seed)


def collect_stage(
    config: CollectConfig, run: RunFolder, model: LensModel, corpus: ParallelCorpus, *, progress: bool = True
) -> NeuronStatistics:
    """Measure the neurons into `statistics/`."""
    stats = collect_statistics(
        model,
        corpus,
        batch_size=config.batch_size,
        pooling=config.pooling,
        max_tokens=config.max_tokens,
        out=run.statistics,
        progress=progress,
    )
    run.update_manifest(
        "collect",
        config,
        model=dict(stats.model),
        languages=list(stats.languages),
        examples=list(stats.example_ids),
        n_tokens={code: int(n) for code, n in zip(stats.languages, stats.n_tokens, strict=True)},
        texts={code: dict(text) for code, text in stats.texts.items()},
    )
    return stats


def categorize_stage(config: CategorizeConfig, run: RunFolder) -> tuple[NeuronCategories, tuple[int, ...]]:
    """Sort the neurons of the last collection and choose the bridge layers."""
    languages = run.read_manifest().get("collect", {}).get("languages")
    stats = NeuronStatistics.load(run.statistics, languages)
    cats = categorize(stats, config.threshold, config.activity)
    layers = select_bridge_layers(cats, layers=config.layers)
    cats.save(run.categories)
    save_table(run.tables / "layer_shares.parquet", "layer shares", cats.shares(), {})
    run.update_manifest(
        "categorize",
        config,
        bridge_layers=list(layers),
        languages=list(cats.languages),
        categories=_identity(cats),
    )
    return cats, layers


def _identity(cats: NeuronCategories) -> str:
    return content_key(cats.header(), tensor_fingerprint(cats.active))


def load_categories(run: RunFolder) -> tuple[NeuronCategories, tuple[int, ...]]:
    """What `categorize_stage` left in the run folder."""
    manifest = run.read_manifest()
    if "categorize" not in manifest:
        raise ArtifactError(f"{run.root} has no categories yet: clas-lens categorize {run.root}")
    cats = NeuronCategories.load(run.categories)
    stats = NeuronStatistics.load(run.statistics, cats.languages)
    if stats.source() != cats.source or _identity(cats) != manifest["categorize"]["categories"]:
        raise ArtifactError(
            f"{run.root} was collected again since it was categorised, or categorising was interrupted. "
            f"Run clas-lens categorize {run.root}"
        )
    return cats, tuple(manifest["categorize"]["bridge_layers"])


def build_clas(config: SteerConfig, cats: NeuronCategories, layers: Sequence[int]) -> Clas:
    """The intervention that a configuration names."""
    settings = {name: getattr(config, name) for name in SteerConfig.model_fields}
    return Clas(cats, layers=tuple(layers), **settings)


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
