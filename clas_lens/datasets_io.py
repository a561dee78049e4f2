"""XQuAD and XNLI through `datasets`: from the Hub, its cache, or a local folder in the same layout."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clas_lens.checkpoints import reach_hub
from clas_lens.corpus import ParallelCorpus
from clas_lens.loading import ModelLoadError
from clas_lens.text_files import CorpusError, agreed_ids


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


def load_parallel(
    name: str,
    source: str,
    languages: Iterable[str] | None,
    *,
    config: str,
    split: str,
    fields: Sequence[str],
    group: str | None = None,
) -> ParallelCorpus:
    """A parallel corpus: `fields` joined by a newline are one text; see `load_columns`.

    Args:
        group: the column whose value in the first language says which examples belong together.
    """
    wanted = [*fields, *([group] if group is not None and group not in fields else [])]
    columns = load_columns(name, source, languages, config=config, split=split, fields=wanted)
    texts = {
        language: ["\n".join(parts) for parts in zip(*(held[field] for field in fields), strict=True)]
        for language, held in columns.values.items()
    }
    groups = None if group is None else columns.first(group)
    return ParallelCorpus.from_texts(texts, ids=columns.ids, groups=groups, name=name)


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
