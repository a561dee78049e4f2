"""Scores of extractive answers: SQuAD v1.1 as everyone reports it, and an F1 that is fair to every script.

SQuAD's F1 splits at white space and strips English articles only, whatever the language: in Chinese and Thai it is close to
exact match, in Spanish it drops the preposition "a". `f1_segmented` asks the same question (which share of the tokens agrees)
with tokens and articles of the language itself.
"""

import string
import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

from clas_lens.given import given, given_each

# Free-standing articles. en, de, es and vi (there: classifiers and particles as well) are those of MLQA's official
# scorer (Lewis et al. 2020); the others are their closest match in the language's grammar. Arabic's article is a prefix,
# French also has an elided one; both are handled in `answer_tokens`. No language is listed with another's articles: the
# suffixed articles of bg and ro belong to their nouns, and the languages with an empty entry have none.
ARTICLES: dict[str, str] = {
    "ar": "",
    "bg": "",
    "de": "ein eine einen einem eines einer der die das den dem des",
    "el": "ο η το οι τα του της τη την τον τους τις των ένας μία μια ένα ενός μίας μιας έναν",
    "en": "a an the",
    "es": "un una unos unas el la los las",
    "fr": "le la les un une des du",
    "hi": "",
    "ro": "un o unui unei unor niște nişte",
    "ru": "",
    "sw": "",
    "th": "",
    "tr": "bir",
    "ur": "",
    "vi": "của là cái chiếc những",
    "zh": "",
}


ARABIC_ARTICLE = "ال"


# One token a character (with its marks) where words are written without spaces, else one a run of other characters.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}]"


_TOKEN = regex.compile(rf"(?={_UNSPACED})\X|(?:(?!{_UNSPACED})\S)+")


# P: punctuation. Cf: characters that nobody sees (direction marks, zero-width spaces). The rest of string.punctuation
# is symbols to Unicode ("$", "+") and punctuation to SQuAD and MLQA.
_DROPPED = regex.compile(rf"[\p{{P}}\p{{Cf}}{regex.escape(string.punctuation)}]")


_FRENCH_ELISION = regex.compile(r"(?<!\w)l['’](?=\w)")


def squad_f1(prediction: str, golds: Sequence[str]) -> float:
    """Token F1 of SQuAD v1.1, the best over the golds, in 0..1.

    Lower case, without ASCII punctuation and a/an/the, split at white space; from torchmetrics, in its float32. As in the
    official script two texts that are both empty after that have F1 0 (torchmetrics has 1), although they match exactly.

    Raises:
        ValueError: no golds.
    """
    _check_answers(prediction, golds)
    full = [gold for gold in golds if _squad_words(gold)]
    return _squad(prediction, full)["f1"] if full and _squad_words(prediction) else 0.0


def squad_em(prediction: str, golds: Sequence[str]) -> bool:
    """Exact match of SQuAD v1.1: equal to a gold after the clean-up that `squad_f1` describes.

    Raises:
        ValueError: no golds.
    """
    return _squad(prediction, golds)["exact_match"] == 1.0


def f1_segmented(prediction: str, golds: Sequence[str], language: str) -> float:
    """Token F1 with the language's own articles and tokens (`answer_tokens`), the best over the golds, in 0..1.

    2 * shared / (tokens of the prediction + tokens of the gold), shared tokens counted with repeats; 0 if none is shared.

    Args:
        language: the language of the golds.

    Raises:
        ValueError: no golds, or a language that `ARTICLES` does not list.
    """
    _check_answers(prediction, golds)
    predicted = answer_tokens(prediction, language)
    return max(_overlap(predicted, answer_tokens(gold, language)) for gold in golds)


def answer_tokens(text: str, language: str) -> tuple[str, ...]:
    """Tokens of an answer: NFKC, case-folded, without punctuation, invisible characters and the language's articles.

    Each Han and kana character is a token, and each Thai grapheme cluster; everything else splits at white space, so
    combining marks stay with their letters. An answer that is nothing but articles keeps them. Against MLQA's scorer:
    Han beyond U+9FA5 is Han too, forms that NFKC joins are equal, and the Arabic article goes only at the start of a word
    with at least two more letters (MLQA takes it out of the middle of words as well).
    """
    given(text, str, "an answer is a text", "a missing one is ''")
    if not isinstance(language, str) or language not in ARTICLES:
        raise ValueError(f"no article list for language {language!r}; available: {', '.join(ARTICLES)}")
    text = _folded(text)
    if language == "fr":
        text = _FRENCH_ELISION.sub("", text)
    tokens = _TOKEN.findall(_DROPPED.sub("", text))
    if language == "ar":
        tokens = [_without_arabic_article(token) for token in tokens]
    articles = set(_folded(ARTICLES[language]).split())
    return tuple(token for token in tokens if token not in articles) or tuple(tokens)


def _folded(text: str) -> str:
    # Folding turns a final sigma into a plain one, so articles are folded like texts; it can undo a composition; and of a
    # Turkish capital I with a dot it makes an "i" with one dot too many.
    folded = unicodedata.normalize("NFKC", text).casefold().replace("i\u0307", "i")
    return unicodedata.normalize("NFKC", folded)


def _without_arabic_article(token: str) -> str:
    rest = token.removeprefix(ARABIC_ARTICLE)
    return rest if len(rest) >= 2 else token


def _overlap(predicted: Sequence[str], gold: Sequence[str]) -> float:
    shared = sum((Counter(predicted) & Counter(gold)).values())
    return 2 * shared / (len(predicted) + len(gold)) if shared else 0.0


def _squad_words(text: str) -> list[str]:
    """The words that SQuAD's clean-up leaves of a text."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return regex.sub(r"\b(a|an|the)\b", " ", bare).split()


def _squad(prediction: str, golds: Sequence[str]) -> dict[str, float]:
    from torchmetrics.functional.text import squad  # 3 s to import, and only whoever scores answers needs it

    _check_answers(prediction, golds)
    scores = squad({"prediction_text": prediction, "id": "0"}, {"answers": {"text": list(golds)}, "id": "0"})
    return {name: score.item() / 100 for name, score in scores.items()}


def _check_answers(prediction: str, golds: Sequence[str]) -> None:
    given(prediction, str, "a prediction is a text", "a missing answer is ''")
    if not given_each(golds, str, "golds must be a list with at least one answer", "give [answer] for one"):
        raise ValueError(f"golds must be a list with at least one answer, got {golds!r}")
