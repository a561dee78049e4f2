"""Study files: read, checked, and those that come with the package."""

import tomllib
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from clas_lens.config import StudyConfig


class StudyError(ValueError):
    """A study file that is not one."""


def load_study(name: str | Path) -> StudyConfig:
    """A study from a TOML file, or one that comes with the package by its name (`shipped_studies`).

    Raises:
        StudyError: no such study, a file that is not TOML, or an unknown or malformed entry.
    """
    shipped = files("clas_lens") / "data" / "studies" / f"{name}.toml"
    if Path(name).is_file():
        text = Path(name).read_text(encoding="utf-8")
    elif str(name) in shipped_studies():
        text = shipped.read_text(encoding="utf-8")
    else:
        raise StudyError(f"no study {str(name)!r}: neither a file nor one of {', '.join(shipped_studies())}")
    try:
        return StudyConfig.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{name} is not TOML: {error}") from error
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise StudyError(f"{name}: {found}") from error


def shipped_studies() -> tuple[str, ...]:
    """Names of the studies that come with the package."""
    folder = files("clas_lens") / "data" / "studies"
    return tuple(sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".toml")))
