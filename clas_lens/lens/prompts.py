"""Prompts whose next word is known: a translation, a repetition, or a definition with its word left out."""

import random
from collections.abc import Sequence
from typing import get_args

from clas_lens.given import given_whole, given_word
from clas_lens.lens.words import given_words, word_languages, word_list
from clas_lens.tasks.wording import load_wording
from clas_lens.vocabulary import LensPrompt


def lens_prompt(
    word: str,
    language: str,
    prompt: LensPrompt = "translation",
    *,
    source: str | None = None,
    shots: int = 4,
    seed: int = 0,
) -> str:
    """A few-shot prompt that ends where the word is to come in `language`, after a quotation mark.

    The prompts of Wendler et al. (2024, "Do Llamas Work in English?", arXiv:2402.10588, section 3.2), a line an example:
    `Français: "fleur" - 中文: "花"` (translation), the same with one language twice (repetition), and
    `"___": an animal that barks - Answer: "dog"` (cloze; theirs are whole sentences, ours definitions, whose words
    stand in base form in every language). The examples are drawn from the other words, the same in all languages.

    Args:
        word: by its English.
        source: the language translated from; None for French, and for German into French. A translation alone takes it.
        shots: examples before it.
        seed: of their draw, for each word its own.

    Raises:
        ValueError: an unknown word, language or prompt; a word without a definition; more shots than other words.
    """
    given_word("prompt", prompt, get_args(LensPrompt))
    given_word("language", language, word_languages())
    (word,) = given_words([word])
    known = promptable(prompt)
    if word not in known:
        raise ValueError(f"{word!r} has no definition, which a cloze needs; available: {', '.join(known)}")
    of = source_of(language, prompt, source)
    examples = shown_words(word, prompt, shots, seed)
    lines = [_line(one, language, prompt, of) + word_list(language).words[one] + '"' for one in examples]
    return "\n".join([*lines, _line(word, language, prompt, of)])


def promptable(prompt: LensPrompt) -> tuple[str, ...]:
    """The words that this prompt can ask for."""
    held = word_list("en")
    return tuple(held.definitions if prompt == "cloze" else held.words)


def source_of(language: str, prompt: LensPrompt, source: str | None) -> str:
    """The language of what the prompt gives.

    Raises:
        ValueError: a source without a word list, the language itself, or one for a prompt that is in one language.
    """
    if prompt != "translation":
        if source is not None:
            raise ValueError(f"source= goes with prompt='translation' alone; got prompt={prompt!r}, source={source!r}")
        return language
    if source is None:
        return "de" if language == "fr" else "fr"
    given_word("source", source, word_languages())
    if source == language:
        raise ValueError(f"source and language are both {source!r}: leave it out of the languages, or repeat")
    return source


def shown_words(word: str, prompt: LensPrompt, shots: int, seed: int) -> Sequence[str]:
    """The words of the examples before `word`, by their English."""
    others = [one for one in promptable(prompt) if one != word]
    given_whole("shots", shots, most=len(others))
    return random.Random(f"{given_whole('seed', seed)} {word}").sample(others, shots)


def _line(word: str, language: str, prompt: LensPrompt, source: str) -> str:
    """An example up to the quotation mark before its answer."""
    if prompt == "cloze":
        return f'"___": {word_list(language).definitions[word]} - {load_wording(language).answer} "'
    given = word_list(source)
    return f'{given.name}: "{given.words[word]}" - {word_list(language).name}: "'
