"""Files: written whole or not at all, safetensors with a JSON header, fingerprints that tell whether they still apply."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

HEADER = "clas_lens"


RECORDED_PACKAGES = ("clas-lens", "torch", "transformer-lens", "transformers", "datasets", "numpy")


class ArtifactError(ValueError):
    """A saved file is missing, damaged, of another kind, or belongs to another model or text."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block ends well and vanishes if it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_tensors(path: Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors with a JSON header that says what they are."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    labelled = {"kind": kind, "provenance": provenance(), **header}
    with atomic_path(path) as temporary:
        save_file(
            content,
            temporary,
            metadata={HEADER: json.dumps(labelled, ensure_ascii=False)},
        )


def read_header(path: Path, kind: str) -> dict[str, Any]:
    """The JSON header alone."""
    return _read(path, kind, with_tensors=False)[1]


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `save_tensors` wrote.

    Raises:
        ArtifactError: no such file, a damaged one, or one of another kind.
    """
    return _read(path, kind, with_tensors=True)


def _read(path: Path, kind: str, *, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise ArtifactError(f"no {kind} at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = list(file.keys()) if with_tensors else []
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run the stage again") from error
    header = json.loads(metadata.get(HEADER, "{}"))
    if header.get("kind") != kind:
        raise ArtifactError(f"{path} holds {header.get('kind') or 'no clas_lens artefact'}, not {kind}")
    return tensors, header


def save_table(path: Path, kind: str, table: pd.DataFrame, header: Mapping[str, Any]) -> None:
    """Write a parquet table with a JSON header in its metadata."""
    labelled = table.copy()
    labelled.attrs = {HEADER: {"kind": kind, "provenance": provenance(), **header}}
    with atomic_path(path) as temporary:
        labelled.to_parquet(temporary, index=False)


def load_table(path: Path, kind: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and header of a file that `save_table` wrote.

    Raises:
        ArtifactError: no such file, a damaged one, or one of another kind.
    """
    if not path.is_file():
        raise ArtifactError(f"no {kind} at {path}")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run the stage again") from error
    header = dict(table.attrs.get(HEADER, {}))
    if header.get("kind") != kind:
        raise ArtifactError(f"{path} holds {header.get('kind') or 'no clas_lens table'}, not {kind}")
    table.attrs = {}
    return table, header


def content_key(*parts: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def tensor_fingerprint(tensor: Tensor) -> str:
    """A hash of a small tensor's values."""
    return hashlib.sha256(tensor.detach().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def provenance() -> dict[str, Any]:
    """When, with which versions and from which commit an artefact was made."""
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": dict(_versions()),
        "git_commit": _git_commit(),
    }


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


# --- already done? ---


@dataclass(frozen=True)
class Content:
    """What a file of tensors holds: the tensors, and the header that says what they are."""

    tensors: Mapping[str, Tensor]
    header: Mapping[str, Any] = field(default_factory=dict)


Kept = TypeVar("Kept", pd.DataFrame, Content)


def remember(path: Path | None, kind: str, key: str, make: Callable[[], Kept]) -> Kept:
    """What is saved at `path` if it was made from the same inputs (`key`), else what `make` gives, saved there.

    A kept file is left as it is, so it goes on saying with which versions it was made. What is missing, damaged, of another
    kind or made from other inputs is made again.

    Args:
        path: a `.parquet` of a table, or a `.safetensors` of `Content`; None remembers nothing.
        key: `content_key` of everything that the result depends on.
    """
    found = remembered_table(path, kind, key) if path and path.suffix == ".parquet" else remembered(path, kind, key)
    return cast(Kept, found) if found is not None else keep(path, kind, key, make())


def remembered(path: Path | None, kind: str, key: str) -> Content | None:
    """The tensors saved at `path` if they were made from the same inputs, else None."""
    try:
        if path is None or read_header(path, kind).get("key") != key:
            return None
        return Content(*load_tensors(path, kind))
    except ArtifactError:
        return None


def remembered_table(path: Path | None, kind: str, key: str) -> pd.DataFrame | None:
    """The table saved at `path` if it was made from the same inputs, else None."""
    try:
        table, header = load_table(path, kind) if path is not None else (None, {})
    except ArtifactError:
        return None
    return table if header.get("key") == key else None


def keep(path: Path | None, kind: str, key: str, made: Kept) -> Kept:
    """Save what was made, for `remember` to find, and return it."""
    if path is not None and isinstance(made, pd.DataFrame):
        save_table(path, kind, made, {"key": key})
    elif path is not None:
        save_tensors(path, kind, made.tensors, {**made.header, "key": key})
    return made
