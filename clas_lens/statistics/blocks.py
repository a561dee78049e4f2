"""A layer's activations some tokens at a time, in memory used again."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

BLOCK = 2**19  # values that a CPU takes at once: what is made of them stays near the processor


class Blocks:
    """Some rows of a layer's activations in blocks, all of them in one on an accelerator.

    On a CPU blocks are put together in the same place, one after another: fresh memory costs more there than what is done
    with it. So a block may be written to, and is over when the next is taken.

    Args:
        values: the activations of all rows.
        rows: which of them, in this order; None for all.
        memory: what earlier blocks left to be used again.
    """

    def __init__(
        self, values: Float[Tensor, "row neuron"], rows: Int[Tensor, "token"] | None, memory: dict[str, Tensor]
    ) -> None:
        self._all, self._memory = values.detach(), memory
        self._rows = torch.arange(len(values), device=values.device) if rows is None else rows.to(values.device)
        self._on_cpu = values.device.type == "cpu"
        size = max(64, BLOCK // values.shape[1]) if self._on_cpu else max(1, len(self._rows))
        self.parts = [slice(start, start + size) for start in range(0, len(self._rows), size)]

    def __iter__(self) -> Iterator[tuple[slice, Float[Tensor, "part neuron"]]]:
        """Which of the tokens they are, and their values."""
        for part in self.parts:
            yield part, self.values(part)

    def values(self, part: slice) -> Float[Tensor, "part neuron"]:
        """The block's values, float32."""
        rows = self._rows[part]
        room = self._room("values", len(rows))
        if room is None or self._all.dtype != room.dtype:
            values = self._all.index_select(0, rows)  # faster than a mask of booleans
            return values.float() if room is None else room.copy_(values)
        return torch.index_select(self._all, 0, rows, out=room)

    def square(self, values: Float[Tensor, "part neuron"]) -> Float[Tensor, "part neuron"]:
        """The squares of a block's values, in a place of their own."""
        return torch.square(values, out=self._room("squares", len(values)))

    def _room(self, name: str, rows: int) -> Float[Tensor, "part neuron"] | None:
        """Memory on the CPU for so many rows; None on an accelerator, whose allocator keeps what was freed."""
        if not self._on_cpu:
            return None
        width = self._all.shape[1]
        held = self._memory.get(name)
        if held is None or held.numel() < rows * width:
            with torch.inference_mode(False):  # what is made in that mode could not be written to outside of it
                held = self._memory[name] = torch.empty(rows * width)
        return held[: rows * width].view(rows, width)
