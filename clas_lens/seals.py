"""A seal: a hash of all of a file's bytes, that stands in the file itself; its own place is hashed as zeros."""

import hashlib
import os
import re
from io import BufferedIOBase

NO_SEAL = b"0" * 64


TENSOR_SEAL = re.compile(rb'"sha256":"([0-9a-f]{64})"')  # within the header's strings quotes are escaped


TABLE_SEAL = b"clas_lens sha256:"


def seal_of(file: BufferedIOBase, place: int) -> bytes:
    """The seal that belongs at this place of the file."""
    file.seek(0)
    digest = hashlib.sha256(file.read(place))
    file.seek(place + len(NO_SEAL))
    digest.update(NO_SEAL)
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest().encode()


def put_seal(file: BufferedIOBase, place: int) -> None:
    """Write it there."""
    seal = seal_of(file, place)
    file.seek(place)
    file.write(seal)


def is_sealed(file: BufferedIOBase, place: int) -> bool:
    """Whether it stands there and is right."""
    file.seek(max(place, 0))
    return place >= 0 and file.read(len(NO_SEAL)) == seal_of(file, place)


def tensor_seal_place(file: BufferedIOBase) -> int:
    """Where a safetensors file with `sha256` in its metadata has its seal, -1 if nowhere."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    found = list(TENSOR_SEAL.finditer(file.read(min(length, size))))
    return 8 + found[0].start(1) if len(found) == 1 else -1


def with_room(content: bytes) -> bytes:
    """A parquet file's bytes with room for a seal before its footer: readers are told where to read, and it is not there."""
    footer = _footer(content)
    return b"".join((content[:footer], TABLE_SEAL, NO_SEAL, content[footer:]))


def table_seal_place(content: bytes) -> int:
    """Where a parquet file that was made room in has its seal, -1 if nowhere."""
    place = max(_footer(content) - len(NO_SEAL), 0)
    return place if content[:place].endswith(TABLE_SEAL) else -1


def _footer(content: bytes) -> int:
    """Where a parquet file's footer begins; its length stands before the last four bytes."""
    return len(content) - 8 - int.from_bytes(content[-8:-4], "little")
