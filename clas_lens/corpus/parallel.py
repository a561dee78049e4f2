"""Parallel text: the same content in several languages, aligned by example id."""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from clas_lens.corpus.bundled import BUNDLED_TEXT_FIELDS, bundled_items, bundled_languages
from clas_lens.corpus.checks import CorpusError, agreed_ids, fields_fault, id_fault, listed_values, text_fault
from clas_lens.corpus.content import text_hash
from clas_lens.corpus.language_files import files_by_language, json_rows, numbered_lines
from clas_lens.corpus.sources import Columns, load_columns
from clas_lens.display import bars, card, listed, shortened
from clas_lens.given import given, given_text, given_whole, whole_place
from clas_lens.vocabulary import OnBad, Split, check_language, check_languages


@dataclass(frozen=True)
class ParallelCorpus:
    """Texts aligned across languages: `corpus["de"][i]` and `corpus["en"][i]` say the same.

    Attributes:
        texts: language code to its texts, all of one length, in the order of `ids`.
        ids: unique example ids.
        groups: the group of each example (its paragraph in XQuAD), from which `sample` takes one example at most.
        name: where the texts come from, for manifests.
        content: a hash of what each example is about (its premise, its paragraph; else its text), in English where there is
            English: by it `evaluate` knows examples again under any name, in any order.
        dropped: how many rows of the data set were left out because something in them was bad.
    """

    texts: Mapping[str, tuple[str, ...]]
    ids: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    name: str = "texts"
    content: tuple[str, ...] = ()
    dropped: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("texts", Mapping), ("ids", tuple | list), ("content", tuple | list)):
            given(getattr(self, name), kind, f"a corpus needs {name}", "ParallelCorpus.from_texts", error=CorpusError)
        if self.groups is not None:
            given(
                self.groups,
                tuple | list,
                "a corpus needs a list as groups",
                "from_texts(groups=...)",
                error=CorpusError,
            )
        given_whole("dropped", self.dropped, error=CorpusError)
        if not self.texts:
            raise CorpusError("a corpus needs at least one language, got none")
        if not isinstance(self.name, str) or not self.name:
            raise CorpusError(f"a corpus needs a name, got {self.name!r}")
        for language, texts in self.texts.items():
            check_language(language)
            if len(texts) != len(self.ids):
                raise CorpusError(
                    f"{self.name}: language {language!r} has {len(texts)} texts for {len(self.ids)} examples "
                    f"(texts per language: { {code: len(t) for code, t in self.texts.items()} })"
                )
            _check_texts(self.name, language, texts, self.ids)
        seen: dict[str, int] = {}
        for line, example in enumerate(self.ids, start=1):
            if text_fault(example):
                raise CorpusError(f"{self.name}: the id on line {line} {text_fault(example)}")
            if example in seen:
                raise CorpusError(
                    f"{self.name}: example id {example!r} is on line {seen[example]} and again on line {line}"
                )
            seen[example] = line
        if not self.ids:
            raise CorpusError(f"{self.name}: no examples")
        if self.groups is not None and len(self.groups) != len(self.ids):
            raise CorpusError(f"{self.name}: {len(self.groups)} groups for {len(self.ids)} examples")
        if not self.content:
            told_by = self.texts["en" if "en" in self.texts else min(self.texts)]
            object.__setattr__(self, "content", tuple(map(text_hash, told_by)))
        if len(self.content) != len(self.ids):
            raise CorpusError(f"{self.name}: {len(self.content)} content hashes for {len(self.ids)} examples")

    # --- what is in it ---

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(self.texts)

    def __len__(self) -> int:
        """The number of examples (the same in every language)."""
        return len(self.ids)

    def __contains__(self, language: object) -> bool:
        """Whether there are texts in a language."""
        return language in self.texts

    def __iter__(self) -> Iterator[str]:
        """The languages."""
        return iter(self.texts)

    def __getitem__(self, language: str) -> tuple[str, ...]:
        if not isinstance(language, str) or language not in self.texts:
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

    def known_by(self, language: str) -> list[str]:
        """The hashes by which one language's examples are known again: of what each is about, and of its own text."""
        return list(dict.fromkeys([*self.content, *map(text_hash, self[language])]))

    def fingerprint(self, language: str) -> str:
        """A hash of one language's ids and texts, in order."""
        content = json.dumps([self.ids, self[language]], ensure_ascii=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    # --- parts of it ---

    def select(self, languages: Iterable[str]) -> "ParallelCorpus":
        """Only these languages, in this order."""
        chosen = check_languages(languages, f"{self.name}: select")
        return replace(self, texts={code: self[code] for code in chosen})

    def take(self, rows: Iterable[int]) -> "ParallelCorpus":
        """Only these examples, by position.

        Raises:
            CorpusError: no row numbers, one that there is not, or one twice.
        """
        try:
            kept = [whole_place(row) for row in rows]
        except TypeError as error:
            raise CorpusError(f"{self.name}: take needs a list of row numbers, got {rows!r}") from error
        outside = [row for row in kept if not 0 <= row < len(self)]
        if outside:
            raise CorpusError(f"{self.name}: no row {outside[0]}; there are {len(self)}, counted from 0")
        return replace(
            self,
            texts={code: tuple(texts[row] for row in kept) for code, texts in self.texts.items()},
            ids=tuple(self.ids[row] for row in kept),
            groups=None if self.groups is None else tuple(self.groups[row] for row in kept),
            content=tuple(self.content[row] for row in kept),
        )

    def sample(self, n: int, *, seed: int = 0) -> "ParallelCorpus":
        """`n` examples without replacement, at most one a group where there are groups, in corpus order.

        Raises:
            CorpusError: more asked for than there are examples (or groups).
        """
        given_whole(f"{self.name}: n", n, least=1)
        rng = random.Random(given_whole("seed", seed))
        if self.groups is None:
            pools = [[row] for row in range(len(self))]
        else:
            by_group: dict[str, list[int]] = {}
            for row, group in enumerate(self.groups):
                by_group.setdefault(group, []).append(row)
            pools = list(by_group.values())
        if n > len(pools):
            what = "examples" if self.groups is None else "groups (one example each, so that no paragraph counts twice)"
            raise CorpusError(f"{self.name}: asked for {n} samples of {len(pools)} {what}")
        return self.take(sorted(rng.choice(pool) for pool in rng.sample(pools, n)))

    # --- where it comes from ---

    @classmethod
    def from_texts(
        cls,
        texts: Mapping[str, Iterable[Any]],
        *,
        ids: Iterable[Any] | None = None,
        groups: Iterable[str] | None = None,
        name: str = "texts",
    ) -> "ParallelCorpus":
        """From a mapping of language code to aligned texts; ids default to "0", "1", ...

        Raises:
            CorpusError: texts that are not parallel, or a value that is not a text to read, named with its line.
        """
        if not isinstance(texts, Mapping):
            raise CorpusError(
                f"texts must map languages to texts, such as {{'en': ['Tea.']}}, got a {type(texts).__name__}"
            )
        held = {code: listed_values(f"{name}: the texts in {code!r}", values) for code, values in texts.items()}
        longest = max((len(values) for values in held.values()), default=0)
        names = tuple(range(longest)) if ids is None else listed_values(f"{name}: ids", ids)
        for line, example in enumerate(names, start=1):
            if id_fault(example):
                raise CorpusError(f"{name}: the id on line {line} {id_fault(example)}")
        grouped = None if groups is None else listed_values(f"{name}: groups", groups)
        for code, values in held.items():
            _check_texts(name, code, values, names)
        return cls(held, tuple(map(str, names)), grouped, name)

    @classmethod
    def from_files(cls, paths: Mapping[str, str | Path] | str | Path) -> "ParallelCorpus":
        """From UTF-8 text files with one text a line, line-aligned; `.gz` files are unzipped.

        Args:
            paths: language code to file, or a folder of `<language>.txt` (or `.txt.gz`) files.
        """
        files = paths if isinstance(paths, Mapping) else files_by_language(paths, ".txt")
        texts = {code: [text for _, text in numbered_lines(code, path)] for code, path in files.items()}
        return cls.from_texts(texts, name="files")

    @classmethod
    def from_jsonl(
        cls,
        paths: Mapping[str, str | Path] | str | Path,
        *,
        text_field: str = "text",
        id_field: str | None = "id",
    ) -> "ParallelCorpus":
        """From one JSON-lines file a language; with `id_field` the ids must agree, line by line.

        Args:
            paths: language code to file, or a folder of `<language>.jsonl` (or `.jsonl.gz`) files.
        """
        given_text("text_field", text_field, error=CorpusError)
        if id_field is not None:
            given_text("id_field", id_field, error=CorpusError)
        files = paths if isinstance(paths, Mapping) else files_by_language(paths, ".jsonl")
        texts: dict[str, list[str]] = {}
        ids: dict[str, list[str]] = {}
        for code, path in files.items():
            rows = list(json_rows(code, path, [text_field, *([id_field] if id_field is not None else [])]))
            texts[code] = [row[text_field] for row in rows]
            if id_field is not None:
                ids[code] = [str(row[id_field]) for row in rows]
        return cls.from_texts(texts, ids=None if id_field is None else agreed_ids(ids, "jsonl"), name="jsonl")

    @classmethod
    def bundled(
        cls, languages: Iterable[str] | None = None, *, fields: Sequence[str] = BUNDLED_TEXT_FIELDS
    ) -> "ParallelCorpus":
        """The corpus that comes with this package: 24 passages in 16 languages, 5 texts each (120 in all), CC0."""
        available = bundled_languages()
        chosen = check_languages(languages, "bundled") if languages is not None else available
        wanted = _known_fields("bundled", fields, BUNDLED_TEXT_FIELDS)
        texts = {code: [getattr(item, field) for item in bundled_items(code) for field in wanted] for code in chosen}
        items = bundled_items("en")
        corpus = cls.from_texts(texts, ids=[f"{item.id}/{field}" for item in items for field in wanted], name="bundled")
        return replace(corpus, content=tuple(text_hash(item.passage) for item in items for _ in wanted))

    @classmethod
    def xquad(
        cls,
        source: str | Path = "google/xquad",
        languages: Iterable[str] | None = None,
        *,
        fields: Sequence[Literal["context", "question"]] = ("context", "question"),
        on_bad: OnBad = "raise",
    ) -> "ParallelCorpus":
        """XQuAD from the Hub or a local folder in its layout; `sample` then takes one question a paragraph.

        Args:
            on_bad: "drop" leaves out rows whose texts cannot be read, and counts them in `dropped`.
        """
        chosen = _known_fields("xquad", fields, ("context", "question"))
        wanted = tuple(dict.fromkeys(("context", *chosen)))
        columns = load_columns(
            "xquad",
            str(source),
            languages,
            config="xquad.{}",
            split="validation",
            fields=wanted,
            fault=partial(fields_fault, wanted),
            on_bad=on_bad,
        )
        return cls._from_columns(columns, chosen, name="xquad", groups=columns.first("context"))

    @classmethod
    def xnli(
        cls,
        source: str | Path = "facebook/xnli",
        languages: Iterable[str] | None = None,
        *,
        split: Split = "validation",
        fields: Sequence[Literal["premise", "hypothesis"]] = ("premise", "hypothesis"),
        on_bad: OnBad = "raise",
    ) -> "ParallelCorpus":
        """XNLI from the Hub or a local folder in its layout, row-aligned.

        Args:
            on_bad: "drop" leaves out rows whose texts cannot be read, and counts them in `dropped`.
        """
        chosen = _known_fields("xnli", fields, ("premise", "hypothesis"))
        wanted = tuple(dict.fromkeys(("premise", *chosen)))
        columns = load_columns(
            "xnli",
            str(source),
            languages,
            config="{}",
            split=split,
            fields=wanted,
            fault=partial(fields_fault, wanted),
            on_bad=on_bad,
        )
        return cls._from_columns(columns, chosen, name="xnli")

    @classmethod
    def _from_columns(
        cls, columns: Columns, fields: Sequence[str], *, name: str, groups: Sequence[str] | None = None
    ) -> "ParallelCorpus":
        """From some columns of a data set: the fields of a row, joined by a newline, are one text."""
        texts = {
            language: ["\n".join(parts) for parts in zip(*(held[field] for field in fields), strict=True)]
            for language, held in columns.values.items()
        }
        corpus = cls.from_texts(texts, ids=columns.ids, groups=groups, name=name)
        return replace(corpus, content=tuple(map(text_hash, columns.reference)), dropped=columns.dropped)


def _check_texts(name: str, language: str, texts: Sequence[Any], ids: Sequence[Any]) -> None:
    for line, text in enumerate(texts, start=1):
        wrong = text_fault(text)
        if wrong:
            example = f" (example {str(ids[line - 1])!r})" if line <= len(ids) else ""
            raise CorpusError(f"{name}: language {language!r}, line {line}{example} {wrong}")


def _known_fields(name: str, fields: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    chosen = listed_values(f"{name}: fields", fields)
    odd = [field for field in chosen if field not in known]
    if odd or not chosen:
        asked = f"no field {odd[0]!r}" if odd else "no fields given"
        raise CorpusError(f"{name}: {asked}; available: {', '.join(known)}")
    return chosen
