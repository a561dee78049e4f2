"""A study: all stages in order over one run folder, from a TOML file. Killed and started again, it goes on where it was."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from clas_lens.artifacts import ArtifactError
from clas_lens.config import StudyConfig
from clas_lens.evaluation_stages import compare_stage, evaluate_stage, methods_stage, search_stage
from clas_lens.report_data import evaluated_clas, report_data_stage
from clas_lens.run_folder import RunFolder
from clas_lens.search import SearchResult
from clas_lens.stages import (
    build_clas,
    categorize_stage,
    collect_stage,
    load_configured_corpus,
    load_configured_model,
)

Say = Callable[[str], None]


def run_study(config: StudyConfig, out: Path, say: Say, *, progress: bool = True) -> dict[str, pd.DataFrame]:
    """Everything, in order; returns the rows of each task.

    Raises:
        ArtifactError: the folder holds a run of another study.
    """
    run = RunFolder(out)
    _claim(run, config)
    say(f"loading {config.collect.model}")
    model = load_configured_model(config.collect)
    corpus = load_configured_corpus(config.collect)
    say("measuring every MLP neuron in every language")
    stats = collect_stage(config.collect, run, model, corpus, progress=progress)
    cats, layers = categorize_stage(config.categorize, run)
    say(f"{cats!r}\nbridge layers {', '.join(map(str, layers))}")
    clas = build_clas(config.steer, cats, layers)
    clas.save_pretrained(run.clas)
    methods = methods_stage(
        config.methods,
        run,
        model,
        corpus,
        stats,
        clas,
        max_tokens=config.collect.max_tokens,
        batch_size=config.collect.batch_size,
        progress=progress,
    )
    rows: dict[str, pd.DataFrame] = {}
    for task in config.tasks:
        searches: dict[str, SearchResult] = {}
        if config.search is not None:
            say(f"{task.task}: tuning on {task.tuning_limit or 'all'} examples a language")
            searched = {name: methods[name] for name, _ in config.methods.searched(config.search.fixed)}
            searches = search_stage(config.search, run, model, task, config.evaluate, searched, clas, progress=progress)
            say("; ".join(f"{name}: alpha={searches[name].chosen['alpha']:g}" for name in searched))
        say(f"{task.task}: reporting")
        rows[task.task] = evaluate_stage(config.evaluate, run, model, task, methods, searches, progress=progress)
        compare_stage(run, task.task, rows[task.task], clas.anchor)
    say("collecting what the report shows")
    report_data_stage(
        config.report,
        run,
        model,
        stats,
        cats,
        evaluated_clas(run, clas),
        measured=corpus,
        read=corpus.take(range(min(config.report.examples, len(corpus)))),
        batch_size=config.collect.batch_size,
        max_tokens=config.collect.max_tokens,
        progress=progress,
    )
    return rows


def _claim(run: RunFolder, config: StudyConfig) -> None:
    """A folder belongs to one study: what is in it is resumed, never mixed."""
    if run.manifest.exists():
        held = run.read_manifest().get("study", {}).get("config")
        if held is not None and held != config.model_dump(mode="json"):
            raise ArtifactError(
                f"{run.root} holds a run of another study, or of another version of {config.name!r}. "
                "Give --out another folder, or delete this one."
            )
    run.update_manifest("study", config)
