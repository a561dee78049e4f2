"""What public functions are given, checked at their door: each refusal says what was asked, what was found, and what to do."""

import os
from collections.abc import Iterable, Mapping, Sequence
from math import inf, isfinite
from operator import index
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

Word = TypeVar("Word", bound=str)

LONGEST = 255  # bytes of a file's name


def named(value: object) -> str:
    """What something is, in a word or two: its type, and the value where it is short."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}, not one of its objects"
    shown = repr(value) if isinstance(value, str | bytes | int | float | Path) else ""
    return f"{type(value).__name__} {shown if len(shown) <= 40 else ''}".strip()


def given(value: Any, kind: Any, what: str, how: str, *, error: type[ValueError] = ValueError) -> Any:
    """The value, if it is of this kind.

    Args:
        kind: a class, or an abstract one such as Mapping.
        what: what is asked for, such as "categorize needs NeuronStatistics".
        how: what to do, such as "run collect_statistics first".

    Raises:
        ValueError: (or `error`) anything else.
    """
    if not isinstance(value, kind):
        raise error(f"{what}, got {named(value)}: {how}")
    return value


def given_each(values: Any, kind: Any, what: str, how: str, *, error: type[ValueError] = ValueError) -> list[Any]:
    """A list of values of this kind.

    Args:
        kind, what, how: as in `given`.

    Raises:
        ValueError: (or `error`) no list, or something else in it.
    """
    if not in_a_row(values):
        raise error(f"{what}, got {named(values)}: {how}")
    return [given(value, kind, what, how, error=error) for value in values]


def in_a_row(values: Any) -> bool:
    """Whether these are values one after another, as of a list, an array or a generator.

    A text is no list of its letters, nor a table or mapping one of its names; a set has no order, and an array without
    dimensions has nothing in it, though Python or NumPy would go through them.
    """
    if isinstance(values, str | bytes | Mapping | pd.DataFrame | set | frozenset):
        return False
    return isinstance(values, Iterable) and getattr(values, "ndim", 1) != 0


def given_frame(value: Any, columns: Iterable[str], what: str, how: str) -> pd.DataFrame:
    """A table that has these columns and at least one row.

    Args:
        what: the argument's owner, such as "forest".
        how: what makes such a table, such as "Comparison.languages".

    Raises:
        ValueError: no DataFrame, one without a column, or one without rows.
    """
    wanted = list(map(str, columns))
    if not isinstance(value, pd.DataFrame):
        raise ValueError(f"{what} needs a DataFrame with {', '.join(wanted)} ({how}), got {named(value)}")
    lacking = [name for name in wanted if name not in value.columns]
    if lacking:
        there = ", ".join(map(str, value.columns)) or "none"
        raise ValueError(
            f"{what} needs a DataFrame with {', '.join(wanted)} ({how}); there is no column {lacking[0]!r}; "
            f"there are: {there}"
        )
    if value.empty:
        raise ValueError(f"{what}: a table without rows; give {how}")
    return value


def given_number(
    name: str,
    value: Any,
    *,
    least: float | int = -inf,
    above: float | int = -inf,
    most: float | int = inf,
    below: float | int = inf,
    error: type[ValueError] = ValueError,
) -> float:
    """A finite number of Python, NumPy or torch within these bounds, as a float.

    Raises:
        ValueError: (or `error`) no number, one that is not finite, or one out of bounds.
    """
    scalar = value.item() if getattr(value, "ndim", None) == 0 else value
    number = float(scalar) if _is_real(scalar) else inf
    if not isfinite(number) or not (least <= number <= most and above < number < below):
        bounds = {"at least": least, "above": above, "at most": most, "below": below}
        limits = [f"{word} {bound:g}" for word, bound in bounds.items() if isfinite(bound)]
        raise error(f"{name} must be a finite number{', ' if limits else ''}{' and '.join(limits)}; got {value!r}")
    return number


def _is_real(value: object) -> bool:
    if isinstance(value, int) and abs(value) > 1e300:
        return False
    return isinstance(value, int | float) and not isinstance(value, bool)


def given_whole(
    name: str, value: Any, *, least: int = 0, most: int | None = None, error: type[ValueError] = ValueError
) -> int:
    """A whole number of Python or NumPy within these bounds.

    Raises:
        ValueError: (or `error`) another number, or no number.
    """
    scalar = value.item() if getattr(value, "ndim", None) == 0 else value
    fits = isinstance(scalar, int) and not isinstance(scalar, bool) and scalar >= least
    if not fits or (most is not None and scalar > most):
        limit = "" if most is None else f" and at most {most}"
        raise error(f"{name} must be a whole number, at least {least}{limit}; got {value!r}")
    return int(scalar)


def whole_place(value: Any) -> int:
    """A place to look at: a whole number of Python, NumPy or torch, and no truth value, which has an index too.

    Raises:
        TypeError: anything else.
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        raise TypeError("a truth value is no place")
    return index(value)


def given_word(name: str, value: Word, available: Sequence[str], *, error: type[ValueError] = ValueError) -> Word:
    """One of the words that are available.

    Raises:
        ValueError: (or `error`) another word, or no word.
    """
    if not isinstance(value, str) or value not in available:
        raise error(f"unknown {name} {value!r}; available: {', '.join(available)}")
    return value


def given_flag(name: str, value: Any, *, error: type[ValueError] = ValueError) -> bool:
    """True or False, of Python or NumPy; a word such as "no" would count as True.

    Raises:
        ValueError: (or `error`) anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise error(f"{name} must be True or False, got {named(value)}")
    return bool(value)


def given_text(name: str, value: Any, *, error: type[ValueError] = ValueError) -> str:
    """A text, for what is shown or written.

    Raises:
        ValueError: (or `error`) anything else, or half a surrogate pair, which no file holds.
    """
    if not isinstance(value, str):
        raise error(f"{name} must be a text, got {named(value)}")
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise error(f"{name} holds half a surrogate pair, which no file holds: {value!r}")
    return value


def given_path(name: str, value: Any, *, error: type[ValueError] = ValueError) -> Path:
    """A path of a file or folder.

    Raises:
        ValueError: (or `error`) no path, an empty one (which would be the working folder), or one with a name that is longer
            than the 255 bytes that file systems take, or that no file can have.
    """
    if not isinstance(value, str | Path) or not str(value).strip() or "\0" in str(value):
        raise error(f"{name} must be a path, got {named(value)}")
    path = Path(value)
    try:  # names that are no UTF-8 are fine
        longest = max((len(os.fsencode(part)) for part in path.parts), default=0)
    except UnicodeEncodeError as fault:
        raise error(f"{name} holds half a surrogate pair, which no file's name does: {value!r}") from fault
    if longest > LONGEST:
        raise error(f"{name} has a name that is too long, {path.name[:40]!r}...: file systems take {LONGEST} bytes")
    return path
