"""The running values of every neuron: what an accumulator adds to, statistics are made of and files hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.statistics.histogram import N_BINS


@dataclass
class NeuronSums:
    """Raw running values, [layer neuron], exact to merge; those of several languages have their axis in front.

    Sums are float64 (float32 on devices without it), counts int64, the largest h float32.

    Attributes:
        sum, square_sum: of h and of its square, weighted as tokens are pooled.
        fired: tokens with h > 0.
        max, max_example, max_position: the largest h, the corpus row and the content token where it was; -1 where nowhere.
        gate_sum, gate_act_sum: of the gate before and after its nonlinearity. Attention has none.
        gated: tokens with gate > 0.
        histogram, gate_histogram, gate_act_histogram: tokens in each of `histogram`'s bins, of all that there are or of none.
    """

    sum: Float[Tensor, "*lang layer neuron"]
    square_sum: Float[Tensor, "*lang layer neuron"]
    fired: Int[Tensor, "*lang layer neuron"]
    max: Float[Tensor, "*lang layer neuron"]
    max_example: Int[Tensor, "*lang layer neuron"]
    max_position: Int[Tensor, "*lang layer neuron"]
    gate_sum: Float[Tensor, "*lang layer neuron"] | None = None
    gate_act_sum: Float[Tensor, "*lang layer neuron"] | None = None
    gated: Int[Tensor, "*lang layer neuron"] | None = None
    histogram: Int[Tensor, "*lang layer neuron bin"] | None = None
    gate_histogram: Int[Tensor, "*lang layer neuron bin"] | None = None
    gate_act_histogram: Int[Tensor, "*lang layer neuron bin"] | None = None

    @classmethod
    def nothing(
        cls, n_layers: int, n_neurons: int, *, histograms: bool, gate: bool, device: torch.device | str = "cpu"
    ) -> "NeuronSums":
        """The values before any token; with those of a gate or without."""
        shape = (n_layers, n_neurons)
        real = torch.float32 if torch.device(device).type == "mps" else torch.float64

        def full(value: float | int, dtype: torch.dtype) -> Tensor:
            return torch.full(shape, value, dtype=dtype, device=device)

        def counts() -> Tensor | None:
            return torch.zeros((*shape, N_BINS), dtype=torch.int32, device=device) if histograms else None

        return cls(
            sum=full(0, real),
            square_sum=full(0, real),
            fired=full(0, torch.int64),
            max=full(-torch.inf, torch.float32),
            max_example=full(-1, torch.int64),
            max_position=full(-1, torch.int64),
            gate_sum=full(0, real) if gate else None,
            gate_act_sum=full(0, real) if gate else None,
            gated=full(0, torch.int64) if gate else None,
            histogram=counts(),
            gate_histogram=counts() if gate else None,
            gate_act_histogram=counts() if gate else None,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by name."""
        return {name: values for name, values in vars(self).items() if values is not None}

    @staticmethod
    def names(*, histograms: bool, gate: bool) -> list[str]:
        """The names of `tensors()`, sorted."""
        return sorted(
            one.name
            for one in fields(NeuronSums)
            if (histograms or not one.name.endswith("histogram")) and (gate or not one.name.startswith("gate"))
        )

    def each(self, function: Callable[[Tensor], Tensor]) -> "NeuronSums":
        """The same function of every tensor."""
        return NeuronSums(**{name: function(values) for name, values in self.tensors().items()})

    @classmethod
    def stacked(cls, parts: Sequence["NeuronSums"]) -> "NeuronSums":
        """Several languages' in one, on the CPU.

        Raises:
            ValueError: some with histograms and some without.
        """
        held = [part.tensors() for part in parts]
        if any(tensors.keys() != held[0].keys() for tensors in held):
            raise ValueError("some languages have histograms and some have none (or a gate); collect them the same way")
        return cls(**{name: torch.stack([tensors[name].cpu() for tensors in held]) for name in held[0]})

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], *, gate: bool) -> "NeuronSums":
        """From what `tensors()` gave, with the values of a gate or without.

        Raises:
            ValueError: some are not there.
        """
        lacking = [name for name in cls.names(histograms=False, gate=gate) if name not in tensors]
        if lacking:
            raise ValueError(f"without {', '.join(lacking)}")
        return cls(**tensors)

    def add(self, other: "NeuronSums") -> None:
        """Add the values of other tokens; the order of adding does not matter.

        Raises:
            ValueError: another shape, or only one of the two with histograms.
        """
        if self.sum.shape != other.sum.shape:
            raise ValueError(f"cannot merge: shape {tuple(self.sum.shape)} against {tuple(other.sum.shape)}")
        if self.tensors().keys() != other.tensors().keys():
            raise ValueError("cannot merge: one of the two has histograms, or a gate, and the other has none")
        device = self.sum.device
        there = other.each(lambda values: values.to(device)).tensors()
        for name, values in self.tensors().items():
            if not name.startswith("max"):
                values.add_(there[name])
        for layer in range(self.sum.shape[0]):
            self.keep_maximum(
                layer, there["max"][layer], there["max_example"][layer], there["max_position"][layer], slice(None)
            )

    def keep_maximum(
        self,
        layer: int,
        top: Float[Tensor, "neuron"],
        example: Int[Tensor, "neuron"],
        position: Int[Tensor, "neuron"],
        neurons: Int[Tensor, "neuron"] | slice,
    ) -> None:
        """Keep the larger value; between equal ones the earlier (example, position), so that order never shows."""
        top, example, position = (values.to(self.sum.device) for values in (top, example, position))
        held, held_example = self.max[layer, neurons], self.max_example[layer, neurons]
        held_position = self.max_position[layer, neurons]
        earlier = (example < held_example) | ((example == held_example) & (position < held_position))
        better = (top > held) | ((top == held) & earlier)
        self.max[layer, neurons] = torch.where(better, top, held)
        self.max_example[layer, neurons] = torch.where(better, example, held_example)
        self.max_position[layer, neurons] = torch.where(better, position, held_position)
