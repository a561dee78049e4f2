"""Language Arithmetics (Gurgurov et al. 2025): at act(gate), add one language's mean, and switch another's neurons off."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clas_lens.baselines.bases import OfSelection
from clas_lens.categories.selection import NeuronSelection
from clas_lens.given import given, given_word
from clas_lens.models.hooking import hook_points
from clas_lens.models.sites import LensModel, Site, up_name
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.edits import LanguageTable
from clas_lens.steering.intervention import (
    Edit,
    SteeringError,
    Strength,
    check_site,
    strength,
)
from clas_lens.vocabulary import Positions, Toward, check_language


@dataclass(frozen=True, eq=False)
class LanguageArithmetics(OfSelection):
    """act(gate) of the target language's neurons += alpha * their mean; of the source language's neurons first := d.

    arXiv:2507.22608, as in github.com/d-gurgurov/Language-Neurons-Manipulation (d5c7519): batch_generation.py sets the source's
    neurons and adds to the target's, and xnli.py and xquad.py only add, with alpha = 1 there. LAPE neurons; means of act(gate)
    over all tokens there, here pooled as the statistics are. "anchor": the input's language is the source and the anchor the
    target. "own": the input's language is the target and there is no source, as in their tasks. h becomes what it would be with
    that act(gate). Rows in the anchor language, and all at alpha = 0 (where d is not set either), are bit-identical.

    Args:
        selection: which neurons, per language.
        means: of act(gate), for these languages.
        alpha: how much of the mean is added (theirs is s or 1).
        toward: the target.
        d: what the source's neurons are set to; None leaves them.
        anchor, positions: see `Clas`.

    Raises:
        SteeringError: means that do not fit the selection or are not finite, d with toward="own", an anchor without neurons
            with toward="anchor", or an unknown option.
    """

    kind: ClassVar[str] = "language arithmetics"

    selection: NeuronSelection
    means: Float[Tensor, "lang layer neuron"] = field(repr=False)
    alpha: Strength = 1.0
    toward: str = "anchor"
    d: float | None = 0.0
    anchor: str = "en"
    positions: Positions = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_site(self.selection.model, "mlp", "LanguageArithmetics")
        given_word("toward", self.toward, get_args(Toward), error=SteeringError)
        if self.means.shape != self.selection.masks.shape or not self.means.isfinite().all():
            raise SteeringError(
                f"a finite mean a neuron and language is needed: {tuple(self.means.shape)} means for "
                f"{tuple(self.selection.masks.shape)} neurons"
            )
        if self.d is not None:
            object.__setattr__(self, "d", strength("d", self.d))
            if self.toward == "own":
                raise SteeringError("toward='own' adds to the very neurons that d would switch off: give d=None")
        if self.toward == "anchor" and not self._own(self.anchor).any():
            raise SteeringError(f"the anchor {self.anchor!r} has no neurons to add to")

    @classmethod
    def of(
        cls,
        stats: NeuronStatistics,
        selection: NeuronSelection,
        *,
        toward: Toward = "anchor",
        d: float | None = 0.0,
        alpha: float = 1.0,
        anchor: str = "en",
    ) -> "LanguageArithmetics":
        """With the means of act(gate) of the statistics that `selection` was made from, or others of the same model.

        Raises:
            ValueError: statistics of another model, or without a language of the selection.
        """
        given(stats, NeuronStatistics, "LanguageArithmetics needs NeuronStatistics", "run collect_statistics first")
        given(selection, NeuronSelection, "LanguageArithmetics needs a NeuronSelection", "lape(stats) makes one")
        if stats.model.get("neurons") != selection.model.get("neurons"):
            raise ValueError(f"statistics of {stats.model.get('name')!r}, neurons of {selection.model.get('name')!r}")
        return cls(selection, stats.select(selection.languages).gate_act_mean, alpha, toward, d, anchor)

    def _own(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """A language's neurons; none of one that is not in the selection."""
        known = language in self.selection.languages
        return self.selection.of(language) if known else torch.zeros_like(self.selection.union)

    def change(self, language: str) -> tuple[Float[Tensor, "layer neuron"], Float[Tensor, "layer neuron"]]:
        """What act(gate) is multiplied by, and what is then added, in inputs in `language`."""
        check_language(language)
        keep = torch.ones(self.means.shape[1:], dtype=torch.float64)
        add = torch.zeros_like(keep)
        target = self.anchor if self.toward == "anchor" else language
        if language == self.anchor or self.alpha == 0:
            return keep, add
        if self.d is not None:
            keep[self._own(language)], add[self._own(language)] = 0.0, self.d
        if target in self.selection.languages:
            means = self.means[self.selection.languages.index(target)].double()
            add += self.alpha * means.where(self._own(target), 0.0)
        return keep, add

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """An edit a layer with neurons of any language; in gated MLPs a second hook before it sees W_up x."""
        changes = {code: self.change(code) for code in dict.fromkeys(languages)}
        edits: dict[Site, Edit] = {}
        for layer in self.selection.union.any(1).nonzero().flatten().tolist():
            neurons = self.selection.union[layer].nonzero().flatten()
            tables = [
                LanguageTable.of({code: pair[side][layer, neurons] for code, pair in changes.items()}, languages)
                for side in (0, 1)
            ]
            gated = up_name(layer) in hook_points(model)
            edit = GateArithmetic(neurons, tables[0], tables[1], gated=gated)
            if gated:
                edits[Site("up", layer)] = edit.see_up
            edits[Site("mlp", layer)] = edit
        return edits


class GateArithmetic:
    """h * keep + add * (W_up x) for some neurons, in float32 or better; h itself, to the bit, where keep is 1 and add 0.

    Args:
        neurons: which columns.
        gated: without a gate act(pre-activation) is h, and `add` is added to it; else `see_up` has to see W_up x first.
    """

    def __init__(self, neurons: Int[Tensor, "own"], keep: LanguageTable, add: LanguageTable, *, gated: bool) -> None:
        self._neurons, self._keep, self._add, self._gated = neurons, keep, add, gated
        self._idle = keep.always(1.0) and add.always(0.0)
        self._up: Tensor | None = None

    def see_up(self, activation: Float[Tensor, "batch pos neuron"], rows: Sequence[int]) -> Tensor:
        """Keep W_up x of the neurons and hand it on as it is."""
        if not self._idle:
            self._up = activation[..., self._neurons.to(activation.device)]
        return activation

    def __call__(self, activation: Float[Tensor, "batch pos neuron"], rows: Sequence[int]) -> Tensor:
        if self._idle:
            return activation
        neurons = self._neurons.to(activation.device)
        held = activation[..., neurons]
        keep, add = self._keep.rows(held, rows), self._add.rows(held, rows)
        if self._gated:
            assert self._up is not None, "hook_post fired before hook_pre_linear"
            added, self._up = add * self._up, None
        else:
            added = add
        changed = (held * keep + added).to(held.dtype)
        result = activation.clone()
        result[..., neurons] = torch.where((keep == 1) & (add == 0), held, changed)
        return result
