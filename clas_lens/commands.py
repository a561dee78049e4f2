"""What each subcommand of `clas-lens` does. Figures and reports are those of `clas_lens.analysis`."""

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clas_lens.completion import completion_script
from clas_lens.study.config import (
    CategorizeConfig,
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
)
from clas_lens.study.options import cluster_config, part_of, read_config, split_values


def _timed_say() -> Callable[[str], None]:
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {text}", flush=True)

    return say


def demo(arguments: argparse.Namespace) -> None:
    """Everything, into one run folder, with its report."""
    config = read_config(DemoConfig, arguments)
    say = _timed_say()
    say(f"starting; results go to {config.out}")
    from clas_lens.study.order import check_whole, run_demo

    run = run_demo(config, say)
    figure = _draw_layers(run)
    from clas_lens import analysis

    say("writing the report")
    report = analysis.report.build_report(config.out)
    check_whole(run)
    say(f"done. Look at\n  {report}\n  {figure}\n  {config.out / 'summary.md'}")


def collect(arguments: argparse.Namespace) -> None:
    """Measure."""
    config = read_config(CollectConfig, arguments)
    asked = cluster_config(arguments)
    from clas_lens.study.configured import configured_cluster
    from clas_lens.study.run import Run

    with configured_cluster(asked, _timed_say()) as cluster:
        run = Run(arguments.out, StudyConfig(name="run", collect=config), cluster=cluster)
        _ = run.corpus  # what is wrong with it is said before a model is loaded
        with run.folder.alone():
            stats = run.statistics
    print(f"{stats!r}\nwritten to {arguments.out}; next: clas-lens categorize {arguments.out}")
    cut = {code: text["truncated"] for code, text in stats.texts.items() if text["truncated"]}
    if cut:
        print(f"cut at {stats.settings['max_tokens']} tokens: {', '.join(f'{n} texts in {c}' for c, n in cut.items())}")


def categorize(arguments: argparse.Namespace) -> None:
    """Sort neurons, choose bridge layers, draw the layers."""
    config = read_config(CategorizeConfig, arguments)
    from clas_lens.study.run import Run

    run = Run.open(arguments.run, categorize=config)
    with run.folder.alone():
        cats = run.categories
    shares = cats.shares().pivot(index="layer", columns="category", values="percent").round(1)
    print(shares[["dead", "language-specific", "partial-shared", "all-shared"]].to_string())
    print(f"{cats!r}\nbridge layers {', '.join(map(str, run.bridge_layers))}")
    print(f"figure: {_draw_layers(run)}")


def generate(arguments: argparse.Namespace) -> None:
    """Continue a prompt, unsteered and steered."""
    config = read_config(SteerConfig, arguments)
    from dataclasses import replace

    from clas_lens.steering.generate import generate
    from clas_lens.steering.steer import steer
    from clas_lens.study.configured import load_configured_model
    from clas_lens.study.run import Run

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


def evaluate(arguments: argparse.Namespace) -> None:
    """Answer a task under every method, and print the scores."""
    config = read_config(EvaluateCommand, arguments)
    with _open(arguments, config) as run, run.folder.alone():
        for name, found in run.searches[config.task].items():
            print(f"{name}: alpha={found.chosen['alpha']:g}, from the search in {run.folder.search}")
        _print_scores(config.task, run.rows[config.task])


def search(arguments: argparse.Namespace) -> None:
    """Search strengths on tuning examples, and print them."""
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
    from clas_lens.study.configured import configured_cluster
    from clas_lens.study.order import refuse_early
    from clas_lens.study.run import Run

    parts: dict[str, type[StageConfig]] = {"methods": MethodsConfig, "steer": SteerConfig, "evaluate": EvaluateConfig}
    given: dict[str, Any] = {name: part_of(config, kind) for name, kind in parts.items()}
    with configured_cluster(asked, _timed_say()) as cluster:
        run = Run.open(arguments.run, tasks=(part_of(config, TaskConfig),), cluster=cluster, **given, **stages)
        refuse_early(run)
        yield run


def figures(arguments: argparse.Namespace) -> None:
    """Draw all figures that there are tables for."""
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


def tables(arguments: argparse.Namespace) -> None:
    """Write every table as files."""
    from clas_lens import analysis

    data = analysis.report.RunData.open(arguments.run)
    tables = analysis.report.run_tables(data)
    for path in analysis.tables.export_tables(tables, arguments.out or data.run.tables, arguments.format):
        print(path)


def report(arguments: argparse.Namespace) -> None:
    """Write the run folder's page."""
    config = read_config(ReportConfig, arguments)
    from clas_lens import analysis

    if arguments.collect:
        from clas_lens.study.run import Run
        from clas_lens.study.tables import report_tables

        run = Run.open(arguments.run, report=config)
        with run.folder.alone():
            report_tables(run)
    print(analysis.report.build_report(arguments.run))


def study(arguments: argparse.Namespace) -> None:
    """Run a study, or print its plan."""
    from clas_lens.study.order import check_whole, refuse_early, run_study
    from clas_lens.study.plan import plan_study
    from clas_lens.study.run import Run
    from clas_lens.study.toml import load_study

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
    run = run_study(config, out, say)
    for task, rows in run.rows.items():
        _print_scores(task, rows)
    from clas_lens import analysis

    say("writing the report")
    report = analysis.report.build_report(out)
    check_whole(run)  # also what was cleared while the report was written
    say(f"done. Look at\n  {report}\nEverything is in {out}")


def completion(arguments: argparse.Namespace) -> None:
    """Print a shell's completion script."""
    print(completion_script(arguments.of, arguments.shell))


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
