"""`clas-lens`: one subcommand a stage, and `demo` for all of them. This is the only module that also calls `analysis`."""

import argparse
import sys
import time
import types
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import ValidationError

from clas_lens import __version__
from clas_lens.config import CategorizeConfig, CollectConfig, DemoConfig, StageConfig, SteerConfig

DESCRIPTION = "Cross-lingual activation steering: measure, categorise and steer the MLP neurons of multilingual models."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status. Errors that a user can act on are one line, not a traceback."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="transformer_lens")
    warnings.filterwarnings("ignore", message="HookedTransformer is deprecated")
    try:
        arguments.run_command(arguments)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except ValidationError as error:
        parser.error("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()))
    except (ValueError, OSError) as error:
        print(f"clas-lens: error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="clas-lens", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"clas-lens {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, function: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run_command=function)
        return command

    demo = add("demo", _demo, "measure, categorise, steer and draw a model, into one run folder")
    _add_options(demo, DemoConfig)
    collect = add("collect", _collect, "measure every MLP neuron in every language")
    collect.add_argument("--out", type=Path, default=Path("runs/run"), help="run folder")
    _add_options(collect, CollectConfig)
    categorize = add("categorize", _categorize, "sort a run's neurons, choose bridge layers, draw the layers")
    categorize.add_argument("run", type=Path, help="run folder that `collect` wrote")
    _add_options(categorize, CategorizeConfig)
    generate = add("generate", _generate, "continue a prompt, unsteered and steered")
    generate.add_argument("run", type=Path, help="run folder that `categorize` wrote")
    generate.add_argument("--prompt", required=True, help="text to continue")
    generate.add_argument("--language", required=True, help="its language")
    generate.add_argument("--model", default=None, help="default: the model that the run was collected with")
    generate.add_argument("--layers", nargs="+", default=None, help="default: the run's bridge layers")
    generate.add_argument("--max-new-tokens", type=int, default=32, help="length of the continuation at most")
    _add_options(generate, SteerConfig)
    return parser


# --- commands ---


def _demo(arguments: argparse.Namespace) -> None:
    config = _config(DemoConfig, arguments)
    start = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - start:5.0f} s] {text}", flush=True)

    say(f"starting; results go to {config.out}")
    from clas_lens.demo import run_demo
    from clas_lens.study import RunFolder

    cats, layers = run_demo(config, say)
    figure = _draw_layers(RunFolder(config.out), cats, layers)
    say(f"done. Look at\n  {figure}\n  {config.out / 'summary.md'}")


def _collect(arguments: argparse.Namespace) -> None:
    config = _config(CollectConfig, arguments)
    from clas_lens.study import RunFolder, collect_stage, load_configured_corpus, load_configured_model

    corpus = load_configured_corpus(config)
    stats = collect_stage(config, RunFolder(arguments.out), load_configured_model(config), corpus)
    print(f"{stats!r}\nwritten to {arguments.out}; next: clas-lens categorize {arguments.out}")
    cut = {code: text["truncated"] for code, text in stats.texts.items() if text["truncated"]}
    if cut:
        print(f"cut at {stats.settings['max_tokens']} tokens: {', '.join(f'{n} texts in {c}' for c, n in cut.items())}")


def _categorize(arguments: argparse.Namespace) -> None:
    config = _config(CategorizeConfig, arguments)
    from clas_lens.study import RunFolder, categorize_stage

    run = RunFolder(arguments.run)
    cats, layers = categorize_stage(config, run)
    shares = cats.shares().pivot(index="layer", columns="category", values="percent").round(1)
    print(shares[["dead", "language-specific", "partial-shared", "all-shared"]].to_string())
    print(f"{cats!r}\nbridge layers {', '.join(map(str, layers))}")
    print(f"figure: {_draw_layers(run, cats, layers)}")


def _generate(arguments: argparse.Namespace) -> None:
    config = _config(SteerConfig, arguments)
    from clas_lens.generation import generate
    from clas_lens.steering import steer
    from clas_lens.study import RunFolder, build_clas, load_categories, load_configured_model

    run = RunFolder(arguments.run)
    cats, layers = load_categories(run)
    if arguments.layers is not None:
        layers = tuple(int(layer) for layer in _split(arguments.layers))
    clas = build_clas(config, cats, layers)
    collected = CollectConfig(**run.read_manifest()["collect"]["config"])
    model = load_configured_model(collected.model_copy(update={"model": arguments.model or collected.model}))
    options: dict[str, Any] = {"max_new_tokens": arguments.max_new_tokens}
    print("unsteered:", generate(model, [arguments.prompt], **options)[0])
    with steer(model, clas, language=arguments.language):
        print("steered:  ", generate(model, [arguments.prompt], **options)[0])


def _draw_layers(run: Any, cats: Any, layers: Sequence[int]) -> Path:
    from analysis import layer_distribution, save_figure

    return save_figure(layer_distribution(cats, bridge_layers=layers), run.figures / "layer_distribution")


# --- options from configurations ---


def _add_options(parser: argparse.ArgumentParser, config: type[StageConfig]) -> None:
    """One `--option` a field, with its type, choices, default and description."""
    for name, field in config.model_fields.items():
        kind = _without_none(field.annotation)
        shown = "" if field.default is None else f" (default: {field.default})"
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"{field.description}{shown}"}
        if get_origin(kind) is tuple:
            options["nargs"] = "+"
        elif get_origin(kind) is Literal:
            options["choices"] = get_args(kind)
        else:
            options["type"] = kind
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name, **options)


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        (kind,) = [part for part in get_args(annotation) if part is not type(None)]
        return kind
    return annotation


_Config = typing.TypeVar("_Config", bound=StageConfig)


def _config(kind: type[_Config], arguments: argparse.Namespace) -> _Config:
    """The configuration with what was given; what was not is left to its defaults."""
    values = {name: getattr(arguments, name) for name in kind.model_fields if hasattr(arguments, name)}
    return kind(**{name: _split(value) if isinstance(value, list) else value for name, value in values.items()})


def _split(values: Sequence[str]) -> tuple[str, ...]:
    """`--languages en de` and `--languages en,de` mean the same."""
    return tuple(part for value in values for part in value.split(",") if part)


if __name__ == "__main__":
    sys.exit(main())
