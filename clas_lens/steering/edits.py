"""What interventions do to one activation tensor: per-language numbers, handed out a batch row at a time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clas_lens.given import given, given_whole, given_word, in_a_row
from clas_lens.models.sites import Site
from clas_lens.steering.intervention import Edit
from clas_lens.vocabulary import UnitSite


class LanguageTable:
    """One vector a language, given out a batch row at a time, on the activation's device and in float32 or better.

    Args:
        table: one line a distinct language.
        places: which line each place in the list of languages uses.
    """

    def __init__(self, table: Float[Tensor, "lang width"], places: Sequence[int]) -> None:
        self._table = given(table, Tensor, "LanguageTable needs a tensor", "LanguageTable.of makes one")
        self._places = tuple(given_whole("a place", place, most=len(table) - 1) for place in places)
        self._held: tuple[Any, Tensor] | None = None  # the last lines used; batches in a row tend to want the same

    @classmethod
    def of(cls, vectors: Mapping[str, Float[Tensor, "width"]], languages: Sequence[str]) -> "LanguageTable":
        """A table for rows in these languages, from one vector a language.

        Raises:
            ValueError: no languages, or one without a vector.
        """
        given(vectors, Mapping, "LanguageTable.of needs vectors by language", '{"de": vector}, say')
        languages = tuple(languages) if in_a_row(languages) else ()
        if not languages:
            raise ValueError("LanguageTable.of needs languages, one a batch row")
        for code in languages:
            given_word("language", code, tuple(vectors))
            given(vectors[code], Tensor, f"LanguageTable.of: {code!r} needs a vector", "torch.tensor(...) makes one")
        distinct = list(dict.fromkeys(languages))
        return cls(torch.stack([vectors[code] for code in distinct]), [distinct.index(code) for code in languages])

    def always(self, value: float) -> bool:
        """Whether every number in it is this."""
        return bool((self._table == value).all())

    def rows(self, activation: Float[Tensor, "batch pos width"], rows: Sequence[int]) -> Float[Tensor, "row 1 width"]:
        """The vectors of these batch rows, to broadcast against the activation: one row if all use the same line."""
        work = torch.promote_types(activation.dtype, torch.float32)
        lines = [self._places[row] for row in rows]
        if len(set(lines)) == 1:
            lines = lines[:1]
        key = (activation.device, work, lines)
        if self._held is None or self._held[0] != key:
            with torch.inference_mode(False):  # so that it also serves a later pass with gradients
                self._held = key, self._table[lines][:, None, :].to(activation.device, work)
        return self._held[1]


class Rescale:
    """Multiply each row's activations by its scale, in float32 or better, and hand back the activation's own dtype."""

    def __init__(self, scales: LanguageTable) -> None:
        self._scales = given(scales, LanguageTable, "Rescale needs a LanguageTable", "LanguageTable.of makes one")
        self._identity = scales.always(1.0)

    def __call__(self, activation: Float[Tensor, "batch pos width"], rows: Sequence[int]) -> Tensor:
        if self._identity:
            return activation
        return (activation * self._scales.rows(activation, rows)).to(activation.dtype)


def rescale_edits(
    scale: Callable[[str], Mapping[int, Float[Tensor, "neuron"]]],
    layers: Iterable[int],
    languages: Sequence[str],
    site: UnitSite = "mlp",
) -> dict[Site, Edit]:
    """A rescaling of the units of each of these layers, where `scale(language)` says by how much."""
    scales = {code: scale(code) for code in dict.fromkeys(languages)}
    return {
        Site(site, layer): Rescale(LanguageTable.of({code: of[layer] for code, of in scales.items()}, languages))
        for layer in layers
    }


class Shift:
    """Add each row's vector, in float32 or better, and hand back the activation's own dtype."""

    def __init__(self, vectors: LanguageTable) -> None:
        self._vectors = vectors
        self._identity = vectors.always(0.0)

    def __call__(self, activation: Float[Tensor, "batch pos width"], rows: Sequence[int]) -> Tensor:
        if self._identity:
            return activation
        return (activation + self._vectors.rows(activation, rows)).to(activation.dtype)


class MapRows:
    """Multiply each row's activations by its language's matrix: x' = M x, in float32 or better.

    Args:
        maps: rows in other languages than these are handed on as they are.
        languages: of the rows.
    """

    def __init__(self, maps: Mapping[str, Float[Tensor, "width width"]], languages: Sequence[str]) -> None:
        self._maps = dict(maps)
        self._languages = tuple(languages)

    def __call__(self, activation: Float[Tensor, "batch pos width"], rows: Sequence[int]) -> Tensor:
        result = activation.clone()
        for language in {self._languages[row] for row in rows} & set(self._maps):
            of_language = [i for i, row in enumerate(rows) if self._languages[row] == language]
            matrix = self._held(language, activation)
            mapped = activation[of_language].to(matrix.dtype) @ matrix.T
            result[of_language] = mapped.to(activation.dtype)
        return result

    def _held(self, language: str, activation: Tensor) -> Float[Tensor, "width width"]:
        """The matrix, moved to the activation's device, in float32 or better, at its first use."""
        work = torch.promote_types(activation.dtype, torch.float32)
        held = self._maps[language]
        if (held.device, held.dtype) != (activation.device, work):
            with torch.inference_mode(False):  # so that it also serves a later pass with gradients
                held = self._maps[language] = held.to(activation.device, work)
        return held


class Overwriting:
    """Overwrite some neurons of each row, in float32 or better, and hand back the activation's own dtype.

    Args:
        neurons: which columns; those of all languages together.
        strength: alpha for the row's own neurons, 0 for the others.
        constants: c.
        gated: overwrite act(gate), so that h becomes c * (W_up x); `see_up` has to see W_up x of the same pass first.
    """

    def __init__(
        self, neurons: Int[Tensor, "own"], strength: LanguageTable, constants: LanguageTable, *, gated: bool
    ) -> None:
        self._neurons = neurons
        self._strength = strength
        self._constants = constants
        self._gated = gated
        self._idle = strength.always(0.0)
        self._up: Tensor | None = None

    def see_up(self, activation: Float[Tensor, "batch pos neuron"], rows: Sequence[int]) -> Tensor:
        """Keep W_up x of the neurons and hand it on as it is."""
        if not self._idle:
            self._up = activation[..., self._on(activation.device)]
        return activation

    def __call__(self, activation: Float[Tensor, "batch pos neuron"], rows: Sequence[int]) -> Tensor:
        if self._idle:
            return activation
        neurons = self._on(activation.device)
        held = activation[..., neurons]
        new = self._constants.rows(held, rows)
        if self._gated:
            assert self._up is not None, "hook_post fired before hook_pre_linear"
            new, self._up = new * self._up, None
        result = activation.clone()
        result[..., neurons] = blend(held, new, self._strength.rows(held, rows))
        return result

    def _on(self, device: torch.device) -> Int[Tensor, "own"]:
        if self._neurons.device != device:
            with torch.inference_mode(False):  # so that it also serves a later pass with gradients
                self._neurons = self._neurons.to(device)
        return self._neurons


def blend(
    old: Float[Tensor, "batch pos own"],
    new: Float[Tensor, "batch_or_1 pos_or_1 own"],
    strength: Float[Tensor, "row 1 own"],
) -> Float[Tensor, "batch pos own"]:
    """(1 - strength) * old + strength * new in old's dtype, and old itself, to the bit, where strength is 0."""
    mixed = (1 - strength) * old + strength * new
    return torch.where(strength == 0, old, mixed.to(old.dtype))
