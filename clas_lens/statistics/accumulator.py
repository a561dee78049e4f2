"""Running sums over one language's tokens, and how tokens are weighted."""

from collections.abc import Sequence
from typing import get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.corpus.reading import NonFiniteActivationError
from clas_lens.given import given_whole, given_word
from clas_lens.statistics.blocks import Blocks
from clas_lens.statistics.histogram import count_bins
from clas_lens.statistics.sums import NeuronSums
from clas_lens.vocabulary import Pooling


class NeuronAccumulator:
    """Running sums over one language's tokens; its size does not depend on how many it has seen.

    Args:
        n_layers, n_neurons: the model's shape.
        pooling: how tokens become a mean. "sample": mean over a sample's tokens, then over samples (the default of the
            method). "token": every token counts the same. "last": only each sample's last token counts, in every statistic.
        histograms: also count the values of h, gate and act(gate) in `histogram`'s bins: 768 bytes a neuron.
        gate: also keep values of the gate, which MLPs have and attention has not.
        device: where the sums are kept; a layer's tokens are summed on its own device, and only sums travel.
            They are float64 (float32 on devices without it) and int64.
    """

    def __init__(
        self,
        n_layers: int,
        n_neurons: int,
        *,
        pooling: Pooling = "sample",
        histograms: bool = False,
        gate: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        n_layers, n_neurons = given_whole("n_layers", n_layers), given_whole("n_neurons", n_neurons)
        self.pooling: Pooling = given_word("pooling", pooling, get_args(Pooling))
        self.sums = NeuronSums.nothing(n_layers, n_neurons, histograms=histograms, gate=gate, device=device)
        self.n_samples = 0
        self.n_tokens = 0
        self._memory: dict[str, Tensor] = {}
        self.halved: list[int] = []  # of how many texts the batches were that the device had no memory for

    def know_maxima(self, other: "NeuronAccumulator") -> None:
        """Begin with the largest values of another, which this one will be merged into: smaller ones need no place."""
        known = other.sums
        self.sums.max, self.sums.max_example = known.max.clone(), known.max_example.clone()
        self.sums.max_position = known.max_position.clone()

    def update(
        self,
        layer: int,
        post: Float[Tensor, "row neuron"],
        weights: Float[Tensor, "token"],
        examples: Int[Tensor, "token"],
        positions: Int[Tensor, "token"],
        rows: Int[Tensor, "token"] | None = None,
    ) -> None:
        """Add one layer's activations of some tokens.

        Args:
            post: h at `hook_post` (or another site's units).
            weights: each token's weight in the mean (`token_weights`).
            examples: the corpus row that each token belongs to.
            positions: its position among its text's content tokens.
            rows: the row of `post` that each token is; None where the rows are the tokens.
        """
        sums, home = self.sums, self.sums.sum.device
        weights, examples, positions = (one.to(post.device) for one in (weights, examples, positions))
        mean, square, fired, tops = _zeros(post), _zeros(post), _zeros(post), []
        blocks = self._blocks(post, rows)
        for part, values in blocks:
            mean += weights[part] @ values
            square += weights[part] @ blocks.square(values)
            if sums.histogram is not None:
                sums.histogram[layer] += count_bins(values).to(home)
            tops.append(values.amax(0))
            fired += _count_positive(values)
        sums.sum[layer] += mean.to(home)
        sums.square_sum[layer] += square.to(home)
        sums.fired[layer] += fired.long().to(home)
        if tops:
            self._keep_maximum(layer, torch.stack(tops), blocks, examples, positions)

    def _keep_maximum(
        self,
        layer: int,
        tops: Float[Tensor, "block neuron"],
        blocks: Blocks,
        examples: Int[Tensor, "token"],
        positions: Int[Tensor, "token"],
    ) -> None:
        """Keep the largest of the blocks' largest values. Where it is, is looked for in new maxima alone, in one block each."""
        top = tops.amax(0)
        sought = top >= self.sums.max[layer].to(top.device)
        (new,) = sought.nonzero(as_tuple=True)
        token = torch.zeros_like(top, dtype=torch.int64)
        for part, block_top in zip(blocks.parts, tops, strict=True):
            (here,) = (sought & (block_top == top)).nonzero(as_tuple=True)
            if len(here):
                token[here] = part.start + _first_row_of(top[here], blocks.values(part).index_select(1, here))
                sought[here] = False
        if len(new):
            token = token[new]
            self.sums.keep_maximum(layer, top[new], examples[token], positions[token], new.to(self.sums.sum.device))

    def update_gate(
        self,
        layer: int,
        gate: Float[Tensor, "row neuron"],
        weights: Float[Tensor, "token"],
        rows: Int[Tensor, "token"] | None = None,
    ) -> None:
        """Add one layer's gate of the same tokens, before its nonlinearity."""
        sums, home = self.sums, self.sums.sum.device
        assert sums.gate_sum is not None, "made with gate=False"
        assert sums.gated is not None
        weights = weights.to(gate.device)
        mean, gated = _zeros(gate), _zeros(gate)
        for part, values in self._blocks(gate, rows):
            mean += weights[part] @ values
            if sums.gate_histogram is not None:
                sums.gate_histogram[layer] += count_bins(values).to(home)
            gated += _count_positive(values)
        sums.gate_sum[layer] += mean.to(home)
        sums.gated[layer] += gated.long().to(home)

    def update_activated(
        self,
        layer: int,
        activated: Float[Tensor, "row neuron"],
        weights: Float[Tensor, "token"],
        rows: Int[Tensor, "token"] | None = None,
    ) -> None:
        """Add what one layer's nonlinearity makes of the gate of the same tokens."""
        sums, home = self.sums, self.sums.sum.device
        assert sums.gate_act_sum is not None, "made with gate=False"
        weights = weights.to(activated.device)
        mean = _zeros(activated)
        for part, values in self._blocks(activated, rows):
            mean += weights[part] @ values
            if sums.gate_act_histogram is not None:
                sums.gate_act_histogram[layer] += count_bins(values).to(home)
        sums.gate_act_sum[layer] += mean.to(home)

    def _blocks(self, values: Float[Tensor, "row neuron"], rows: Int[Tensor, "token"] | None) -> Blocks:
        return Blocks(values, rows, self._memory)

    def count(self, *, samples: int, tokens: int) -> None:
        """Say how many samples and tokens the updates of all layers covered."""
        self.n_samples += given_whole("samples", samples)
        self.n_tokens += given_whole("tokens", tokens)

    def check_finite(self, language: str) -> None:
        """Raise if any layer has seen a NaN or infinite activation."""
        bad = ~(self.sums.sum.isfinite() & self.sums.square_sum.isfinite()).all(dim=1)
        if bad.any():
            layer = int(bad.nonzero()[0])
            neurons = int((~self.sums.square_sum[layer].isfinite()).sum())
            raise NonFiniteActivationError(
                f"NaN or infinite activations in layer {layer}, language {language!r} ({neurons} neurons). "
                "Try dtype=torch.float32 or bfloat16 (float16 overflows), and check the weights."
            )

    def merge(self, other: "NeuronAccumulator") -> None:
        """Add another accumulator of the same language and settings; the order of merging does not matter."""
        if self.pooling != other.pooling:
            raise ValueError(f"cannot merge: pooling {self.pooling!r} against {other.pooling!r}")
        self.sums.add(other.sums)
        self.halved += other.halved
        self.count(samples=other.n_samples, tokens=other.n_tokens)

    @classmethod
    def from_sums(cls, sums: NeuronSums, *, pooling: Pooling, samples: int, tokens: int) -> "NeuronAccumulator":
        """An accumulator that goes on from a copy of these sums, on the CPU."""
        accumulator = cls(0, 0, pooling=pooling)
        accumulator.sums = sums.each(torch.clone)
        accumulator.count(samples=samples, tokens=tokens)
        return accumulator


def _zeros(values: Float[Tensor, "row neuron"]) -> Float[Tensor, "neuron"]:
    return values.new_zeros(values.shape[1], dtype=torch.float32)


def _count_positive(values: Float[Tensor, "token neuron"]) -> Float[Tensor, "neuron"]:
    """How many values are above 0, per column, in float32: faster than booleans, and exact up to 2**24 tokens, far more than a
    batch has. Overwrites `values`.
    """
    return values.gt_(0).sum(0)


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
