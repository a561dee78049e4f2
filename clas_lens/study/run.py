"""One run: a folder, a configuration, and everything from texts to rows, each made or read when it is first asked for."""

import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from clas_lens.artifacts import ArtifactError, content_key, named_layers, save_table
from clas_lens.categories.categorize import NeuronCategories, categorize, select_bridge_layers
from clas_lens.cluster.work import Runner, runner_of
from clas_lens.corpus.arguments import given_corpus, given_model
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.evaluation.plan import Interventions
from clas_lens.evaluation.search import SearchResult
from clas_lens.given import given, given_path
from clas_lens.models.sites import LensModel
from clas_lens.representations.collect import collect_representations
from clas_lens.representations.sentences import Representations
from clas_lens.statistics.collect import collect_statistics
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas
from clas_lens.study.config import StudyConfig, TaskConfig
from clas_lens.study.configured import load_configured_corpus, load_configured_model
from clas_lens.study.folder import HEAD_SHARES, LAYER_SHARES, RunFolder
from clas_lens.study.methods import Ingredients, build_methods
from clas_lens.study.stages import Answering, evaluate_stage, kept_searches, search_stage
from clas_lens.vocabulary import Pool, Pooling, ReadSite

Say = Callable[[str], None]


def silent(text: str) -> None:
    """Say nothing."""


class Run:
    """A run folder and what is in it: each part is made once, from the parts above it, kept in the folder, and resumed there.

    `Run(folder, config)` makes what is asked for; `Run.open(folder)` reads what `collect` and `categorize` left, and makes
    only the stages that it is given configurations for.

    Args:
        folder: where everything lies; made if it is not there.
        config: all stages.
        model, corpus: those that you have already; by default what `config.collect` names.
        say: told what is going on.
        progress: show bars.
        cluster: who does the work of every stage, such as `cl.cluster.RayCluster(workers=8)`; None is this process. What is in
            the folder is the same, so a run that one has begun the other goes on with.
    """

    def __init__(
        self,
        folder: str | Path,
        config: StudyConfig,
        *,
        model: LensModel | None = None,
        corpus: ParallelCorpus | None = None,
        say: Say = silent,
        progress: bool = True,
        cluster: Runner | None = None,
    ) -> None:
        given(
            config,
            StudyConfig,
            "a Run needs a StudyConfig",
            'load_study("study.toml") or StudyConfig(name=...) gives one',
        )
        self.folder, self.config = RunFolder(given_path("folder", folder)), config
        self.say, self.progress, self.cluster = say, progress, cluster
        runner_of(cluster)
        self._kept: frozenset[str] = frozenset()
        held = {
            "model": None if model is None else given_model(model),
            "corpus": None if corpus is None else given_corpus(corpus),
        }
        vars(self).update({name: value for name, value in held.items() if value is not None})

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        say: Say = silent,
        progress: bool = True,
        cluster: Runner | None = None,
        **stages: Any,
    ) -> "Run":
        """The run of a folder that was collected, with these stages (fields of `StudyConfig`) to do anew.

        Raises:
            ArtifactError: not a run folder, or one without statistics.
        """
        here = RunFolder(given_path("folder", folder))
        unknown = sorted(set(stages) - set(StudyConfig.model_fields))
        if unknown:
            raise ValueError(f"no stage {unknown[0]!r}; available: {', '.join(StudyConfig.model_fields)}")
        name = re.sub(r"[^A-Za-z0-9._-]", "-", here.root.resolve().name).lstrip("._-") or "run"
        config = StudyConfig.model_validate({"name": name, "collect": here.collected(), **stages})
        run = cls(folder, config, say=say, progress=progress, cluster=cluster)
        run._kept = frozenset({"collect", "categorize", "steer", "search"} - stages.keys())
        return run

    # --- what is measured ---

    @cached_property
    def model(self) -> LensModel:
        self.say(f"loading {self.config.collect.model}")
        return load_configured_model(self.config.collect)

    @cached_property
    def corpus(self) -> ParallelCorpus:
        return load_configured_corpus(self.config.collect)

    @cached_property
    def statistics(self) -> NeuronStatistics:
        """Of every MLP neuron or attention unit, in `statistics/`."""
        if "collect" in self._kept:
            return NeuronStatistics.load(self.folder.statistics, self.folder.read_manifest()["collect"]["languages"])
        config, model = self.config.collect, self.model
        self.say(f"measuring every {'MLP neuron' if config.site == 'mlp' else 'attention unit'} in every language")
        stats = collect_statistics(
            model,
            self.corpus,
            batch_size=config.batch_size,
            pooling=config.pooling,
            max_tokens=config.max_tokens,
            site=config.site,
            out=self.folder.statistics,
            progress=self.progress,
            cluster=self.cluster,
        )
        self.folder.update_manifest(
            "collect",
            config,
            model=dict(stats.model),
            languages=list(stats.languages),
            examples=list(stats.example_ids),
            n_tokens={code: int(n) for code, n in zip(stats.languages, stats.n_tokens, strict=True)},
            texts={code: dict(text) for code, text in stats.texts.items()},
            measured=[dict(stats.made[code]) for code in stats.languages],
        )
        return stats

    # --- what is steered ---

    @cached_property
    def categories(self) -> NeuronCategories:
        """In `categories.safetensors`, with the bridge layers in the manifest."""
        if "categorize" in self._kept:
            return self._kept_categories()
        config = self.config.categorize
        cats = categorize(self.statistics, config.threshold, config.activity, quantile=config.quantile)
        layers = select_bridge_layers(cats, layers=config.layers)
        cats.save(self.folder.categories)
        save_table(self.folder.tables / "layer_shares.parquet", LAYER_SHARES, cats.shares(), {})
        if cats.site == "attn":
            save_table(self.folder.tables / "head_shares.parquet", HEAD_SHARES, cats.by_head(), {})
        self.folder.update_manifest(
            "categorize",
            config,
            bridge_layers=list(layers),
            languages=list(cats.languages),
            categories=cats.fingerprint(),
        )
        self.say(f"{cats!r}\nbridge layers {', '.join(map(str, layers))}")
        return cats

    def _kept_categories(self) -> NeuronCategories:
        entry, root = self.folder.read_manifest().get("categorize"), self.folder.root
        if entry is None:
            raise ArtifactError(f"{root} has no categories yet: clas-lens categorize {root}")
        cats = NeuronCategories.load(self.folder.categories)
        of_others = self.statistics.source() != cats.source or self.statistics.site != cats.site
        if of_others or cats.fingerprint() != entry["categories"]:
            raise ArtifactError(
                f"{root} was collected again since it was categorised, or categorising was interrupted. "
                f"Run clas-lens categorize {root}"
            )
        return cats

    @cached_property
    def bridge_layers(self) -> tuple[int, ...]:
        _ = self.categories
        return tuple(self.folder.read_manifest()["categorize"]["bridge_layers"])

    @cached_property
    def clas(self) -> Clas:
        """As configured; of a folder that is opened without strengths, its own where it has one."""
        if "steer" in self._kept and self.folder.clas.is_dir():
            return Clas.from_pretrained(self.folder.clas)
        return Clas(self.categories, layers=self.bridge_layers, **self.config.steer.strengths())

    @cached_property
    def methods(self) -> Interventions:
        """The configured interventions by name; None is the unsteered model."""
        of = Ingredients(self.model, lambda: self.corpus, self.statistics, self.clas, self._represent, self._measure)
        return build_methods(self.config.methods, of)

    def _represent(self, corpus: ParallelCorpus, layers: Sequence[int], pool: Pool, site: ReadSite) -> Representations:
        config = self.config.collect
        return collect_representations(
            self.model,
            corpus,
            layers,
            pool=pool,
            site=site,
            batch_size=config.batch_size,
            max_tokens=config.max_tokens,
            out=self.folder.representations / f"{pool}-{site}-{named_layers(layers)}",
            progress=self.progress,
            cluster=self.cluster,
        )

    def _measure(self, corpus: ParallelCorpus, pooling: Pooling) -> NeuronStatistics:
        config = self.config.collect
        texts = "measured" if corpus == self.corpus else content_key(corpus.texts)
        return collect_statistics(
            self.model,
            corpus,
            batch_size=config.batch_size,
            pooling=pooling,
            max_tokens=config.max_tokens,
            site=config.site,
            out=self.folder.more_statistics / f"{pooling}-{texts}",
            progress=self.progress,
            cluster=self.cluster,
        )

    # --- what is answered ---

    @cached_property
    def searches(self) -> dict[str, dict[str, SearchResult]]:
        """By task and method, in `search/<task>/<method>.parquet`: made if a search is configured, else what is there.

        An alpha that was given wins over a search that is there.
        """
        if self.config.search is not None:
            return {task.task: self._search(task) for task in self.config.tasks}
        if "search" not in self._kept or "alpha" in self.config.steer.model_fields_set:
            return {task.task: {} for task in self.config.tasks}
        return {task.task: kept_searches(self.folder, task.task, self.methods) for task in self.config.tasks}

    def _search(self, source: TaskConfig) -> dict[str, SearchResult]:
        config = self.config.search
        assert config is not None
        examples = f"{source.tuning_limit or 'all'} example{'' if source.tuning_limit == 1 else 's'}"
        self.say(f"{source.task}: tuning on {examples} a language")
        methods = {name: self.methods[name] for name, _ in self.config.methods.searched(config.fixed)}
        found = search_stage(self._answering, source, config, methods, self.clas)
        self.say("; ".join(f"{name}: alpha={found[name].chosen['alpha']:g}" for name in methods))
        return found

    @cached_property
    def rows(self) -> dict[str, pd.DataFrame]:
        """Every method's answers by task, each at its searched strength, in `rows/` and `tables/<task>_rows.parquet`."""
        return {task.task: self._evaluate(task) for task in self.config.tasks}

    def _evaluate(self, source: TaskConfig) -> pd.DataFrame:
        found = self.searches[source.task]
        methods = {name: found[name].intervention if name in found else one for name, one in self.methods.items()}
        self.say(f"{source.task}: reporting")
        return evaluate_stage(self._answering, source, methods, self.clas.anchor)

    @property
    def _answering(self) -> Answering:
        return Answering(self.folder, self.model, self.config.evaluate, self.progress, self.cluster)
