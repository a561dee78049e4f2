"""One hostile input: what is tried, and what must come of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

Outcome = Literal["right", "refused", "wrong silently", "obscure", "traceback"]

ROOT = Path(__file__).parents[2]
OURS = (str(ROOT / "clas_lens"), str(ROOT / "analysis"))

WRONG_THINGS: dict[str, Callable[[SimpleNamespace], Any]] = {
    "None": lambda world: None,
    "a text": lambda world: "x",
    "a number": lambda world: 5,
    "a dict": lambda world: {"a": 1},
    "a list": lambda world: [1, 2],
    "a frame": lambda world: world.rows,
    "statistics": lambda world: world.stats,
    "categories": lambda world: world.cats,
    "a class": lambda world: type(world.clas),
    "a model": lambda world: world.model,
    "a Hugging Face model": lambda world: world.hf,
    "a corpus": lambda world: world.corpus,
}


@dataclass(frozen=True)
class Case:
    """An input of the Python API.

    Attributes:
        act: does it, in a world of tiny things (see conftest).
        says: a part of the refusal; None where the input is right after all.
        right: whether the result is, where the input is.
    """

    name: str
    act: Callable[[SimpleNamespace], Any]
    says: str | None = None
    right: Callable[[Any], bool] = lambda result: True

    def __str__(self) -> str:
        return self.name


def refused(name: str, says: str, act: Callable[[SimpleNamespace, Any], Any], values: list[Any]) -> list[Case]:
    """One kind: `act` with each of these values is refused with these words."""
    return [Case(f"{name}: {str(value)[:40]}", lambda world, value=value: act(world, value), says) for value in values]


def misused(name: str, says: str, act: Callable[[SimpleNamespace, Any], Any], things: str) -> list[Case]:
    """One kind: `act` with each of these wrong things, named and separated by commas, is refused with these words."""
    return [
        Case(f"{name}: {thing}", lambda world, thing=thing: act(world, WRONG_THINGS[thing](world)), says)
        for thing in things.split(", ")
    ]


def judge(case: Case, world: SimpleNamespace) -> tuple[Outcome, str]:
    """What comes of it, and what was said or returned.

    A refusal is a ValueError that our own code raises, with the words that the case names.
    """
    try:
        result = case.act(world)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        clear = isinstance(error, ValueError) and _is_ours(error) and case.says is not None and case.says in str(error)
        return ("refused" if clear else "obscure"), said
    good = case.says is None and case.right(result)
    return ("right" if good else "wrong silently"), repr(result)[:300]


def _is_ours(error: Exception) -> bool:
    """Whether our own code raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(OURS)
