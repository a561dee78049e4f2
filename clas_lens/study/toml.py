"""A study as a TOML file: one that is given is read, or refused by what is wrong; one that was run is written."""

import json
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clas_lens.study.config import StudyConfig, wrong_values


class StudyError(ValueError):
    """A study file that is not one."""


def load_study(name: str | Path) -> StudyConfig:
    """A study from a TOML file, or one that comes with the package by its name (`shipped_studies`).

    Raises:
        StudyError: no such study, a file that is not TOML, or an unknown or malformed entry.
    """
    shipped = files("clas_lens") / "data" / "studies" / f"{name}.toml"
    if not isinstance(name, str | Path) or len(str(name)) > 4000 or len(Path(name).name) > 200:
        raise StudyError(f"no study {str(name)[:40]!r}: neither a file nor one of {', '.join(shipped_studies())}")
    if Path(name).is_file():
        text = _read(Path(name))
    elif str(name) in shipped_studies():
        text = shipped.read_text(encoding="utf-8")
    else:
        raise StudyError(f"no study {str(name)!r}: neither a file nor one of {', '.join(shipped_studies())}")
    try:
        given = json.dumps(tomllib.loads(text), default=str)
        return StudyConfig.model_validate_json(given, strict=True)  # "2" and true are no numbers
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{name} is not TOML: {error}") from error
    except ValidationError as error:
        raise StudyError(f"{name}: {wrong_values(error)}") from error


def _read(path: Path) -> str:
    """A file's text, with or without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StudyError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error


def shipped_studies() -> tuple[str, ...]:
    """Names of the studies that come with the package."""
    folder = files("clas_lens") / "data" / "studies"
    return tuple(sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".toml")))


def study_toml(config: Mapping[str, Any]) -> str:
    """A study's configuration, from `model_dump(mode="json")`, as a text that `load_study` reads; with all defaults."""
    lines = _assignments({key: value for key, value in config.items() if not isinstance(value, dict | list)})
    for key, value in config.items():
        if isinstance(value, dict):
            lines += ["", f"[{key}]", *_assignments(value)]
    for task in config["tasks"]:
        lines += ["", "[[tasks]]", *_assignments({**task, "tuning_limit": task["tuning_limit"] or "all"})]
    return "\n".join(lines)


def _assignments(values: Mapping[str, Any]) -> list[str]:
    """A JSON string, number, boolean or list of them is one of TOML, too, but for a raw DEL."""
    written = {key: json.dumps(value, ensure_ascii=False) for key, value in values.items() if value is not None}
    return [f"{key} = {value}".replace("\x7f", "\\u007f") for key, value in written.items()]
