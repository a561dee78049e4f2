"""Some of a model's blocks run and the others passed over, for both backends."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from clas_lens.models.sites import LensModel


@dataclass
class BlockForm:
    """What a model's blocks hand on: the residual stream, or (in some families on the bridge) a tuple that starts with it."""

    tuples: bool = False

    def of(self, residual: Any) -> Any:
        """The residual stream as a block would hand it on."""
        return (residual,) if self.tuples else residual


@contextmanager
def only_layers(
    model: LensModel, start: int, stop: int, residual: Tensor | None = None, *, form: BlockForm | None = None
) -> Iterator[None]:
    """Forward passes inside run the blocks `start` to `stop - 1` alone; `residual` is taken as what enters block `start`.

    Each block below hands on `residual`, each block from `stop` on its own input, instead of computing anything (nor do
    their hooks fire). That works for both backends, which call their blocks one by one. The embedding and the unembedding
    at the last position are still computed; after a pass that stops early the logits mean nothing.

    Args:
        form: what blocks hand on; a pass from block 0 finds out and writes it there.
    """
    shape = BlockForm() if form is None else form

    def hand_on_residual(*inputs: Any, **options: Any) -> Any:
        return shape.of(residual)

    def hand_on_input(*inputs: Any, **options: Any) -> Any:
        return shape.of(inputs[0] if inputs else options["hidden_states"])

    def see(block: Any, inputs: Any, output: Any) -> None:
        shape.tuples = isinstance(output, tuple)

    skipped = [block for index, block in enumerate(model.blocks) if index < start or index >= stop]
    own = [vars(block).get("forward") for block in skipped]
    seeing = model.blocks[0].register_forward_hook(see) if start == 0 < stop else None
    try:
        for index, block in enumerate(model.blocks):
            if index < start or index >= stop:
                # An attribute of the instance hides the method of its class; the bridge's blocks redefine setattr.
                vars(block)["forward"] = hand_on_residual if index < start else hand_on_input
        yield
    finally:
        if seeing is not None:
            seeing.remove()
        for block, forward in zip(skipped, own, strict=True):
            if forward is None:
                vars(block).pop("forward", None)
            else:
                vars(block)["forward"] = forward
