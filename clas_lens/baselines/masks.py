"""Controls for CLAS: the same rescaling of other neurons, and corpora with shuffled language labels."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clas_lens.artifacts import content_key, load_tensors, save_tensors, tensor_fingerprint
from clas_lens.categories.categorize import NeuronCategory
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.models.sites import LensModel, check_layers, down_projection
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas, clas_scale
from clas_lens.steering.edits import rescale_edits
from clas_lens.steering.intervention import Edit, SteeringError, check_choice, check_neurons, check_numbers
from clas_lens.vocabulary import Positions, check_language

KIND = "rescaled masks"


FILE_NAME = "rescale_masks.safetensors"


SETTINGS = ("alpha", "beta", "gamma", "anchor", "positions", "name")


@dataclass(frozen=True, eq=False)
class RescaleMasks:
    """What `Clas` does, to any two sets of neurons: h' = h * (1 + alpha * (beta * boost - gamma * cut)) in these layers.

    Rows in the anchor language are bit-identical to the unsteered model.

    Args:
        boost, cut: disjoint.
        layers, alpha, beta, gamma, anchor, positions: see `Clas`.
        name: which control this is.
        model: see `describe_model`.
        source: how the masks were made, for manifests.

    Raises:
        SteeringError: masks that overlap or are empty in these layers; or as for `Clas`.
    """

    boost: Bool[Tensor, "layer neuron"] = field(repr=False)
    cut: Bool[Tensor, "layer neuron"] = field(repr=False)
    layers: tuple[int, ...]
    alpha: float = 1.0
    beta: float = 0.4
    gamma: float = 0.2
    anchor: str = "en"
    positions: Positions = "all"
    name: str = "masks"
    model: Mapping[str, Any] = field(default_factory=dict, repr=False)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        check_language(self.anchor)
        object.__setattr__(self, "layers", check_layers(self.layers, self.boost.shape[0], error=SteeringError))
        check_numbers(alpha=self.alpha, beta=self.beta, gamma=self.gamma)
        check_choice("positions", self.positions, get_args(Positions))
        if self.boost.shape != self.cut.shape:
            raise SteeringError(
                f"boost is {tuple(self.boost.shape)} and cut {tuple(self.cut.shape)}; they must be alike"
            )
        if (self.boost & self.cut).any():
            raise SteeringError(f"boost and cut overlap in {int((self.boost & self.cut).sum())} neurons")
        if not (self.boost | self.cut)[list(self.layers)].any():
            raise SteeringError(f"nothing to steer: the masks of {self.name!r} are empty in layers {list(self.layers)}")

    @classmethod
    def matched_random(
        cls, clas: Clas, magnitude: Float[Tensor, "layer neuron"], *, seed: int, bins: int = 10
    ) -> "RescaleMasks":
        """Random masks for CLAS's: in each layer and each decile of `magnitude` as many neurons of each kind.

        Drawn from all neurons of the layer without replacement, so that boost and cut are disjoint. The same seed gives the
        same masks; a layer's do not depend on which other layers are steered.

        Args:
            clas: with specific="union"; the other masks differ from language to language.
            magnitude: see `neuron_magnitude`.
            bins: 10 for deciles, within a layer.

        Raises:
            SteeringError: another `specific`, or magnitudes of another shape.
        """
        if clas.specific != "union":
            raise SteeringError(
                f"matched random masks are the same for all languages: they need specific='union', got {clas.specific!r}"
            )
        partial = clas.categories.mask(NeuronCategory.PARTIAL_SHARED)
        specific = clas.categories.mask(NeuronCategory.LANGUAGE_SPECIFIC)
        if magnitude.shape != partial.shape:
            raise SteeringError(f"magnitudes are {tuple(magnitude.shape)}, the categories {tuple(partial.shape)}")
        boost, cut = torch.zeros_like(partial), torch.zeros_like(specific)
        for layer in clas.layers:
            generator = torch.Generator().manual_seed(seed * clas.categories.n_layers + layer)
            bin_of = magnitude_bins(magnitude[layer], bins)
            for one in range(bins):
                members = (bin_of == one).nonzero().flatten()
                n_boost, n_cut = int(partial[layer, members].sum()), int(specific[layer, members].sum())
                drawn = members[torch.randperm(len(members), generator=generator)]
                boost[layer, drawn[:n_boost]] = True
                cut[layer, drawn[n_boost : n_boost + n_cut]] = True
        source = {"seed": seed, "bins": bins, "magnitude": tensor_fingerprint(magnitude), "of": clas.fingerprint()}
        return cls._like(clas, boost, cut, f"matched_random_{seed}", source)

    @classmethod
    def other_categories(
        cls,
        clas: Clas,
        boost: NeuronCategory = NeuronCategory.ALL_SHARED,
        cut: NeuronCategory = NeuronCategory.DEAD,
    ) -> "RescaleMasks":
        """CLAS on other categories, over all languages; the masks' sizes are these categories'.

        Raises:
            SteeringError: twice the same category, or no such neurons in the layers.
        """
        cats = clas.categories
        name = f"boost_{boost.label}_cut_{cut.label}"
        return cls._like(clas, cats.mask(boost), cats.mask(cut), name, {"of": clas.fingerprint()})

    @classmethod
    def uniform(cls, clas: Clas) -> "RescaleMasks":
        """Every neuron of CLAS's layers times the same 1 + alpha * beta, which is CLAS's factor on partial-shared neurons."""
        everything = torch.ones(clas.categories.n_layers, clas.categories.n_neurons, dtype=torch.bool)
        return cls._like(clas, everything, ~everything, "uniform_rescale", {"of": clas.fingerprint()})

    @classmethod
    def _like(
        cls,
        clas: Clas,
        boost: Bool[Tensor, "layer neuron"],
        cut: Bool[Tensor, "layer neuron"],
        name: str,
        source: Mapping[str, Any],
    ) -> "RescaleMasks":
        """CLAS's layers and settings with these masks, which rest on the same examples."""
        keys = {"example_keys": clas.source.get("example_keys", [])}
        settings: dict[str, Any] = {
            key: getattr(clas, key) for key in ("layers", "alpha", "beta", "gamma", "anchor", "positions")
        }
        return cls(boost, cut, **settings, name=name, model=clas.categories.model, source={**keys, **source})

    def scale(self, language: str) -> dict[int, Float[Tensor, "neuron"]]:
        """The factor on each neuron of each steered layer for inputs in `language`; all ones for the anchor.

        Raises:
            ValueError: not a language code.
        """
        check_language(language)
        alpha = 0.0 if language == self.anchor else self.alpha
        scale = clas_scale(self.boost, self.cut, alpha=alpha, beta=self.beta, gamma=self.gamma)
        return {layer: scale[layer] for layer in self.layers}

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless the masks are of this model's neurons."""
        check_neurons(model, self.model, n_layers=self.boost.shape[0], n_neurons=self.boost.shape[1])

    def edits(self, languages: Sequence[str]) -> dict[str, Edit]:
        """A rescaling a steered layer."""
        return rescale_edits(self.scale, self.layers, languages)

    # --- files ---

    def settings(self) -> dict[str, Any]:
        """Everything but the masks and the model, for manifests."""
        named = {name: getattr(self, name) for name in SETTINGS}
        return {"layers": list(self.layers), **named, "source": dict(self.source)}

    def fingerprint(self) -> str:
        """A hash of everything that this intervention does."""
        masks = tensor_fingerprint(self.boost), tensor_fingerprint(self.cut)
        return content_key(KIND, self.settings(), dict(self.model), *masks)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write one self-contained file into `folder`."""
        header = {**self.settings(), "model": dict(self.model)}
        save_tensors(Path(folder) / FILE_NAME, KIND, {"boost": self.boost, "cut": self.cut}, header)
        return Path(folder)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "RescaleMasks":
        """Read what `save_pretrained` wrote.

        Raises:
            ArtifactError: missing, damaged or another kind of file.
        """
        tensors, header = load_tensors(Path(folder) / FILE_NAME, KIND)
        settings = {name: header[name] for name in (*SETTINGS, "model", "source")}
        return cls(tensors["boost"], tensors["cut"], tuple(header["layers"]), **settings)


def neuron_magnitude(model: LensModel, stats: NeuronStatistics) -> Float[Tensor, "layer neuron"]:
    """How much a neuron writes to the residual stream on average: mean over languages of |mean h|, times ||its W_down row||.

    Raises:
        SteeringError: statistics of another model.
    """
    check_neurons(model, stats.model, n_layers=stats.n_layers, n_neurons=stats.n_neurons)
    norms = [down_projection(model, layer).double().norm(dim=1).cpu() for layer in range(stats.n_layers)]
    return (stats.mean.double().abs().mean(0) * torch.stack(norms)).float()


def magnitude_bins(magnitude: Float[Tensor, "neuron"], bins: int = 10) -> Int[Tensor, "neuron"]:
    """Quantile bins of one layer's neurons, as equal in size as can be, 0 the smallest; of equal values the first is lower."""
    rank = torch.empty(len(magnitude), dtype=torch.long)
    rank[magnitude.argsort(stable=True)] = torch.arange(len(magnitude))
    return rank * bins // len(magnitude)


def shuffled_labels(corpus: ParallelCorpus, *, seed: int) -> ParallelCorpus:
    """The corpus with each example's texts dealt to the language labels at random, the same for the same seed.

    Statistics and categories of it are a null for those of `corpus`: the same texts, one an example and label, but a label
    says nothing of the language. Statistics keep sums, not the values of each text, so this takes a collection of its own.
    """
    generator = random.Random(seed)
    rows = [generator.sample(row, len(row)) for row in zip(*corpus.texts.values(), strict=True)]
    columns = zip(*rows, strict=True)
    texts = {code: tuple(column) for code, column in zip(corpus.languages, columns, strict=True)}
    return replace(corpus, texts=texts)  # under its name, so that its examples are still known for what they are
