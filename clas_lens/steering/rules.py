"""A rule of one's own: a function of activations, steered, searched and compared like CLAS."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.artifacts import content_key
from clas_lens.given import given_word
from clas_lens.models.sites import LensModel, Site, check_layers
from clas_lens.saved import SAVED_ONLY
from clas_lens.steering.intervention import (
    Edit,
    Layers,
    SavedIntervention,
    SteeringError,
    Strength,
)
from clas_lens.steering.rule_functions import alpha_default, function_text, given_options
from clas_lens.vocabulary import Positions, SiteKind, check_language

RuleFunction = Callable[..., Tensor]


def rule(
    *,
    layers: Layers,
    site: SiteKind = "mlp",
    anchor: str = "en",
    positions: Positions = "all",
    version: str | None = None,
    source: Mapping[str, Any] | None = None,
) -> Callable[[RuleFunction], "Rule"]:
    """Make an intervention of a function of activations.

    >>> @rule(layers=(2, 3), site="mlp")
    ... def clip(h, language):
    ...     return h.clamp(max=3.0)
    >>> clip.name, clip.layers
    ('clip', (2, 3))
    >>> clip(torch.tensor([1.0, 5.0]), "de")
    tensor([1., 3.])

    The function is given `h`, [row pos neuron] (at other sites what these have there), and the language of all of these
    rows, and returns what takes its place: a new tensor of the same shape and dtype. It has to treat each row by itself;
    padding is among the positions. With an argument `alpha` its strength can be searched; at 0 it must return `h` as it is.
    With an argument `layer` it is told the layer. Rows in the anchor language never reach it, nor does anything at alpha 0.

    Args:
        layers: 0-based.
        site: see `Site`.
        anchor, positions: see `Clas`.
        version: names what the function does, for rows that are kept. Without one that is its source text; a lambda, or a
            function that uses tensors from outside, has none, and cannot be kept.
        source: what it was measured on, if anything; see `Intervention`.

    Raises:
        SteeringError: no function, one of other arguments, or settings that no intervention can have.
    """

    def made(function: RuleFunction) -> "Rule":
        start = alpha_default(function)
        return Rule(function, layers, site, start, anchor, positions, version, {} if source is None else source)

    return made


@dataclass(frozen=True, eq=False)
class Rule(SavedIntervention):
    """What `rule` makes of a function; `rule` says what the function is given and must return.

    `dataclasses.replace(mine, alpha=2.0)` is the rule at another strength.

    Raises:
        SteeringError: as for `rule`; or an alpha other than 1 for a function without that argument.
    """

    kind: ClassVar[str] = "rule"

    function: RuleFunction = field(repr=False, metadata=SAVED_ONLY)
    layers: Layers
    site: SiteKind = "mlp"
    alpha: Strength = 1.0
    anchor: str = "en"
    positions: Positions = "all"
    version: str | None = None
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        alpha_default(self.function)
        given_word("site", self.site, get_args(SiteKind), error=SteeringError)
        object.__setattr__(self, "layers", check_layers(self.layers, 10**6, error=SteeringError))
        if self.version is not None and (not isinstance(self.version, str) or not self.version):
            raise SteeringError(
                f"{self.name}: version must be a text that you change with the rule, got {self.version!r}"
            )
        if not self.takes_alpha and self.alpha != 1:
            raise SteeringError(
                f"{self.name} has one strength, 1, and none to search: give its function an argument alpha, at which 0 leaves "
                "h as it is"
            )

    @property
    def name(self) -> str:
        """The function's, which rows carry where no other is given."""
        found = getattr(self.function, "__name__", "rule")
        return "rule" if found == "<lambda>" else found

    @cached_property
    def takes_alpha(self) -> bool:
        """Whether its strength can be searched."""
        return "alpha" in given_options(self.function)

    def __call__(self, h: Tensor, language: str, **options: Any) -> Tensor:
        """The function itself, at this strength where none is given."""
        if self.takes_alpha:
            options.setdefault("alpha", self.alpha)
        return self.function(h, language, **options)

    def check(self, model: LensModel) -> None:
        """Raise `SteeringError` unless the model has these layers and this site."""
        check_layers(self.layers, model.cfg.n_layers, error=SteeringError)
        for layer in self.layers:
            try:
                Site(self.site, layer).hook_name(model)
            except ValueError as error:
                raise SteeringError(f"{self.name}: {error}") from error

    def edits(self, model: LensModel, languages: Sequence[str]) -> dict[Site, Edit]:
        """The function, at each of its layers."""
        for code in dict.fromkeys(languages):
            check_language(code)
        return {Site(self.site, layer): RuleEdit(self, layer, languages) for layer in self.layers}

    def settings(self) -> dict[str, Any]:
        """What was chosen, and what the function is: its version, its source text, or None where it has neither."""
        try:
            said: str | None = self.identity
        except SteeringError:
            said = None
        return {**super().settings(), "name": self.name, "function": said}

    @cached_property
    def identity(self) -> str:
        """The version, or the source text.

        Raises:
            SteeringError: it has neither; the message says why.
        """
        return function_text(self.function, self.version)

    def fingerprint(self) -> str:
        """A hash of the identity, the settings, and what it was tuned on.

        Raises:
            SteeringError: as for `identity`.
        """
        return content_key(self.identity, super().settings(), sorted(self.tuned_on))

    def save(self, path: str | Path) -> Path:
        """Refused: a file of a function would have to be run to be read.

        Raises:
            SteeringError: always.
        """
        raise SteeringError(f"{self.name} is a function and cannot be saved: keep the code that makes it")

    @cached_property
    def _checked(self) -> set[tuple[int, str]]:
        """The layers and languages in which the function was seen to keep its contract."""
        return set()


class RuleEdit:
    """Give the rows of each language to the function of a rule; rows in the anchor language stay what they are, to the bit.

    Raises:
        SteeringError: a function that breaks its contract, in one line; shape and dtype are checked at every use, the rest at
            the first in each layer and language.
    """

    def __init__(self, made: Rule, layer: int, languages: Sequence[str]) -> None:
        self._rule, self._layer, self._languages = made, layer, tuple(languages)

    def __call__(self, activation: Float[Tensor, "batch pos *width"], rows: Sequence[int]) -> Tensor:
        spoken = [self._languages[row] for row in rows]
        steered = [code for code in dict.fromkeys(spoken) if code != self._rule.anchor]
        if self._rule.alpha == 0 or not steered:
            return activation
        result = activation.clone()
        for code in steered:
            of_language = [place for place, one in enumerate(spoken) if one == code]
            result[of_language] = self._apply(activation[of_language], code)
        return result

    def _apply(self, h: Tensor, language: str) -> Tensor:
        """The function's answer to rows in one language, which are a copy."""
        first = (self._layer, language) not in self._rule._checked
        before = h.clone() if first else h
        changed = self._called(h, language, self._rule.alpha)
        if first:
            self._check_first(before, h, language)
            self._rule._checked.add((self._layer, language))
        return changed

    def _called(self, h: Tensor, language: str, alpha: float) -> Tensor:
        known = {"alpha": alpha, "layer": self._layer}
        options = {name: known[name] for name in given_options(self._rule.function)}
        answer = self._rule.function(h, language, **options)
        if not isinstance(answer, Tensor):
            raise self._broken(f"it returned {type(answer).__name__}: return the new tensor")
        if answer.shape != h.shape:
            raise self._broken(f"it returned the shape {tuple(answer.shape)} for {tuple(h.shape)}: keep the shape")
        if answer.dtype != h.dtype or answer.device != h.device:
            raise self._broken(
                f"it returned {answer.dtype} on {answer.device} for {h.dtype} on {h.device}: keep both, .to(h)"
            )
        return answer

    def _check_first(self, before: Tensor, after: Tensor, language: str) -> None:
        if not same(before, after):
            raise self._broken("it changed h in place: work on a new tensor (h * 2, not h.mul_(2))")
        if self._rule.takes_alpha:
            still = self._called(after, language, 0.0)
            if not same(before, still, tolerance=8 * torch.finfo(before.dtype).eps):
                furthest = float((still - before).abs().nan_to_num().max())
                raise self._broken(f"at alpha 0 it changes h by up to {furthest:.3g}: say h + alpha * (new - h)")

    def _broken(self, how: str) -> SteeringError:
        return SteeringError(f"the rule {self._rule.name} breaks its contract in layer {self._layer}: {how}")


def same(one: Tensor, other: Tensor, *, tolerance: float = 0.0) -> bool:
    """Whether two tensors are equal up to this relative error, NaN equal to NaN."""
    return torch.allclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True)
