"""CLAS itself: which neurons are rescaled by how much, for which language."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clas_lens.artifacts import content_key, load_tensors, save_tensors, tensor_fingerprint
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.display import bands, card, listed
from clas_lens.models.sites import LensModel, check_layers
from clas_lens.steering.edits import rescale_edits
from clas_lens.steering.intervention import Edit, SteeringError, check_choice, check_neurons, check_numbers
from clas_lens.vocabulary import Positions, Specific, check_language

KIND = "clas"


FILE_NAME = "clas.safetensors"


SETTINGS = ("alpha", "beta", "gamma", "anchor", "specific", "positions")


def clas_scale(
    partial: Bool[Tensor, "*shape"], specific: Bool[Tensor, "*shape"], *, alpha: float, beta: float, gamma: float
) -> Float[Tensor, "*shape"]:
    """The paper's three steps as one factor: 1 + alpha * (beta * M_partial - gamma * M_specific).

    h1 = h (1 + beta M_partial); h2 = h1 (1 - gamma M_specific); h' = (1 - alpha) h + alpha h2. The masks are disjoint, so
    h' = h * this. It is exactly 1 outside both masks and everywhere at alpha = 0.
    """
    return 1.0 + alpha * (beta * partial.double() - gamma * specific.double())


@dataclass(frozen=True, eq=False)
class Clas:
    """Cross-lingual activation steering: rescale partial-shared and language-specific neurons in the bridge layers.

    Rows in the anchor language keep scale 1 and are bit-identical to the unsteered model. Only `alpha * beta` and
    `alpha * gamma` matter. Past alpha = -1 / beta (-2.5 at the default) partial-shared neurons change sign.

    Args:
        categories: what each neuron is.
        layers: 0-based, any in the model; `select_bridge_layers` proposes some.
        alpha, beta, gamma: strength and direction; boost of partial-shared, cut of language-specific neurons.
        anchor: the language that stays untouched.
        specific: which language-specific neurons are cut: of all languages ("union"), of the row's own language
            ("current"), or of every other language ("others").
        positions: "all" positions; the "last" column of each forward pass (the last real token in a left-padded batch, and
            each generated token, if generation uses its KV cache); or "generated" tokens only, those that continue a KV
            cache.

    Raises:
        SteeringError: a layer out of range or twice, no layers, no neurons to steer, a number that is not finite.
    """

    categories: NeuronCategories = field(repr=False)
    layers: tuple[int, ...]
    alpha: float = 1.0
    beta: float = 0.4
    gamma: float = 0.2
    anchor: str = "en"
    specific: Specific = "union"
    positions: Positions = "all"

    def __post_init__(self) -> None:
        check_language(self.anchor)
        object.__setattr__(self, "layers", check_layers(self.layers, self.categories.n_layers, error=SteeringError))
        check_numbers(alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        check_choice("specific", self.specific, get_args(Specific))
        check_choice("positions", self.positions, get_args(Positions))
        chosen = list(self.layers)
        if not (self._partial[chosen].any() or self._specific[chosen].any()):
            raise SteeringError(
                f"nothing to steer: layers {chosen} have no partial-shared and no language-specific neurons "
                f"({self.categories!r}). Choose other layers or another threshold."
            )

    @cached_property
    def _partial(self) -> Bool[Tensor, "layer neuron"]:
        return self.categories.mask(NeuronCategory.PARTIAL_SHARED)

    @cached_property
    def _specific(self) -> Bool[Tensor, "layer neuron"]:
        return self.categories.mask(NeuronCategory.LANGUAGE_SPECIFIC)

    def scale(self, language: str) -> dict[int, Float[Tensor, "neuron"]]:
        """The factor on each neuron of each steered layer for inputs in `language`; all ones for the anchor.

        Raises:
            ValueError: not a language code; or `specific="current"` and a language that was not in the statistics.
        """
        check_language(language)
        if language == self.anchor:
            ones = torch.ones(self.categories.n_neurons, dtype=torch.float64)
            return dict.fromkeys(self.layers, ones)
        specific = self._specific_for(language)
        strengths = {"alpha": self.alpha, "beta": self.beta, "gamma": self.gamma}
        return {layer: clas_scale(self._partial[layer], specific[layer], **strengths) for layer in self.layers}

    def _specific_for(self, language: str) -> Bool[Tensor, "layer neuron"]:
        match self.specific:
            case "union":
                return self._specific
            case "current":
                return self.categories.specific_to(language)
            case "others":
                if language not in self.categories.languages:
                    return self._specific
                return self._specific & ~self.categories.specific_to(language)

    @property
    def source(self) -> Mapping[str, Any]:
        """What the categories were measured on."""
        return self.categories.source

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless the categories were measured on this model's neurons."""
        check_neurons(
            model, self.categories.model, n_layers=self.categories.n_layers, n_neurons=self.categories.n_neurons
        )

    def edits(self, languages: Sequence[str]) -> dict[str, Edit]:
        """A rescaling a steered layer."""
        return rescale_edits(self.scale, self.layers, languages)

    def _repr_html_(self) -> str:
        chosen = list(self.layers)
        partial, specific = int(self._partial[chosen].sum()), int(self._specific[chosen].sum())
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

    # --- files ---

    def settings(self) -> dict[str, Any]:
        """Everything but the categories, for manifests."""
        return {"layers": list(self.layers), **{name: getattr(self, name) for name in SETTINGS}}

    def fingerprint(self) -> str:
        """A hash of everything that this intervention does."""
        return content_key(self.settings(), self.categories.header(), tensor_fingerprint(self.categories.active))

    def header(self) -> dict[str, Any]:
        """What a file needs beside `categories.active`."""
        return {**self.settings(), "categories": self.categories.header()}

    @classmethod
    def from_parts(cls, active: Bool[Tensor, "lang layer neuron"], header: Mapping[str, Any]) -> "Clas":
        """From a tensor and what `header()` gave."""
        categories = NeuronCategories.from_parts(active, header["categories"])
        return cls(categories, tuple(header["layers"]), **{name: header[name] for name in SETTINGS})

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write one self-contained file into `folder`."""
        save_tensors(Path(folder) / FILE_NAME, KIND, {"active": self.categories.active}, self.header())
        return Path(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "Clas":
        """Read what `save_pretrained` wrote.

        Raises:
            ArtifactError: missing, damaged or another kind of file.
        """
        tensors, header = load_tensors(Path(folder) / FILE_NAME, KIND)
        return cls.from_parts(tensors["active"], header)
