"""Parallel text in files of one language each: plain text or JSON, a line an example."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clas_lens.corpus.checks import CorpusError, id_fault, text_fault
from clas_lens.corpus.folder import json_object, text_lines
from clas_lens.given import given_path
from clas_lens.vocabulary import check_language


def files_by_language(where: str | Path, suffix: str) -> dict[str, Path]:
    """The files `<language>.<suffix>`, or `.gz` of them, of a folder, by language."""
    folder = given_path("a folder of texts", where, error=CorpusError)
    if not folder.is_dir():
        raise CorpusError(f"no such folder: {folder} (expected one of <language>{suffix} files)")
    endings = (suffix, f"{suffix}.gz")
    for file in sorted(folder.iterdir()):
        if file.name.lower().endswith(endings) and not file.name.endswith(endings):
            raise CorpusError(f"{file} would not be read: write its ending as {suffix}, in small letters")
    files: dict[str, Path] = {}
    for file in sorted([*folder.glob(f"*{suffix}"), *folder.glob(f"*{suffix}.gz")]):
        code = check_language(file.name.removesuffix(".gz").removesuffix(suffix))
        if code in files:
            raise CorpusError(f"{folder}: both {files[code].name} and {file.name} are there; keep one of them")
        files[code] = file
    if not files:
        raise CorpusError(f"{folder}: no <language>{suffix} files there")
    return files


def json_rows(language: str, path: str | Path, needed: Sequence[str]) -> Iterator[dict[str, Any]]:
    """One JSON object a line, with the fields that are needed; the first of them holds the text, the others ids."""
    for number, line in numbered_lines(language, path):
        where = f"language {language!r}: {path}, line {number}"
        row = json_object(where, line)
        missing = [field for field in needed if field not in row]
        if missing:
            raise CorpusError(f"{where} has no field {missing[0]!r}; it has: {', '.join(row)}")
        wrong = text_fault(row[needed[0]])
        if wrong:
            raise CorpusError(f"{where}: {needed[0]!r} {wrong}")
        for field in needed[1:]:
            if id_fault(row[field]):
                raise CorpusError(f"{where}: {field!r} {id_fault(row[field])}")
        yield row


def numbered_lines(language: str, path: str | Path) -> Iterator[tuple[int, str]]:
    """The lines of one language's text file, plain or .gz."""
    file = given_path(f"the file of {language!r}", path, error=CorpusError)
    if not file.is_file():
        raise CorpusError(f"language {language!r}: no such file: {file}")
    yield from text_lines(f"language {language!r}", file)
