"""Sites that are measured and rescaled one unit at a time: MLP neurons, and the outputs of attention heads.

Both are the input of a projection onto the residual stream, so that a factor a unit folds into that projection's columns.
Attention's units are its heads' outputs side by side: unit `head * d_head + i` is component i of head `head`, whatever shape
a backend gives them. With grouped-query attention there are as many heads here as there are queries.
"""

from collections.abc import Mapping
from typing import Any, assert_never, get_args

from jaxtyping import Float, Shaped
from torch import Tensor

from clas_lens.given import given, given_word
from clas_lens.models.backends import LensModel, given_lens_model
from clas_lens.models.hooking import hook_points
from clas_lens.models.loading import ModelLoadError
from clas_lens.models.sites import check_layers, check_mlp_hooks, down_projection, z_name
from clas_lens.vocabulary import UnitSite


def n_units(model: LensModel, site: UnitSite) -> int:
    """How many units a layer has there: neurons, or heads x d_head."""
    match given_word("site", site, get_args(UnitSite)):
        case "mlp":
            return int(model.cfg.d_mlp)
        case "attn":
            return int(model.cfg.n_heads * model.cfg.d_head)
        case _:
            assert_never(site)


def output_projection(model: LensModel, site: UnitSite, layer: int) -> Float[Tensor, "unit d_model"]:
    """W_down or W_O: row n is what unit n writes to the residual stream, per unit of activation."""
    given_lens_model(model)
    match given_word("site", site, get_args(UnitSite)):
        case "mlp":
            return down_projection(model, layer)
        case "attn":
            block: Any = model.blocks[check_layers([layer], model.cfg.n_layers)[0]]
            return block.attn.W_O.detach().flatten(0, -2)
        case _:
            assert_never(site)


def flat(activation: Float[Tensor, "batch pos *width"]) -> Float[Tensor, "batch pos unit"]:
    """An activation with its heads, where it has any, side by side; `.reshape(activation.shape)` is the way back."""
    return activation.flatten(2)


def check_units(model: Any, site: UnitSite) -> None:
    """Raise unless this is a model of TransformerLens, not compiled, whose every layer has this site.

    Raises:
        ModelLoadError: another model, a layer without the hook point, or attention whose output projection does not take one
            input for each component of each head.
    """
    check_mlp_hooks(model)
    match site:
        case "mlp":
            return
        case "attn":
            _check_heads(model)
        case _:
            assert_never(site)


def _check_heads(model: LensModel) -> None:
    layers, points = range(model.cfg.n_layers), hook_points(model)
    missing = [layer for layer in layers if z_name(layer) not in points]
    if missing:
        there = [name for name in points if name.startswith(f"blocks.{missing[0]}.") and "attn" in name]
        raise ModelLoadError(
            f"{model.cfg.model_name} has no attention hook point {z_name(missing[0])!r} ({len(missing)} of "
            f"{model.cfg.n_layers} layers lack it; found in layer {missing[0]}: {', '.join(there[:3]) or 'none'}). "
            "Use site='mlp'."
        )
    expected = n_units(model, "attn")
    for layer in layers:
        width = _projection_inputs(model, "attn", layer)
        if width != expected:
            raise ModelLoadError(
                f"the output projection of attention in layer {layer} of {model.cfg.model_name} takes {width or 'unknown'} "
                f"inputs, not one for each of {model.cfg.n_heads} heads x {model.cfg.d_head}. Use site='mlp'."
            )


def _projection_inputs(model: LensModel, site: UnitSite, layer: int) -> int | None:
    try:
        return len(output_projection(model, site, layer))
    except (AttributeError, NotImplementedError, RuntimeError):  # attention that a bridge knows no matrices of
        return None


def describe_units(model: LensModel, site: UnitSite) -> dict[str, Any]:
    """What an artefact records of the units that it is of. MLP neurons are what is meant where no site is named."""
    described: dict[str, Any] = {"n_neurons": n_units(model, site)}
    match site:
        case "mlp":
            return described
        case "attn":
            heads = {"n_heads": int(model.cfg.n_heads), "d_head": int(model.cfg.d_head)}
            return described | {"site": site} | heads
        case _:
            assert_never(site)


def site_of(described: Mapping[str, Any]) -> UnitSite:
    """The site of units whose model is described so (see `describe_model`): the MLP where none is named.

    Raises:
        ValueError: a site that has no units.
    """
    site: UnitSite = described.get("site", "mlp")
    return given_word("site", site, get_args(UnitSite))


def units_in_words(described: Mapping[str, Any], n: int) -> str:
    """What a layer has: "2048 neurons", or "4 heads x 256"."""
    match site := site_of(described):
        case "mlp":
            return f"{n} neurons"
        case "attn":
            heads = described.get("n_heads")
            return f"{heads} heads x {n // heads}" if heads else f"{n} units of attention"
        case _:
            assert_never(site)


def units_fact(described: Mapping[str, Any], n_layers: int, n: int) -> dict[str, str]:
    """The same as a line of a card."""
    match site := site_of(described):
        case "mlp":
            return {"neurons": f"{n_layers} layers x {n:,}"}
        case "attn":
            return {"attention units": f"{n_layers} layers x {units_in_words(described, n)}"}
        case _:
            assert_never(site)


def to_heads(values: Shaped[Tensor, "*rest unit"], described: Mapping[str, Any]) -> Shaped[Tensor, "*rest head d_head"]:
    """Attention's units by head, the way back from the flat axis: `to_heads(stats.mean, stats.model)`.

    Raises:
        ValueError: units of the MLP, which has no heads, or another number of units than heads x d_head.
    """
    given(values, Tensor, "to_heads needs units", "such as stats.mean, with stats.model")
    given(described, Mapping, "to_heads needs the model that the units are of", "such as stats.model")
    n_heads, d_head = (int(described.get(name, 0)) for name in ("n_heads", "d_head"))
    if site_of(described) != "attn" or not n_heads:
        raise ValueError("MLP neurons have no heads: collect_statistics(..., site='attn') measures attention's units")
    if values.shape[-1] != n_heads * d_head:
        raise ValueError(f"{n_heads} heads x {d_head} are {n_heads * d_head} units; there are {values.shape[-1]}")
    return values.unflatten(-1, (n_heads, d_head))
