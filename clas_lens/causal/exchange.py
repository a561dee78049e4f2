"""One batch of pairs run clean, corrupted, and patched at each place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clas_lens.causal.answers import Question, measured
from clas_lens.causal.passes import CleanPass, padded
from clas_lens.corpus.tokens import TokenBatch
from clas_lens.models.sites import HookFunction, LensModel, Site, end_logits, hooked
from clas_lens.models.units import flat
from clas_lens.vocabulary import CauseMeasure

Place = tuple[str, int, int | str]  # component, layer, position
Position = int | str  # from the end, or "all"


@dataclass(frozen=True, eq=False)
class Part:
    """What is exchanged together: some of a site's numbers (`flat`), or all of them."""

    name: str
    site: Site
    mask: Bool[Tensor, "_"] | None = None


@dataclass(frozen=True)
class Exchanged:
    """One example patched at one place. `control` is with another example's source; NaN where there is none."""

    group: str
    measure: CauseMeasure
    clean: float
    corrupted: float
    patched: float
    control: float


class _Source:
    """What a run of the source has at each part's site."""

    def __init__(self, model: LensModel, questions: Sequence[Question], parts: Sequence[Part]) -> None:
        self.batch = padded(model, questions)
        self.at: dict[Site, Tensor] = {}
        sites = dict.fromkeys(part.site for part in parts)
        with hooked(model, [(site.hook_name(model), self._keep(site)) for site in sites]):
            self.logits = end_logits(model, self.batch.tokens, self.batch.attention_mask, 1)

    def _keep(self, site: Site) -> HookFunction:
        def hook(activation: Tensor, hook: object) -> None:
            self.at[site] = flat(activation)

        return hook


def exchanges(
    model: LensModel,
    parts: Sequence[Part],
    positions: Sequence[Position],
    clean: Sequence[Question],
    corrupted: Sequence[Question],
    others: Sequence[Question | None],
) -> Iterator[tuple[Place, Exchanged]]:
    """Every example of a batch at every place that it has, a measure each.

    Args:
        others: the source of another example for each, or None.
    """
    source = _Source(model, clean, parts)
    asked = [_answered(one, logits) for one, logits in zip(clean, source.logits[:, -1], strict=True)]
    swapped = [one if other is None else other for one, other in zip(clean, others, strict=True)]
    control = _Source(model, swapped, parts) if any(other is not None for other in others) else None
    target = CleanPass(model, padded(model, corrupted), 1)
    before, after = (measured(logits, source.logits, asked) for logits in (source.logits, target.logits))
    for part in parts:
        for position in positions:
            where = _where(source.batch, target.batch, position)
            if not where.any():
                continue
            patched = measured(_run(target, part, source, where), source.logits, asked)
            apart = None
            if control is not None:
                there = _where(control.batch, target.batch, position)
                apart = measured(_run(target, part, control, there), source.logits, asked)
            for row in where.any(1).nonzero().flatten().tolist():
                for measure in ("log_prob", "kl"):
                    yield (
                        (part.name, part.site.layer, position),
                        Exchanged(
                            clean[row].group,
                            measure,
                            before[measure][row],
                            after[measure][row],
                            patched[measure][row],
                            float("nan") if apart is None or others[row] is None else apart[measure][row],
                        ),
                    )


def _answered(question: Question, logits: Float[Tensor, "d_vocab"]) -> Question:
    """The question with what the model says after it, where it has no answer yet."""
    return question if question.answer else replace(question, answer=(int(logits.argmax()),))


def _where(source: TokenBatch, target: TokenBatch, position: Position) -> Bool[Tensor, "row common"]:
    """Which of the last columns, as many as both batches have, are exchanged: content in both, and at that position."""
    common = min(source.tokens.shape[1], target.tokens.shape[1])
    both = source.content_mask[:, -common:] & target.content_mask[:, -common:]
    if isinstance(position, str):
        return both
    here = torch.zeros_like(both)
    if -position <= common:
        here[:, position] = both[:, position]
    return here


def _run(
    target: CleanPass, part: Part, source: _Source, where: Bool[Tensor, "row common"]
) -> Float[Tensor, "row 1 d_vocab"]:
    """The target's logits with the source's activations there."""

    def hook(activation: Tensor, hook: object) -> Tensor:
        new = exchanged(flat(activation), source.at[part.site], where, part.mask)
        return new.reshape(activation.shape)

    return target.edited({part.site: hook})


def exchanged(
    target: Float[Tensor, "row pos width"],
    source: Float[Tensor, "row source_pos width"],
    where: Bool[Tensor, "row common"],
    mask: Bool[Tensor, "width"] | None = None,
) -> Float[Tensor, "row pos width"]:
    """The target's activations with the source's at these of the last columns; the rest to the bit."""
    common = where.shape[1]
    chosen = where.to(target.device)[:, :, None]
    if mask is not None:
        chosen = chosen & mask.to(target.device)
    new = target.clone()
    new[:, -common:] = torch.where(chosen, source[:, -common:].to(target.device), target[:, -common:])
    return new
