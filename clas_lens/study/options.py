"""Command-line options made from configurations: one `--option` a field, with its type, choices, default and description."""

import argparse
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

from clas_lens.study.config import ClusterConfig, StageConfig


def add_options(parser: argparse._ActionsContainer, config: type[StageConfig]) -> None:
    """One `--option` a field, with its type, choices, default and description."""
    for name, field in config.model_fields.items():
        kind = _without_none(field.annotation)
        shown = "" if field.default is None else f" (default: {field.default})"
        options: dict[str, Any] = {"default": argparse.SUPPRESS, "help": f"{field.description}{shown}"}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        elif get_origin(kind) is tuple:
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


ConfigT = typing.TypeVar("ConfigT", bound=StageConfig)


def read_config(kind: type[ConfigT], arguments: argparse.Namespace) -> ConfigT:
    """The configuration with what was given; what was not is left to its defaults."""
    values = {name: getattr(arguments, name) for name in kind.model_fields if hasattr(arguments, name)}
    return kind(**{name: split_values(value) if isinstance(value, list) else value for name, value in values.items()})


def cluster_config(arguments: argparse.Namespace, configured: ClusterConfig | None = None) -> ClusterConfig | None:
    """The cluster that `--ray` and its options ask for, or that a study has configured; None with `--no-ray` or neither.

    Raises:
        ValueError: options of a cluster that is not asked for.
    """
    given = read_config(ClusterConfig, arguments).model_dump(exclude_unset=True)
    asked = configured is not None if arguments.ray is None else arguments.ray
    if given and not asked:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} is for a cluster: give --ray, too")
    held = {} if configured is None else configured.model_dump(exclude_unset=True)
    return ClusterConfig(**{**held, **given}) if asked else None


def split_values(values: Sequence[str]) -> tuple[str, ...]:
    """`--languages en de` and `--languages en,de` mean the same.

    Raises:
        ValueError: white space around a value, which would be part of a name.
    """
    parts = tuple(part for value in values for part in value.split(",") if part)
    spaced = [part for part in parts if part != part.strip()]
    if spaced:
        raise ValueError(f"{spaced[0]!r} has white space around it: separate values by a comma or a space alone")
    return parts


def part_of(command: StageConfig, kind: type[ConfigT]) -> ConfigT:
    """The part of a command's options that one stage is configured by; what was not given stays at its default."""
    given = {name: getattr(command, name) for name in kind.model_fields if name in command.model_fields_set}
    defaults = {name: getattr(command, name) for name in kind.model_fields if name not in command.model_fields_set}
    own = {name: value for name, value in defaults.items() if value != kind.model_fields[name].default}
    return kind(**own, **given)
