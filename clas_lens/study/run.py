"""One run: a folder, a configuration, and everything from texts to rows, each made or read when it is first asked for."""

import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from clas_lens.artifacts import ArtifactError, content_key, named_layers, save_table
from clas_lens.categories.categorize import NeuronCategories, categorize, select_bridge_layers
from clas_lens.cluster.work import Runner, runner_of
from clas_lens.corpus.arguments import given_corpus, given_model
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.evaluation.rows import evaluate
from clas_lens.evaluation.search import SearchResult, alpha_settings, beta_gamma_settings, search_grids, sweep_settings
from clas_lens.evaluation.store import RowStore
from clas_lens.evaluation.windows import KIND as WINDOWS
from clas_lens.evaluation.windows import window_grids, window_table
from clas_lens.given import given, given_path
from clas_lens.models.sites import LensModel
from clas_lens.provenance import each_once
from clas_lens.representations.collect import collect_representations
from clas_lens.representations.sentences import Representations
from clas_lens.statistics.collect import collect_statistics
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas
from clas_lens.steering.intervention import Intervention
from clas_lens.study.config import StudyConfig, TaskConfig
from clas_lens.study.folder import RunFolder
from clas_lens.study.methods import Ingredients, build_methods
from clas_lens.study.stages import (
    GRID,
    GRID_ALPHA,
    compare_stage,
    load_configured_corpus,
    load_configured_model,
    task_for,
)
from clas_lens.vocabulary import Pool, Pooling, ReadSite

Say = Callable[[str], None]
Interventions = Mapping[str, Intervention | None]


SHARES_KIND = "layer shares"


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
        save_table(self.folder.tables / "layer_shares.parquet", SHARES_KIND, cats.shares(), {})
        if cats.site == "attn":
            save_table(self.folder.tables / "head_shares.parquet", "head shares", cats.by_head(), {})
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
            out=self.folder.root / "more_statistics" / f"{pooling}-{texts}",
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
        return {task.task: self._kept_searches(task.task) for task in self.config.tasks}

    def _search(self, config: TaskConfig) -> dict[str, SearchResult]:
        """The same alphas for each method, in one run; CLAS at alpha 1 under each pair of betas and gammas (Figure 6); and, if
        asked for, CLAS at other layers.
        """
        search = self.config.search
        assert search is not None
        task = task_for(config, "tuning")
        alphas = alpha_settings(task, search.alphas)
        methods = {name: self.methods[name] for name, _ in self.config.methods.searched(search.fixed)}
        grids = {
            name: (method, sweep_settings(method, alphas)) for name, method in methods.items() if method is not None
        }
        if search.betas:
            grids[GRID] = replace(self.clas, alpha=GRID_ALPHA), beta_gamma_settings(search.betas, search.gammas)
        windows = window_grids(self.clas, self.model.cfg.n_layers, alphas) if search.windows else {}
        grids |= windows
        if not grids:
            raise ValueError(
                f"{task.name}: nothing to search: {', '.join(self.config.methods.methods)} have no strength that is not fixed"
            )
        self.say(f"{task.name}: tuning on {config.tuning_limit or 'all'} examples a language")
        options = {**self._how(config), "out": self.folder.search / "rows"}
        results = search_grids(self.model, task, grids, **options)
        if windows:
            table = window_table({name: results.pop(name) for name in windows}, self.clas.layers)
            save_table(self.folder.windows(task.name), WINDOWS, table, {})
        for name, found in results.items():
            path = self.folder.search / task.name / f"{name}.parquet"
            if found.passes or not path.is_file():  # what was read from files alone cost what its file says
                found.save(path)
        chosen = {name: dict(result.chosen) for name, result in results.items() if name != GRID}
        facts = {"chosen": chosen, "examples": sorted(task.example_keys()), "task": task.settings(self.model)}
        self.folder.update_manifest(f"search {task.name}", search, **facts)
        self.say("; ".join(f"{name}: alpha={one['alpha']:g}" for name, one in chosen.items()))
        return results

    def _kept_searches(self, task: str) -> dict[str, SearchResult]:
        found = {}
        for name, intervention in self.methods.items():
            path = self.folder.search / task / f"{name}.parquet"
            if intervention is not None and path.is_file():
                found[name] = SearchResult.load(path, intervention)
        return found

    @cached_property
    def rows(self) -> dict[str, pd.DataFrame]:
        """Every method's answers by task, each at its searched strength, in `rows/` and `tables/<task>_rows.parquet`."""
        return {task.task: self._evaluate(task) for task in self.config.tasks}

    def _evaluate(self, config: TaskConfig) -> pd.DataFrame:
        found = self.searches[config.task]
        chosen = {name: found[name].intervention if name in found else one for name, one in self.methods.items()}
        task = task_for(config, "test")
        self.say(f"{task.name}: reporting")
        shutil.rmtree(self.folder.methods / task.name, ignore_errors=True)  # what lies there belongs to the rows
        for name, intervention in chosen.items():
            if intervention is not None:
                intervention.save_pretrained(self.folder.methods / task.name / name)
        rows = evaluate(self.model, task, chosen, out=self.folder.rows, **self._how(config))
        settings = task.settings(self.model)
        store = RowStore(self.folder.rows / task.name)
        made = [one for code in task.languages for name in chosen for one in store.made(code, name)]
        save_table(self.folder.tables / f"{task.name}_rows.parquet", "evaluation rows", rows, {"task": settings})
        self.folder.update_manifest(
            f"evaluate {task.name}",
            self.config.evaluate,
            task=settings,
            source=config.model_dump(mode="json"),
            languages=list(task.languages),
            n_examples=len(task.example_keys()),
            overlapping=int(rows["overlap"].sum()),
            measured=each_once(made),
            methods={name: None if one is None else one.settings() for name, one in chosen.items()},
        )
        compare_stage(self.folder, task.name, rows, self.clas.anchor)
        return rows

    def _how(self, config: TaskConfig) -> dict[str, Any]:
        how = self.config.evaluate
        return {
            "batch_size": how.batch_size,
            "chunk_size": how.chunk_size,
            "allow_overlap": config.allow_overlap,
            "progress": self.progress,
            "cluster": self.cluster,
        }
