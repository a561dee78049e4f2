"""Logits that are numbers, or an error: the likeliest of NaN is a token like any other."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


class NonFiniteLogitsError(ValueError):
    """A logit is NaN or infinite."""


def unfinite_row(logits: Float[Tensor, "row *rest"]) -> tuple[int, str] | None:
    """The first row with a logit that is no finite number, and what it is; None if there is none."""
    fine = torch.isfinite(logits.flatten(1)).all(-1)
    if bool(fine.all()):
        return None
    row = int((~fine).nonzero()[0])
    return row, "NaN" if bool(logits[row].isnan().any()) else "infinite"


def check_logits(logits: Float[Tensor, "row *rest"], rows: Sequence[int] | None = None) -> None:
    """Raise unless all are finite.

    Args:
        rows: which prompts these are, for the message; default in their order.

    Raises:
        NonFiniteLogitsError: one is NaN or infinite.
    """
    found = unfinite_row(logits)
    if found is not None:
        place = found[0] if rows is None else rows[found[0]]
        raise NonFiniteLogitsError(f"the logits after prompt {place} are {found[1]}, {MEANS_NOTHING}")


MEANS_NOTHING = (
    "so that no answer means anything. Look at the weights (the embedding and lm_head among them), take a smaller strength, or "
    "another dtype (float16 overflows)."
)
