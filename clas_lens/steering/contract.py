"""Whether an intervention of one's own keeps the contract that all of this toolkit's keep, tried on a model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, get_args

import torch
from torch import Tensor

from clas_lens.corpus.arguments import given_model
from clas_lens.models.forward import run_layers
from clas_lens.models.sites import LensModel, Site, device_of, hooked
from clas_lens.steering.intervention import Intervention, SteeringError, missing_members
from clas_lens.steering.rules import Rule, same
from clas_lens.vocabulary import Positions, check_language

Activations = Mapping[Site, Tensor]
LENGTH, ROWS = 8, 3
BATCHED = 1e-3  # a row alone and in a batch differ by float error, relative to the largest activation


def check_intervention(model: LensModel, mine: Any, language: str = "de") -> None:
    """Raise unless `mine` is an intervention that keeps its contract on this model; everything that is wrong is named at once.

    That it has every member of `Intervention`; that each edit keeps shape and dtype, changes nothing in place, leaves rows in
    the anchor language bit-identical, all rows at alpha 0, and treats a row alone as in a batch; and that it is a dataclass,
    so that searches can set its alpha. The edits are tried on the activations of a few tokens of the model.

    Args:
        mine: an object of a class of your own, or a `rule`.
        language: in which it steers; not its anchor.

    Raises:
        SteeringError: it does not; a line a problem.
    """
    given_model(model)
    check_language(language)
    name = getattr(mine, "name", type(mine).__name__)
    problems = list(_not_an_intervention(mine)) or list(_broken(model, mine, language))
    if problems:
        raise SteeringError("\n".join([f"{name} is no intervention that can be compared:", *problems]))


def _not_an_intervention(mine: Any) -> Iterator[str]:
    if isinstance(mine, type):
        yield f"- {mine.__name__} is a class: make an object of it"
        return
    for name in missing_members(mine):
        said = (getattr(getattr(Intervention, name), "__doc__", None) or "").split("\n")[0]
        yield f"- it has no {name}" + (f": {said}" if said else "")
    if not is_dataclass(mine):
        yield "- it is no dataclass, so that no search can set its alpha: write @dataclass(frozen=True, eq=False) above it"
    allowed = get_args(Positions)
    if getattr(mine, "positions", allowed[0]) not in allowed:
        yield f"- positions must be one of {', '.join(allowed)}; got {mine.positions!r}"


def _broken(model: LensModel, mine: Any, language: str) -> Iterator[str]:
    """What an object with all members does otherwise than it should."""
    if language == mine.anchor:
        yield f"- {language!r} is its anchor: give another language to try it in"
        return
    try:
        mine.check(model)
        sites = sorted(mine.edits(model, [language]))
        seen = _activations(model, sites)
        yield from _edits_broken(model, mine, language, seen)
    except (ValueError, TypeError, AttributeError, RuntimeError, IndexError, KeyError) as error:
        yield f"- {type(error).__name__}: {error}"


def _edits_broken(model: LensModel, mine: Any, language: str, seen: Activations) -> Iterator[str]:
    if not seen:
        yield "- edits gives no site"
    kept = {site: one.clone() for site, one in seen.items()}
    changed = _applied(model, mine, [language] * ROWS, seen)
    for site, one in changed.items():
        if not isinstance(one, Tensor) or one.shape != seen[site].shape or one.dtype != seen[site].dtype:
            yield f"- {_at(site)} its edit returns another type, shape or dtype: return a tensor like the activation"
            return
        if not torch.equal(kept[site], seen[site]):
            yield f"- {_at(site)} its edit changes the activation in place: return a new tensor"
            return
    mixed = _applied(model, mine, [mine.anchor, *[language] * (ROWS - 1)], seen)
    for site, one in mixed.items():
        if not torch.equal(one[0], seen[site][0]):
            yield f"- {_at(site)} it changes a row in its anchor {mine.anchor!r}: such rows stay as they are, to the bit"
    alone = _applied(model, mine, [language], {site: one[:1] for site, one in seen.items()})
    for site, one in alone.items():
        if not same(one / _size(one), changed[site][:1] / _size(one), tolerance=BATCHED):
            yield f"- {_at(site)} it treats a row alone otherwise than in a batch: compute each row from itself alone"
    if not isinstance(mine, Rule) or mine.takes_alpha:
        still = _applied(model, replace(mine, alpha=0.0), [language] * ROWS, seen)
        for site, one in still.items():
            if not torch.equal(one, seen[site]):
                yield f"- {_at(site)} at alpha 0 it changes activations: hand them on as they are"


def _at(site: Site) -> str:
    return f"in layer {site.layer} ({site.kind})"


def _size(activation: Tensor) -> float:
    return max(float(activation.abs().max()), 1e-9)


def _applied(model: LensModel, mine: Intervention, languages: Sequence[str], seen: Activations) -> dict[Site, Any]:
    """What the edits make of activations whose rows are in these languages, in the order of a forward pass."""
    edits = mine.edits(model, languages)
    return {site: edits[site](seen[site], range(len(languages))) for site in sorted(edits)}


def _activations(model: LensModel, sites: Sequence[Site]) -> Activations:
    """The unsteered activations of a few tokens."""
    found: dict[Site, Tensor] = {}

    def seeing(site: Site) -> Any:
        def hook(activation: Tensor, hook: object) -> None:
            found[site] = activation.clone()

        return hook

    tokens = torch.randint(model.cfg.d_vocab, (ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(device_of(model))
    with torch.no_grad(), hooked(model, [(site.hook_name(model), seeing(site)) for site in sites]):
        run_layers(model, tokens, torch.ones_like(tokens))
    return found
