"""Counts in fixed bins, a row of them a neuron: percentiles in memory that does not grow with the corpus.

The 64 bins are the same for every neuron and model, so that counts of shards, languages and runs can be added. Their 63
edges are 0.1 sinh(u) at equal steps of u, from -1000 to 1000, with 0 in the middle: about even in x near 0 and in log |x|
away from it. The two outermost bins hold everything beyond +-1000 and count as +-1000.

A quantile read from them is in the same bin as the exact one and so at most that bin's width away: 0.033 + 0.38 |x|. A
share above a threshold is off by at most the share of values in the one bin that holds the threshold, and exact at an edge.
"""

import math
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.given import given, given_number

N_BINS = 64


LIMIT = 1000.0


SCALE = 0.1


@cache
def bin_edges() -> Float[Tensor, "edge"]:
    """The inner edges, ascending, float32; bin b holds edge[b - 1] < x <= edge[b]."""
    half = torch.linspace(0, math.asinh(LIMIT / SCALE), N_BINS // 2, dtype=torch.float64).sinh() * SCALE
    return torch.cat([-half.flip(0)[:-1], half]).float()


def count_bins(values: Float[Tensor, "token neuron"]) -> Int[Tensor, "neuron bin"]:
    """How many of each neuron's values fall into each bin, int32."""
    n_neurons = values.shape[1]
    bins = torch.bucketize(values.float().contiguous(), bin_edges().to(values.device), out_int32=True)
    own = bins + N_BINS * torch.arange(n_neurons, device=values.device, dtype=torch.int32)
    return own.flatten().bincount(minlength=n_neurons * N_BINS).view(n_neurons, N_BINS).int()


def _check_counts(counts: Tensor) -> None:
    n_bins = len(bin_edges()) + 1
    if counts.is_floating_point() or counts.is_complex() or counts.is_meta or counts.shape[-1:] != (n_bins,):
        raise ValueError(f"counts must be whole numbers [*shape {n_bins}], got {counts.dtype} {tuple(counts.shape)}")


def quantile(counts: Int[Tensor, "*shape bin"], q: float) -> Float[Tensor, "*shape"]:
    """The value that a share `q` (0 to 1) of the counted values do not exceed; straight lines inside a bin."""
    given(counts, Tensor, "quantile needs counts [*shape bin]", "NeuronStatistics has histograms")
    given_number("q", q, least=0, most=1)
    _check_counts(counts)
    running = counts.cumsum(-1)
    rank = (q * running[..., -1:].double()).clamp(min=1)
    place = (running < rank).sum(-1, keepdim=True)
    inside = counts.gather(-1, place)
    low, width = _low_and_width(place)
    part = (rank - (running.gather(-1, place) - inside)) / inside
    return (low + part * width).squeeze(-1).float()


def share_above(counts: Int[Tensor, "*shape bin"], threshold: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """The share (0 to 1, float64) of the counted values above a threshold; straight lines inside a bin."""
    for one in (counts, threshold):
        given(one, Tensor, "share_above needs counts [*shape bin] and thresholds", "NeuronStatistics has histograms")
    _check_counts(counts)
    threshold = threshold.double().expand(counts.shape[:-1])[..., None].contiguous()
    place = torch.bucketize(threshold.float(), bin_edges().to(counts.device))
    running = counts.cumsum(-1)
    low, width = _low_and_width(place)
    part = torch.where(width > 0, (low + width - threshold) / width, 0.0)
    above = running[..., -1:] - running.gather(-1, place) + part * counts.gather(-1, place)
    return (above / running[..., -1:]).squeeze(-1)


def _low_and_width(place: Int[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Lower edge and width of these bins; the outermost have no width."""
    edges = bin_edges().double().to(place.device)
    low = torch.cat([edges[:1], edges])
    high = torch.cat([edges, edges[-1:]])
    return low[place], (high - low)[place]
