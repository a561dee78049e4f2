"""`clas-lens export`: a run's intervention, at the strength that its search chose, as files for other programs."""

import argparse
from pathlib import Path
from typing import Any, get_args

from clas_lens.study.config import SteerConfig
from clas_lens.study.options import add_options, read_config
from clas_lens.vocabulary import ExportTarget

NOT_ROUTED = (
    "It steers every input, those in {anchor} too: send only inputs in {language} to it, and all others to the unsteered model "
    "({how}). cl.detect_languages tells them apart."
)
HOW = {
    "peft": "model.disable_adapter()",
    "lora": "the base model of the same server",
    "gguf-lora": '"scale": 0.0 in the request\'s "lora"',
    "control-vector": "without --control-vector",
}


def add_export_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command, on a parser of the command line."""
    parser.add_argument("run", type=Path, help="run folder that `categorize` wrote")
    parser.add_argument("--language", required=True, help="of the inputs that the exported model is for")
    parser.add_argument("--to", required=True, choices=get_args(ExportTarget), help="kind of files")
    parser.add_argument("--out", type=Path, required=True, help="folder to make (a GGUF: or the file)")
    parser.add_argument("--task", default=None, help="take the strength that the search on this task chose")
    parser.add_argument("--method", default=None, help="default: clas, and diff-mean for a control vector")
    parser.add_argument("--model", default=None, help="default: the model that the run was collected with")
    add_options(parser, SteerConfig)


def export_command(arguments: argparse.Namespace) -> None:
    """Export, and say what the result is not."""
    from clas_lens import export
    from clas_lens.study.run import Run

    run = Run.open(arguments.run, steer=read_config(SteerConfig, arguments))
    target: ExportTarget = arguments.to
    method = arguments.method or ("diff-mean" if target == "control-vector" else "clas")
    intervention = run_intervention(run, method, arguments.task)
    source = arguments.model or run.config.collect.model
    options: dict[str, Any] = {"language": arguments.language, "out": arguments.out}
    print(f"{method} at alpha={intervention.alpha:g} for {arguments.language}")
    match target:
        case "checkpoint":
            export.checkpoint(intervention, source=source, **options)
        case "peft":
            export.adapter(intervention, languages=[arguments.language], source=source, out=arguments.out)
        case "gguf":
            export.gguf(intervention, source=source, **options)
        case "lora":
            export.lora(intervention, source=source, **options)
        case "gguf-lora":
            export.gguf_lora(intervention, source=source, **options)
        case "control-vector":
            export.control_vector(intervention, **options)
    how = HOW.get(target, "a second copy")
    print(NOT_ROUTED.format(anchor=intervention.anchor, language=arguments.language, how=how))
    print(arguments.out)


def run_intervention(run: Any, method: str, task: str | None) -> Any:
    """A run's intervention: CLAS as configured, or with a task at the strength that was searched there, or as it was evaluated.

    Raises:
        ArtifactError: the run has no such search and no such evaluation.
    """
    from clas_lens.artifacts import ArtifactError
    from clas_lens.baselines.load import load_intervention
    from clas_lens.evaluation.search import SearchResult

    folder = run.folder
    if method == "clas":
        if task is None or "alpha" in run.config.steer.model_fields_set:
            return run.clas
        searched = folder.searched(task, "clas")
        if searched.is_file():
            return SearchResult.load(searched, run.clas).intervention
    evaluated = folder.methods / str(task) / method
    if task is not None and evaluated.is_dir():
        return load_intervention(evaluated)
    raise ArtifactError(
        f"{folder.root} has no {method} that was searched or evaluated on {task or 'a task (name one with --task)'}: "
        f"clas-lens search {folder.root} --task {task or 'xnli'} --methods {method}"
    )
