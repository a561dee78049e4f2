"""Run the layers below an intervention once, and let every setting of it start from there. Exact, on both backends.

Two prompts, four layers, an intervention in layer 2. What enters that layer is kept, and every setting goes on from it:

>>> from transformer_lens import HookedTransformer, HookedTransformerConfig
>>> model = HookedTransformer(
...     HookedTransformerConfig(n_layers=4, d_model=8, d_head=4, n_ctx=6, d_vocab=20, act_fn="relu", seed=0)
... )
>>> prompts = torch.tensor([[3, 1, 4], [1, 5, 9]])
>>> ran, residuals = [], {}
>>> def watch(residual, hook):
...     ran.append(hook.layer())
...     residuals[hook.layer()] = residual
>>> watched = [(residual_name(layer), watch) for layer in range(4)]
>>> with torch.inference_mode(), hooked(model, watched), only_layers(model, 0, 2):
...     _ = model(prompts)  # layers 2 and 3 hand on what they are given
>>> ran
[0, 1]
>>> with torch.inference_mode(), hooked(model, watched), only_layers(model, 2, 4, residuals[1]):
...     continued = model(prompts)  # layers 0 and 1 hand on `residuals[1]`
>>> ran
[0, 1, 2, 3]
>>> bool((continued == model(prompts)).all())  # as from the beginning
True

The unsteered pass and three settings then cost 4 + 3 x 2 layers a prompt instead of 4 x 4:

>>> count = LayerCount(n_layers=4)
>>> count.ran(prompts=2, layers=4)
>>> for setting in range(3):
...     count.ran(prompts=2, layers=2)
>>> count.passes  # 2 prompts, 2.5 passes each
5.0
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clas_lens.evaluation.prefixes import Segment
from clas_lens.models.blocks import BlockForm, only_layers
from clas_lens.models.decoding import Answering, Decoder, make_decoder
from clas_lens.models.sites import HookFunction, LensModel, hooked, residual_name
from clas_lens.steering.intervention import Intervention
from clas_lens.steering.steer import steer
from clas_lens.vocabulary import AFTER_PROMPTS


@dataclass
class LayerCount:
    """How much of prompts was run, against running every setting from the first layer.

    Attributes:
        n_layers: of the model.
        layers: prompts x layers that were run.
    """

    n_layers: int
    layers: int = 0

    def ran(self, prompts: int, layers: int) -> None:
        """Count a pass of some prompts through some layers."""
        self.layers += prompts * layers

    @property
    def passes(self) -> float:
        """Prompt passes run, in units of one prompt through the whole model."""
        return self.layers / self.n_layers


class SharedPrompt:
    """One batch of prompts whose lower layers are run once, to be continued without and with several interventions.

    Args:
        segments: the prompts, in one piece or in several (`prefixes.py`).
        starts: the layers at which interventions will start. One that is not among them is run from layer 0.
        unsteered: whether the unsteered continuation is wanted, too; else no layer past the last start is run here.
        columns: token ids; only these logits are computed (all by default).
        count: adds up the layers run.
    """

    def __init__(
        self,
        model: LensModel,
        segments: Sequence[Segment],
        starts: Collection[int],
        *,
        unsteered: bool,
        columns: Sequence[int] | None,
        count: LayerCount,
    ) -> None:
        self._model, self._segments, self._columns, self._count = model, list(segments), columns, count
        self._size = len(self._segments[-1].tokens)
        # By segment: what enters each layer to start from, and the cache of the layers below the highest of these.
        self._entering: list[dict[int, Tensor]] = []
        self._lower: list[list[Any]] = []
        self._form = BlockForm()
        self._unsteered: Answering | None = None
        last = max(starts, default=0)
        if unsteered or last:
            self._run(starts, model.cfg.n_layers if unsteered else last, keep=unsteered)

    def _run(self, starts: Collection[int], stop: int, *, keep: bool) -> None:
        entering: dict[int, Tensor] = {}

        def on_residual(layer: int) -> HookFunction:
            def hook(residual: Tensor, hook: object) -> None:
                entering[layer] = residual

            return hook

        wanted = sorted(set(starts) - {0})
        decoder = make_decoder(self._model, len(self._segments[0].tokens))
        # The output of the block below, because the block at `stop` itself may not run.
        hooks = [(residual_name(layer - 1), on_residual(layer)) for layer in wanted]
        with hooked(self._model, hooks), only_layers(self._model, 0, stop, form=self._form):
            for segment in self._segments:
                logits = self._feed(decoder, segment)
                self._entering.append(dict(entering))
                self._lower.append(decoder.cached(max(wanted, default=0)))
        self._count.ran(self._size, stop)
        self._unsteered = (decoder, logits) if keep else None

    def _feed(self, decoder: Decoder, segment: Segment) -> Tensor:
        """The logits after a segment; none are computed after one that another follows."""
        if segment.parents is not None:
            decoder.keep(segment.parents)
        columns = self._columns if segment is self._segments[-1] else ()
        with torch.inference_mode():
            return decoder.step(segment.tokens, segment.attention_mask, columns)

    def unsteered(self) -> Answering:
        """A decoder that has seen the prompts, and the logits after them; to be used once."""
        assert self._unsteered is not None, "asked for with unsteered=True"
        return self._unsteered

    @contextmanager
    def steered(self, intervention: Intervention, language: str, start: int) -> Iterator[Answering]:
        """The same with the model steered inside; all rows are in `language`.

        Args:
            start: the first layer that the intervention changes (`first_layer`).
        """
        start = start if self._entering and start in self._entering[0] else 0
        decoder = make_decoder(self._model, len(self._segments[0].tokens))
        n_layers = self._model.cfg.n_layers
        # A batch whose rows all end at their first token generates nothing to steer.
        with steer(
            self._model, intervention, language, must_fire=intervention.positions not in AFTER_PROMPTS
        ) as steering:
            for place, segment in enumerate(self._segments):
                entering = self._entering[place][start] if start else None
                with only_layers(self._model, start, n_layers, entering, form=self._form):
                    logits = self._feed(decoder, segment)
                if start:
                    decoder.adopt(self._lower[place], start)
            self._count.ran(self._size, (n_layers - start) * (1 + steering.reads_prompts_first))
            yield decoder, logits
