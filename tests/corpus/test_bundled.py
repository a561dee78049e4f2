"""The bundled corpus: complete, aligned, in the right scripts, of comparable lengths, answers in their passages."""

import unicodedata

import pytest

import clas_lens as cl
from clas_lens.corpus.bundled import BUNDLED_TEXT_FIELDS, bundled_items, bundled_languages

LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ro", "ru", "sw", "th", "tr", "ur", "vi", "zh")
SCRIPTS = {
    "ar": "ARABIC",
    "ur": "ARABIC",
    "bg": "CYRILLIC",
    "ru": "CYRILLIC",
    "el": "GREEK",
    "hi": "DEVANAGARI",
    "th": "THAI",
    "zh": "CJK",
}
SENTENCE_ENDS = ".!?。！？।۔؟"


def test_the_corpus_is_whole():
    assert bundled_languages() == LANGUAGES
    corpus = cl.ParallelCorpus.bundled()
    assert len(corpus) == 120
    assert len({item.topic for item in bundled_items("en")}) == 24
    assert all(len(bundled_items(language)) == 24 for language in LANGUAGES)


@pytest.mark.parametrize("language", LANGUAGES)
def test_items_are_aligned_with_english(language):
    for item, english in zip(bundled_items(language), bundled_items("en"), strict=True):
        assert (item.id, item.topic) == (english.id, english.topic)
        for field in BUNDLED_TEXT_FIELDS:
            text, original = getattr(item, field), getattr(english, field)
            assert text == text.strip() == unicodedata.normalize("NFC", text), (item.id, field)
            assert language == "en" or text != original
            low, high = (0.2, 0.75) if language == "zh" else (0.55, 1.9)
            assert low < len(text) / len(original) < high, (item.id, field, text)


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_stand_in_their_passages_once(language):
    for item in bundled_items(language):
        assert item.passage.count(item.answer) == 1, (item.id, item.answer)
        assert item.answer == item.answer.strip()


@pytest.mark.parametrize("language", LANGUAGES)
def test_scripts(language):
    script = SCRIPTS.get(language, "LATIN")
    for item in bundled_items(language):
        for field in BUNDLED_TEXT_FIELDS:
            letters = [char for char in getattr(item, field) if char.isalpha()]
            share = sum(script in unicodedata.name(char, "") for char in letters) / len(letters)
            assert share > 0.85, (item.id, field, share)


@pytest.mark.parametrize("language", [code for code in LANGUAGES if code != "th"])
def test_passages_have_two_or_three_sentences(language):
    for item in bundled_items(language):
        followed = zip(item.passage, item.passage[1:] + " ", strict=True)
        ends = sum(char in SENTENCE_ENDS and not (char == "." and after.isdigit()) for char, after in followed)
        assert 2 <= ends <= 6, (item.id, item.passage)  # abbreviations ("î.Hr.") count here
        assert item.question[-1] in SENTENCE_ENDS + ";"  # Greek asks with a semicolon


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_of_an_item_differ(language):
    for item in bundled_items(language):
        assert len({getattr(item, field) for field in BUNDLED_TEXT_FIELDS}) == 5


def test_an_unknown_language_names_the_known_ones():
    with pytest.raises(cl.CorpusError, match="no language 'ja'; available: ar, bg"):
        cl.ParallelCorpus.bundled(["ja"])
