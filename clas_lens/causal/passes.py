"""A batch read once, and read on under many edits, each from the first layer that it touches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.causal.answers import Question
from clas_lens.corpus.tokens import CPU_BATCH_TOKENS, TokenBatch, pad
from clas_lens.evaluation.prefixes import read_in_pieces
from clas_lens.models.blocks import BlockForm, only_layers
from clas_lens.models.decoding import Decoder, make_decoder
from clas_lens.models.forward import end_logits
from clas_lens.models.sites import HookFunction, LensModel, Site, device_of, hooked, residual_name

Edit = Mapping[Site, HookFunction]

STACKED_LOGITS = 2**26  # numbers that one pass may leave: a vocabulary of 262,144 at 256 positions, 0.27 GB in float32


def padded(model: LensModel, questions: Sequence[Question]) -> TokenBatch:
    """The questions as one left-padded batch; `content_mask` is what may be edited."""
    ids = [question.ids for question in questions]
    batch = pad(ids, range(len(ids)), device=device_of(model))
    # Prompts may differ in whether BOS stands in front, so each row has a beginning of its own.
    content = batch.content_mask.clone()
    width = content.shape[1]
    for row, question in enumerate(questions):
        content[row, : width - len(question.ids) + question.n_prefix] = False
    return replace(batch, content_mask=content)


class CleanPass:
    """A batch read by the model as it is.

    Args:
        n: at how many of the last columns logits are wanted.
        columns: how many of the last columns edits will change; what lies before them is then read once for all edits (with
            n = 1, and where the model can go on from a cache). None: all.

    Attributes:
        columns: how many of the last columns edits are shown.
        logits: at the last `n` columns.
    """

    def __init__(self, model: LensModel, batch: TokenBatch, n: int, *, columns: int | None = None) -> None:
        self._model, self._n, self.batch = model, n, batch
        self._form = BlockForm()
        self._entering: dict[int, Tensor] = {}
        width = batch.tokens.shape[1]
        apart = columns is not None and n == 1 and columns < width and read_in_pieces(model, width)
        self.columns = columns if apart and columns is not None else width
        self._lower: list[Any] = self._read_before() if apart else []
        # The output of the block below is what enters a layer.
        hooks = [(residual_name(layer - 1), self._keep(layer)) for layer in range(1, model.cfg.n_layers)]
        with hooked(model, hooks), only_layers(model, 0, model.cfg.n_layers, form=self._form):
            self.logits: Float[Tensor, "row n d_vocab"] = self._logits(self._resumed(1), 1)

    def _keep(self, layer: int) -> HookFunction:
        def hook(residual: Tensor, hook: object) -> None:
            self._entering[layer] = residual

        return hook

    def _read_before(self) -> list[Any]:
        """The cache of all layers after the columns that no edit changes."""
        decoder = make_decoder(self._model, len(self.batch.tokens))
        with only_layers(self._model, 0, self._model.cfg.n_layers, form=self._form):
            self._step_before(decoder)
        return decoder.cached(self._model.cfg.n_layers)

    def _step_before(self, decoder: Decoder) -> None:
        with torch.inference_mode():
            decoder.step(
                self.batch.tokens[:, : -self.columns], self.batch.attention_mask[:, : -self.columns], columns=()
            )

    def _resumed(self, copies: int) -> Decoder | None:
        """A decoder that has read the columns before, each row so many times; None where everything is read again."""
        if not self._lower:
            return None
        decoder = make_decoder(self._model, len(self.batch.tokens))
        with only_layers(self._model, 0, 0, form=self._form):
            self._step_before(decoder)  # for its masks alone: no layer is run
        decoder.adopt(self._lower, self._model.cfg.n_layers)
        decoder.keep(torch.arange(len(self.batch.tokens), device=self.batch.tokens.device).repeat(copies))
        return decoder

    def _logits(self, decoder: Decoder | None, copies: int) -> Float[Tensor, "stacked n d_vocab"]:
        tokens, mask = (
            of[:, -self.columns :].repeat(copies, 1) for of in (self.batch.tokens, self.batch.attention_mask)
        )
        if decoder is None:
            return end_logits(self._model, tokens, mask, self._n)
        with torch.inference_mode():
            return decoder.step(tokens, mask)[:, None]

    def edited(self, edits: Sequence[Edit]) -> Iterator[tuple[int, Float[Tensor, "row n d_vocab"]]]:
        """Each edit's place in the list and the logits under it; layers below an edit's first site are not run again.

        Edits that start in the same layer are run together, as rows of one batch: exact but for float error.
        """
        starting: dict[int, list[int]] = {}
        for place, edit in enumerate(edits):
            starting.setdefault(min(edit).layer, []).append(place)
        for start, places in sorted(starting.items()):
            together = self._room(int(self.logits.shape[-1]))
            for first in range(0, len(places), together):
                some = places[first : first + together]
                logits = self._stacked(start, [edits[place] for place in some])
                yield from zip(some, logits.split(len(self.batch.tokens)), strict=True)

    def _room(self, d_vocab: int) -> int:
        """How many edits fit into one pass."""
        rows = len(self.batch.tokens)
        return max(1, min(CPU_BATCH_TOKENS // (rows * self.columns), STACKED_LOGITS // (rows * self._n * d_vocab)))

    def _stacked(self, start: int, edits: Sequence[Edit]) -> Float[Tensor, "stacked n d_vocab"]:
        sites = dict.fromkeys(site for edit in edits for site in edit)
        hooks = [(site.hook_name(self._model), _by_block([edit.get(site) for edit in edits])) for site in sites]
        entering = self._entering.get(start)
        if entering is not None:
            entering = entering.repeat(len(edits), 1, 1)
        decoder = self._resumed(len(edits))
        n_layers = self._model.cfg.n_layers
        with hooked(self._model, hooks), only_layers(self._model, start, n_layers, entering, form=self._form):
            return self._logits(decoder, len(edits))


def _by_block(edits: Sequence[HookFunction | None]) -> HookFunction:
    """Each edit on its own rows of a stacked batch."""

    def hook(activation: Tensor, hook: Any) -> Tensor:
        blocks = activation.chunk(len(edits))
        changed = [_edited(edit, block, hook) for edit, block in zip(edits, blocks, strict=True)]
        return torch.cat(changed) if len(changed) > 1 else changed[0]

    return hook


def _edited(edit: HookFunction | None, block: Tensor, hook: Any) -> Tensor:
    after = None if edit is None else edit(block, hook)
    return block if after is None else after
