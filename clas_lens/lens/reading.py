"""The logit lens: what the model would say next if it stopped after each block."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.corpus.tokens import TokenBatch
from clas_lens.models.forward import last_logits, unembed
from clas_lens.models.loading import ModelLoadError
from clas_lens.models.sites import HookFunction, LensModel, hooked, residual_name


class LensPass:
    """One forward pass of a left-padded batch, whose residual stream is read at its last columns.

    The lens is the model's own final norm, unembedding and soft cap, on the residual stream after a block (nostalgebraist
    2020, "interpreting GPT: the logit lens"). After the last block that is the model's output, which is checked.

    Args:
        n: columns from the end that are kept; None for all.

    Raises:
        ModelLoadError: a model that does something else than these three after its last block.
    """

    def __init__(self, model: LensModel, batch: TokenBatch, layers: Sequence[int], n: int | None = 1) -> None:
        self._model, self.layers = model, tuple(layers)
        self._n = batch.tokens.shape[1] if n is None else n
        self._kept: dict[int, Tensor] = {}
        last = model.cfg.n_layers - 1
        read = [(residual_name(layer), self._keep(layer)) for layer in sorted({*layers, last})]
        with hooked(model, read):
            own = last_logits(model, batch.tokens, batch.attention_mask)
        self._check(own, self.logits(last)[:, -1])

    def _keep(self, layer: int) -> HookFunction:
        def hook(residual: Tensor, hook: object) -> None:
            self._kept[layer] = residual[:, -self._n :].detach()

        return hook

    def logits(self, layer: int) -> Float[Tensor, "row n d_vocab"]:
        """What the lens reads after a layer."""
        with torch.inference_mode():
            return unembed(self._model, self._kept[layer])

    def log_probs(self) -> Iterator[Float[Tensor, "row n d_vocab"]]:
        """Layer by layer, in float32: the logits of all layers at once may not fit."""
        for layer in self.layers:
            yield self.logits(layer).float().log_softmax(-1)

    def _check(self, own: Float[Tensor, "row d_vocab"], read: Float[Tensor, "row d_vocab"]) -> None:
        apart = float((own.float() - read.float()).abs().max())
        if not apart <= max(1e-5, 4 * torch.finfo(own.dtype).eps) * float(own.abs().max()):
            raise ModelLoadError(
                f"{self._model.cfg.model_name} does more after its last block than final norm, unembedding and soft cap: the "
                f"lens there is up to {apart:.3g} from its own logits. The logit lens does not read this model."
            )
