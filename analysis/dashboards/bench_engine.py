"""The steering bench without its widgets: one prompt, many settings, and only the layers that a setting touches run again."""

import weakref
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, cast, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.masks import RescaleMasks, neuron_magnitude
from clas_lens.corpus.tokens import TokenBatch, pad, require_tokenizer
from clas_lens.models.blocks import only_layers
from clas_lens.models.decoding import Decoder, make_decoder
from clas_lens.models.sites import LensModel, Site, check_mlp_hooks, device_of
from clas_lens.representations.effects import kl_divergence
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas, Rescaling
from clas_lens.steering.generate import greedy, prompt_ids
from clas_lens.steering.intervention import Intervention, SteeringError, first_layer, given_intervention
from clas_lens.steering.rules import Rule
from clas_lens.steering.steer import Steering
from clas_lens.vocabulary import MaskKind, check_language

from .bench_result import BenchResult, LensTop, layer_table, logit_lens, next_token_table
from .probe import OtherHooks, Probe


@dataclass(frozen=True, eq=False)
class Unsteered:
    """A prompt run without steering: what steered runs start from and are compared with.

    Attributes:
        residuals: the residual stream at the output of each layer: [1 pos d_model].
        cached: the keys and values of every layer.
    """

    logits: Float[Tensor, "1 d_vocab"]
    residuals: tuple[Tensor, ...]
    lens: LensTop
    cached: list[Any]
    continuation: str


class SteeringBench:
    """One prompt under many settings of CLAS or of any other intervention, on your own model with your own hooks.

    The prompt is run once without steering. A setting runs the layers from its first steered one, and exchanges the scales
    under hooks that were attached once; results equal those of `steer` and a whole pass. Outside the bench's own passes
    these hooks do nothing. `close()`, the end of a `with` block, or forgetting the bench takes them away.

    Hooks of yours that come or go are noticed, and the prompt is run anew. What cannot be noticed needs `refresh()`: edited
    weights, a hook that does something else than before. Your hooks below the first steered layer fire in that run only;
    those on the final norm and the unembedding fire for the logit lens, too.

    Args:
        intervention: whose anchor, positions and so on hold throughout; its numbers and layers where `run` is given none.
        prompt: a text, or token ids, which are taken as they are.
        language: of the prompt.
        stats: of the same model; without it there are no "matched random" masks.
        seed: of those.
        max_new_tokens: of the greedy continuation.
        top: how many of the likeliest next tokens, before and after.

    Raises:
        SteeringError: categories or statistics of another model.
        ValueError: an unknown language, a prompt without tokens or too long for the model's context.
    """

    def __init__(
        self,
        model: LensModel,
        intervention: Intervention,
        prompt: str | Sequence[int],
        language: str,
        *,
        stats: NeuronStatistics | None = None,
        seed: int = 0,
        max_new_tokens: int = 6,
        top: int = 8,
    ) -> None:
        check_mlp_hooks(model)
        given_intervention(intervention).check(model)
        self.model, self.given = model, intervention
        self._magnitude = None if stats is None else neuron_magnitude(model, stats)
        self.seed, self.max_new_tokens, self._top = seed, max_new_tokens, top
        self.ask(prompt, language)
        self._probe = Probe(model.cfg.n_layers, _edited_points(model, intervention, language))
        self._behind: OtherHooks = ()  # the hooks of others when ours were attached
        weakref.finalize(self, self._probe.detach)

    # --- the prompt ---

    def ask(self, prompt: str | Sequence[int], language: str) -> None:
        """Take another prompt, which the next `run` runs; nothing changes where it is refused."""
        ids = prompt_ids(self.model, [prompt])
        check_language(language)
        if len(ids[0]) + self.max_new_tokens > self.model.cfg.n_ctx:
            raise ValueError(
                f"the prompt has {len(ids[0])} tokens; with {self.max_new_tokens} new ones it exceeds the context of "
                f"{self.model.cfg.n_ctx}. Shorten it."
            )
        self.prompt, self.language = prompt, language
        self._batch: TokenBatch = pad(ids, [0], device=device_of(self.model))
        self._unsteered: Unsteered | None = None

    def refresh(self) -> None:
        """Let the next `run` run the unsteered prompt anew."""
        self._unsteered = None

    def close(self) -> None:
        """Take the bench's hooks off the model; a later `run` puts them on again."""
        self._probe.detach()

    def __enter__(self) -> "SteeringBench":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- settings ---

    @property
    def mask_kinds(self) -> tuple[MaskKind, ...]:
        """What `run(masks=...)` can be here."""
        kinds: tuple[MaskKind, ...] = get_args(MaskKind)
        if not isinstance(self.given, Clas):
            return kinds[:1]
        possible = self._magnitude is not None and self.given.specific == "union"
        return tuple(kind for kind in kinds if possible or kind != "matched random")

    @property
    def settable(self) -> tuple[str, ...]:
        """Which of the numbers and layers `run` can be given here."""
        return settable(self.given)

    def intervention(
        self,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        layers: Sequence[int] | None = None,
        masks: MaskKind = "clas",
    ) -> Intervention:
        """What `run` with these settings puts on the model.

        Raises:
            SteeringError: a setting that steers nothing, is out of range, or masks that this bench has no statistics for.
        """
        chosen = {"alpha": alpha, "beta": beta, "gamma": gamma, "layers": layers}
        given: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
        unknown = [name for name in given if name not in self.settable]
        if unknown:
            has = ", ".join(self.settable) or "none"
            raise SteeringError(f"this {type(self.given).__name__} has no {unknown[0]!r} to set here; available: {has}")
        clas: Any = replace(cast(Any, self.given), **given) if given else self.given
        if masks not in self.mask_kinds:
            raise SteeringError(
                f"no {masks!r} masks here; available: {', '.join(self.mask_kinds)} ('matched random' needs stats=... and "
                f"specific='union')"
            )
        match masks:
            case "clas":
                return clas
            case "matched random":
                assert self._magnitude is not None
                return RescaleMasks.matched_random(clas, self._magnitude, seed=self.seed)
            case "other categories":
                return RescaleMasks.other_categories(clas)
            case "uniform":
                return RescaleMasks.uniform(clas)

    # --- runs ---

    def run(
        self,
        *,
        alpha: float | None = None,
        beta: float | None = None,
        gamma: float | None = None,
        layers: Sequence[int] | None = None,
        masks: MaskKind = "clas",
    ) -> BenchResult:
        """The prompt under a setting, beside the prompt without steering.

        Raises:
            SteeringError: as for `intervention`.
        """
        intervention = self.intervention(alpha=alpha, beta=beta, gamma=gamma, layers=layers, masks=masks)
        before = self._ready()
        start, n_layers = first_layer(self.model, intervention, [self.language]), self.model.cfg.n_layers
        steering = Steering(self.model, intervention, [self.language], per_row=False)
        decoder = make_decoder(self.model, 1)
        with self._probe.steering(dict(steering.hooks())), steering.attached(self.model, self._probe.block):
            entering = before.residuals[start - 1] if start else None
            with self._probe.reading() as residuals, only_layers(self.model, start, n_layers, entering):
                logits = self._step(decoder)
            if start:
                decoder.adopt(before.cached, start)
            continuation = self._continue(decoder, logits)
        after = [*before.residuals[:start], *(residuals[layer] for layer in range(start, n_layers))]
        lens = before.lens.up_to(start).then(logit_lens(self.model, after[start:]))
        return BenchResult(
            next_tokens=next_token_table(self.model, before.logits, logits, self._top),
            kl=float(kl_divergence(before.logits, logits)[0]),
            layers=layer_table(self.model, (before.residuals, before.lens), (after, lens)),
            continuation_before=before.continuation,
            continuation_after=continuation,
        )

    def _ready(self) -> Unsteered:
        """Our hooks on the model behind the others, and the prompt's run with those."""
        others = self._probe.others(self.model)
        if not self._probe.is_on(self.model) or others != self._behind:
            self._probe.attach(self.model)
            self._behind, self._unsteered = others, None
        if self._unsteered is None:
            self._unsteered = self._run_unsteered()
        return self._unsteered

    def _run_unsteered(self) -> Unsteered:
        decoder = make_decoder(self.model, 1)
        with self._probe.reading() as read:
            logits = self._step(decoder)
        residuals = tuple(read[layer] for layer in range(self.model.cfg.n_layers))
        cached = decoder.cached(self.model.cfg.n_layers)
        return Unsteered(logits, residuals, logit_lens(self.model, residuals), cached, self._continue(decoder, logits))

    def _step(self, decoder: Decoder) -> Float[Tensor, "1 d_vocab"]:
        with torch.inference_mode():
            return decoder.step(self._batch.tokens, self._batch.attention_mask)

    def _continue(self, decoder: Decoder, logits: Float[Tensor, "1 d_vocab"]) -> str:
        options: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "stop_at_newline": False}
        (tokens,), _ = greedy(self.model, decoder, logits, **options)
        return str(require_tokenizer(self.model).decode(tokens, skip_special_tokens=True))


def settable(intervention: Intervention) -> tuple[str, ...]:
    """Which of `alpha`, `beta`, `gamma` and `layers` an intervention can be put at."""
    own: set[str] = {one.name for one in fields(intervention)} if is_dataclass(intervention) else set()
    if not getattr(intervention, "takes_alpha", True):
        own -= {"alpha"}
    if not isinstance(intervention, Rescaling | Rule):  # elsewhere `layers` are those that it has vectors for
        own -= {"layers"}
    return tuple(name for name in ("alpha", "beta", "gamma", "layers") if name in own)


def _edited_points(model: LensModel, intervention: Intervention, language: str) -> list[str]:
    """The hook points that an intervention may change, in any layer."""
    layers = range(model.cfg.n_layers)
    kinds = {site.kind for site in intervention.edits(model, [language])} - {"residual"}
    return [Site(kind, layer).hook_name(model) for kind in sorted(kinds) for layer in layers]
