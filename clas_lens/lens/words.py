"""Sixty everyday nouns and numbers in 16 languages, and the tokens that each begins with."""

import tomllib
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedTokenizerBase

from clas_lens.corpus.tokens import require_tokenizer
from clas_lens.given import given_word, named
from clas_lens.vocabulary import check_languages

QUOTED = ': "'  # what stands before a word in every prompt of the lens


class WordList(BaseModel):
    """One language's words.

    Attributes:
        name: what the language calls itself.
        words: English word to this language's.
        definitions: of some of them, as a dictionary would say it; none holds its word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    name: str
    words: dict[str, str]
    definitions: dict[str, str]


def word_languages() -> tuple[str, ...]:
    """The languages that have a word list: those of the bundled corpus."""
    return tuple(sorted(file.name[:-5] for file in _folder().iterdir() if file.name.endswith(".toml")))


@cache
def word_list(language: str) -> WordList:
    """One language's words, checked.

    Raises:
        ValueError: no list in this language.
    """
    given_word("language", language, word_languages())
    return WordList.model_validate(tomllib.loads((_folder() / f"{language}.toml").read_text(encoding="utf-8")))


def _folder() -> Traversable:
    return files("clas_lens") / "data" / "words"


def everyday_words(languages: Sequence[str] | None = None) -> pd.DataFrame:
    """The word list: a row a word, called by its English, a column a language; 50 nouns and the numbers from one to ten.

    Singular, in base form, the most common word. `clas_lens/data/words/README.md` says how they were checked.

    Args:
        languages: of the 16 of the bundled corpus; None for all.

    Raises:
        ValueError: a language without a list.
    """
    chosen = given_languages(languages)
    return pd.DataFrame({code: word_list(code).words for code in chosen}).rename_axis(index="word", columns="language")


def given_languages(languages: Any, what: str = "languages") -> tuple[str, ...]:
    """These languages, all with a word list; None stands for all that have one."""
    codes = word_languages() if languages is None else check_languages(languages, what)
    for code in codes:
        given_word("language", code, word_languages())
    return codes


def given_words(words: Any) -> tuple[str, ...]:
    """These words of the list, by their English; None stands for all.

    Raises:
        ValueError: no list of words, none, one twice, or one that is not in the list.
    """
    known = tuple(word_list("en").words)
    if words is None:
        return known
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise ValueError(f"words must be a list such as ['water', 'sun'], got {named(words)}")
    chosen = tuple(given_word("word", word, known) for word in words)
    if not chosen or len(set(chosen)) != len(chosen):
        raise ValueError(f"words must be at least one, each once; got {list(chosen)}")
    return chosen


def word_tokens(model: Any, languages: Sequence[str] | None = None, words: Sequence[str] | None = None) -> pd.DataFrame:
    """The token ids by which the lens tells a word: those that it begins with, after a quotation mark and after a space.

    What a tokenizer writes as a lone space before a word is no such token. A token with which the same word begins in another
    of these languages says nothing about the language: it is left out of all of them, and counted. Often what is left is a
    part of a word: a first token of one letter is that of many words.

    Args:
        model: a model or a tokenizer.
        languages: those that are told apart; fewer share fewer tokens. None for all 16.
        words: by their English; None for all 60.

    Returns:
        One row a word and language: `text`, `pieces` (tokens that the word takes after a quotation mark), `tokens` (ids; empty
        where all are shared), `shared` (ids left out) and `n_shared`.

    Raises:
        ValueError: an unknown language or word, no tokenizer, or one that joins a word with the quotation mark before it.
    """
    tokenizer = model if isinstance(model, PreTrainedTokenizerBase) else require_tokenizer(model)
    chosen = given_languages(languages)
    rows = []
    for word in given_words(words):
        texts = {code: word_list(code).words[word] for code in chosen}
        first = {code: _first_tokens(tokenizer, text) for code, text in texts.items()}
        often = Counter(token for tokens in first.values() for token in tokens)
        for code, text in texts.items():
            shared = tuple(token for token in first[code] if often[token] > 1)
            rows.append(
                {
                    "word": word,
                    "language": code,
                    "text": text,
                    "pieces": len(_continuation(tokenizer, QUOTED, text)),
                    "tokens": tuple(token for token in first[code] if often[token] == 1),
                    "shared": shared,
                    "n_shared": len(shared),
                }
            )
    return pd.DataFrame(rows)


def _first_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    """The first token after a quotation mark, and that after a space where it is another."""
    found = (_continuation(tokenizer, before, text)[0] for before, text in ((QUOTED, text), ("a", f" {text}")))
    return tuple(token for token in dict.fromkeys(found) if str(tokenizer.decode([token])).strip())


def _continuation(tokenizer: PreTrainedTokenizerBase, before: str, text: str) -> list[int]:
    """The tokens of a text that follows another."""
    start, whole = (
        list(tokenizer(one, add_special_tokens=False, split_special_tokens=True)["input_ids"])
        for one in (before, before + text)
    )
    if whole[: len(start)] != start or len(whole) == len(start):
        raise ValueError(
            f"this tokenizer joins {before!r} and {text!r} in one token, so that no token begins the word: the lens cannot "
            "tell what the model would say next"
        )
    return whole[len(start) :]
