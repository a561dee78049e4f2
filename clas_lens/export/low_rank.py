"""W_down diag(s) = W_down + W_down diag(s - 1): the second term as B A, exactly where it can be, and otherwise how nearly."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LowRank:
    """Two factors of a change of weights.

    Attributes:
        a, b: the change is b @ a.
        error: what is left out, as a share of the change (Frobenius norms); 0 where the factors are exact.
    """

    a: Float[Tensor, "rank neuron"]
    b: Float[Tensor, "d_model rank"]
    error: float


def low_rank(
    weight: Float[Tensor, "d_model neuron"], factor: Float[Tensor, "neuron"], max_rank: int | None = None
) -> LowRank:
    """Factors of `weight` @ diag(`factor` - 1), of rank `max_rank` at most.

    With no more steered neurons than that: A picks them (rows of one 1), B has their columns of the change. With a
    residual stream no wider: A is the change, B the identity. Otherwise the truncated singular value decomposition, the
    best of its rank.
    """
    steered = (factor != 1).nonzero().flatten()
    change = weight.double() * (factor.double() - 1)
    d_model, width = change.shape
    smallest = min(len(steered), d_model)
    if max_rank is None or smallest <= max_rank:
        if len(steered) <= d_model:
            a = torch.zeros(len(steered), width, dtype=torch.float64)
            a[torch.arange(len(steered)), steered] = 1
            return LowRank(a, change[:, steered], 0.0)
        return LowRank(change, torch.eye(d_model, dtype=torch.float64), 0.0)
    # Only steered columns are not 0.
    u, values, vh = torch.linalg.svd(change[:, steered], full_matrices=False)
    root = values[:max_rank].sqrt()
    a = torch.zeros(max_rank, width, dtype=torch.float64)
    a[:, steered] = root[:, None] * vh[:max_rank]
    error = float(values[max_rank:].norm() / values.norm())
    return LowRank(a, u[:, :max_rank] * root, error)


def padded(pair: LowRank, rank: int) -> LowRank:
    """The same change at a higher rank, with zeros."""
    extra = rank - len(pair.a)
    assert extra >= 0
    a = torch.nn.functional.pad(pair.a, (0, 0, 0, extra))
    return LowRank(a, torch.nn.functional.pad(pair.b, (0, extra)), pair.error)
