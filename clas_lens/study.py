"""The stages in order, over a run folder. A stage whose output is there, from the same inputs, is not run again."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from clas_lens.artifacts import (
    ArtifactError,
    content_key,
    model_fingerprint,
    provenance,
    resumed_table,
    save_table,
    write_text,
)
from clas_lens.categories import NeuronCategories, categorize, select_bridge_layers
from clas_lens.collect import collect_statistics
from clas_lens.config import CategorizeConfig, CollectConfig, DemoConfig, StageConfig, SteerConfig
from clas_lens.corpus import ParallelCorpus, bundled_items
from clas_lens.effects import measure_effects
from clas_lens.generation import generate
from clas_lens.models import load_model
from clas_lens.prompts import QA_PROMPT_VERSION, qa_prompt
from clas_lens.sites import LensModel
from clas_lens.statistics import NeuronStatistics
from clas_lens.steering import Clas, steer
from clas_lens.tokens import require_tokenizer

Say = Callable[[str], None]


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
    return corpus if config.limit is None else corpus.sample(config.limit, seed=config.seed)


def collect_stage(
    config: CollectConfig, run: RunFolder, model: LensModel, *, progress: bool = True
) -> NeuronStatistics:
    """Measure the neurons into `statistics/`."""
    stats = collect_statistics(
        model,
        load_configured_corpus(config),
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
    run.update_manifest("categorize", config, bridge_layers=list(layers), languages=list(cats.languages))
    return cats, layers


def load_categories(run: RunFolder) -> tuple[NeuronCategories, tuple[int, ...]]:
    """What `categorize_stage` left in the run folder."""
    manifest = run.read_manifest()
    if "categorize" not in manifest:
        raise ArtifactError(f"{run.root} has no categories yet: clas-lens categorize {run.root}")
    return NeuronCategories.load(run.categories), tuple(manifest["categorize"]["bridge_layers"])


def build_clas(config: SteerConfig, cats: NeuronCategories, layers: Sequence[int]) -> Clas:
    """The intervention that a configuration names."""
    settings = {name: getattr(config, name) for name in SteerConfig.model_fields}
    return Clas(cats, layers=tuple(layers), **settings)


def answers_stage(
    config: DemoConfig, run: RunFolder, model: LensModel, clas: Clas, *, progress: bool = True
) -> pd.DataFrame:
    """Ask questions about bundled passages with and without steering: one row a question and language.

    Columns: language, id, question, gold, unsteered, steered.
    """
    tokenizer = require_tokenizer(model)
    parts = []
    for language in config.answer_languages:
        items = bundled_items(language)[: config.questions]
        key = content_key(
            clas.fingerprint(),
            model_fingerprint(model),
            QA_PROMPT_VERSION,
            [item.__dict__ for item in items],
            config.max_new_tokens,
        )
        path = run.rows / "answers" / f"{language}.parquet"
        table = resumed_table(path, "answers", key)
        if table is None:
            prompts = [qa_prompt(tokenizer, model.cfg.model_name, item, language) for item in items]
            options = {
                "max_new_tokens": config.max_new_tokens,
                "batch_size": config.batch_size,
                "stop_at_newline": True,
            }
            before = generate(model, prompts, **options)
            with steer(model, clas, language=language):
                after = generate(model, prompts, **options)
            table = pd.DataFrame(
                {
                    "language": language,
                    "id": [item.id for item in items],
                    "question": [item.question for item in items],
                    "gold": [item.answer for item in items],
                    "unsteered": before,
                    "steered": after,
                }
            )
            save_table(path, "answers", table, {"key": key})
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def effects_corpus(config: DemoConfig, languages: Sequence[str]) -> ParallelCorpus:
    """Bundled passages in the languages measured (and the anchor), on which `demo` shows what steering changes."""
    available = ParallelCorpus.bundled(fields=("passage",))
    wanted = dict.fromkeys([*languages, config.anchor])
    return available.select([code for code in wanted if code in available.languages]).take(range(config.effect_texts))


def run_demo(config: DemoConfig, say: Say, *, progress: bool = True) -> tuple[NeuronCategories, tuple[int, ...]]:
    """Everything that `clas-lens demo` does but the figure: measure, sort, steer, compare, write."""
    run = RunFolder(config.out)
    say(f"loading {config.model}")
    model = load_configured_model(config)
    say("measuring every MLP neuron in every language")
    collect_stage(config, run, model, progress=progress)
    cats, layers = categorize_stage(config, run)
    say(f"{cats!r}\nbridge layers {', '.join(map(str, layers))}")
    clas = build_clas(config, cats, layers)
    clas.save_pretrained(run.clas)
    say("asking questions, unsteered and steered")
    answers = answers_stage(config, run, model, clas, progress=progress)
    say("measuring what steering changes")
    effects = measure_effects(
        model,
        clas,
        effects_corpus(config, cats.languages),
        batch_size=config.batch_size,
        out=run.rows / "effects",
        progress=progress,
    )
    save_table(run.tables / "answers.parquet", "answers", answers, {})
    save_table(run.tables / "effects.parquet", "steering effects", effects, {})
    run.update_manifest("demo", config, clas=clas.settings(), effects=effects.to_dict("records"))
    write_text(run.root / "summary.md", summary(config, cats, clas, answers, effects))
    return cats, layers


def summary(
    config: DemoConfig, cats: NeuronCategories, clas: Clas, answers: pd.DataFrame, effects: pd.DataFrame
) -> str:
    """The run in one page of Markdown."""
    strength = f"alpha={clas.alpha:g}, beta={clas.beta:g}, gamma={clas.gamma:g}"
    lines = [
        f"# {config.model}, steered",
        "",
        f"{cats!r}",
        "",
        f"Bridge layers {', '.join(map(str, clas.layers))}; {strength}; anchor {clas.anchor}.",
        "",
        "## What steering changes",
        "",
        "KL(unsteered || steered) of the next-token distribution in nats; share of texts whose most likely next token changed; "
        f"cosine of the sentence representation to {clas.anchor}, mean over the bridge layers.",
        "",
        _markdown(effects.round({"kl": 4, "top1_changed": 3, "cosine_before": 4, "cosine_after": 4})),
        "",
        "## Answers side by side",
        "",
        _markdown(answers),
        "",
        "These texts are also among those that the neurons were measured on: they show mechanics, not gains.",
        "",
    ]
    return "\n".join(lines)


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        return str(value).replace("|", "\\|").replace("\n", " ")

    rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join("| " + " | ".join(cell(value) for value in row) + " |" for row in rows)
