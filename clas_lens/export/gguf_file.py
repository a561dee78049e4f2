"""A GGUF file's header, read without its vocabulary, and a copy with more metadata and some tensors changed. Memory
stays flat.
"""

import mmap
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clas_lens.export.factors import ExportError

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
CHUNK_ROWS = 512  # rows of a tensor at hand


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor: `kind` as in gguf ("Q5_0"), `columns` values a row, at `offset` in the file."""

    name: str
    kind: str
    rows: int
    columns: int
    row_bytes: int
    offset: int


@dataclass(frozen=True)
class GGUFFile:
    """A GGUF file (version 2 or 3, little-endian). `fields` has its numbers and strings, not its lists."""

    path: Path
    fields: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]
    version: int
    n_fields: int
    fields_end: int
    infos_end: int
    data_start: int
    alignment: int

    @classmethod
    def read(cls, path: Path) -> "GGUFFile":
        """Read the header.

        Raises:
            ExportError: no GGUF file, a cut one, or a part of one.
        """
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                found = cls._parse(path, data)
            except (struct.error, KeyError, UnicodeDecodeError, IndexError) as error:
                raise ExportError(f"{path} is no whole GGUF file ({type(error).__name__}: {error})") from error
            last = max((t.offset + t.rows * t.row_bytes for t in found.tensors.values()), default=0)
            if last > len(data):
                raise ExportError(f"{path} is cut off: {len(data):,} bytes of {last:,}. Copy or download it again")
        if int(found.fields.get("split.count", 1)) > 1:
            raise ExportError(f"{path} is one part of a split model; put it together first: llama-gguf-split --merge")
        return found

    @classmethod
    def _parse(cls, path: Path, data: mmap.mmap) -> "GGUFFile":
        import gguf

        magic, version, n_tensors, n_fields = struct.unpack_from("<4sIQQ", data, 0)
        if magic != b"GGUF" or version not in (2, 3):
            raise ExportError(f"{path} is no GGUF file of version 2 or 3 in little-endian order")
        at, fields = 24, {}
        for _ in range(n_fields):
            name, at = _string(data, at)
            (kind,) = struct.unpack_from("<I", data, at)
            fields[name], at = _value(data, at + 4, kind)
        fields_end, infos = at, []
        for _ in range(n_tensors):
            name, at = _string(data, at)
            (n_dims,) = struct.unpack_from("<I", data, at)
            *shape, kind, offset = struct.unpack_from(f"<{n_dims}QIQ", data, at + 4)
            at += 4 + 8 * n_dims + 12
            infos.append((name, shape, gguf.GGMLQuantizationType(kind).name, offset))
        alignment = int(fields.get("general.alignment", 32))
        start = _aligned(at, alignment)
        tensors = {}
        for name, shape, kind, offset in infos:
            per_block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
            rows = int(np.prod(shape[1:], dtype=np.int64))
            tensors[name] = GGUFTensor(name, kind, rows, shape[0], shape[0] // per_block * size, start + offset)
        return cls(path, fields, tensors, version, n_fields, fields_end, at, start, alignment)

    def copy(self, target: Path, more: Mapping[str, str | float | list[str]]) -> "GGUFFile":
        """Write a copy with further metadata. Tensors keep their places behind the header."""
        written = b"".join(_field(name, value) for name, value in more.items())
        with self.path.open("rb") as source, target.open("wb") as out:
            head = source.read(24)
            out.write(head[:16] + struct.pack("<Q", self.n_fields + len(more)))
            _pipe(source, out, self.fields_end - 24)
            out.write(written)
            _pipe(source, out, self.infos_end - self.fields_end)
            out.write(b"\0" * (_aligned(out.tell(), self.alignment) - out.tell()))
            source.seek(self.data_start)
            shutil.copyfileobj(source, out, 1 << 24)
        return GGUFFile.read(target)


def stored_rows(
    file: Path, tensor: GGUFTensor, *, write: bool = False
) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
    """A tensor's rows as bytes [row byte], some at a time, mapped: what is written into them is in the file."""
    shape = (tensor.rows, tensor.row_bytes)
    mapped: npt.NDArray[np.uint8] = np.memmap(file, np.uint8, "r+" if write else "r", tensor.offset, shape)
    for first in range(0, tensor.rows, CHUNK_ROWS):
        part = slice(first, min(first + CHUNK_ROWS, tensor.rows))
        yield part, mapped[part]


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _string(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    end = at + 8 + length
    return data[at + 8 : end].decode("utf-8"), end


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    """A number or string and where it ends; None for a list, which is passed over."""
    if kind == STRING:
        return _string(data, at)
    if kind != ARRAY:
        return struct.unpack_from(f"<{SCALARS[kind]}", data, at)[0], at + struct.calcsize(f"<{SCALARS[kind]}")
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if inner in SCALARS:
        return None, at + count * struct.calcsize(f"<{SCALARS[inner]}")
    for _ in range(count):
        if inner == STRING:  # half a million of them: no decoding
            at += 8 + struct.unpack_from("<Q", data, at)[0]
        else:
            _, at = _value(data, at, inner)
    return None, at


def _field(name: str, value: str | float | list[str]) -> bytes:
    def text(content: str) -> bytes:
        raw = content.encode("utf-8")
        return struct.pack("<Q", len(raw)) + raw

    if isinstance(value, str):
        return text(name) + struct.pack("<I", STRING) + text(value)
    if isinstance(value, list):
        return text(name) + struct.pack("<IIQ", ARRAY, STRING, len(value)) + b"".join(map(text, value))
    return text(name) + struct.pack("<If", 6, value)


def _pipe(source: Any, out: Any, count: int) -> None:
    while count:
        block = source.read(min(count, 1 << 24))
        out.write(block)
        count -= len(block)
