"""Two factors of a change of weights."""

import pytest
import torch

from clas_lens.export.low_rank import low_rank, padded


@pytest.mark.parametrize(("n_steered", "max_rank", "rank"), [(3, None, 3), (3, 8, 3), (20, None, 6), (20, 6, 6)])
def test_exact_where_it_can_be(n_steered, max_rank, rank):
    generator = torch.Generator().manual_seed(0)
    weight, factor = torch.randn(6, 24, generator=generator).double(), torch.ones(24).double()
    factor[torch.randperm(24, generator=generator)[:n_steered]] = torch.randn(n_steered, generator=generator).double()
    pair = low_rank(weight, factor, max_rank)
    assert pair.a.shape == (rank, 24)
    assert pair.error == 0
    torch.testing.assert_close(weight + pair.b @ pair.a, weight @ torch.diag(factor))
    wide = padded(pair, 16)
    torch.testing.assert_close(wide.b @ wide.a, pair.b @ pair.a)


def test_truncation_is_the_best_of_its_rank_and_says_its_error():
    weight = torch.diag(torch.tensor([4.0, 3.0, 2.0, 1.0])).double()
    factor = torch.full((4,), 2.0).double()
    pair = low_rank(weight, factor, 2)
    torch.testing.assert_close(pair.b @ pair.a, torch.diag(torch.tensor([4.0, 3.0, 0.0, 0.0])).double())
    assert pair.error == pytest.approx((5 / 30) ** 0.5)  # Eckart-Young: the singular values left out
