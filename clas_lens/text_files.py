"""Text and JSON-lines files, read line by line; every error names the language and the line."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class CorpusError(ValueError):
    """Parallel text that is not parallel, or not there; the message names the language and the line."""


def numbered_lines(language: str, path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, cut at newlines only: `str.splitlines` also cuts at U+2028 and other characters that texts hold."""
    if not path.is_file():
        raise CorpusError(f"language {language!r}: no such file: {path}")
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"language {language!r}: {path}, line {number} is not UTF-8 ({error.reason} at byte {error.start}). "
                "Convert the file, e.g. with iconv -t utf-8."
            ) from error


def json_rows(language: str, path: Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """One JSON object a line, with the fields that are needed; the first of them holds the text."""
    for number, line in numbered_lines(language, path):
        where = f"language {language!r}: {path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where} is not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise CorpusError(f"{where} is not a JSON object but a {type(row).__name__}")
        missing = [field for field in needed if field not in row]
        if missing:
            raise CorpusError(f"{where} has no field {missing[0]!r}; it has: {', '.join(row)}")
        if not isinstance(row[needed[0]], str):
            raise CorpusError(f"{where}: {needed[0]!r} is not a text but {row[needed[0]]!r}")
        yield row


def agreed_ids(ids: Mapping[str, Sequence[str]], name: str) -> Sequence[str]:
    """The ids, if every language has the same ones in the same order."""
    if not ids:
        raise CorpusError(f"{name}: no languages given")
    first_language, first = next(iter(ids.items()))
    for language, other in ids.items():
        for line, (a, b) in enumerate(zip(first, other, strict=False), start=1):
            if a != b:
                raise CorpusError(
                    f"{name}: line {line} is example {a!r} in {first_language!r} but {b!r} in {language!r}"
                )
        if len(first) != len(other):
            raise CorpusError(f"{name}: {len(first)} examples in {first_language!r} but {len(other)} in {language!r}")
    return first
