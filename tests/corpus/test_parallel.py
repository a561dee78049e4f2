"""Parallel text: alignment, sampling, sources, and errors that name the language and the line."""

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import shared_data

import clas_lens as cl

Corpus = cl.ParallelCorpus


def test_from_texts_and_parts():
    corpus = Corpus.from_texts({"en": ["one", "two", "three"], "de": ["eins", "zwei", "drei"]})
    assert corpus.languages == ("en", "de")
    assert len(corpus) == 3
    assert corpus["de"] == ("eins", "zwei", "drei")
    assert corpus.take([2, 0])["en"] == ("three", "one")
    assert corpus.take([2, 0]).ids == ("2", "0")
    assert corpus.select(["de"]).languages == ("de",)
    assert "3 examples x 2 languages" in repr(corpus)


def test_fingerprints_follow_the_text_and_its_order():
    corpus = Corpus.from_texts({"en": ["a", "b"], "de": ["c", "d"]})
    assert corpus.fingerprint("en") == Corpus.from_texts({"en": ["a", "b"]}).fingerprint("en")
    assert corpus.fingerprint("en") != corpus.take([1, 0]).fingerprint("en")
    assert corpus.fingerprint("en") != corpus.fingerprint("de")


@pytest.mark.parametrize(
    ("texts", "options", "message"),
    [
        ({"en": ["a", "b"], "de": ["c"]}, {}, r"'de' has 1 texts for 2 examples .*'en': 2, 'de': 1"),
        ({"en": ["a", " \n"]}, {}, r"language 'en', line 2 \(example '1'\) is empty"),
        ({"en": ["a", "b"]}, {"ids": ["x", "x"]}, "'x' is on line 1 and again on line 2"),
        ({}, {}, "at least one language"),
        ({"en": []}, {}, "no examples"),
        ({"en": ["a"]}, {"groups": ["g", "h"]}, "2 groups for 1 examples"),
    ],
)
def test_misaligned_texts(texts, options, message):
    with pytest.raises(cl.CorpusError, match=message):
        Corpus.from_texts(texts, **options)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("german", "unknown language 'german'"),
        ("xx", "unknown"),
        ("", "unknown"),
        ("EN", "written 'en'"),
        ("eng", "written 'en'"),
    ],
)
def test_language_codes(code, message):
    with pytest.raises(ValueError, match=message):
        Corpus.from_texts({code: ["a"]})


def test_missing_language_names_what_there_is():
    with pytest.raises(cl.CorpusError, match="no language 'fr'; available: en"):
        Corpus.from_texts({"en": ["a"]})["fr"]


@given(n=st.integers(1, 30), seed=st.integers(0, 5))
def test_samples_are_seeded_without_replacement_and_in_order(n, seed):
    corpus = Corpus.from_texts({"en": [f"text {i}" for i in range(30)]})
    sample = corpus.sample(n, seed=seed)
    assert len(set(sample.ids)) == n
    assert list(sample.ids) == sorted(sample.ids, key=int)
    assert sample.ids == corpus.sample(n, seed=seed).ids


def test_samples_take_one_of_a_group():
    groups = [str(i // 4) for i in range(40)]
    corpus = Corpus.from_texts({"en": [f"text {i}" for i in range(40)]}, groups=groups)
    sample = corpus.sample(10, seed=3)
    assert sorted(sample.groups, key=int) == [str(i) for i in range(10)]
    assert len({int(i) % 4 for i in sample.ids}) > 1  # not always the first of its group
    with pytest.raises(cl.CorpusError, match="asked for 11 samples of 10 groups"):
        corpus.sample(11)


def test_an_ending_in_capitals_is_not_passed_over(tmp_path):
    for name in ("en.txt", "de.TXT"):
        (tmp_path / name).write_text("a\nb\n")
    with pytest.raises(cl.CorpusError, match=r"de\.TXT would not be read"):
        Corpus.from_files(tmp_path)


def test_a_folder_whose_name_is_no_utf_8(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    (folder / "en.txt").write_text("a\n")
    assert Corpus.from_files(folder)["en"] == ("a",)


def test_text_files(tmp_path):
    (tmp_path / "en.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\xe2\x80\xa8still two\r\n")
    (tmp_path / "de.txt").write_text("eins\nzwei", encoding="utf-8")
    corpus = Corpus.from_files(tmp_path)
    assert corpus.languages == ("de", "en")
    assert corpus["en"] == ("one", "two\u2028still two")
    assert Corpus.from_files({"en": tmp_path / "en.txt"}).languages == ("en",)
    (tmp_path / "fr.txt").write_bytes(b"un\nd\xe9ux\n")
    with pytest.raises(cl.CorpusError, match=r"language 'fr': .*fr\.txt, line 2 is not UTF-8"):
        Corpus.from_files(tmp_path)
    (tmp_path / "fr.txt").write_text("un\n\ntrois\n", encoding="utf-8")
    with pytest.raises(cl.CorpusError, match=r"language 'fr', line 2 .*is empty"):
        Corpus.from_files(tmp_path)
    (tmp_path / "fr.txt").write_text("un\ndeux\ntrois\n", encoding="utf-8")
    with pytest.raises(cl.CorpusError, match="texts per language"):
        Corpus.from_files(tmp_path)
    with pytest.raises(cl.CorpusError, match="no such file"):
        Corpus.from_files({"en": tmp_path / "absent.txt"})
    with pytest.raises(cl.CorpusError, match="no such folder: .*nowhere"):
        Corpus.from_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(cl.CorpusError, match=r"no <language>\.txt files"):
        Corpus.from_files(tmp_path / "empty")


def test_jsonl(tmp_path):
    def write(language, rows):
        path = tmp_path / f"{language}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    files = {
        "en": write("en", [{"id": 7, "text": "tea"}, {"id": 9, "text": "rice"}]),
        "zh": write("zh", [{"id": 7, "text": "茶"}, {"id": 9, "text": "米"}]),
    }
    corpus = Corpus.from_jsonl(files)
    assert corpus.ids == ("7", "9")
    assert corpus["zh"] == ("茶", "米")
    files["de"] = write("de", [{"id": 9, "text": "Reis"}, {"id": 7, "text": "Tee"}])
    with pytest.raises(cl.CorpusError, match="line 1 is example '7' in 'en' but '9' in 'de'"):
        Corpus.from_jsonl(files)
    files["de"] = write("de", [{"id": 7, "satz": "Tee"}])
    with pytest.raises(cl.CorpusError, match=r"'de'.*line 1 has no field 'text'; it has: id, satz"):
        Corpus.from_jsonl(files)
    files["de"] = write("de", [{"id": 7, "text": None}])
    with pytest.raises(cl.CorpusError, match="'text' is missing"):
        Corpus.from_jsonl(files)
    with pytest.raises(cl.CorpusError, match="no languages given"):
        Corpus.from_jsonl({})
    files["de"].write_text("{", encoding="utf-8")
    with pytest.raises(cl.CorpusError, match="line 1 is not JSON"):
        Corpus.from_jsonl(files)


def test_xquad_in_twelve_languages():
    corpus = Corpus.xquad(shared_data("data", "xquad"))
    assert corpus.languages == ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
    assert len(corpus) == 1190
    assert len(set(corpus.groups)) == 240
    sample = corpus.sample(100, seed=0)
    assert len(set(sample.groups)) == 100
    questions = Corpus.xquad(shared_data("data", "xquad"), ["en"], fields=["question"])
    assert corpus["en"][5].endswith("\n" + questions["en"][5])
    with pytest.raises(cl.CorpusError, match="no language 'sw' .*available: ar, de"):
        Corpus.xquad(shared_data("data", "xquad"), ["sw"])


def test_xnli_splits():
    corpus = Corpus.xnli(shared_data("data", "xnli"), ["en", "sw"])
    assert (len(corpus), corpus.ids[0]) == (2490, "validation-0")
    assert len(Corpus.xnli(shared_data("data", "xnli"), ["ur"], split="test")) == 5010


def test_a_dataset_that_is_nowhere(monkeypatch):
    monkeypatch.setattr("clas_lens.corpus.sources.reach_hub", lambda *args, **options: False)
    with pytest.raises(cl.CorpusError, match=r"no network, 'someone/xquad' is not in the datasets cache"):
        Corpus.xquad("someone/xquad")


def test_a_folder_that_is_no_dataset(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(cl.CorpusError, match="xquad: "):
        Corpus.xquad(tmp_path)
