"""Batches that the device has no memory for, run in halves: down to one row, then one clear line.

Everything that runs rows through a model (collections, representations, evaluations and so searches, generation) runs them
through `in_parts_that_fit`. Results of a row do not depend on the rows beside it but for float error.
"""

import gc
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

import torch

Result = TypeVar("Result")


class DeviceMemoryError(ValueError):
    """The device has not even memory for one row."""


_noted: ContextVar[list[int] | None] = ContextVar("halved", default=None)


@contextmanager
def noting_halvings() -> Iterator[list[int]]:
    """Gives a list to which every batch that did not fit inside is added, as its number of rows; for artefacts to record."""
    noted: list[int] = []
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def in_parts_that_fit(
    rows: Sequence[int], run: Callable[[Sequence[int]], Result], *, what: str
) -> Iterator[tuple[Sequence[int], Result]]:
    """`rows` in order, in one part or in the halves, quarters ... that the device has memory for, each with what `run` gives.

    Args:
        run: called again with fewer rows after an out-of-memory error, so it leaves nothing behind when it raises.
        what: names the rows in messages: "texts", "prompts".

    Raises:
        DeviceMemoryError: one row alone does not fit.
    """
    waiting = [tuple(rows)]
    while waiting:
        part = waiting.pop(0)
        try:
            result = run(part)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).split("\n")[0]
        else:
            yield part, result
            continue
        # Here, and not in the handler, whose error holds the frames of the failed pass and all their tensors.
        _note(part, reason, what)
        half = (len(part) + 1) // 2
        waiting[:0] = [part[:half], part[half:]]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this says that a device, or the machine, has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    known = ("can't allocate memory", "not enough memory", "out of memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in known)


def _note(part: Sequence[int], reason: str, what: str) -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(part) == 1:
        raise DeviceMemoryError(
            f"no memory for a single one of the {what} ({reason}). Shorten it (max_tokens=), load the model in bfloat16, or "
            "use a device with more memory."
        )
    noted = _noted.get()
    if noted is not None:
        noted.append(len(part))
    warnings.warn(f"no memory for {len(part)} {what} at once: going on with half as many ({reason})", stacklevel=4)
