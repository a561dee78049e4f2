"""XQuAD and XNLI through `datasets`: from the Hub, its cache, or a local folder in the same layout."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from clas_lens.checkpoints import reach_hub
from clas_lens.corpus import ParallelCorpus
from clas_lens.loading import ModelLoadError
from clas_lens.text_files import CorpusError, agreed_ids


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
    """A parallel corpus with one `datasets` configuration a language.

    Args:
        name: what the corpus is called in errors and manifests.
        source: a Hub dataset id or a local folder.
        languages: default all that the source has.
        config: the configuration's name, with `{}` for the language.
        fields: columns joined by a newline into one text.
        group: the column whose value in the first language says which examples belong together.
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
    texts: dict[str, list[str]] = {}
    ids: dict[str, list[str]] = {}
    groups: list[str] | None = None
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
        columns = [rows[field] for field in fields]
        texts[language] = ["\n".join(parts) for parts in zip(*columns, strict=True)]
        ids[language] = list(rows["id"]) if "id" in rows.column_names else [f"{split}-{i}" for i in range(len(rows))]
        if group is not None and groups is None:
            groups = list(rows[group])
    return ParallelCorpus.from_texts(texts, ids=agreed_ids(ids, name), groups=groups, name=name)


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
