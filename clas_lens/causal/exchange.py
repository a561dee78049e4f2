"""One batch of pairs run clean, corrupted, and patched at each place."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clas_lens.causal.answers import CleanAnswers, Question
from clas_lens.causal.passes import CleanPass, Edit, padded
from clas_lens.models.forward import end_logits
from clas_lens.models.sites import HookFunction, LensModel, Site, hooked
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
    target = CleanPass(model, padded(model, corrupted), 1, columns=_reach(positions))
    reference = CleanAnswers(source.logits, asked)
    before, after = (reference.measured(logits) for logits in (source.logits, target.logits))
    edits: list[Edit] = []
    places: list[tuple[Part, Position, Tensor]] = []  # of every edit, or of every two with a control
    for part in parts:
        for position in positions:
            where = _where(source, target, position)
            if not where.any():
                continue
            places.append((part, position, where.any(1)))
            edits.append(_exchange(part, source, where))
            if control is not None:
                edits.append(_exchange(part, control, _where(control, target, position)))
    found = {place: reference.measured(logits) for place, logits in target.edited(edits)}
    step = 1 if control is None else 2
    for number, (part, position, has) in enumerate(places):
        patched, apart = found[step * number], found.get(step * number + 1) if control is not None else None
        for row in has.nonzero().flatten().tolist():
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


def _reach(positions: Sequence[Position]) -> int | None:
    """How many of the last columns hold all positions; None for all."""
    counted = [-position for position in positions if isinstance(position, int)]
    return max(counted) if len(counted) == len(positions) else None


def _answered(question: Question, logits: Float[Tensor, "d_vocab"]) -> Question:
    """The question with what the model says after it, where it has no answer yet."""
    return question if question.answer else replace(question, answer=(int(logits.argmax()),))


def _where(source: _Source, target: CleanPass, position: Position) -> Bool[Tensor, "row common"]:
    """Which of the last columns, as many as both have, are exchanged: content in both, and at that position."""
    common = min(source.batch.tokens.shape[1], target.columns)
    both = source.batch.content_mask[:, -common:] & target.batch.content_mask[:, -common:]
    if isinstance(position, str):
        return both
    here = torch.zeros_like(both)
    if -position <= common:
        here[:, position] = both[:, position]
    return here


def _exchange(part: Part, source: _Source, where: Bool[Tensor, "row common"]) -> Edit:
    """The source's activations in place of the target's there."""

    def hook(activation: Tensor, hook: object) -> Tensor:
        new = exchanged(flat(activation), source.at[part.site], where, part.mask)
        return new.reshape(activation.shape)

    return {part.site: hook}


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
