"""What is wrong with a text, an id or a list of them, in words. A fault is said, never mended."""

from collections.abc import Mapping, Sequence
from typing import Any

from clas_lens.given import in_a_row


class CorpusError(ValueError):
    """Parallel text that is not parallel, or not there; the message names the language and the line."""


def text_fault(value: object) -> str | None:
    """What keeps a value from being a text to read, or None."""
    if not isinstance(value, str):
        return "is missing (null)" if value is None else f"is not a text but {_shown(value)}"
    if not value.strip():
        return "is empty"
    if "\0" in value:
        return "holds a NUL character (text in UTF-16, or binary data, read as UTF-8?)"
    if not value.isascii():
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            return f"holds half a surrogate pair at character {error.start}, which no tokenizer reads"
    return None


def fields_fault(fields: Sequence[str], row: Mapping[str, Any]) -> str | None:
    """The first of a row's fields that is not a text to read, and why, or None."""
    for field in fields:
        wrong = text_fault(row.get(field))
        if wrong:
            return f"{field!r} {wrong}"
    return None


def id_fault(value: object) -> str | None:
    """What keeps a value from being an example's id (a text or a whole number), or None."""
    if isinstance(value, int) and not isinstance(value, bool):
        return None
    return text_fault(value)


def listed_values(what: str, values: Any) -> tuple[Any, ...]:
    """The values of a list, tuple or generator. A single text is refused: its letters are not meant.

    Raises:
        CorpusError: what is none (see `in_a_row`).
    """
    if not in_a_row(values):
        raise CorpusError(f"{what} must be a list, got {_shown(values)}: write [{_shown(values)}] for a single one")
    return tuple(values)


def _shown(value: object) -> str:
    words = repr(value)
    return f"{words if len(words) <= 60 else words[:57] + '...'} (a {type(value).__name__})"


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
