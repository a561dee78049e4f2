"""What the steering bench reports: tables of the next token and of the layers, before and after."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.models.sites import LensModel


@dataclass(frozen=True, eq=False)
class BenchResult:
    """What one setting does to one prompt.

    Attributes:
        next_tokens: the likeliest next tokens before and after, likeliest first: token, token_id, before, after
            (probabilities, 0 to 1).
        kl: KL(before || after) of the next-token distribution, in nats.
        layers: at the prompt's last token, one row a layer: layer, change (norm of the difference that steering makes to
            the residual stream at the layer's output, relative to the norm before), and what the logit lens reads there:
            token_before, p_before, token_after, p_after.
        continuation_before, continuation_after: greedy.
    """

    next_tokens: pd.DataFrame
    kl: float
    layers: pd.DataFrame
    continuation_before: str
    continuation_after: str


@dataclass(frozen=True, eq=False)
class LensTop:
    """The likeliest token at each of some layers, read through the final norm and the unembedding."""

    ids: Int[Tensor, "layer"]
    probabilities: Float[Tensor, "layer"]

    def up_to(self, layer: int) -> "LensTop":
        """Only the layers below this one."""
        return LensTop(self.ids[:layer], self.probabilities[:layer])

    def then(self, upper: "LensTop") -> "LensTop":
        """These layers and then those."""
        return LensTop(torch.cat([self.ids, upper.ids]), torch.cat([self.probabilities, upper.probabilities]))


# The residual stream at the output of each layer [1 pos d_model], and the logit lens at the last position.
Stream: TypeAlias = tuple[Sequence[Tensor], LensTop]


def logit_lens(model: LensModel, residuals: Sequence[Tensor]) -> LensTop:
    """What the final norm, the unembedding and the soft cap make of residual streams [1 pos d_model] at the last position."""
    parts: Any = model
    norm = getattr(parts, "ln_final", None)
    cap = getattr(model.cfg, "output_logits_soft_cap", -1.0)
    with torch.inference_mode():
        last = torch.cat([residual[:, -1:] for residual in residuals])
        logits = parts.unembed(last if norm is None else norm(last))[:, -1].float()
        logits = cap * torch.tanh(logits / cap) if cap > 0 else logits
        top = logits.max(-1)
        return LensTop(top.indices, (top.values - logits.logsumexp(-1)).exp())


def next_token_table(
    model: LensModel, before: Float[Tensor, "1 d_vocab"], after: Float[Tensor, "1 d_vocab"], top: int
) -> pd.DataFrame:
    """The `top` likeliest next tokens of either: see `BenchResult.next_tokens`."""
    probabilities = torch.stack([before[0], after[0]]).float().softmax(-1)
    likeliest = probabilities.topk(min(top, probabilities.shape[1])).indices.flatten().unique()
    order = likeliest[probabilities[:, likeliest].amax(0).argsort(descending=True, stable=True)]
    ids = order.tolist()
    first, second = probabilities[:, order].tolist()
    return pd.DataFrame({"token": _token_texts(model, ids), "token_id": ids, "before": first, "after": second})


def layer_table(model: LensModel, before: Stream, after: Stream) -> pd.DataFrame:
    """One row a layer: see `BenchResult.layers`."""
    (streams, lens), (steered, steered_lens) = before, after
    ends = [(one[0, -1].double(), other[0, -1].double()) for one, other in zip(streams, steered, strict=True)]
    return pd.DataFrame(
        {
            "layer": range(len(ends)),
            "change": [float((other - one).norm() / one.norm()) for one, other in ends],
            "token_before": _token_texts(model, lens.ids.tolist()),
            "p_before": lens.probabilities.tolist(),
            "token_after": _token_texts(model, steered_lens.ids.tolist()),
            "p_after": steered_lens.probabilities.tolist(),
        }
    )


def _token_texts(model: LensModel, ids: Sequence[int]) -> list[str]:
    tokenizer = require_tokenizer(model)
    return [str(tokenizer.decode([token])) for token in ids]
