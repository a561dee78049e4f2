"""When, with which versions and from which commit something was made."""

import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RECORDED_PACKAGES = ("clas-lens", "torch", "transformer-lens", "transformers", "datasets", "numpy")


def provenance() -> dict[str, Any]:
    """When, with which versions and from which commit an artefact was made."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": dict(_versions()),
        "git_commit": _git_commit(),
    }


def each_once(made: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of several of these the first of each that differ in more than their time."""
    found: dict[str, dict[str, Any]] = {}
    for one in made:
        found.setdefault(json.dumps({**one, "made": None}, sort_keys=True), dict(one))
    return list(found.values())


@cache
def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


@cache
def _git_commit() -> str | None:
    """The commit of this package's own checkout, or None for an installed copy."""
    checkout = Path(__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(checkout), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
