"""One language's statistics in a file: whose they are, and the key by which they are found again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from clas_lens.artifacts import ArtifactError, Content, content_key, load_tensors
from clas_lens.models.units import site_of
from clas_lens.statistics.accumulator import NeuronAccumulator
from clas_lens.statistics.sums import NeuronSums
from clas_lens.vocabulary import Pooling, check_languages

Held = TypeVar("Held")

KIND = "neuron statistics"


@dataclass(frozen=True)
class LanguageOrigin:
    """What one language's statistics depend on; see `NeuronStatistics` for the fields."""

    language: str
    pooling: Pooling
    histograms: bool
    example_ids: tuple[str, ...]
    model: Mapping[str, Any]
    settings: Mapping[str, Any]
    text: Mapping[str, Any]

    def header(self) -> dict[str, Any]:
        """It all, as it is in a file."""
        return {
            "language": self.language,
            "pooling": self.pooling,
            "example_ids": list(self.example_ids),
            "model": dict(self.model),
            "settings": dict(self.settings),
            "text": dict(self.text),
            "tensors": NeuronSums.names(histograms=self.histograms, gate=site_of(self.model) == "mlp"),
        }

    def key(self) -> str:
        """A hash of it all."""
        return content_key(self.header())

    def content(self, sums: NeuronSums, samples: int, tokens: int, made: Mapping[str, Any]) -> Content:
        """What the file holds; `made` says when and with which versions it was measured."""
        counts = {"n_samples": samples, "n_tokens": tokens, "provenance": dict(made)}
        return Content(sums.tensors(), {**self.header(), **counts})


def language_path(folder: Path, language: str) -> Path:
    """Where a language's file is."""
    return folder / f"{language}.safetensors"


def accumulator_of(content: Content) -> NeuronAccumulator:
    """The sums in a file, to go on adding or merging.

    Raises:
        ValueError: without some of today's sums.
    """
    header = content.header
    return NeuronAccumulator.from_sums(
        NeuronSums.from_tensors(content.tensors, gate=site_of(header["model"]) == "mlp"),
        pooling=header["pooling"],
        samples=header["n_samples"],
        tokens=header["n_tokens"],
    )


def read_together(
    folder: Path,
    languages: Sequence[str] | None,
    kind: str,
    shared: Sequence[str],
    read: Callable[[Path, str], tuple[Held, Mapping[str, Any]]],
) -> dict[str, tuple[Held, Mapping[str, Any]]]:
    """What the files of these languages hold, or of all that are there by name, each with its header.

    Args:
        kind: what they hold, for messages.
        shared: entries of the header that must not differ between them.
        read: of one language; given the folder and the language.

    Raises:
        ArtifactError: nothing there, a language that is not, or files that differ in what is shared.
    """
    found = sorted(file.stem for file in folder.glob("*.safetensors"))
    chosen = found if languages is None else list(check_languages(languages, kind))
    if not chosen:
        raise ArtifactError(f"no {kind} in {folder}")
    missing = [code for code in chosen if code not in found]
    if missing:
        raise ArtifactError(f"no {kind} of {missing[0]!r} in {folder}; available: {', '.join(found) or 'none'}")
    held = {code: read(folder, code) for code in chosen}
    first = held[chosen[0]][1]
    for code, (_, header) in held.items():
        differing = [name for name in shared if header[name] != first[name]]
        if differing:
            raise ArtifactError(
                f"{folder}: {code!r} and {chosen[0]!r} differ in {', '.join(differing)}; "
                "collect them again together, or load(languages=[...]) those that belong together"
            )
    return held


def read_language(folder: Path, language: str) -> tuple[NeuronAccumulator, Mapping[str, Any]]:
    """A language's sums and header.

    Raises:
        ArtifactError: no file, a damaged one, one of another language, or one of an earlier version.
    """
    path = language_path(folder, language)
    tensors, header = load_tensors(path, KIND)
    check_language_of(path, header, language)
    try:
        return accumulator_of(Content(tensors, header)), header
    except ValueError as error:
        raise ArtifactError(
            f"{folder}: {language!r} was measured by an earlier version, {error}; collect it again"
        ) from error


def check_language_of(path: Path, header: Mapping[str, Any], language: str) -> None:
    """Raise `ArtifactError` if the file holds another language than its name says."""
    if header.get("language") != language:
        raise ArtifactError(
            f"{path} holds {header.get('kind')} of {header.get('language')!r}, not of {language!r}: files were exchanged or "
            "renamed; give them their own names again, or delete it and collect again"
        )
