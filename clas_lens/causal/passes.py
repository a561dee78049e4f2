"""A batch read once, and read on under an edit from the first layer that the edit touches."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from clas_lens.causal.answers import Question
from clas_lens.corpus.tokens import TokenBatch, pad
from clas_lens.evaluation.passes import BlockForm, only_layers
from clas_lens.models.sites import HookFunction, LensModel, Site, device_of, end_logits, hooked, residual_name


def padded(model: LensModel, questions: Sequence[Question]) -> TokenBatch:
    """The questions as one left-padded batch; `content_mask` is what may be edited."""
    (n_prefix,) = {question.n_prefix for question in questions}
    ids = [question.ids for question in questions]
    return pad(ids, range(len(ids)), n_prefix=n_prefix, device=device_of(model))


class CleanPass:
    """A batch read by the model as it is.

    Attributes:
        logits: at the last `n` columns.
    """

    def __init__(self, model: LensModel, batch: TokenBatch, n: int) -> None:
        self._model, self._n, self.batch = model, n, batch
        self._form = BlockForm()
        self._entering: dict[int, Tensor] = {}
        # The output of the block below is what enters a layer.
        hooks = [(residual_name(layer - 1), self._keep(layer)) for layer in range(1, model.cfg.n_layers)]
        with hooked(model, hooks), only_layers(model, 0, model.cfg.n_layers, form=self._form):
            self.logits: Float[Tensor, "row n d_vocab"] = self._logits()

    def _keep(self, layer: int) -> HookFunction:
        def hook(residual: Tensor, hook: object) -> None:
            self._entering[layer] = residual

        return hook

    def _logits(self) -> Float[Tensor, "row n d_vocab"]:
        return end_logits(self._model, self.batch.tokens, self.batch.attention_mask, self._n)

    def edited(self, edits: Mapping[Site, HookFunction]) -> Float[Tensor, "row n d_vocab"]:
        """The logits with these hooks on their sites; the layers below the first of them are not run again."""
        start = min(edits).layer
        hooks = [(site.hook_name(self._model), edit) for site, edit in edits.items()]
        n_layers, entering = self._model.cfg.n_layers, self._entering.get(start)
        with hooked(self._model, hooks), only_layers(self._model, start, n_layers, entering, form=self._form):
            return self._logits()
