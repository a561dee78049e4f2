"""The stages in order, over a run folder. A stage whose output is there, from the same inputs, is not run again."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clas_lens.artifacts import (
    ArtifactError,
    content_key,
    provenance,
    save_table,
    tensor_fingerprint,
    write_text,
)
from clas_lens.categories import NeuronCategories, categorize, select_bridge_layers
from clas_lens.clas import Clas
from clas_lens.collect import collect_statistics
from clas_lens.config import CategorizeConfig, CollectConfig, DemoConfig, StageConfig, SteerConfig
from clas_lens.corpus import ParallelCorpus
from clas_lens.models import load_model
from clas_lens.sites import LensModel
from clas_lens.statistics import NeuronStatistics


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run lies."""

    root: Path

    @property
    def statistics(self) -> Path:
        return self.root / "statistics"

    @property
    def categories(self) -> Path:
        return self.root / "categories.safetensors"

    @property
    def clas(self) -> Path:
        return self.root / "clas"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def rows(self) -> Path:
        return self.root / "rows"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    def update_manifest(self, stage: str, config: StageConfig, **facts: object) -> None:
        """Record what a stage did: its configuration, its facts and its provenance. Other stages' entries stay."""
        manifest = self.read_manifest() if self.manifest.exists() else {}
        manifest[stage] = {"config": config.model_dump(mode="json"), **facts, "provenance": provenance()}
        write_text(self.manifest, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")

    def read_manifest(self) -> dict[str, dict]:
        """What the stages recorded.

        Raises:
            ArtifactError: not a run folder, or a damaged manifest.
        """
        if not self.manifest.is_file():
            raise ArtifactError(
                f"{self.root} is not a run folder: no manifest.json. Make one: clas-lens collect --out {self.root}"
            )
        try:
            return json.loads(self.manifest.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ArtifactError(f"{self.manifest} is damaged ({error}); delete it and collect again") from error


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
