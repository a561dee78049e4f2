"""The word list: whole, aligned, and its first tokens those that follow every prompt."""

import re
import unicodedata

import pytest
from tiny import shared_data
from transformers import AutoTokenizer

import clas_lens as cl
from clas_lens.corpus.bundled import bundled_languages
from clas_lens.lens.words import _continuation, word_languages, word_list

LANGUAGES = bundled_languages()


def test_the_list_is_whole():
    words = cl.lens.everyday_words()
    assert words.shape == (60, 16)
    assert tuple(words.columns) == word_languages() == LANGUAGES
    assert list(words.index) == list(words["en"])
    english = word_list("en")
    for code in LANGUAGES:
        held = word_list(code)
        assert list(held.words) == list(english.words)
        assert list(held.definitions) == list(english.definitions)
        assert len(held.definitions) == 20
        assert len(set(held.words.values())) == 60, code
        for text in (held.name, *held.words.values(), *held.definitions.values()):
            assert text == text.strip() == unicodedata.normalize("NFC", text)
            assert not set('"{}_') & set(text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_definition_holds_its_word(language):
    held = word_list(language)
    for word, definition in held.definitions.items():
        assert not re.search(rf"\b{held.words[word]}\b", definition, flags=re.IGNORECASE), (language, word)


def test_prompts():
    prompt = cl.lens.lens_prompt("flower", "zh", shots=0)
    assert prompt == 'Français: "fleur" - 中文: "'
    assert cl.lens.lens_prompt("flower", "fr", shots=0) == 'Deutsch: "Blume" - Français: "'
    assert cl.lens.lens_prompt("flower", "fr", source="sw", shots=0) == 'Kiswahili: "ua" - Français: "'
    assert cl.lens.lens_prompt("flower", "zh", "repetition", shots=0) == '中文: "花" - 中文: "'
    assert cl.lens.lens_prompt("dog", "en", "cloze", shots=0) == '"___": an animal that barks - Answer: "'
    first, second, last = cl.lens.lens_prompt("flower", "de", shots=2, seed=1).split("\n")
    assert last == 'Français: "fleur" - Deutsch: "'
    for line in (first, second):
        french, german = re.fullmatch(r'Français: "(.+)" - Deutsch: "(.+)"', line).groups()
        (word,) = [key for key, text in word_list("fr").words.items() if text == french]
        assert word != "flower"
        assert word_list("de").words[word] == german
    assert cl.lens.lens_prompt("flower", "de", shots=2, seed=1) != cl.lens.lens_prompt("flower", "de", shots=2, seed=2)


def test_shared_tokens_are_left_out_and_counted(llama):
    """Russian and Bulgarian water is the same word; Swahili's is not."""
    pair = cl.lens.word_tokens(llama, ["bg", "ru"], ["water"]).set_index("language")
    assert pair.loc["bg", "tokens"] == pair.loc["ru", "tokens"] == ()
    assert pair.loc["bg", "shared"] == pair.loc["ru", "shared"]
    assert pair["n_shared"].tolist() == [len(pair.loc["bg", "shared"])] * 2
    apart = cl.lens.word_tokens(llama.tokenizer, ["ru", "sw"], ["water"]).set_index("language")
    assert apart.loc["ru", "tokens"] == pair.loc["ru", "shared"]
    assert (apart["n_shared"] == 0).all()


@pytest.mark.parametrize("name", ["llama-3.1", "qwen-2.5"])
def test_a_words_first_token_follows_every_prompt(name):
    """With the papers' tokenizers: the prompt's ids are those of the prompt with its answer, up to a token of `word_tokens`."""
    tokenizer = AutoTokenizer.from_pretrained(shared_data("tokenizers", name))
    table = cl.lens.word_tokens(tokenizer).set_index(["language", "word"])
    for code in LANGUAGES:
        for word, text in word_list(code).definitions.items() | word_list(code).words.items():
            for kind in ("translation", "cloze"):
                if kind == "cloze" and word not in word_list(code).definitions:
                    continue
                answer = word_list(code).words[word]
                prompt = cl.lens.lens_prompt(word, code, kind, shots=1)
                start, whole = (
                    tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prompt, prompt + answer)
                )
                assert whole[: len(start)] == start, text
                row = table.loc[code, word]
                assert whole[len(start)] in row["tokens"] + row["shared"]
                assert len(whole) - len(start) == row["pieces"]


class Joining:
    """A tokenizer of whole strings: nothing continues anything."""

    def __call__(self, text, **options):
        return {"input_ids": [len(text)]}


def test_a_tokenizer_that_joins_a_word_with_what_is_before_it_is_refused():
    with pytest.raises(ValueError, match="joins 't' and 'he' in one token"):
        getattr(_continuation, "__wrapped__", _continuation)(Joining(), "t", "he")
