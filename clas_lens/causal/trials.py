"""The edits of a scan: which there are, and what answers they leave."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.masks import unit_magnitude
from clas_lens.causal.answers import CleanAnswers, Question, answer_length
from clas_lens.causal.components import Component, Units, edited, matched_units, spread_units
from clas_lens.causal.passes import CleanPass, padded
from clas_lens.corpus.tokens import forward_batches
from clas_lens.models.room import in_parts_that_fit
from clas_lens.models.sites import HookFunction, LensModel, Site, device_of
from clas_lens.models.units import flat
from clas_lens.vocabulary import CauseMeasure, ComponentEdit, UnitSite

Scores = dict[CauseMeasure, Float[np.ndarray, "_"]]
Means = Mapping[UnitSite, Float[Tensor, "_ _ _"]]


@dataclass(frozen=True, eq=False)
class Trial:
    """A component and the random units that it is compared with, as places in a list of edits.

    Attributes:
        own: None if the component has no units.
    """

    component: Component
    own: int | None
    nulls: tuple[int, ...]


def plan_trials(
    model: LensModel, components: Sequence[Component], means: Means, *, whole: bool, draws: int, seed: int
) -> tuple[list[Trial], list[Units]]:
    """A trial for each component, and every set of units to edit once.

    Args:
        whole: the components are whole layers, which share random units of all layers.
    """
    edits: list[Units] = []

    def place(units: Units) -> int:
        edits.append(units)
        return len(edits) - 1

    shared: dict[UnitSite, tuple[int, ...]] = {}
    if whole:
        for kind in dict.fromkeys(component.kind for component in components):
            shared[kind] = tuple(place(spread_units(model, kind, seed=seed + draw)) for draw in range(draws))
    magnitudes = {} if whole else {kind: unit_magnitude(model, of, kind) for kind, of in means.items()}
    trials = []
    for number, component in enumerate(components):
        if not component.mask.any():
            trials.append(Trial(component, None, ()))
            continue
        if whole:
            nulls = shared[component.kind]
        else:
            generator = torch.Generator().manual_seed(seed * len(components) + number)
            drawn = (
                matched_units(component, magnitudes[component.kind][component.layer], generator) for _ in range(draws)
            )
            nulls = tuple(place(units) for units in drawn)
        trials.append(Trial(component, place(component.units), nulls))
    return trials, edits


@dataclass(frozen=True, eq=False)
class Editor:
    """One kind of edit, of any units of a model."""

    model: LensModel
    edit: ComponentEdit
    means: Mapping[UnitSite, Float[Tensor, "_ _"]]
    factor: float | int | None

    def hooks(self, units: Units, positions: Tensor) -> dict[Site, HookFunction]:
        """What edits these units at these positions, by site."""
        return {site: self._hook(site, mask, positions) for site, mask in units.items()}

    def _hook(self, site: Site, mask: Tensor, positions: Tensor) -> HookFunction:
        mean = self.means[cast(UnitSite, site.kind)][site.layer] if self.edit == "mean" else None

        def hook(activation: Tensor, hook: object) -> Tensor:
            new = edited(flat(activation), mask, positions, self.edit, mean=mean, factor=self.factor)
            return new.reshape(activation.shape)

        return hook


def batches_of(model: LensModel, questions: Sequence[Question], batch_size: int) -> list[list[int]]:
    """Which questions are read together: those of similar length."""
    return forward_batches([len(question.ids) for question in questions], batch_size, device_of(model))


def scores_of(
    editor: Editor,
    questions: Sequence[Question],
    edits: Sequence[Units],
    batch_size: int,
    tick: Callable[[], object],
) -> tuple[Scores, list[Scores]]:
    """The scores of the questions without an edit, and with each."""
    model, n_sets = editor.model, len(edits) + 1
    found: list[Scores] = [{} for _ in range(n_sets)]

    def run(rows: Sequence[int]) -> list[Mapping[CauseMeasure, list[float]]]:
        asked = [questions[row] for row in rows]
        batch = padded(model, asked)
        clean = CleanPass(model, batch, answer_length(asked))
        reference = CleanAnswers(clean.logits, asked)
        hooks = [editor.hooks(units, batch.content_mask) for units in edits]
        after = {place: reference.measured(logits) for place, logits in clean.edited(hooks)}
        return [reference.measured(clean.logits), *(after[place] for place in range(len(edits)))]

    for rows in batches_of(model, questions, batch_size):
        for part, sets in in_parts_that_fit(rows, run, what="examples"):
            for into, values in zip(found, sets, strict=True):
                for measure, numbers in values.items():
                    whole = into.setdefault(measure, np.zeros(len(questions)))
                    whole[list(part)] = numbers
        tick()
    return found[0], found[1:]
