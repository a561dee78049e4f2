"""Parts of a model that can be edited by themselves, and random parts to match them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from clas_lens.baselines.masks import magnitude_bins
from clas_lens.categories.categorize import NeuronCategories, NeuronCategory
from clas_lens.categories.selection import NeuronSelection
from clas_lens.models.sites import LensModel, Site
from clas_lens.models.units import n_units
from clas_lens.vocabulary import ComponentEdit, UnitSite

Units = Mapping[Site, Bool[Tensor, "_"]]  # which units of which sites


@dataclass(frozen=True, eq=False)
class Component:
    """Units of one layer that are edited together.

    Attributes:
        name: what it is called in tables, the same in each layer.
        kind: whose units these are.
    """

    name: str
    kind: UnitSite
    layer: int
    mask: Bool[Tensor, "unit"]

    @property
    def site(self) -> Site:
        return Site(self.kind, self.layer)

    @property
    def units(self) -> Units:
        """What an edit is given."""
        return {self.site: self.mask}


SITE_NAMES: Mapping[UnitSite, str] = {"attn": "attention", "mlp": "MLP"}


def whole_layers(model: LensModel, sites: Sequence[UnitSite], layers: Sequence[int]) -> list[Component]:
    """All units of each site in each layer."""
    return [
        Component(SITE_NAMES[site], site, layer, torch.ones(n_units(model, site), dtype=torch.bool))
        for site in sites
        for layer in layers
    ]


def by_category(cats: NeuronCategories | NeuronSelection, site: UnitSite, layers: Sequence[int]) -> list[Component]:
    """Each category's units in each layer; of a selection, each language's."""
    if isinstance(cats, NeuronSelection):
        masks = {f"units of {code}": cats.of(code) for code in cats.languages}
    else:
        masks = {category.label: cats.mask(category) for category in NeuronCategory}
    return [Component(name, site, layer, mask[layer].cpu()) for name, mask in masks.items() for layer in layers]


def each_head(model: LensModel, layers: Sequence[int]) -> list[Component]:
    """Each attention head in each layer."""
    n_heads, d_head = int(model.cfg.n_heads), int(model.cfg.d_head)
    head_of = torch.arange(n_heads * d_head) // d_head
    return [Component(f"head {head}", "attn", layer, head_of == head) for head in range(n_heads) for layer in layers]


def each_neuron(model: LensModel, neurons: Mapping[int, Sequence[int]], site: UnitSite) -> list[Component]:
    """Single units, from the numbers of those of some layers."""
    every = torch.arange(n_units(model, site))
    return [
        Component(f"neuron {neuron}", site, layer, every == neuron)
        for layer, chosen in sorted(neurons.items())
        for neuron in chosen
    ]


def matched_units(
    component: Component, magnitude: Float[Tensor, "unit"], generator: torch.Generator, *, bins: int = 10
) -> Units:
    """As many other units of the layer as the component has, from each decile of size of effect as many as there are.

    Where a decile has too few others, all of them and as many more from the rest of the layer; where the layer has too few
    others, the component's own fill up.

    Args:
        magnitude: of the layer's units, as `neuron_magnitude` has it.
    """
    mask, bin_of = component.mask, magnitude_bins(magnitude, bins)
    order = torch.randperm(len(mask), generator=generator)
    others = order[~mask[order]]
    drawn = torch.zeros_like(mask)
    for one in range(bins):
        wanted = int(mask[bin_of == one].sum())
        drawn[others[bin_of[others] == one][:wanted]] = True
    for rest in (others, order):
        missing = int(mask.sum() - drawn.sum())
        drawn[rest[~drawn[rest]][:missing]] = True
    return {component.site: drawn}


def spread_units(model: LensModel, site: UnitSite, *, seed: int) -> Units:
    """As many units of a site as one layer has, drawn from all layers."""
    generator = torch.Generator().manual_seed(seed)
    n, n_layers = n_units(model, site), int(model.cfg.n_layers)
    drawn = torch.zeros(n_layers * n, dtype=torch.bool)
    drawn[torch.randperm(len(drawn), generator=generator)[:n]] = True
    return {Site(site, layer): mask for layer, mask in enumerate(drawn.view(n_layers, n)) if mask.any()}


def edited(
    activation: Float[Tensor, "batch pos unit"],
    units: Bool[Tensor, "unit"],
    positions: Bool[Tensor, "batch pos"],
    edit: ComponentEdit,
    *,
    mean: Float[Tensor, "unit"] | None = None,
    factor: float | int | None = None,
) -> Float[Tensor, "batch pos unit"]:
    """The activation with these units at these positions at their mean, at zero, or times a factor; the rest to the bit."""
    match edit:
        case "mean":
            assert mean is not None
            new = mean.to(activation.device, activation.dtype)
        case "zero":
            new = torch.zeros((), device=activation.device, dtype=activation.dtype)
        case "rescale":
            assert factor is not None
            new = activation * factor
        case _:
            assert_never(edit)
    where = positions.to(activation.device)[:, :, None] & units.to(activation.device)
    return torch.where(where, new, activation)
