"""Files: written whole or not at all, safetensors with a JSON header, fingerprints that tell whether they still apply."""

import hashlib
import json
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar, cast

import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clas_lens.given import given_path
from clas_lens.provenance import provenance
from clas_lens.seals import NO_SEAL, is_sealed, put_seal, table_seal_place, tensor_seal_place, with_room

HEADER = "clas_lens"


class ArtifactError(ValueError):
    """A saved file is missing, damaged, of another kind, or belongs to another model or text."""


# --- whole or not at all ---


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block ends well and vanishes if it does not.

    The file is readable by whoever the umask says, whatever the block's writer thinks. What killed runs on this machine left
    in the folder is swept.
    """
    given_path("a file", path, error=ArtifactError)
    make_folder(path.parent)
    if path.exists() and not path.is_file():  # a folder, or a device, which renaming would put a file in the place of
        raise ArtifactError(f"{path} is there and is no file that could be replaced: give another name")
    _sweep(path.parent)
    # The name has to have room for what is put around it.
    name = path.name if len(os.fsencode(path.name)) <= 150 else hashlib.sha256(path.name.encode()).hexdigest()
    temporary = path.with_name(f".{name}.{socket.gethostname()}.{os.getpid()}.tmp")
    try:
        _touch(temporary, path)
        mode = stat.S_IMODE(temporary.stat().st_mode)  # what the umask gives; asking for it by os.umask would change it
        yield temporary
        temporary.chmod(mode)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _touch(temporary: Path, path: Path) -> None:
    try:
        temporary.touch()
    except OSError as error:
        raise ArtifactError(f"{path} cannot be written ({error.strerror}): give another place") from error


def make_folder(folder: Path) -> Path:
    """The folder, made if it is not there.

    Raises:
        ArtifactError: it cannot be made or written to; the message says why.
    """
    given_path("a folder", folder, error=ArtifactError)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise ArtifactError(f"{folder} is a file, not a folder: give another name") from error
    except NotADirectoryError as error:
        raise ArtifactError(f"{folder} lies under a file, not in a folder: give another name") from error
    except OSError as error:
        raise ArtifactError(f"the folder {folder} cannot be made ({error.strerror}): give another one") from error
    return folder


def sweep(root: Path) -> None:
    """Remove temporary files of dead processes of this machine from a folder and all below it."""
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir() and not path.is_symlink())):
        _sweep(folder)


def _sweep(folder: Path) -> None:
    """Remove temporary files of dead processes of this machine; of other machines that share the folder nothing is known."""
    if os.name != "posix":  # elsewhere signal 0 is no harmless question
        return
    ours = re.compile(rf"\..+\.{re.escape(socket.gethostname())}\.(\d+)\.tmp")
    for path in folder.iterdir():
        left = ours.fullmatch(path.name)
        if left and not _is_alive(int(left[1])):
            path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _damaged(path: Path, why: object) -> ArtifactError:
    return ArtifactError(f"{path} is damaged ({why}); delete it and run the stage again")


NOT_SEALED = "its bytes do not give the hash that it carries, or it carries none, as before clas-lens 0.2"


# --- tensors ---


def save_tensors(path: Path, kind: str, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors with a JSON header that says what they are, and a hash of both."""
    content = {name: _alone(tensor) for name, tensor in tensors.items()}
    labelled = {"kind": kind, "provenance": provenance(), **header}
    metadata = {HEADER: json.dumps(labelled, ensure_ascii=False), "sha256": NO_SEAL.decode()}
    with atomic_path(path) as temporary:
        save_file(content, temporary, metadata=metadata)
        with temporary.open("r+b") as file:
            put_seal(file, tensor_seal_place(file))


def _alone(tensor: Tensor) -> Tensor:
    """On the CPU, and sharing no memory with others, which safetensors refuses."""
    held = tensor.detach().cpu().contiguous()
    return held if held.untyped_storage().nbytes() == held.nbytes else held.clone()


def read_header(path: Path, kind: str | None = None) -> dict[str, Any]:
    """The JSON header alone, of a file whose hash is right.

    Raises:
        ArtifactError: as `load_tensors`; None is any kind.
    """
    return _read(path, kind, with_tensors=False)[1]


def load_tensors(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a file that `save_tensors` wrote.

    Raises:
        ArtifactError: no such file, a damaged one (a single bit will do), or one of another kind.
    """
    return _read(path, kind, with_tensors=True)


def _read(path: Path, kind: str | None, *, with_tensors: bool) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise ArtifactError(f"no {kind or 'file'} at {path}")
    try:
        with path.open("rb") as file:
            place = tensor_seal_place(file)
            sealed = is_sealed(file, place)
        with safe_open(path, framework="pt") as content:
            metadata = content.metadata() or {}
            if place < 0 and HEADER not in metadata:
                raise _of_another_kind(path, None, kind)
            if not sealed:
                raise _damaged(path, NOT_SEALED)
            tensors = {name: content.get_tensor(name) for name in (content.keys() if with_tensors else ())}
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error
    header = json.loads(metadata[HEADER])
    if kind not in (None, header["kind"]):
        raise _of_another_kind(path, header["kind"], kind)
    return tensors, header


def _of_another_kind(path: Path, found: str | None, kind: str | None) -> ArtifactError:
    return ArtifactError(f"{path} holds {found or 'no clas_lens artefact'}, not {kind or 'one'}")


# --- tables ---


def save_table(path: Path, kind: str, table: pd.DataFrame, header: Mapping[str, Any]) -> None:
    """Write a parquet table with a JSON header in its metadata, and a hash of both, which other readers pass over."""
    labelled = table.copy()
    labelled.attrs = {HEADER: {"kind": kind, "provenance": provenance(), **header}}
    with BytesIO() as plain:
        labelled.to_parquet(plain, index=False)
        content = with_room(plain.getvalue())
    with atomic_path(path) as temporary, temporary.open("w+b") as file:
        file.write(content)
        put_seal(file, table_seal_place(content))


def load_table(path: Path, kind: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Table and header of a file that `save_table` wrote.

    Raises:
        ArtifactError: no such file, a damaged one (a single bit will do), or one of another kind.
    """
    if not path.is_file():
        raise ArtifactError(f"no {kind} at {path}")
    try:
        content = path.read_bytes()
        with BytesIO(content) as file:
            if not is_sealed(file, table_seal_place(content)):
                raise _damaged(path, NOT_SEALED)
            table = pd.read_parquet(file)
    except OSError as error:
        raise _damaged(path, error) from error
    header = dict(table.attrs[HEADER])
    if header["kind"] != kind:
        raise _of_another_kind(path, header["kind"], kind)
    table.attrs = {}
    return table, header


def content_key(*parts: Any) -> str:
    """A short hash of anything that JSON can hold."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def tensor_fingerprint(tensor: Tensor) -> str:
    """A hash of a tensor's values."""
    values = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(values.numpy().data).hexdigest()[:16]


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


def named_layers(layers: Sequence[int]) -> str:
    """Layers in a file's or folder's name: "3-5", or a row of them by its ends, "3-to-80": names have 255 bytes at most."""
    first, last = layers[0], layers[-1]
    in_a_row = len(layers) > 2 and tuple(layers) == tuple(range(first, last + 1))
    return f"{first}-to-{last}" if in_a_row else "-".join(map(str, layers))
