"""CLAS itself: which neurons are rescaled by how much, for which language."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, TypeAlias, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.display import bands, card, listed
from clas_lens.given import given, given_word
from clas_lens.models.sites import LensModel, Site, check_layers
from clas_lens.models.units import site_of
from clas_lens.steering.edits import rescale_edits
from clas_lens.steering.intervention import (
    Edit,
    Layers,
    SavedIntervention,
    SteeringError,
    Strength,
    check_neurons,
    strength,
)
from clas_lens.vocabulary import Positions, Specific, UnitSite, check_language

# Which neurons are boosted, and which are cut.
Masks: TypeAlias = tuple[Bool[Tensor, "layer neuron"], Bool[Tensor, "layer neuron"]]


def clas_scale(
    partial: Bool[Tensor, "*shape"], specific: Bool[Tensor, "*shape"], *, alpha: float, beta: float, gamma: float
) -> Float[Tensor, "*shape"]:
    """The paper's three steps as one factor: 1 + alpha * (beta * M_partial - gamma * M_specific).

    h1 = h (1 + beta M_partial); h2 = h1 (1 - gamma M_specific); h' = (1 - alpha) h + alpha h2. The masks are disjoint, so
    h' = h * this. It is exactly 1 outside both masks and everywhere at alpha = 0.
    """
    for mask in (partial, specific):
        given(mask, Tensor, "clas_scale needs masks", "cats.mask('partial-shared'), say", error=SteeringError)
        if mask.dtype != torch.bool or mask.shape != partial.shape:
            raise SteeringError(
                f"clas_scale needs two boolean masks of one shape, got {mask.dtype} {tuple(mask.shape)} and "
                f"{partial.dtype} {tuple(partial.shape)}"
            )
    alpha, beta, gamma = strength("alpha", alpha), strength("beta", beta), strength("gamma", gamma)
    return 1.0 + alpha * (beta * partial.double() - gamma * specific.double())


class Rescaling(SavedIntervention, ABC):
    """h' = h * (1 + alpha * (beta * boost - gamma * cut)) in some layers, in every language but the anchor.

    A subclass is a dataclass with these fields and says which neurons `boost` and `cut` are, which are disjoint. Rows in the
    anchor language keep scale 1 and are bit-identical to the unsteered model.
    """

    layers: Layers
    alpha: Strength
    beta: Strength
    gamma: Strength
    anchor: str
    positions: Positions

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "gamma"):
            strength(f"alpha * {name}", self.alpha * getattr(self, name))
        boost, cut = self.every_mask
        object.__setattr__(self, "layers", check_layers(self.layers, boost.shape[0], error=SteeringError))
        if not (boost | cut)[list(self.layers)].any():
            raise SteeringError(f"nothing to steer: {self._nothing()}")

    @property
    @abstractmethod
    def every_mask(self) -> Masks:
        """Neurons that are boosted, and those that are cut, in any language."""

    @property
    @abstractmethod
    def measured(self) -> Mapping[str, Any]:
        """The model whose neurons these are: see `describe_model`."""

    @property
    def site(self) -> UnitSite:
        """Where h is: that of the units measured, MLP neurons or the heads' outputs."""
        return site_of(self.measured)

    def settings(self) -> dict[str, Any]:
        """What was chosen, and the site where it is not the MLP."""
        return {**super().settings(), **({} if self.site == "mlp" else {"site": self.site})}

    @abstractmethod
    def _nothing(self) -> str:
        """Why no neuron in the layers is under a mask."""

    def masks(self, language: str) -> Masks:
        """Neurons that are boosted, and those that are cut, in inputs in `language`.

        Raises:
            ValueError: not a language code.
        """
        check_language(language)
        return self.every_mask

    def scale(self, language: str) -> dict[int, Float[Tensor, "neuron"]]:
        """The factor on each neuron of each steered layer for inputs in `language`; all ones for the anchor.

        Raises:
            ValueError: not a language code, or one that has no masks.
        """
        check_language(language)
        if language == self.anchor:
            ones = torch.ones(self.every_mask[0].shape[1], dtype=torch.float64)
            return dict.fromkeys(self.layers, ones)
        boost, cut = self.masks(language)
        strengths = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        return {layer: clas_scale(boost[layer], cut[layer], **strengths) for layer in self.layers}

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless the masks are of this model's neurons."""
        n_layers, n_neurons = self.every_mask[0].shape
        check_neurons(model, self.measured, n_layers=n_layers, n_neurons=n_neurons)

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """A rescaling a steered layer."""
        return rescale_edits(self.scale, self.layers, languages, self.site)


@dataclass(frozen=True, eq=False)
class Clas(Rescaling):
    """Cross-lingual activation steering: rescale partial-shared and language-specific neurons in the bridge layers.

    Rows in the anchor language keep scale 1 and are bit-identical to the unsteered model. Only `alpha * beta` and
    `alpha * gamma` matter. Past alpha = -1 / beta (-2.5 at the default) partial-shared neurons change sign.

    Args:
        categories: what each neuron is, or each unit of attention (`collect_statistics(site="attn")`): they say at which site
            this acts.
        layers: 0-based, any in the model; `select_bridge_layers` proposes some.
        alpha, beta, gamma: strength and direction; boost of partial-shared, cut of language-specific neurons.
        anchor: the language that stays untouched.
        specific: which language-specific neurons are cut: of all languages ("union"), of the row's own language
            ("current"), or of every other language ("others").
        positions: "all" positions; the "last" column of each forward pass (the last real token in a left-padded batch, and
            each generated token, if generation uses its KV cache); "generated" tokens only, those that continue a KV cache; or
            "prompt_last", the last column of passes that continue no KV cache, which is a prompt's last token.

    Raises:
        SteeringError: a layer out of range or twice, no layers, no neurons to steer, an anchor that was not measured, a
            number that is not finite or so large that activations overflow.
    """

    kind: ClassVar[str] = "clas"

    categories: NeuronCategories = field(repr=False)
    layers: Layers
    alpha: Strength = 1.0
    beta: Strength = 0.4
    gamma: Strength = 0.2
    anchor: str = "en"
    specific: Specific = "union"
    positions: Positions = "all"

    def __post_init__(self) -> None:
        if not isinstance(self.categories, NeuronCategories):
            found = type(self.categories).__name__
            raise SteeringError(f"categories must be NeuronCategories, got {found}: categorize(statistics) makes them")
        given_word("specific", self.specific, get_args(Specific), error=SteeringError)
        super().__post_init__()
        if self.anchor not in self.categories.languages:
            raise SteeringError(
                f"the anchor {self.anchor!r} is none of the languages that were measured: "
                f"{', '.join(self.categories.languages)}"
            )

    @cached_property
    def every_mask(self) -> Masks:
        """All partial-shared neurons, and all language-specific ones."""
        mask = self.categories.mask
        return mask(NeuronCategory.PARTIAL_SHARED), mask(NeuronCategory.LANGUAGE_SPECIFIC)

    @property
    def measured(self) -> Mapping[str, Any]:
        """The model whose neurons these are."""
        return self.categories.model

    def _nothing(self) -> str:
        return (
            f"layers {list(self.layers)} have no partial-shared and no language-specific neurons ({self.categories!r}). "
            "Choose other layers or another threshold."
        )

    def masks(self, language: str) -> Masks:
        """Partial-shared neurons, and the language-specific ones that are cut in inputs in `language`.

        Warns of a language that was not measured, which the other languages' masks steer.

        Raises:
            ValueError: not a language code; or `specific="current"` and a language that was not in the statistics.
        """
        check_language(language)
        partial, specific = self.every_mask
        if language not in self.categories.languages and self.specific != "current":
            warnings.warn(
                f"{language!r} was not measured: it is steered by the masks of {', '.join(self.categories.languages)}",
                stacklevel=2,
            )
        match self.specific:
            case "union":
                return partial, specific
            case "current":
                return partial, self.categories.specific_to(language)
            case "others":
                known = language in self.categories.languages
                return partial, specific & ~self.categories.specific_to(language) if known else specific

    @property
    def source(self) -> Mapping[str, Any]:
        """What the categories were measured on."""
        return self.categories.source

    def _repr_html_(self) -> str:
        chosen = list(self.layers)
        partial, specific = (int(mask[chosen].sum()) for mask in self.every_mask)
        facts = {
            "layers": listed(self.layers),
            "alpha, beta, gamma": f"{self.alpha:g}, {self.beta:g}, {self.gamma:g}",
            "partial-shared": f"{partial:,} neurons x {1 + self.alpha * self.beta:g}",
            "language-specific": f"{specific:,} neurons x {1 - self.alpha * self.gamma:g} (cut: {self.specific})",
            "languages": f"{listed(self.categories.languages)}; {self.anchor} stays as it is",
            "positions": self.positions,
        }
        picture = bands(self.categories.percent_by_layer(), marked=self.layers)
        return card("Clas", self.categories.model.get("name", "unnamed model"), facts, picture)
