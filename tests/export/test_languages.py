"""Texts find their language, and those that are not sure stay with the anchor."""

import pytest
from tiny import shared_data

import clas_lens as cl

pytest.importorskip("py3langid", reason="needs the extra detect")
CODES = ("de", "en", "sw", "th", "zh", "ar", "hi", "ru")


def test_flores_sentences_and_short_pieces():
    lines = {
        code: shared_data("data", "flores-200", "dev", f"{code}.txt").read_text(encoding="utf-8").splitlines()[:40]
        for code in CODES
    }
    for code, texts in lines.items():
        whole = cl.detect_languages(texts, among=CODES)
        assert sum(found == code for found in whole) >= 39, code
        short = cl.detect_languages([text[:20] for text in texts], among=CODES)
        assert set(short) <= {code, "en"}, code  # right or untouched


def test_unsure_texts_go_to_the_anchor():
    assert cl.detect_languages(["", "  ", "42", "?!"], among=("de", "sw"), sure=0.99) == ["en"] * 4
    assert cl.detect_languages(["Das ist ein guter Satz."], among=("de",), anchor="fr", sure=1.0) in (["fr"], ["de"])


def test_codes_come_back_as_they_were_asked():
    assert cl.detect_languages(["这是一个关于天气的句子。"], among=("zh-Hans", "de")) == ["zh-Hans"]


def test_a_mixed_batch_is_routed(llama, small_cats):
    clas = cl.Clas(small_cats, layers=(1,), alpha=-2.0)
    prompts = ["Das Wetter ist heute sehr schön.", "The weather is very nice today."]
    languages = cl.detect_languages(prompts, among=small_cats.languages)
    assert languages == ["de", "en"]
    with cl.steer(llama, clas, language=languages):
        llama(prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"among": ("de", "german")}, "unknown language 'german'"),
        ({"among": ("zh-Hans", "zh-Hant")}, "cannot tell some of zh-Hans, zh-Hant apart"),
        ({"among": ("de", "smj")}, "does not know smj"),
        ({"among": ("de",), "sure": 2.0}, "sure must be a finite number, at least 0 and at most 1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        cl.detect_languages(["ein Text"], **options)
    with pytest.raises(ValueError, match="list of texts"):
        cl.detect_languages("ein Text", among=("de",))
