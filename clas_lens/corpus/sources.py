"""Where texts come from: data sets in folders or on the Hub. Everything is returned as columns of values."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from clas_lens.corpus.checks import CorpusError, agreed_ids, id_fault
from clas_lens.corpus.folder import DatasetFolder, Row
from clas_lens.given import given_path, given_word
from clas_lens.models.checkpoints import reach_hub
from clas_lens.models.loading import ModelLoadError
from clas_lens.vocabulary import OnBad, check_languages

Fault = Callable[[Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class Columns:
    """The columns of a parallel data set.

    Attributes:
        values: language to column name to one value a row; all languages have the same rows.
        ids: of the rows, unique.
        reference: the first of the fields asked for in English, or in the first language there is without English; the same
            whatever languages are asked for, it tells of which premise or paragraph a row is.
        fingerprint: a hash of the ids, the reference texts and the first language's values.
        dropped: how many rows were left out because something in them was bad.
    """

    values: dict[str, dict[str, list[Any]]]
    ids: tuple[str, ...]
    reference: tuple[str, ...]
    fingerprint: str
    dropped: int

    def first(self, name: str) -> list[Any]:
        """A column of the first language, for what is the same in all of them."""
        return next(iter(self.values.values()))[name]


def load_columns(
    name: str,
    source: str,
    languages: Iterable[str] | None,
    *,
    config: str,
    split: str,
    fields: Sequence[str],
    fault: Fault,
    on_bad: OnBad = "raise",
) -> Columns:
    """Some columns of a data set with one configuration a language. A local folder is read as it is now.

    Args:
        name: what the data set is called in errors.
        source: a local folder or a Hub dataset id.
        languages: default all that the source has.
        config: the configuration's name, with `{}` for the language.
        fault: what is wrong with a row, or None.
        on_bad: "raise" for the first row with a fault, or "drop" such rows in every language, counted.

    Raises:
        CorpusError: no such folder, language or column, rows that differ between languages, or a row with a fault, named
            with its file and line.
    """
    given_word("on_bad", on_bad, get_args(OnBad), error=CorpusError)
    if source.strip():
        given_path(f"{name}: the source", source, error=CorpusError)
    opened = _Local(name, source, config) if source and Path(source).is_dir() else _Hub(name, source, config)
    chosen = check_languages(languages, name) if languages is not None else opened.languages
    missing = [code for code in chosen if code not in opened.languages]
    if missing:
        raise CorpusError(f"{name}: no language {missing[0]!r} in {source}; available: {', '.join(opened.languages)}")
    rows = {code: list(opened.rows(code, split)) for code in chosen}
    for held in rows.values():
        _check_columns(name, source, held, fields)
    ids = {code: _ids(name, code, held, split) for code, held in rows.items()}
    shared = agreed_ids(ids, name)
    kept = _kept(name, rows, shared, fault, on_bad)
    if not kept:
        raise CorpusError(f"{name}: no rows{' without faults' if shared else ''} in {source}, split {split!r}")
    reference = _reference(opened, rows, split, fields[0], shared)
    values = {
        code: {field: [held[row].values[field] for row in kept] for field in fields} for code, held in rows.items()
    }
    texts, names = tuple(reference[row] for row in kept), tuple(shared[row] for row in kept)
    content = json.dumps([names, texts, next(iter(values.values()))], ensure_ascii=False, default=str)
    fingerprint = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Columns(values, names, texts, fingerprint, dropped=len(shared) - len(kept))


def _check_columns(name: str, source: str, rows: Sequence[Row], fields: Sequence[str]) -> None:
    there = dict.fromkeys(column for row in rows for column in row.values)
    lacking = [field for field in fields if rows and field not in there]
    if lacking:
        raise CorpusError(f"{name}: no column {lacking[0]!r} in {source}; it has: {', '.join(there)}")


def _ids(name: str, language: str, rows: Sequence[Row], split: str) -> list[str]:
    if not any("id" in row.values for row in rows):
        return [f"{split}-{row}" for row in range(len(rows))]
    for row in rows:
        wrong = id_fault(row.values.get("id"))
        if wrong:
            raise CorpusError(f"{name}: {language!r}: {row.where}: 'id' {wrong}")
    return [str(row.values["id"]) for row in rows]


def _kept(name: str, rows: Mapping[str, Sequence[Row]], ids: Sequence[str], fault: Fault, on_bad: OnBad) -> list[int]:
    """The rows without a fault in any language, of which no earlier one has the id."""
    seen: dict[str, int] = {}
    kept = []
    for place, example in enumerate(ids):
        wrong = None
        if seen.setdefault(example, place) != place:
            language, held = next(iter(rows.items()))
            wrong = (
                f"{name}: {language!r}: {held[place].where}: id {example!r} was at {held[seen[example]].where} already"
            )
        for language, held in rows.items():
            found = fault(held[place].values)
            if found and wrong is None:
                wrong = f"{name}: {language!r}: {held[place].where} (example {example!r}): {found}"
        if wrong is None:
            kept.append(place)
        elif on_bad == "raise":
            raise CorpusError(f"{wrong}. Mend it, or leave such rows out with on_bad='drop'")
    return kept


def _reference(
    opened: "_Local | _Hub", rows: Mapping[str, Sequence[Row]], split: str, field: str, ids: Sequence[str]
) -> tuple[str, ...]:
    language = "en" if "en" in opened.languages else opened.languages[0]
    try:
        held = rows[language] if language in rows else list(opened.rows(language, split))
        if _ids("", language, held, split) == list(ids):
            return tuple(str(row.values.get(field)) for row in held)
    except CorpusError:
        pass  # that language was not asked for, and what is wrong with it is not wrong with the others
    return tuple(str(row.values.get(field)) for row in next(iter(rows.values())))


class _Local:
    """A folder: its languages, and the rows of each."""

    def __init__(self, name: str, source: str, config: str) -> None:
        self._folder, self._config = DatasetFolder(name, Path(source)), config
        self.languages = _languages(name, source, config, self._folder.configs)

    def rows(self, language: str, split: str) -> Iterator[Row]:
        return self._folder.rows(self._config.format(language), split)


class _Hub:
    """A data set of the Hub, read through `datasets` and its cache, which is keyed by the Hub's commit."""

    def __init__(self, name: str, source: str, config: str) -> None:
        _check_source(name, source)
        import datasets

        self._name, self._source, self._config = name, source, config
        try:
            configs = datasets.get_dataset_config_names(source)
        except Exception as error:  # datasets raises its own, fsspec's and the Hub client's errors here
            raise CorpusError(f"{name}: {source} is not readable as a dataset: {error}") from error
        self.languages = _languages(name, source, config, configs)

    def rows(self, language: str, split: str) -> Iterator[Row]:
        import datasets

        try:
            rows: Any = datasets.load_dataset(self._source, self._config.format(language), split=split)
        except Exception as error:
            raise CorpusError(f"{self._name}: {language!r}, split {split!r} in {self._source}: {error}") from error
        for number, row in enumerate(rows, start=1):
            yield Row(row, f"{self._source}, {language} {split}, row {number}")


def _languages(name: str, source: str, config: str, configs: Sequence[str]) -> tuple[str, ...]:
    prefix, suffix = config.split("{}")
    found = [
        one.removeprefix(prefix).removesuffix(suffix)
        for one in configs
        if one.startswith(prefix) and one.endswith(suffix) and one != "all_languages"
    ]
    if not found:
        raise CorpusError(f"{name}: {source} has no configuration named like {config.format('<language>')!r}")
    return tuple(sorted(found))


HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def _check_source(name: str, source: str) -> None:
    """Fail at once, not after half a minute of retries, when the data can be neither read nor fetched."""
    if not HUB_NAME.fullmatch(source) or Path(source).exists():
        what = "not a folder" if source and Path(source).exists() else "no such folder"
        raise CorpusError(f"{name}: {what}: {source or repr(source)} (and a data set of the Hub is named owner/name)")
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
