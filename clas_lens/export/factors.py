"""What an intervention does as one fixed factor a neuron, which is what can leave this process; or why it has none."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.baselines.adaptive import Adaptive
from clas_lens.baselines.noise import MatchedNoise
from clas_lens.baselines.overwrite import Overwrite
from clas_lens.baselines.vectors import AddVector, Incline
from clas_lens.steering.intervention import Intervention
from clas_lens.steering.rules import Rule
from clas_lens.vocabulary import UnitSite, check_language


class ExportError(ValueError):
    """An intervention that other programs cannot run as it is, a model that it cannot be written into, or a failed check."""


def factors(intervention: Intervention, language: str) -> dict[int, Float[Tensor, "neuron"]]:
    """The factor on each neuron of each layer that `intervention` changes for inputs in `language`, float64.

    Layers whose factors are all 1 are left out. An intervention of your own needs a method `scale(language)` that returns
    `{layer: factors}`, as `Clas` and `RescaleMasks` have.

    Raises:
        ExportError: it is no factor a neuron, acts at some positions only, or does nothing to this language.
        ValueError: not a language code.
    """
    check_language(language)
    scale = getattr(intervention, "scale", None)
    if not callable(scale):
        raise ExportError(f"{type(intervention).__name__} cannot be exported as weights: {_why_not(intervention)}")
    if intervention.positions != "all":
        raise ExportError(
            f"{type(intervention).__name__} steers positions={intervention.positions!r}; weights act at all positions. "
            "Export dataclasses.replace(intervention, positions='all'), which is another intervention: measure it first."
        )
    if language == intervention.anchor:
        raise ExportError(
            f"{language!r} is the anchor, which stays untouched: for it run the model as it is (PEFT: disable_adapter())"
        )
    found = {int(layer): factor.detach().cpu().double() for layer, factor in scale(language).items()}
    changed = {layer: factor for layer, factor in sorted(found.items()) if not torch.all(factor == 1)}
    if not changed:
        raise ExportError(
            f"nothing to export: at alpha={intervention.alpha:g} every factor for {language!r} is 1 in layers {sorted(found)}"
        )
    if not all(factor.isfinite().all() for factor in changed.values()):
        raise ExportError(f"factors for {language!r} are not all finite")
    return changed


def site_of_factors(intervention: Intervention) -> UnitSite:
    """Where these factors act: an intervention's `site`, MLP neurons if it names none.

    Raises:
        ExportError: a site without a projection behind it that could take factors.
    """
    match site := getattr(intervention, "site", "mlp"):
        case "mlp" | "attn":
            return cast(UnitSite, site)
        case _:
            raise ExportError(
                f"{type(intervention).__name__} acts at site={site!r}; factors fold into weights behind mlp and attn alone"
            )


def _why_not(intervention: Intervention) -> str:
    match intervention:
        case Overwrite():
            return "it replaces activations by constants, whatever the input, and no weight is a constant activation"
        case AddVector():
            return "it adds a vector to the residual stream. Use cl.export.control_vector (--to control-vector)"
        case Incline():
            return "it maps the residual stream between two layers by a matrix, where a model has no weight"
        case MatchedNoise():
            return "what it adds depends on the input"
        case Adaptive():
            return "its strength follows each example, and weights are the same for all"
        case Rule():
            return "it is a function of the activations; give your own intervention a method scale(language) if it is a factor"
        case _:
            return "it has no method scale(language) that says one factor a neuron"
