"""Where texts come from: data sets through `datasets`, text files, JSON lines. Everything is returned as columns of values."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clas_lens.models.checkpoints import reach_hub
from clas_lens.models.loading import ModelLoadError


@dataclass(frozen=True)
class Columns:
    """The columns of a parallel data set.

    Attributes:
        values: language to column name to one value a row; all languages have the same rows.
        ids: of the rows, unique.
    """

    values: dict[str, dict[str, list[Any]]]
    ids: tuple[str, ...]

    def first(self, name: str) -> list[Any]:
        """A column of the first language, for what is the same in all of them."""
        return next(iter(self.values.values()))[name]


def load_columns(
    name: str, source: str, languages: Iterable[str] | None, *, config: str, split: str, fields: Sequence[str]
) -> Columns:
    """Some columns of a data set with one `datasets` configuration a language.

    Args:
        name: what the data set is called in errors.
        source: a Hub dataset id or a local folder.
        languages: default all that the source has.
        config: the configuration's name, with `{}` for the language.
    """
    import datasets

    _check_source(name, source)
    prefix, suffix = config.split("{}")
    try:
        available = [
            c.removeprefix(prefix).removesuffix(suffix)
            for c in datasets.get_dataset_config_names(source)
            if c.startswith(prefix) and c != "all_languages"
        ]
    except Exception as error:  # datasets raises its own, fsspec's and the Hub client's errors here
        raise CorpusError(f"{name}: {source} is not readable as a dataset: {error}") from error
    chosen = list(languages) if languages is not None else sorted(available)
    if not available:
        raise CorpusError(f"{name}: {source} has no configuration named like {config.format('<language>')!r}")
    values: dict[str, dict[str, list[Any]]] = {}
    ids: dict[str, list[str]] = {}
    for language in chosen:
        if language not in available:
            raise CorpusError(
                f"{name}: no language {language!r} in {source}; available: {', '.join(sorted(available))}"
            )
        try:
            rows = datasets.load_dataset(source, config.format(language), split=split)
        except Exception as error:
            raise CorpusError(f"{name}: {language!r}, split {split!r} in {source}: {error}") from error
        lacking = [field for field in fields if field not in rows.column_names]
        if lacking:
            raise CorpusError(f"{name}: no column {lacking[0]!r} in {source}; it has: {', '.join(rows.column_names)}")
        values[language] = {field: list(rows[field]) for field in fields}
        ids[language] = list(rows["id"]) if "id" in rows.column_names else [f"{split}-{i}" for i in range(len(rows))]
    return Columns(values, tuple(agreed_ids(ids, name)))


def _check_source(name: str, source: str) -> None:
    """Fail at once, not after half a minute of retries, when the data can be neither read nor fetched."""
    if Path(source).is_dir():
        return
    from datasets import config

    try:
        online = reach_hub(source, "README.md", repo_type="dataset")
    except ModelLoadError as error:
        raise CorpusError(f"{name}: {error}") from error
    cached = Path(config.HF_DATASETS_CACHE) / source.replace("/", "___")
    if not online and not cached.is_dir():
        raise CorpusError(
            f"{name}: no network, {source!r} is not in the datasets cache, and it is not a local folder. "
            "Give a local copy's folder."
        )


class CorpusError(ValueError):
    """Parallel text that is not parallel, or not there; the message names the language and the line."""


def numbered_lines(language: str, path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines, cut at newlines only: `str.splitlines` also cuts at U+2028 and other characters that texts hold."""
    if not path.is_file():
        raise CorpusError(f"language {language!r}: no such file: {path}")
    raw = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(raw.removesuffix(b"\n").split(b"\n"), start=1):
        try:
            yield number, line.removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"language {language!r}: {path}, line {number} is not UTF-8 ({error.reason} at byte {error.start}). "
                "Convert the file, e.g. with iconv -t utf-8."
            ) from error


def json_rows(language: str, path: Path, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    """One JSON object a line, with the fields that are needed; the first of them holds the text."""
    for number, line in numbered_lines(language, path):
        where = f"language {language!r}: {path}, line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise CorpusError(f"{where} is not JSON ({error.msg})") from error
        if not isinstance(row, dict):
            raise CorpusError(f"{where} is not a JSON object but a {type(row).__name__}")
        missing = [field for field in needed if field not in row]
        if missing:
            raise CorpusError(f"{where} has no field {missing[0]!r}; it has: {', '.join(row)}")
        if not isinstance(row[needed[0]], str):
            raise CorpusError(f"{where}: {needed[0]!r} is not a text but {row[needed[0]]!r}")
        yield row


def agreed_ids(ids: Mapping[str, Sequence[str]], name: str) -> Sequence[str]:
    """The ids, if every language has the same ones in the same order."""
    if not ids:
        raise CorpusError(f"{name}: no languages given")
    first_language, first = next(iter(ids.items()))
    for language, other in ids.items():
        for line, (a, b) in enumerate(zip(first, other, strict=False), start=1):
            if a != b:
                raise CorpusError(
                    f"{name}: line {line} is example {a!r} in {first_language!r} but {b!r} in {language!r}"
                )
        if len(first) != len(other):
            raise CorpusError(f"{name}: {len(first)} examples in {first_language!r} but {len(other)} in {language!r}")
    return first
