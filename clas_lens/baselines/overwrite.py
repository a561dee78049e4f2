"""Int_mu: overwrite the neurons of the input's own language by constants (Mondal et al. 2025)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clas_lens.baselines.bases import OfSelection
from clas_lens.categories.selection import NeuronSelection
from clas_lens.given import given, given_flag, given_number, given_word
from clas_lens.models.hooking import hook_points
from clas_lens.models.sites import LensModel, Site, check_layers, up_name
from clas_lens.statistics.histogram import quantile
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.edits import LanguageTable, Overwriting
from clas_lens.steering.intervention import (
    Edit,
    Layers,
    SteeringError,
    Strength,
    check_site,
)
from clas_lens.vocabulary import Missing, MlpSite, Positions, Quantity, Statistic, check_language


@dataclass(frozen=True, eq=False)
class Overwrite(OfSelection):
    """Overwrite the neurons selected for the input's own language by constants, at every position that is steered.

    h' = (1 - alpha) h + alpha h_over, with h_over = c at site "post" and c * (W_up x) at site "gate", which is what h
    becomes when act(gate) := c. alpha = 1 is Int_mu. Rows in the anchor language are bit-identical to the unsteered model;
    so is every neuron that is not selected. `int_mu` makes the constants from statistics.

    Args:
        selection: which neurons, per language.
        constants: c; what stands outside the selection's masks is taken as 0 and never used.
        site: "gate" (gated MLPs only; where LAPE's statistic is taken) or "post" (h itself).
        alpha: strength; 0 is bit-identical to no steering.
        layers: only in these; default all.
        anchor: the language that stays untouched.
        missing: what happens to a language without a selected neuron in these layers: steering to it raises ("raise"), or
            leaves its rows as they are ("untouched").
        positions: see `Clas`.
        origin: how the constants were made, for manifests.

    Raises:
        SteeringError: a layer out of range or twice, an unknown option, constants of another shape or not finite, or no
            neuron to overwrite in any language.
    """

    kind: ClassVar[str] = "overwrite"

    selection: NeuronSelection
    constants: Float[Tensor, "lang layer neuron"] = field(repr=False)
    site: MlpSite = "gate"
    alpha: Strength = 1.0
    layers: Layers = None
    anchor: str = "en"
    missing: Missing = "raise"
    positions: Positions = "all"
    origin: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_site(self.selection.model, "mlp", "Overwrite")
        for name, choices in (("site", MlpSite), ("missing", Missing)):
            given_word(name, getattr(self, name), get_args(choices), error=SteeringError)
        if self.layers is not None:
            object.__setattr__(self, "layers", check_layers(self.layers, self.selection.n_layers, error=SteeringError))
        if self.constants.shape != self.selection.masks.shape:
            raise SteeringError(
                f"one constant a neuron and language is needed: {tuple(self.constants.shape)} constants for "
                f"{tuple(self.selection.masks.shape)} neurons"
            )
        object.__setattr__(self, "constants", self.constants.where(self.selection.masks, 0.0))
        if not self.constants[self._own].isfinite().all():
            raise SteeringError("constants must be finite; some of the statistics are not")
        if not self._own.any():
            raise SteeringError(f"nothing to overwrite: no neuron of any language but {self.anchor!r} in these layers")

    @classmethod
    def int_mu(
        cls,
        stats: NeuronStatistics,
        selection: NeuronSelection,
        *,
        statistic: Statistic = "mean",
        percentile: float | None = None,
        as_released: bool = False,
        site: MlpSite = "gate",
        alpha: float = 1.0,
        layers: Sequence[int] | None = None,
        anchor: str = "en",
        missing: Missing = "raise",
        positions: Positions = "all",
    ) -> "Overwrite":
        """Int_mu: each language's own statistic of its own neurons, taken at the site that it is written to.

        Args:
            stats: with every language of the selection.
            statistic: "mean" (pooled as the statistics are), "percentile" (of tokens; needs histograms), or "zero", which
                is LAPE's deactivation.
            percentile: 0 to 100, for statistic="percentile".
            as_released: as in the authors' code, take the statistic of the gate *before* its nonlinearity and write it
                *after* it.
            site, alpha, layers, anchor, missing, positions: see the class.

        Raises:
            ValueError: statistics and selection of different models, a language without statistics, no histograms where a
                percentile needs them, or options that do not go together.
        """
        given(stats, NeuronStatistics, "int_mu needs NeuronStatistics first", "run collect_statistics first")
        given(
            selection,
            NeuronSelection,
            "int_mu needs a NeuronSelection second",
            "lape, act_prob and category_selection make one",
        )
        check_language(anchor)
        if anchor not in selection.languages:
            raise SteeringError(
                f"the anchor {anchor!r} is none of the languages that were measured: {', '.join(selection.languages)}"
            )
        if stats.model.get("neurons") != selection.model.get("neurons"):
            raise ValueError(
                f"the statistics are of {stats.model.get('name')!r} and the selection of {selection.model.get('name')!r}, "
                "or of other weights or another site under that name; make both from the same model"
            )
        given_flag("as_released", as_released)
        given_word("site", site, get_args(MlpSite))
        given_word("statistic", statistic, get_args(Statistic))
        if as_released and (site != "gate" or statistic == "zero"):
            raise ValueError(
                f"as_released=True takes a mean or percentile before the gate's nonlinearity and writes it after; it does not "
                f"go with site={site!r}, statistic={statistic!r}"
            )
        of: Quantity = "gate" if as_released else "gate_act" if site == "gate" else "h"
        return cls(
            selection,
            language_constants(stats.select(selection.languages), selection.masks, of, statistic, percentile),
            site=site,
            alpha=alpha,
            layers=layers,
            anchor=anchor,
            missing=missing,
            positions=positions,
            origin={
                "statistic": statistic,
                "percentile": percentile,
                "as_released": as_released,
                "of": of,
                "example_keys": stats.source()["example_keys"],
            },
        )

    @cached_property
    def _own(self) -> Bool[Tensor, "lang layer neuron"]:
        """Each language's neurons in the steered layers; none for the anchor."""
        masks = torch.zeros_like(self.selection.masks)
        chosen = list(range(self.selection.n_layers) if self.layers is None else self.layers)
        masks[:, chosen] = self.selection.masks[:, chosen]
        if self.anchor in self.selection.languages:
            masks[self.selection.languages.index(self.anchor)] = False
        return masks

    def overwritten(self, language: str) -> Bool[Tensor, "layer neuron"]:
        """The neurons that are overwritten in inputs in `language`; none for the anchor.

        Raises:
            ValueError: not a language code, or one without selected neurons (unless `missing` is "untouched").
        """
        check_language(language)
        known = language in self.selection.languages
        masks = self._own[self.selection.languages.index(language)] if known else torch.zeros_like(self._own[0])
        if self.missing == "raise" and language != self.anchor and not masks.any():
            have = [code for code, own in zip(self.selection.languages, self._own, strict=True) if own.any()]
            raise ValueError(
                f"no neurons to overwrite for {language!r}; languages with some: {', '.join(have)}. "
                "missing='untouched' leaves the others as they are."
            )
        return masks

    @property
    def source(self) -> Mapping[str, Any]:
        """What the neurons were selected on; the examples are also those of the constants."""
        keys = {*self.selection.source.get("example_keys", ()), *self.origin.get("example_keys", ())}
        return {**super().source, "example_keys": sorted(keys)}

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless the neurons are this model's, with a gate if that is overwritten."""
        super().check(model)
        if self.site == "gate" and up_name(0) not in hook_points(model):
            raise SteeringError(
                f"{model.cfg.model_name!r} has MLPs without a gate: use site='post', where act(pre-activation) is h itself"
            )

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """An overwriting a layer with selected neurons; at site "gate" a second hook before it sees W_up x."""
        own = {code: self.overwritten(code) for code in dict.fromkeys(languages)}
        edits: dict[Site, Edit] = {}
        for layer in self._own.any((0, 2)).nonzero().flatten().tolist():
            neurons = torch.stack([masks[layer] for masks in own.values()]).any(0).nonzero().flatten()
            strength = {code: self.alpha * masks[layer, neurons].double() for code, masks in own.items()}
            constants = {code: self._constants(code)[layer, neurons] for code in own}
            tables = LanguageTable.of(strength, languages), LanguageTable.of(constants, languages)
            edit = Overwriting(neurons, *tables, gated=self.site == "gate")
            if self.site == "gate":
                edits[Site("up", layer)] = edit.see_up
            edits[Site("mlp", layer)] = edit
        return edits

    def _constants(self, language: str) -> Float[Tensor, "layer neuron"]:
        if language not in self.selection.languages:
            return torch.zeros_like(self.constants[0])
        row = self.selection.languages.index(language)
        return self.constants[row].where(self._own[row], 0.0)


def language_constants(
    stats: NeuronStatistics,
    masks: Bool[Tensor, "lang layer neuron"],
    of: Quantity,
    statistic: Statistic,
    percentile: float | None = None,
) -> Float[Tensor, "lang layer neuron"]:
    """One statistic of h, of the gate or of act(gate) for the neurons under the masks, and 0 for the rest.

    Raises:
        ValueError: an unknown statistic, a percentile without its statistic or the other way round, or no histograms.
    """
    if percentile is not None:
        given_number("percentile", percentile)
    if (statistic == "percentile") != (percentile is not None) or not 0 <= (percentile or 0) <= 100:
        raise ValueError(f"statistic='percentile' needs percentile=0 to 100, and no other does; got {percentile}")
    constants = torch.zeros(masks.shape)
    match statistic:
        case "zero":
            pass
        case "mean":
            means = {"h": "mean", "gate": "gate_mean", "gate_act": "gate_act_mean"}
            constants[masks] = getattr(stats, means[of])[masks]
        case "percentile":
            assert percentile is not None
            constants[masks] = quantile(stats.histogram(of)[masks], percentile / 100)
        case _:
            raise ValueError(f"unknown statistic {statistic!r}; available: {', '.join(get_args(Statistic))}")
    return constants
