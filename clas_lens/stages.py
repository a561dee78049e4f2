"""Single stages of a run, over its folder. A stage whose output is there, from the same inputs, is not run again."""

from collections.abc import Sequence

import torch

from clas_lens.artifacts import ArtifactError, content_key, save_table, tensor_fingerprint
from clas_lens.categories import NeuronCategories, categorize, select_bridge_layers
from clas_lens.clas import Clas
from clas_lens.collect import collect_statistics
from clas_lens.config import CategorizeConfig, CollectConfig, DemoConfig, SteerConfig
from clas_lens.corpus import ParallelCorpus
from clas_lens.models import load_model
from clas_lens.run_folder import RunFolder
from clas_lens.sites import LensModel
from clas_lens.splits import corpus_part
from clas_lens.statistics import NeuronStatistics


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
