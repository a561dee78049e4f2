"""`clas-lens`: the command line and its subcommands; `clas_lens.commands` says what each does."""

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from clas_lens import __version__, commands
from clas_lens.completion import INSTALL, SHELLS
from clas_lens.study.config import (
    CategorizeConfig,
    ClusterConfig,
    CollectConfig,
    DemoConfig,
    EvaluateCommand,
    ReportConfig,
    SearchCommand,
    SteerConfig,
    wrong_values,
)
from clas_lens.study.export import add_export_options, export_command
from clas_lens.study.options import add_options
from clas_lens.vocabulary import FigureFormat, TableFormat, Theme

DESCRIPTION = "Cross-lingual activation steering: measure, categorise and steer the MLP neurons of multilingual models."
FIRST_STEPS = """\
clas-lens measures, steers and evaluates multilingual models. Try first:
  clas-lens demo --limit 20                     the whole of it on Gemma 3 270M, with a report (minutes; extra `demo`)
  clas-lens collect --help                      measure a model of your own; categorize, generate, evaluate go on from there
  clas-lens run paper-llama-xnli --dry-run      what the paper's study would take
  clas-lens --help                              every command"""
TRACEBACK = "CLAS_LENS_TRACEBACK"  # set it to see where an error comes from
NEGATIVE = re.compile(r"^-(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$|^-(inf|nan|infinity)$", re.IGNORECASE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Errors are one line, not a traceback."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        known = isinstance(error, ValueError | OSError | ImportError)
        kind = "" if known else f"{type(error).__name__}: "
        hint = "" if known else f" (unexpected; {TRACEBACK}=1 shows where)"
        print(f"clas-lens: error: {kind}{error}{hint}", file=sys.stderr)
        return 1


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    if not (sys.argv[1:] if argv is None else argv):
        print(FIRST_STEPS)
        return 0
    arguments = parser.parse_args(argv)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="transformer_lens")
    warnings.filterwarnings("ignore", message="HookedTransformer is deprecated")
    try:
        arguments.run_command(arguments)
    except ValidationError as error:
        parser.error(wrong_values(error))
    return 0


class _Parser(argparse.ArgumentParser):
    """Negative numbers in any spelling (-1e-4, -.5, -inf) are values, never options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._negative_number_matcher = NEGATIVE


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("a folder's name is needed, got nothing")
    return Path(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="clas-lens", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"clas-lens {__version__}")
    subcommands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = subcommands.add_parser(name, help=text, description=text)
        command.set_defaults(run_command=function)
        return command

    demo = add("demo", commands.demo, "measure, categorise, steer and draw a model, into one run folder")
    add_options(demo, DemoConfig)
    collect = add(
        "collect", commands.collect, "measure every MLP neuron (--site attn: every attention unit) in every language"
    )
    collect.add_argument("--out", type=_folder, default=Path("runs/run"), help="run folder")
    add_options(collect, CollectConfig)
    _add_cluster_options(collect)
    categorize = add("categorize", commands.categorize, "sort a run's neurons, choose bridge layers, draw the layers")
    categorize.add_argument("run", type=_folder, help="run folder that `collect` wrote")
    add_options(categorize, CategorizeConfig)
    generate = add("generate", commands.generate, "continue a prompt, unsteered and steered")
    generate.add_argument("run", type=_folder, help="run folder that `categorize` wrote")
    generate.add_argument("--prompt", required=True, help="text to continue")
    generate.add_argument("--language", required=True, help="its language")
    generate.add_argument("--model", default=None, help="default: the model that the run was collected with")
    generate.add_argument("--layers", nargs="+", default=None, help="default: the run's bridge layers")
    generate.add_argument("--max-new-tokens", type=int, default=32, help="length of the continuation at most")
    add_options(generate, SteerConfig)
    evaluate = add(
        "evaluate", commands.evaluate, "answer a task unsteered and under interventions, compare and tabulate"
    )
    evaluate.add_argument("run", type=_folder, help="run folder that `categorize` wrote")
    add_options(evaluate, EvaluateCommand)
    _add_cluster_options(evaluate)
    search = add(
        "search", commands.search, "search the strength alpha on a task's tuning examples; `evaluate` then uses it"
    )
    search.add_argument("run", type=_folder, help="run folder that `categorize` wrote")
    add_options(search, SearchCommand)
    _add_cluster_options(search)
    add_export_options(add("export", export_command, "write the steered model as files that other programs run"))
    figures = add(
        "figures", commands.figures, "draw every figure that run folders have the tables for, without a model"
    )
    _add_figures_options(figures)
    tables = add("tables", commands.tables, "write every table of a run folder as LaTeX, CSV or HTML, without a model")
    tables.add_argument("run", type=_folder, help="run folder")
    tables.add_argument(
        "--format", nargs="+", choices=get_args(TableFormat), default=["latex", "csv"], help="default: latex csv"
    )
    tables.add_argument("--out", type=_folder, default=None, help="default: the run folder's tables/")
    report = add("report", commands.report, "write a run folder's report.html: figures, tables, methods, in one file")
    report.add_argument("run", type=_folder, help="run folder")
    report.add_argument(
        "--collect",
        action="store_true",
        help="first read the run's texts with its model, for what it does not have yet",
    )
    add_options(report, ReportConfig)
    study = add("run", commands.study, "run a study from a TOML file: every stage, resumable")
    study.add_argument("study", help="a TOML file, or the name of a study that comes with the package")
    study.add_argument("--out", type=_folder, default=None, help="run folder (default: runs/<name of the study>)")
    study.add_argument("--dry-run", action="store_true", help="print the plan and its cost, and do nothing")
    study.add_argument("--rate", type=float, default=None, help="tokens a second of one worker, for the plan's hours")
    _add_cluster_options(study)
    completion = add(
        "completion", commands.completion, "print a script with which your shell completes commands and options"
    )
    completion.set_defaults(of=parser)
    completion.add_argument("shell", choices=SHELLS, help="the shell that you type in")
    completion.epilog, completion.formatter_class = INSTALL, argparse.RawDescriptionHelpFormatter
    return parser


def _add_cluster_options(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("cluster", "the same work and the same files, by the workers of a Ray cluster")
    group.add_argument("--ray", action=argparse.BooleanOptionalAction, default=None, help="needs clas-lens[cluster]")
    add_options(group, ClusterConfig)


def _add_figures_options(figures: argparse.ArgumentParser) -> None:
    figures.add_argument(
        "runs", type=_folder, nargs="+", metavar="run", help="run folder; several are drawn side by side"
    )
    figures.add_argument(
        "--format",
        nargs="+",
        choices=get_args(FigureFormat),
        default=["html"],
        help="all but html need a Chromium (default: html)",
    )
    figures.add_argument("--out", type=_folder, default=None, help="default: figures/ of the (first) run folder")
    figures.add_argument(
        "--width", type=_inches, default=None, help="for print, such as 3.3in (a column) or 6.9in (a page)"
    )
    figures.add_argument("--font", type=float, default=None, help="points of text in print, at least 7 (default: 8)")
    figures.add_argument("--no-title", action="store_true", help="in print: leave title and subtitle to the caption")
    figures.add_argument(
        "--theme", choices=get_args(Theme), default=None, help="default: paper with --width, else light"
    )


def _inches(text: str) -> float:
    return float(text.removesuffix("in"))


if __name__ == "__main__":
    sys.exit(main())
