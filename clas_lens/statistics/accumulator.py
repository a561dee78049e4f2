"""Running sums over one language's tokens, and how tokens are weighted."""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.corpus.reading import NonFiniteActivationError
from clas_lens.statistics.histogram import N_BINS, count_bins
from clas_lens.vocabulary import Pooling

SUMS = ("sum", "square_sum", "gate_sum", "gate_act_sum", "fired", "gated")


TENSORS = (*SUMS, "max", "max_example", "max_position")


HISTOGRAMS = ("histogram", "gate_histogram", "gate_act_histogram")


class NeuronAccumulator:
    """Running sums over one language's tokens; its size does not depend on how many it has seen.

    Args:
        n_layers, n_neurons: the model's shape.
        pooling: how tokens become a mean. "sample": mean over a sample's tokens, then over samples (the default of the
            method). "token": every token counts the same. "last": only each sample's last token counts, in every statistic.
        histograms: also count the values of h, gate and act(gate) in `histogram`'s bins: 768 bytes a neuron.
        device: where the sums are kept. They are float64 (float32 on devices without it) and int64.
    """

    def __init__(
        self,
        n_layers: int,
        n_neurons: int,
        *,
        pooling: Pooling = "sample",
        histograms: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        shape = (n_layers, n_neurons)
        accumulate = torch.float32 if torch.device(device).type == "mps" else torch.float64
        self.pooling: Pooling = pooling
        self.sum = torch.zeros(shape, dtype=accumulate, device=device)
        self.square_sum = torch.zeros(shape, dtype=accumulate, device=device)
        self.gate_sum = torch.zeros(shape, dtype=accumulate, device=device)
        self.gate_act_sum = torch.zeros(shape, dtype=accumulate, device=device)
        self.fired = torch.zeros(shape, dtype=torch.int64, device=device)
        self.gated = torch.zeros(shape, dtype=torch.int64, device=device)
        self.max = torch.full(shape, -torch.inf, dtype=torch.float32, device=device)
        self.max_example = torch.full(shape, -1, dtype=torch.int64, device=device)
        self.max_position = torch.full(shape, -1, dtype=torch.int64, device=device)
        self.histograms = {
            name: torch.zeros((*shape, N_BINS), dtype=torch.int32, device=device) for name in HISTOGRAMS if histograms
        }
        self.n_samples = 0
        self.n_tokens = 0

    def update(
        self,
        layer: int,
        post: Float[Tensor, "token neuron"],
        weights: Float[Tensor, "token"],
        examples: Int[Tensor, "token"],
        positions: Int[Tensor, "token"],
    ) -> None:
        """Add one layer's activations of some tokens.

        Args:
            post: h at `hook_post`, one row a content token.
            weights: each token's weight in the mean (`token_weights`).
            examples: the corpus row that each token belongs to.
            positions: its position among its text's content tokens.
        """
        values = post.float()
        self.sum[layer] += weights @ values
        self.square_sum[layer] += weights @ values.square()
        self.fired[layer] += _count_positive(values)
        self._count_bins("histogram", layer, values)
        top = values.amax(0)
        (new,) = (top >= self.max[layer]).nonzero(as_tuple=True)  # the others' places do not matter
        row = _first_row_of(top[new], values.index_select(1, new))
        self._keep_maximum(layer, top[new], examples[row], positions[row], new)

    def update_gate(
        self,
        layer: int,
        gate: Float[Tensor, "token neuron"],
        activated: Float[Tensor, "token neuron"],
        weights: Float[Tensor, "token"],
    ) -> None:
        """Add one layer's gate of the same tokens: before its nonlinearity (`gate`) and after it (`activated`)."""
        values, activated = gate.float(), activated.float()
        self.gate_sum[layer] += weights @ values
        self.gate_act_sum[layer] += weights @ activated
        self.gated[layer] += _count_positive(values)
        self._count_bins("gate_histogram", layer, values)
        self._count_bins("gate_act_histogram", layer, activated)

    def count(self, *, samples: int, tokens: int) -> None:
        """Say how many samples and tokens the updates of all layers covered."""
        self.n_samples += samples
        self.n_tokens += tokens

    def check_finite(self, language: str) -> None:
        """Raise if any layer has seen a NaN or infinite activation."""
        bad = ~(self.sum.isfinite() & self.square_sum.isfinite()).all(dim=1)
        if bad.any():
            layer = int(bad.nonzero()[0])
            neurons = int((~self.square_sum[layer].isfinite()).sum())
            raise NonFiniteActivationError(
                f"NaN or infinite activations in layer {layer}, language {language!r} ({neurons} neurons). "
                "Try dtype=torch.float32 or bfloat16 (float16 overflows), and check the weights."
            )

    def merge(self, other: "NeuronAccumulator") -> None:
        """Add another accumulator of the same language and settings; the order of merging does not matter."""
        if self.pooling != other.pooling or self.sum.shape != other.sum.shape:
            raise ValueError(
                f"cannot merge: pooling {self.pooling!r} against {other.pooling!r}, "
                f"shape {tuple(self.sum.shape)} against {tuple(other.sum.shape)}"
            )
        if self.histograms.keys() != other.histograms.keys():
            raise ValueError("cannot merge: one of the two has histograms and the other has none")
        for name in SUMS:
            getattr(self, name).add_(getattr(other, name).to(self.sum.device))
        for name, counts in self.histograms.items():
            counts.add_(other.histograms[name].to(counts.device))
        for layer in range(self.sum.shape[0]):
            self._keep_maximum(layer, other.max[layer], other.max_example[layer], other.max_position[layer])
        self.count(samples=other.n_samples, tokens=other.n_tokens)

    def _count_bins(self, name: str, layer: int, values: Float[Tensor, "token neuron"]) -> None:
        if name in self.histograms:
            self.histograms[name][layer] += count_bins(values)

    def _keep_maximum(
        self,
        layer: int,
        top: Float[Tensor, "neuron"],
        example: Int[Tensor, "neuron"],
        position: Int[Tensor, "neuron"],
        neurons: Int[Tensor, "neuron"] | slice = slice(None),
    ) -> None:
        """Keep the larger value; between equal ones the earlier (example, position), so that order never shows."""
        top, example, position = (t.to(self.sum.device) for t in (top, example, position))
        held, held_example = self.max[layer, neurons], self.max_example[layer, neurons]
        held_position = self.max_position[layer, neurons]
        earlier = (example < held_example) | ((example == held_example) & (position < held_position))
        better = (top > held) | ((top == held) & earlier)
        self.max[layer, neurons] = torch.where(better, top, held)
        self.max_example[layer, neurons] = torch.where(better, example, held_example)
        self.max_position[layer, neurons] = torch.where(better, position, held_position)

    def tensors(self) -> dict[str, Tensor]:
        """The running values by name, on the CPU."""
        held = {name: getattr(self, name) for name in TENSORS} | self.histograms
        return {name: values.cpu() for name, values in held.items()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], *, pooling: Pooling, samples: int, tokens: int
    ) -> "NeuronAccumulator":
        """The accumulator that `tensors()` came from."""
        n_layers, n_neurons = tensors["sum"].shape
        accumulator = cls(n_layers, n_neurons, pooling=pooling)
        for name in TENSORS:
            setattr(accumulator, name, tensors[name].clone())
        accumulator.histograms = {name: tensors[name].clone() for name in HISTOGRAMS if name in tensors}
        accumulator.count(samples=samples, tokens=tokens)
        return accumulator


def _count_positive(values: Float[Tensor, "token neuron"]) -> Int[Tensor, "neuron"]:
    """How many values are above 0, per column. Ones in float32, multiplied with ones, take a fifth of the time of summing
    booleans, and are exact: a float32 holds every integer up to 2**24, far more tokens than a batch has."""
    positive = values.clone().gt_(0)
    return (positive.new_ones(len(positive)) @ positive).long()


def _first_row_of(top: Float[Tensor, "neuron"], values: Float[Tensor, "token neuron"]) -> Int[Tensor, "neuron"]:
    """The first row in which each column has its maximum `top`: `argmax(0)`, in a quarter of its time. Overwrites `values`.

    Rows are numbered downwards, in float32, which holds every integer up to 2**24; where there is no maximum, 0 remains.
    """
    rows = len(values)
    numbers = torch.arange(rows, 0, -1, dtype=values.dtype, device=values.device)
    return rows - values.ge_(top).mul_(numbers[:, None]).amax(0).long()


def token_weights(lengths: Sequence[int], pooling: Pooling) -> Float[Tensor, "token"]:
    """Each token's weight for samples of these many tokens: 1/n within a sample, or 1."""
    match pooling:
        case "sample":
            return torch.cat([torch.full((n,), 1.0 / n) for n in lengths])
        case "token" | "last":
            return torch.ones(sum(lengths))
