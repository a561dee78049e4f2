"""`clas-lens`: one subcommand a stage, and `demo` for all of them. Figures and reports are those of `clas_lens.analysis`."""

import argparse
import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clas_lens import __version__
from clas_lens.completion import INSTALL, SHELLS, completion_script
from clas_lens.study.config import (
    CategorizeConfig,
    ClusterConfig,
    CollectConfig,
    DemoConfig,
    EvaluateCommand,
    EvaluateConfig,
    MethodsConfig,
    ReportConfig,
    SearchCommand,
    SearchConfig,
    StageConfig,
    SteerConfig,
    StudyConfig,
    TaskConfig,
    wrong_values,
)
from clas_lens.study.export import add_export_options, export_command
from clas_lens.study.options import add_options, cluster_config, part_of, read_config, split_values

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
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run_command=function)
        return command

    demo = add("demo", _demo, "measure, categorise, steer and draw a model, into one run folder")
    add_options(demo, DemoConfig)
    collect = add("collect", _collect, "measure every MLP neuron (--site attn: every attention unit) in every language")
    collect.add_argument("--out", type=_folder, default=Path("runs/run"), help="run folder")
    add_options(collect, CollectConfig)
    _add_cluster_options(collect)
    categorize = add("categorize", _categorize, "sort a run's neurons, choose bridge layers, draw the layers")
    categorize.add_argument("run", type=_folder, help="run folder that `collect` wrote")
    add_options(categorize, CategorizeConfig)
    generate = add("generate", _generate, "continue a prompt, unsteered and steered")
    generate.add_argument("run", type=_folder, help="run folder that `categorize` wrote")
    generate.add_argument("--prompt", required=True, help="text to continue")
    generate.add_argument("--language", required=True, help="its language")
    generate.add_argument("--model", default=None, help="default: the model that the run was collected with")
    generate.add_argument("--layers", nargs="+", default=None, help="default: the run's bridge layers")
    generate.add_argument("--max-new-tokens", type=int, default=32, help="length of the continuation at most")
    add_options(generate, SteerConfig)
    evaluate = add("evaluate", _evaluate, "answer a task unsteered and under interventions, compare and tabulate")
    evaluate.add_argument("run", type=_folder, help="run folder that `categorize` wrote")
    add_options(evaluate, EvaluateCommand)
    _add_cluster_options(evaluate)
    search = add("search", _search, "search the strength alpha on a task's tuning examples; `evaluate` then uses it")
    search.add_argument("run", type=_folder, help="run folder that `categorize` wrote")
    add_options(search, SearchCommand)
    _add_cluster_options(search)
    add_export_options(add("export", export_command, "write the steered model as files that other programs run"))
    figures = add("figures", _figures, "draw every figure that run folders have the tables for, without a model")
    _add_figures_options(figures)
    tables = add("tables", _tables, "write every table of a run folder as LaTeX, CSV or HTML, without a model")
    tables.add_argument("run", type=_folder, help="run folder")
    tables.add_argument(
        "--format", nargs="+", choices=("latex", "csv", "html"), default=["latex", "csv"], help="default: latex csv"
    )
    tables.add_argument("--out", type=_folder, default=None, help="default: the run folder's tables/")
    report = add("report", _report, "write a run folder's report.html: figures, tables, methods, in one file")
    report.add_argument("run", type=_folder, help="run folder")
    report.add_argument(
        "--collect",
        action="store_true",
        help="first read the run's texts with its model, for what it does not have yet",
    )
    add_options(report, ReportConfig)
    study = add("run", _study, "run a study from a TOML file: every stage, resumable")
    study.add_argument("study", help="a TOML file, or the name of a study that comes with the package")
    study.add_argument("--out", type=_folder, default=None, help="run folder (default: runs/<name of the study>)")
    study.add_argument("--dry-run", action="store_true", help="print the plan and its cost, and do nothing")
    study.add_argument("--rate", type=float, default=None, help="tokens a second of one worker, for the plan's hours")
    _add_cluster_options(study)
    completion = add("completion", _completion, "print a script with which your shell completes commands and options")
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
        choices=("html", "png", "svg", "pdf"),
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
        "--theme", choices=("paper", "light", "dark"), default=None, help="default: paper with --width, else light"
    )


def _inches(text: str) -> float:
    return float(text.removesuffix("in"))


# --- commands ---


def _timed_say() -> Callable[[str], None]:
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {text}", flush=True)

    return say


def _demo(arguments: argparse.Namespace) -> None:
    config = read_config(DemoConfig, arguments)
    say = _timed_say()
    say(f"starting; results go to {config.out}")
    from clas_lens.study.order import run_demo

    run = run_demo(config, say)
    figure = _draw_layers(run)
    from clas_lens import analysis

    say("writing the report")
    report = analysis.report.build_report(config.out)
    say(f"done. Look at\n  {report}\n  {figure}\n  {config.out / 'summary.md'}")


def _collect(arguments: argparse.Namespace) -> None:
    config = read_config(CollectConfig, arguments)
    asked = cluster_config(arguments)
    from clas_lens.study.run import Run
    from clas_lens.study.stages import configured_cluster

    with configured_cluster(asked, _timed_say()) as cluster:
        run = Run(arguments.out, StudyConfig(name="run", collect=config), cluster=cluster)
        _ = run.corpus  # what is wrong with it is said before a model is loaded
        with run.folder.alone():
            stats = run.statistics
    print(f"{stats!r}\nwritten to {arguments.out}; next: clas-lens categorize {arguments.out}")
    cut = {code: text["truncated"] for code, text in stats.texts.items() if text["truncated"]}
    if cut:
        print(f"cut at {stats.settings['max_tokens']} tokens: {', '.join(f'{n} texts in {c}' for c, n in cut.items())}")


def _categorize(arguments: argparse.Namespace) -> None:
    config = read_config(CategorizeConfig, arguments)
    from clas_lens.study.run import Run

    run = Run.open(arguments.run, categorize=config)
    with run.folder.alone():
        cats = run.categories
    shares = cats.shares().pivot(index="layer", columns="category", values="percent").round(1)
    print(shares[["dead", "language-specific", "partial-shared", "all-shared"]].to_string())
    print(f"{cats!r}\nbridge layers {', '.join(map(str, run.bridge_layers))}")
    print(f"figure: {_draw_layers(run)}")


def _generate(arguments: argparse.Namespace) -> None:
    config = read_config(SteerConfig, arguments)
    from dataclasses import replace

    from clas_lens.steering.generate import generate
    from clas_lens.steering.steer import steer
    from clas_lens.study.run import Run
    from clas_lens.study.stages import load_configured_model

    run = Run.open(arguments.run, steer=config)
    clas = run.clas
    if arguments.layers is not None:
        clas = replace(clas, layers=tuple(int(layer) for layer in split_values(arguments.layers)))
    collect = run.config.collect
    model = load_configured_model(
        collect.model_copy(update={"model": collect.model if arguments.model is None else arguments.model})
    )
    options: dict[str, Any] = {"max_new_tokens": arguments.max_new_tokens}
    print("unsteered:", generate(model, [arguments.prompt], **options)[0])
    with steer(model, clas, language=arguments.language):
        print("steered:  ", generate(model, [arguments.prompt], **options)[0])


def _evaluate(arguments: argparse.Namespace) -> None:
    config = read_config(EvaluateCommand, arguments)
    with _open(arguments, config) as run, run.folder.alone():
        for name, found in run.searches[config.task].items():
            print(f"{name}: alpha={found.chosen['alpha']:g}, from the search in {run.folder.search}")
        _print_scores(config.task, run.rows[config.task])


def _search(arguments: argparse.Namespace) -> None:
    config = read_config(SearchCommand, arguments)
    if config.betas and "clas" not in config.methods:
        raise ValueError("betas and gammas are CLAS's: name clas among the methods")
    with _open(arguments, config, search=part_of(config, SearchConfig)) as run, run.folder.alone():
        searches = run.searches[config.task]
    for name, found in searches.items():
        print(f"\n{name}: chosen {', '.join(f'{key}={value:g}' for key, value in found.chosen.items())}")
        print(found.means().round(2).to_string(index=False))
        print(f"{found.passes:.0f} prompt passes; by independent runs {found.passes_independent:.0f}")


@contextmanager
def _open(arguments: argparse.Namespace, config: EvaluateCommand | SearchCommand, **stages: Any) -> Iterator[Any]:
    """The run of a folder with the methods, strengths and task of a command, and its cluster while the block runs."""
    asked = cluster_config(arguments)
    from clas_lens.study.order import refuse_early
    from clas_lens.study.run import Run
    from clas_lens.study.stages import configured_cluster

    parts: dict[str, type[StageConfig]] = {"methods": MethodsConfig, "steer": SteerConfig, "evaluate": EvaluateConfig}
    given: dict[str, Any] = {name: part_of(config, kind) for name, kind in parts.items()}
    with configured_cluster(asked, _timed_say()) as cluster:
        run = Run.open(arguments.run, tasks=(part_of(config, TaskConfig),), cluster=cluster, **given, **stages)
        refuse_early(run)
        yield run


def _figures(arguments: argparse.Namespace) -> None:
    from clas_lens import analysis

    written = analysis.report.draw_files(
        arguments.runs,
        arguments.out,
        arguments.format,
        theme=arguments.theme,
        width=arguments.width,
        font=arguments.font,
        title=not arguments.no_title,
    )
    print("\n".join(map(str, written)))


def _tables(arguments: argparse.Namespace) -> None:
    from clas_lens import analysis

    data = analysis.report.RunData.open(arguments.run)
    tables = analysis.report.run_tables(data)
    for path in analysis.tables.export_tables(tables, arguments.out or data.run.tables, arguments.format):
        print(path)


def _report(arguments: argparse.Namespace) -> None:
    config = read_config(ReportConfig, arguments)
    from clas_lens import analysis

    if arguments.collect:
        from clas_lens.study.run import Run
        from clas_lens.study.tables import report_tables

        run = Run.open(arguments.run, report=config)
        with run.folder.alone():
            report_tables(run)
    print(analysis.report.build_report(arguments.run))


def _study(arguments: argparse.Namespace) -> None:
    from clas_lens.study.config import load_study
    from clas_lens.study.order import refuse_early, run_study
    from clas_lens.study.plan import plan_study
    from clas_lens.study.run import Run

    config = load_study(arguments.study)
    config = config.model_copy(update={"cluster": cluster_config(arguments, config.cluster)})
    out = arguments.out or Path("runs") / config.name
    if arguments.dry_run:
        refuse_early(Run(out, config), dry=True)
        workers = None if config.cluster is None else config.cluster.workers
        plan = plan_study(config, workers=workers, rate=arguments.rate)
        print(f"{config.name}: {config.collect.model}, into {out}\n{plan.to_string(index=False)}")
        print(f"about {plan['tokens'].sum() / 1e6:.1f} million tokens and {plan['disk_mb'].sum():.0f} MB of files")
        if "hours" in plan:
            print(
                f"about {plan['hours'].sum():.2f} hours on {workers or 1} worker(s) at {arguments.rate:g} tokens a second each"
            )
        return
    say = _timed_say()
    say(f"starting {config.name}; results go to {out}")
    for task, rows in run_study(config, out, say).rows.items():
        _print_scores(task, rows)
    from clas_lens import analysis

    say("writing the report")
    say(f"done. Look at\n  {analysis.report.build_report(out)}\nEverything is in {out}")


def _completion(arguments: argparse.Namespace) -> None:
    print(completion_script(_parser(), arguments.shell))


def _print_scores(task: str, rows: Any) -> None:
    metric = rows["metric"].iloc[0]
    scores = rows.pivot_table(index="language", columns="intervention", values=metric, sort=False)
    shown = (100 * scores[list(rows["intervention"].unique())]).round(2)
    print(f"\n{task}, {metric} in percent\n{shown.to_string()}")
    if rows["overlap"].any():
        print("some of these examples were also used to measure or tune an intervention")


def _draw_layers(run: Any) -> Path:
    from clas_lens.analysis import head_distribution, layer_distribution, save_figure

    if run.categories.site == "attn":
        heads = head_distribution(run.categories, bridge_layers=run.bridge_layers)
        save_figure(heads, run.folder.figures / "head_distribution")
    figure = layer_distribution(run.categories, bridge_layers=run.bridge_layers)
    return save_figure(figure, run.folder.figures / "layer_distribution")


if __name__ == "__main__":
    sys.exit(main())
