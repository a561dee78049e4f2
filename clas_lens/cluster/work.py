"""The seam between what is done and where: work is cut into items, and a runner gives back what is made of each.

What is made of an item is a function of the model and the item alone, so a runner may call it here, one item after another
(`Here`), or on other machines that hold the same model, in any order (`runner.RayCluster`). No stage knows which.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

import torch

from clas_lens.given import named
from clas_lens.models.sites import LensModel, device_of


@runtime_checkable
class Item(Protocol):
    """Some texts or examples of one language; it holds neither model nor tensors."""

    @property
    def language(self) -> str: ...

    @property
    def number(self) -> int | None:
        """Which part or chunk of the language, from 0; None for all of it."""


ItemT = TypeVar("ItemT", bound=Item)
Result = TypeVar("Result")
Tell = Callable[[int], object]  # says that so many batches or answers more are done
Work = Callable[[LensModel, ItemT, Tell], Result]


@runtime_checkable
class Runner(Protocol):
    """Does work, somewhere."""

    def device(self, model: LensModel) -> torch.device:
        """Of which kind the device is that will do the work; batches are cut for it."""

    def results(
        self, model: LensModel, work: Work[ItemT, Result], items: Iterable[ItemT], tell: Tell
    ) -> Iterator[tuple[ItemT, Result]]:
        """Every item with what `work` makes of it, in the order in which they are done.

        Args:
            work: can be pickled and holds no model; its result depends on the model and the item alone.
            items: taken one at a time, when there is somebody to do the next.
            tell: told of what is done, for a progress bar.
        """


class Here:
    """In this process, with this model, one item after another."""

    def device(self, model: LensModel) -> torch.device:
        """The model's."""
        return device_of(model)

    def results(
        self, model: LensModel, work: Work[ItemT, Result], items: Iterable[ItemT], tell: Tell
    ) -> Iterator[tuple[ItemT, Result]]:
        """See `Runner`."""
        for item in items:
            yield item, work(model, item, tell)


def runner_of(cluster: object) -> Runner:
    """The cluster, or None's: this process.

    Raises:
        ValueError: no cluster.
    """
    if cluster is None:
        return Here()
    if isinstance(cluster, type) or not isinstance(cluster, Runner):
        raise ValueError(
            f"cluster must be a cl.cluster.RayCluster(...), or None for this process; got {named(cluster)}"
        )
    return cluster


def described(item: Item) -> str:
    """An item in a few words."""
    return f"language {item.language!r}" + ("" if item.number is None else f", chunk {item.number}")
