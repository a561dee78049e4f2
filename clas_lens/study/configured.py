"""What a configuration names: a model, parallel text, a cluster, a task."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from clas_lens.cluster.runner import RayCluster
from clas_lens.cluster.work import Runner
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.corpus.splits import corpus_part
from clas_lens.models.load import load_model
from clas_lens.models.sites import LensModel
from clas_lens.study.config import ClusterConfig, CollectConfig, TaskConfig
from clas_lens.tasks.base import Task
from clas_lens.tasks.known import TASKS
from clas_lens.vocabulary import Use


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
    return corpus if config.limit is None else corpus.sample(config.limit, seed=config.seed)


def configured_cluster(
    config: ClusterConfig | None, say: Callable[[str], None]
) -> AbstractContextManager[Runner | None]:
    """The cluster that a configuration asks for, which ends with the block; None is this process."""
    return nullcontext() if config is None else RayCluster(**config.model_dump(), say=say)


def task_for(config: TaskConfig, use: Use) -> Task:
    """The configured task with its examples for tuning or to report on."""
    return TASKS[config.task].from_config(config, use)
