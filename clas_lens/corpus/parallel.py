"""Parallel text: the same content in several languages, aligned by example id."""

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from clas_lens.corpus.bundled import BUNDLED_TEXT_FIELDS, bundled_items, bundled_languages
from clas_lens.corpus.sources import Columns, CorpusError, agreed_ids, json_rows, load_columns, numbered_lines
from clas_lens.display import bars, card, listed, shortened
from clas_lens.vocabulary import check_language


@dataclass(frozen=True)
class ParallelCorpus:
    """Texts aligned across languages: `corpus["de"][i]` and `corpus["en"][i]` say the same.

    Attributes:
        texts: language code to its texts, all of one length, in the order of `ids`.
        ids: unique example ids.
        groups: the group of each example (its paragraph in XQuAD), from which `sample` takes one example at most.
        name: where the texts come from, for manifests.
    """

    texts: Mapping[str, tuple[str, ...]]
    ids: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    name: str = "texts"

    def __post_init__(self) -> None:
        if not self.texts:
            raise CorpusError("a corpus needs at least one language, got none")
        for language, texts in self.texts.items():
            check_language(language)
            if len(texts) != len(self.ids):
                raise CorpusError(
                    f"{self.name}: language {language!r} has {len(texts)} texts for {len(self.ids)} examples "
                    f"(texts per language: { {code: len(t) for code, t in self.texts.items()} })"
                )
            for line, text in enumerate(texts, start=1):
                if not text.strip():
                    raise CorpusError(
                        f"{self.name}: language {language!r}, line {line} (example {self.ids[line - 1]!r}) is empty"
                    )
        seen: dict[str, int] = {}
        for line, example in enumerate(self.ids, start=1):
            if example in seen:
                raise CorpusError(
                    f"{self.name}: example id {example!r} is on line {seen[example]} and again on line {line}"
                )
            seen[example] = line
        if not self.ids:
            raise CorpusError(f"{self.name}: no examples")
        if self.groups is not None and len(self.groups) != len(self.ids):
            raise CorpusError(f"{self.name}: {len(self.groups)} groups for {len(self.ids)} examples")

    # --- what is in it ---

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def __len__(self) -> int:
        """The number of examples (the same in every language)."""
        return len(self.ids)

    def __getitem__(self, language: str) -> tuple[str, ...]:
        if language not in self.texts:
            raise CorpusError(f"{self.name}: no language {language!r}; available: {', '.join(self.languages)}")
        return self.texts[language]

    def __repr__(self) -> str:
        return (
            f"ParallelCorpus({self.name!r}, {len(self)} examples x {len(self.texts)} languages: {' '.join(self.texts)})"
        )

    def _repr_html_(self) -> str:
        groups = "" if self.groups is None else f" in {self.n_independent:,} groups"
        lengths = {code: sum(map(len, texts)) / len(texts) for code, texts in self.texts.items()}
        facts = {
            "examples": f"{len(self):,}{groups}, the same in every language",
            "languages": listed(self.languages),
            **{f"example {self.ids[0]}, {code}": shortened(self[code][0]) for code in self.languages[:3]},
        }
        return card("ParallelCorpus", self.name, facts, bars(lengths, "characters a text, mean"))

    @property
    def n_independent(self) -> int:
        """How many examples `sample` can take: one a group, or all where there are no groups."""
        return len(self) if self.groups is None else len(set(self.groups))

    def fingerprint(self, language: str) -> str:
        """A hash of one language's ids and texts, in order."""
        content = json.dumps([self.ids, self[language]], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    # --- parts of it ---

    def select(self, languages: Iterable[str]) -> "ParallelCorpus":
        """Only these languages, in this order."""
        return ParallelCorpus({code: self[code] for code in languages}, self.ids, self.groups, self.name)

    def take(self, rows: Iterable[int]) -> "ParallelCorpus":
        """Only these examples, by position."""
        kept = list(rows)
        return ParallelCorpus(
            {code: tuple(texts[row] for row in kept) for code, texts in self.texts.items()},
            tuple(self.ids[row] for row in kept),
            None if self.groups is None else tuple(self.groups[row] for row in kept),
            self.name,
        )

    def sample(self, n: int, *, seed: int = 0) -> "ParallelCorpus":
        """`n` examples without replacement, at most one a group where there are groups, in corpus order.

        Raises:
            CorpusError: more asked for than there are examples (or groups).
        """
        rng = random.Random(seed)
        if self.groups is None:
            pools = [[row] for row in range(len(self))]
        else:
            by_group: dict[str, list[int]] = {}
            for row, group in enumerate(self.groups):
                by_group.setdefault(group, []).append(row)
            pools = list(by_group.values())
        if not 1 <= n <= len(pools):
            what = "examples" if self.groups is None else "groups (one example each, so that no paragraph counts twice)"
            raise CorpusError(f"{self.name}: asked for {n} samples of {len(pools)} {what}")
        return self.take(sorted(rng.choice(pool) for pool in rng.sample(pools, n)))

    # --- where it comes from ---

    @classmethod
    def from_texts(
        cls,
        texts: Mapping[str, Sequence[str]],
        *,
        ids: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        name: str = "texts",
    ) -> "ParallelCorpus":
        """From a mapping of language code to aligned texts; ids default to "0", "1", ..."""
        longest = max((len(t) for t in texts.values()), default=0)
        default_ids = tuple(str(row) for row in range(longest))
        return cls(
            {code: tuple(t) for code, t in texts.items()},
            default_ids if ids is None else tuple(ids),
            None if groups is None else tuple(groups),
            name,
        )

    @classmethod
    def from_files(cls, paths: Mapping[str, str | Path] | str | Path) -> "ParallelCorpus":
        """From UTF-8 text files with one text a line, line-aligned.

        Args:
            paths: language code to file, or a folder of `<language>.txt` files.
        """
        if not isinstance(paths, Mapping):
            folder = Path(paths)
            paths = {file.stem: file for file in sorted(folder.glob("*.txt"))}
            if not paths:
                raise CorpusError(f"{folder}: no <language>.txt files there")
        texts = {code: [text for _, text in numbered_lines(code, Path(path))] for code, path in paths.items()}
        return cls.from_texts(texts, name="files")

    @classmethod
    def from_jsonl(
        cls, paths: Mapping[str, str | Path], *, text_field: str = "text", id_field: str | None = "id"
    ) -> "ParallelCorpus":
        """From one JSON-lines file a language; with `id_field` the ids must agree, line by line."""
        texts: dict[str, list[str]] = {}
        ids: dict[str, list[str]] = {}
        for code, path in paths.items():
            rows = list(json_rows(code, Path(path), [text_field, *([id_field] if id_field else [])]))
            texts[code] = [row[text_field] for row in rows]
            if id_field:
                ids[code] = [str(row[id_field]) for row in rows]
        return cls.from_texts(texts, ids=agreed_ids(ids, "jsonl") if id_field else None, name="jsonl")

    @classmethod
    def bundled(
        cls, languages: Iterable[str] | None = None, *, fields: Sequence[str] = BUNDLED_TEXT_FIELDS
    ) -> "ParallelCorpus":
        """The corpus that comes with this package: 24 passages in 16 languages, 5 texts each (120 in all), CC0."""
        available = bundled_languages()
        chosen = tuple(languages) if languages is not None else available
        texts = {}
        for code in chosen:
            if code not in available:
                raise CorpusError(f"bundled: no language {code!r}; available: {', '.join(available)}")
            texts[code] = [getattr(item, field) for item in bundled_items(code) for field in fields]
        items = bundled_items("en")
        return cls.from_texts(texts, ids=[f"{item.id}/{field}" for item in items for field in fields], name="bundled")

    @classmethod
    def xquad(
        cls,
        source: str | Path = "google/xquad",
        languages: Iterable[str] | None = None,
        *,
        fields: Sequence[Literal["context", "question"]] = ("context", "question"),
    ) -> "ParallelCorpus":
        """XQuAD from the Hub or a local folder in its layout; `sample` then takes one question a paragraph."""
        wanted = tuple(dict.fromkeys((*fields, "context")))
        columns = load_columns("xquad", str(source), languages, config="xquad.{}", split="validation", fields=wanted)
        return cls._from_columns(columns, fields, name="xquad", groups=columns.first("context"))

    @classmethod
    def xnli(
        cls,
        source: str | Path = "facebook/xnli",
        languages: Iterable[str] | None = None,
        *,
        split: Literal["validation", "test"] = "validation",
        fields: Sequence[Literal["premise", "hypothesis"]] = ("premise", "hypothesis"),
    ) -> "ParallelCorpus":
        """XNLI from the Hub or a local folder in its layout, row-aligned."""
        columns = load_columns("xnli", str(source), languages, config="{}", split=split, fields=fields)
        return cls._from_columns(columns, fields, name="xnli")

    @classmethod
    def _from_columns(
        cls, columns: Columns, fields: Sequence[str], *, name: str, groups: Sequence[str] | None = None
    ) -> "ParallelCorpus":
        """From some columns of a data set: the fields of a row, joined by a newline, are one text."""
        texts = {
            language: ["\n".join(parts) for parts in zip(*(held[field] for field in fields), strict=True)]
            for language, held in columns.values.items()
        }
        return cls.from_texts(texts, ids=columns.ids, groups=groups, name=name)


def example_keys(corpus: str, ids: Iterable[str]) -> list[str]:
    """The names under which examples are known across corpora and tasks: `<corpus>/<id>`."""
    return [f"{corpus}/{example}" for example in ids]
