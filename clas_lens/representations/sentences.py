"""Sentence representations: the residual stream (or an MLP output) pooled over each text, with or without an intervention."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from clas_lens.artifacts import (
    Content,
    content_key,
    keep,
    load_tensors,
    provenance,
    remembered,
    tensor_fingerprint,
)
from clas_lens.given import given, given_path, given_word
from clas_lens.saved import check_fields
from clas_lens.statistics.files import check_language_of, language_path, read_together
from clas_lens.vocabulary import Pool, ReadSite, check_languages

KIND = "sentence representations"


SHARED = ("layers", "example_ids", "pool", "intervention", "model", "corpus", "site")


@dataclass(frozen=True, eq=False)
class Representations:
    """One vector a text and layer: the residual stream at the output of the layer (or its MLP's output), pooled over the text.

    Attributes:
        values: float32, on the CPU.
        languages, layers, example_ids: the names of the first three axes; layers are 0-based.
        pool: "mean" over content tokens (no padding, no BOS), or the "last" token.
        intervention: the fingerprint of what the model was steered with, or None.
        model: see `describe_model`.
        texts: per language: the texts' `fingerprint` and how many were `truncated`.
        corpus: the name of the corpus that the examples are of.
        made: per language: when and with which versions it was read (`provenance`), kept when it is saved again.
        site: "residual", the stream at the output of the layer, or "mlp_out", what its MLP adds to the stream.
    """

    values: Float[Tensor, "lang example layer d_model"]
    languages: tuple[str, ...]
    layers: tuple[int, ...]
    example_ids: tuple[str, ...]
    pool: Pool = "mean"
    intervention: str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)
    texts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    corpus: str = "texts"
    made: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    site: ReadSite = "residual"

    def __post_init__(self) -> None:
        check_fields(self)
        given_word("pool", self.pool, get_args(Pool))
        given_word("site", self.site, get_args(ReadSite))
        named = (len(self.languages), len(self.example_ids), len(self.layers))
        if named != tuple(self.values.shape[:3]):
            raise ValueError(f"{named} names of languages, examples and layers for values {tuple(self.values.shape)}")

    def of(self, language: str) -> Float[Tensor, "example layer d_model"]:
        """One language's.

        Raises:
            ValueError: not among the languages.
        """
        if not isinstance(language, str) or language not in self.languages:
            raise ValueError(f"no representations in {language!r}; available: {', '.join(self.languages)}")
        return self.values[self.languages.index(language)]

    def at(self, language: str, layer: int) -> Float[Tensor, "example d_model"]:
        """One language's at the output of one layer.

        Raises:
            ValueError: not among the languages or layers.
        """
        if getattr(layer, "ndim", 0) or isinstance(layer, bool) or layer not in self.layers:
            raise ValueError(f"no representations of layer {layer}; available: {', '.join(map(str, self.layers))}")
        return self.of(language)[:, self.layers.index(layer)]

    def select(self, languages: Sequence[str]) -> "Representations":
        """Only these languages, in this order."""
        return self.with_values({code: self.of(code) for code in check_languages(languages, "representations")})

    def with_values(self, values: Mapping[str, Float[Tensor, "example layer d_model"]]) -> "Representations":
        """The same, of these languages."""
        texts = {code: self.texts[code] for code in values if code in self.texts}
        made = {code: self.made[code] for code in values if code in self.made}
        return replace(self, values=torch.stack(list(values.values())), languages=tuple(values), texts=texts, made=made)

    def source(self) -> dict[str, Any]:
        """What these vectors are of, JSON-able."""
        return {
            "layers": list(self.layers),
            "example_ids": list(self.example_ids),
            "pool": self.pool,
            "intervention": self.intervention,
            "model": dict(self.model),
            "corpus": self.corpus,
            "site": self.site,
        }

    def fingerprint(self) -> str:
        """A hash of the values and of what they are."""
        return content_key(self.source(), self.languages, tensor_fingerprint(self.values))

    def __repr__(self) -> str:
        return (
            f"Representations({self.model.get('name')!r}, {len(self.languages)} languages x {len(self.example_ids)} "
            f"examples x {len(self.layers)} layers x {self.values.shape[-1]}, pool={self.pool!r}, "
            f"intervention={self.intervention!r})"
        )

    def save(self, folder: str | Path) -> Path:
        """Write one `<language>.safetensors` a language; `load` reads them back."""
        root = given_path("folder", folder)
        for language in self.languages:
            self.save_language(root, language, self.of(language))
        return root

    def save_language(self, folder: str | Path, language: str, values: Float[Tensor, "example layer d_model"]) -> None:
        """Write one language's file."""
        header = {**self._file(language), "provenance": dict(self.made.get(language) or provenance())}
        keep(language_path(Path(folder), language), KIND, self._key(language), Content({"values": values}, header))

    def saved_language(self, folder: str | Path | None, language: str) -> Content | None:
        """What a language's file in `folder` holds, if it is of just these texts, model and settings."""
        return remembered(None if folder is None else language_path(Path(folder), language), KIND, self._key(language))

    def _file(self, language: str) -> dict[str, Any]:
        return {**self.source(), "language": language, "text": dict(self.texts.get(language, {}))}

    def _key(self, language: str) -> str:
        return content_key(self._file(language))

    @classmethod
    def load(cls, folder: str | Path, languages: Sequence[str] | None = None) -> "Representations":
        """Read what `save` or `collect_representations(..., out=)` wrote; default all languages there, by name.

        Raises:
            ArtifactError: nothing there, a damaged file, one of another language than its name says, or files of different
                models, texts, layers or interventions.
        """
        read = read_together(given_path("folder", folder), languages, KIND, SHARED, _read_file)
        first = next(iter(read.values()))[1]
        return cls(
            torch.stack([values for values, _ in read.values()]),
            tuple(read),
            tuple(first["layers"]),
            tuple(first["example_ids"]),
            first["pool"],
            first["intervention"],
            first["model"],
            {code: header["text"] for code, (_, header) in read.items()},
            first["corpus"],
            {code: header["provenance"] for code, (_, header) in read.items()},
            first["site"],
        )


def given_representations(value: object) -> Representations:
    """The value, if it is Representations.

    Raises:
        ValueError: anything else.
    """
    what = "Representations of the unsteered model are needed"
    return given(value, Representations, what, "collect_representations gives them")


def _read_file(folder: Path, language: str) -> tuple[Tensor, Mapping[str, Any]]:
    path = language_path(folder, language)
    tensors, header = load_tensors(path, KIND)
    check_language_of(path, header, language)
    return tensors["values"], header
