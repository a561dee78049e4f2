"""Controls for CLAS: the same rescaling of other neurons, and corpora with shuffled language labels."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from clas_lens.artifacts import tensor_fingerprint
from clas_lens.categories.categorize import NeuronCategory
from clas_lens.corpus.arguments import given_model
from clas_lens.corpus.parallel import ParallelCorpus
from clas_lens.given import given, given_whole, named
from clas_lens.models.sites import LensModel
from clas_lens.models.units import output_projection
from clas_lens.saved import SAVED_ONLY
from clas_lens.statistics.neurons import NeuronStatistics
from clas_lens.steering.clas import Clas, Masks, Rescaling
from clas_lens.steering.intervention import Layers, SteeringError, Strength, check_neurons
from clas_lens.vocabulary import Positions, UnitSite


@dataclass(frozen=True, eq=False)
class RescaleMasks(Rescaling):
    """What `Clas` does, to any two sets of neurons: h' = h * (1 + alpha * (beta * boost - gamma * cut)) in these layers.

    Rows in the anchor language are bit-identical to the unsteered model.

    Args:
        boost, cut: disjoint.
        layers, alpha, beta, gamma, anchor, positions: see `Clas`.
        name: which control this is.
        model: see `describe_model`; its `site` says where these masks act, {} means MLP neurons of any model.
        source: how the masks were made, for manifests.

    Raises:
        SteeringError: masks that overlap or are empty in these layers; or as for `Clas`.
    """

    kind: ClassVar[str] = "rescaled masks"

    boost: Bool[Tensor, "layer neuron"] = field(repr=False)
    cut: Bool[Tensor, "layer neuron"] = field(repr=False)
    layers: Layers
    alpha: Strength = 1.0
    beta: Strength = 0.4
    gamma: Strength = 0.2
    anchor: str = "en"
    positions: Positions = "all"
    name: str = "masks"
    model: Mapping[str, Any] = field(default_factory=dict, repr=False, metadata=SAVED_ONLY)
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name, mask in (("boost", self.boost), ("cut", self.cut)):
            if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.ndim != 2:
                raise SteeringError(f"{name} must be a mask: a boolean tensor of layers x neurons, got {_shown(mask)}")
        if self.boost.shape != self.cut.shape:
            raise SteeringError(
                f"boost is {tuple(self.boost.shape)} and cut {tuple(self.cut.shape)}; they must be alike"
            )
        if (self.boost & self.cut).any():
            raise SteeringError(f"boost and cut overlap in {int((self.boost & self.cut).sum())} neurons")
        super().__post_init__()

    @property
    def every_mask(self) -> Masks:
        """`boost` and `cut`."""
        return self.boost, self.cut

    @property
    def measured(self) -> Mapping[str, Any]:
        """The model whose neurons these are."""
        return self.model

    def _nothing(self) -> str:
        return f"the masks of {self.name!r} are empty in layers {list(self.layers)}"

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
        given(clas, Clas, "matched_random needs a Clas", "Clas(categories, layers=...)", error=SteeringError)
        given(
            magnitude, Tensor, "matched_random needs magnitudes", "neuron_magnitude(model, stats)", error=SteeringError
        )
        seed, bins = given_whole("seed", seed), given_whole("bins", bins, least=1, most=clas.categories.n_neurons)
        if clas.specific != "union":
            raise SteeringError(
                f"matched random masks are the same for all languages: they need specific='union', got {clas.specific!r}"
            )
        partial = clas.categories.mask(NeuronCategory.PARTIAL_SHARED)
        specific = clas.categories.mask(NeuronCategory.LANGUAGE_SPECIFIC)
        if magnitude.shape != partial.shape:
            raise SteeringError(f"magnitudes are {tuple(magnitude.shape)}, the categories {tuple(partial.shape)}")
        if not magnitude.isfinite().all():
            raise SteeringError("magnitudes must be finite; some of the statistics are not")
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
        boost: NeuronCategory | str = NeuronCategory.ALL_SHARED,
        cut: NeuronCategory | str = NeuronCategory.DEAD,
    ) -> "RescaleMasks":
        """CLAS on other categories, over all languages; the masks' sizes are these categories'.

        Raises:
            SteeringError: twice the same category, or no such neurons in the layers.
        """
        given(clas, Clas, "other_categories needs a Clas", "Clas(categories, layers=...)", error=SteeringError)
        cats, boost, cut = clas.categories, NeuronCategory.of(boost), NeuronCategory.of(cut)
        name = f"boost_{boost.label}_cut_{cut.label}"
        return cls._like(clas, cats.mask(boost), cats.mask(cut), name, {"of": clas.fingerprint()})

    @classmethod
    def uniform(cls, clas: Clas) -> "RescaleMasks":
        """Every neuron of CLAS's layers times the same 1 + alpha * beta, which is CLAS's factor on partial-shared neurons."""
        given(clas, Clas, "uniform needs a Clas", "Clas(categories, layers=...)", error=SteeringError)
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
        """CLAS's layers and settings with these masks, which rest on the same examples, as does their strength."""
        keys = {"example_keys": clas.source.get("example_keys", [])}
        settings: dict[str, Any] = {
            key: getattr(clas, key) for key in ("layers", "alpha", "beta", "gamma", "anchor", "positions", "tuned_on")
        }
        return cls(boost, cut, **settings, name=name, model=clas.categories.model, source={**keys, **source})


def _shown(mask: object) -> str:
    return f"{tuple(mask.shape)} of {mask.dtype}" if isinstance(mask, Tensor) else named(mask)


def neuron_magnitude(model: LensModel, stats: NeuronStatistics) -> Float[Tensor, "layer neuron"]:
    """How much a neuron writes to the residual stream on average: mean over languages of |mean h|, times ||its W_down row||
    (of attention: its W_O row).

    Raises:
        SteeringError: statistics of another model.
    """
    given_model(model)
    given(
        stats,
        NeuronStatistics,
        "neuron_magnitude needs NeuronStatistics",
        "run collect_statistics first",
        error=SteeringError,
    )
    check_neurons(model, stats.model, n_layers=stats.n_layers, n_neurons=stats.n_neurons)
    return unit_magnitude(model, stats.mean, stats.site)


def unit_magnitude(
    model: LensModel, mean: Float[Tensor, "lang layer neuron"], site: UnitSite
) -> Float[Tensor, "layer neuron"]:
    """The same from means of h in some languages."""
    norms = [output_projection(model, site, layer).double().norm(dim=1).cpu() for layer in range(mean.shape[1])]
    return (mean.double().abs().mean(0) * torch.stack(norms)).float()


def magnitude_bins(magnitude: Float[Tensor, "neuron"], bins: int = 10) -> Int[Tensor, "neuron"]:
    """Quantile bins of one layer's neurons, as equal in size as can be, 0 the smallest; of equal values the first is lower."""
    given(magnitude, Tensor, "magnitude_bins needs one layer's magnitudes", "neuron_magnitude(model, stats)[layer]")
    if magnitude.ndim != 1:
        raise ValueError(f"magnitude_bins needs one layer's magnitudes, got a tensor of shape {tuple(magnitude.shape)}")
    if magnitude.is_complex() or magnitude.is_meta or not magnitude.isfinite().all():
        raise ValueError(f"magnitude_bins needs finite magnitudes, got {magnitude.dtype} on {magnitude.device}, or NaN")
    bins = given_whole("bins", bins, least=1)
    rank = torch.empty(len(magnitude), dtype=torch.long)
    rank[magnitude.argsort(stable=True)] = torch.arange(len(magnitude))
    return rank * bins // len(magnitude)


def shuffled_labels(corpus: ParallelCorpus, *, seed: int) -> ParallelCorpus:
    """The corpus with each example's texts dealt to the language labels at random, the same for the same seed.

    Statistics and categories of it are a null for those of `corpus`: the same texts, one an example and label, but a label
    says nothing of the language. Statistics keep sums, not the values of each text, so this takes a collection of its own.
    """
    given(corpus, ParallelCorpus, "shuffled_labels needs a ParallelCorpus", "ParallelCorpus.from_texts(...) makes one")
    seed = given_whole("seed", seed)
    generator = random.Random(seed)
    rows = [generator.sample(row, len(row)) for row in zip(*corpus.texts.values(), strict=True)]
    columns = zip(*rows, strict=True)
    texts = {code: tuple(column) for code, column in zip(corpus.languages, columns, strict=True)}
    return replace(corpus, texts=texts)  # under its name, so that its examples are still known for what they are
