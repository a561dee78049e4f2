"""Data that is not what it should be: refused with its place and cause, or read as it is. Nothing is wrong silently."""

import copy
import gzip
import json

import pytest

import clas_lens as cl
from clas_lens.corpus.splits import corpus_part
from clas_lens.tasks.base import TaskError
from clas_lens.tasks.xnli import XNLI
from clas_lens.tasks.xquad import XQuAD

Corpus = cl.ParallelCorpus
LANGUAGES = ("de", "en")
TWO = {"en": ["Tea is hot.", "Rice is white."], "de": ["Tee ist heiß.", "Reis ist weiß."]}


def xnli_rows(language):
    texts = {"en": "The cat sleeps", "de": "Die Katze schläft"}
    return [
        {"premise": f"{texts[language]} {row // 3}.", "hypothesis": f"{texts[language]}, {row}?", "label": row % 3}
        for row in range(9)
    ]


def xquad_rows(language):
    where = {"en": "lies in town", "de": "liegt in Stadt"}[language]
    rows = []
    for row in range(8):
        context = f"Place {row // 2} {where} number {row // 2}."
        answer = f"number {row // 2}"
        answers = {"text": [answer], "answer_start": [context.index(answer)]}
        rows.append({"id": f"q{row}", "context": context, "question": f"{where} {row}?", "answers": answers})
    return rows


def write(folder, kind, rows, encoding="utf-8"):
    """A data set in the Hub's layout, from the rows of each language."""
    listed = []
    for language, held in rows.items():
        name = f"{language}/test.jsonl" if kind == "xnli" else f"xquad.{language}.jsonl"
        config, split = (language, "test") if kind == "xnli" else (f"xquad.{language}", "validation")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        content = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in held)
        (folder / name).write_bytes(content.encode(encoding))
        listed.append(f"- config_name: {config}\n  data_files:\n  - split: {split}\n    path: {name}\n")
    (folder / "README.md").write_text("---\nconfigs:\n" + "".join(listed) + "---\n", encoding="utf-8")
    return str(folder)


def load(kind, folder, **options):
    return XNLI(folder, split="test", **options) if kind == "xnli" else XQuAD(folder, **options)


ROWS = {"xnli": xnli_rows, "xquad": xquad_rows}
START = xquad_rows("de")[3]["answers"]["answer_start"][0]


def answers(text, start=START):
    return {"text": text, "answer_start": start}


# kind, field, value (a function takes it away), what the message says
BAD_FIELDS = [
    ("xnli", "label", -1, "'label' is -1, as where a test set hides its labels"),
    ("xnli", "label", 3, "'label' is 3, not 0"),
    ("xnli", "label", "entailment", "'label' is 'entailment'"),
    ("xnli", "label", None, "'label' is None"),
    ("xnli", "label", 1.0, "'label' is 1.0"),
    ("xnli", "label", True, "'label' is True"),
    ("xnli", "label", [1], r"'label' is \[1\]"),
    ("xnli", "label", "0", "'label' is '0'"),
    ("xnli", "label", float("nan"), "'label' is nan"),
    ("xquad", "answers", None, "'answers' is None"),
    ("xquad", "answers", "number 1", "'answers' is 'number 1'"),
    ("xquad", "answers", [], r"'answers' is \[\]"),
    ("xquad", "answers", {"text": ["number 1"]}, "'answers' is"),
    ("xquad", "answers", answers([], []), "two lists of one length"),
    ("xquad", "answers", answers(["number 1"], [START, START]), "two lists of one length"),
    ("xquad", "answers", answers("number 1"), "two lists of one length"),
    ("xquad", "answers", answers(["number 1"], [START + 1]), f"'number 1' is not at {START + 1} of the context"),
    ("xquad", "answers", answers(["number 1"], [-3]), "'answer_start' is -3"),
    ("xquad", "answers", answers(["number 1"], [9999]), "is not at 9999"),
    ("xquad", "answers", answers(["number 1"], [str(START)]), "'answer_start' is '"),
    ("xquad", "answers", answers(["number 1"], [float(START)]), "'answer_start' is "),
    ("xquad", "answers", answers(["number 1"], [None]), "'answer_start' is None"),
    ("xquad", "answers", answers(["number 1"], [True]), "'answer_start' is True"),
    ("xquad", "answers", answers([5], [START]), "an answer's 'text' is not a text but 5"),
    ("xquad", "answers", answers([""], [START]), "an answer's 'text' is empty"),
    ("xquad", "answers", answers([None], [START]), "an answer's 'text' is missing"),
    ("xquad", "id", "q1", "id 'q1' was at .*line 2 already"),
    ("xquad", "id", None, "'id' is missing"),
    ("xquad", "id", 1.5, "'id' is not a text but 1.5"),
    ("xquad", "id", "", "'id' is empty"),
]
BAD_TEXTS = [
    (None, "is missing"),
    ("", "is empty"),
    (" \n\t", "is empty"),
    ("\u3000", "is empty"),
    (5, "is not a text but 5"),
    (["a"], r"is not a text but \['a'\]"),
    ({"a": 1}, "is not a text but"),
    (False, "is not a text but False"),
    ("half \ud83d", "holds half a surrogate pair at character 5"),
    ("H\0e\0l\0", "holds a NUL"),
]
BAD_FIELDS += [
    (kind, field, value, f"'{field}' {words}")
    for kind, fields in (("xnli", ("premise", "hypothesis")), ("xquad", ("context", "question")))
    for field in fields
    for value, words in BAD_TEXTS
]


@pytest.mark.parametrize(("kind", "field", "value", "words"), BAD_FIELDS)
def test_a_bad_field_is_refused_by_file_and_line_or_dropped_and_counted(tmp_path, kind, field, value, words):
    rows = {language: ROWS[kind](language) for language in LANGUAGES}
    spoilt = LANGUAGES if field in ("id", "label") else ("de",)  # ids and labels are the same in every language
    for language in spoilt:
        rows[language][3][field] = value
    folder = write(tmp_path, kind, rows)
    where = r"line 4: " if field == "id" else r"line 4 \(example .*\): "
    with pytest.raises(cl.CorpusError, match=rf"{kind}: 'de': .*{where}.*{words}"):
        load(kind, folder)
    if field == "id" and value != "q1":
        return  # without ids nothing says which rows belong together
    task = load(kind, folder, on_bad="drop")
    whole = load(kind, write(tmp_path / "whole", kind, {code: ROWS[kind](code) for code in LANGUAGES}))
    assert task.dropped == 1
    assert len(task) == len(whole) - 1
    for language in LANGUAGES:
        texts = [example.fields for example in whole.examples(language)]
        assert [example.fields for example in task.examples(language)] == texts[:3] + texts[4:]
    assert task.data != whole.data


@pytest.mark.parametrize("kind", ["xnli", "xquad"])
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda rows: rows.insert(2, "{"), "line 3 is not JSON"),
        (lambda rows: rows.insert(2, '["a"]'), "line 3 is not a JSON object but a list"),
        (lambda rows: rows.insert(2, "7"), "line 3 is not a JSON object but a int"),
        (
            lambda rows: rows.insert(2, '{"premise": "a", "premise": "b"}'),
            "line 3 is not JSON .*'premise' is there twice",
        ),
        (lambda rows: rows.insert(2, "[" * 100_000), "line 3 is not JSON"),
        (lambda rows: rows.pop(), r"\d examples in 'de' but \d in 'en'|\d examples"),
        (lambda rows: rows.clear(), r"examples in|no rows"),
        (lambda rows: [row.pop("hypothesis", None) or row.pop("question") for row in rows], "no column '"),
        (lambda rows: rows[3].pop("hypothesis", None) or rows[3].pop("question"), "line 4 .*is missing"),
    ],
)
def test_bad_files(tmp_path, kind, spoil, words):
    rows = {language: ROWS[kind](language) for language in LANGUAGES}
    spoil(rows["de"])
    with pytest.raises(cl.CorpusError, match=words):
        load(kind, write(tmp_path, kind, rows))


@pytest.mark.parametrize("kind", ["xnli", "xquad"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1"])
def test_other_encodings_are_refused_by_line(tmp_path, kind, encoding):
    rows = {"de": [json.dumps(row, ensure_ascii=False) for row in ROWS[kind]("de")]}
    rows["de"][0] = rows["de"][0].replace("Stadt", "Städt")
    with pytest.raises(cl.CorpusError, match=r"line \d+ is not (UTF-8|JSON)"):
        load(kind, write(tmp_path, kind, rows, encoding=encoding))


@pytest.mark.parametrize("kind", ["xnli", "xquad"])
def test_what_is_unusual_and_right_is_read(tmp_path, kind):
    rows = {language: ROWS[kind](language) for language in LANGUAGES}
    plain = load(kind, write(tmp_path / "plain", kind, rows))
    marked = load(kind, write(tmp_path / "marked", kind, rows, encoding="utf-8-sig"))
    folder = tmp_path / "zipped"
    write(folder, kind, rows)
    for file in list(folder.rglob("*.jsonl")):
        file.with_name(file.name + ".gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    (folder / "README.md").unlink()  # then the file names tell the configurations
    for same in (marked, load(kind, str(folder))):
        assert same.chosen == plain.chosen
        assert same.data == plain.data


ENTRY = "- config_name: {}\n  data_files:\n  - split: test\n    path: {}\n"
LISTS = [
    (ENTRY.format("de", "../de/test.jsonl"), "which is not in the folder"),
    (ENTRY.format("de", "de/../../de/test.jsonl"), "which is not in the folder"),
    (ENTRY.format("de", "/etc/passwd"), "which is not in the folder"),
    (ENTRY.format("de", "de/nope.jsonl"), "no such file"),
    (ENTRY.format("de", "5"), "data_files of 'de' are neither paths"),
    (ENTRY.format("de", "[[1]]"), "data_files of 'de' are neither paths"),
    (ENTRY.format("de", "de/test.jsonl") * 2, "lists the configuration 'de' twice"),
    ("- config_name: de\n  data_files:\n  - split: test\n", "data_files of 'de' are neither paths"),
    ("- config_name: de\n  data_files: 5\n", "data_files of 'de' are neither paths"),
    ("- config_name: de\n  data_files: [5]\n", "data_files of 'de' are neither paths"),
    ("- de\n", "must be a list of entries"),
    ("  hallo\n", "must be a list of entries"),
    ("- [\n", "cannot be read"),
]


@pytest.mark.parametrize(("listed", "words"), LISTS)
def test_lists_of_files_that_are_none(tmp_path, listed, words):
    folder = write(tmp_path, "xnli", {language: xnli_rows(language) for language in LANGUAGES})
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{listed}---\n", encoding="utf-8")
    with pytest.raises(cl.CorpusError, match=words):
        load("xnli", folder)


TABLES = {
    "a column twice.csv": (b"premise,hypothesis,label,label\na,b,0,1\n", "a column is there twice"),
    "ragged.csv": (b"premise,hypothesis,label\na,b\n", "cannot be read as csv"),
    "labels as words.csv": (b"premise,hypothesis,label\na,b,neutral\n", "'label' is 'neutral'"),
    "labels as floats.csv": (b"premise,hypothesis,label\na,b,0.0\n", "'label' is 0.0"),
    "numbers as texts.csv": (b"premise,hypothesis,label\n12,b,0\n", "'premise' is not a text but 12"),
    "commas in a tsv.tsv": (b"premise,hypothesis,label\na,b,0\n", "no column 'premise'"),
    "no parquet.parquet": (b"PAR1 and nothing", "cannot be read as parquet"),
    "a field twice.json": (b'[{"premise": "a", "hypothesis": "b", "label": 0, "label": 1}]', "is there twice"),
    "no list.json": (b"[5]", "is not an object but a int"),
    "cut.json": (b'[{"premise": "a"', "is not JSON"),
    "cut.jsonl.gz": (gzip.compress(b'{"premise": "a", "hypothesis": "b", "label": 0}')[:-9], "cannot be read"),
}


@pytest.mark.parametrize("name", list(TABLES))
def test_tables_that_are_none(tmp_path, name):
    content, words = TABLES[name]
    (tmp_path / "de").mkdir()
    (tmp_path / "de" / ("test." + name.partition(".")[2])).write_bytes(content)
    with pytest.raises(cl.CorpusError, match=words):
        load("xnli", str(tmp_path))


@pytest.mark.parametrize("kind", ["xnli", "xquad"])
@pytest.mark.parametrize("source", ["{}/nowhere", "./nowhere", "nowhere", "", "~/nowhere", "a/b/c", "['a/b']"])
def test_no_such_folder(tmp_path, kind, source):
    with pytest.raises(cl.CorpusError, match="no such folder"):
        load(kind, source.format(tmp_path))


def test_copies_beside_a_split_and_lost_parts_of_it_are_refused(tmp_path):
    folder = write(tmp_path, "xnli", {language: xnli_rows(language) for language in LANGUAGES})
    (tmp_path / "README.md").unlink()  # the file names tell the splits
    whole = load("xnli", folder)
    (tmp_path / "de/test-backup.jsonl").write_bytes((tmp_path / "de/test.jsonl").read_bytes())
    with pytest.raises(cl.CorpusError, match=r"several files for one split, test-backup.jsonl, test.jsonl: keep one"):
        load("xnli", folder)
    (tmp_path / "de/test-backup.jsonl").unlink()
    lines = (tmp_path / "de/test.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "de/test.jsonl").unlink()
    (tmp_path / "de/test-00000-of-00002.jsonl").write_text("".join(lines[:5]))
    with pytest.raises(cl.CorpusError, match=r"has 1 of 2 parts, test-00000-of-00002.jsonl: copy the others"):
        load("xnli", folder)
    (tmp_path / "de/test-00001-of-00002.jsonl").write_text("".join(lines[5:]))
    assert load("xnli", folder).chosen == whole.chosen


@pytest.mark.parametrize("kind", ["xnli", "xquad"])
def test_the_folder_named_is_what_is_read(tmp_path, kind):
    """Edited in place, and two folders of one base name: `datasets` would read the first again."""
    corpus = Corpus.xnli if kind == "xnli" else Corpus.xquad
    options = {"split": "test"} if kind == "xnli" else {}
    field = "premise" if kind == "xnli" else "question"
    rows = {language: ROWS[kind](language) for language in LANGUAGES}
    seen = []
    for place, word in (("a/data", "First"), ("b/data", "Second"), ("a/data", "Third")):
        changed = copy.deepcopy(rows)
        changed["en"][0][field] = f"{word} text."
        folder = write(tmp_path / place, kind, changed)
        task, texts = load(kind, folder), corpus(folder, **options)
        assert task.examples("en")[0].fields[field] == f"{word} text."
        assert f"{word} text." in texts["en"][0]
        seen.append((task.data, texts.fingerprint("en")))
    assert len(set(seen)) == 3


@pytest.mark.parametrize("kind", ["xnli", "xquad"])
@pytest.mark.parametrize(
    ("languages", "words"),
    [
        (("de", "de"), "language 'de' is given twice"),
        (("fr",), "no language 'fr' in .*; available: de, en"),
        (("EN",), "written 'en'"),
        (("xx",), "unknown language"),
        (("",), "unknown language"),
    ],
)
def test_languages_of_tasks_and_corpora(tmp_path, kind, languages, words):
    folder = write(tmp_path, kind, {language: ROWS[kind](language) for language in LANGUAGES})
    corpus = Corpus.xnli if kind == "xnli" else Corpus.xquad
    with pytest.raises(ValueError, match=words):
        load(kind, folder, languages=languages)
    with pytest.raises(ValueError, match=words):
        corpus(folder, languages)


def test_parts_need_xquads_own_paragraphs(tmp_path):
    folder = write(tmp_path, "xquad", {language: xquad_rows(language) for language in LANGUAGES})
    with pytest.raises(cl.CorpusError, match="cannot be split by article"):
        XQuAD(folder, part="tuning")
    with pytest.raises(cl.CorpusError, match="cannot be split by article"):
        corpus_part(Corpus.xquad(folder), "test")
    with pytest.raises(TaskError, match="asked for 99 examples of 8"):
        XQuAD(folder, limit=99)


# --- texts ---


@pytest.mark.parametrize(
    ("texts", "options", "words"),
    [
        ({"en": "Hello"}, {}, r"texts in 'en' must be a list, got 'Hello'"),
        ({"en": b"Hello"}, {}, "must be a list"),
        ({"en": {"a": "b"}}, {}, "must be a list"),
        *(
            ({"en": ["good", value]}, {}, rf"language 'en', line 2 \(example '1'\) {words}")
            for value, words in BAD_TEXTS
        ),
        ({"en": [b"bytes"]}, {}, "is not a text but b'bytes'"),
        ({"en": ["a", "b"]}, {"ids": "xy"}, "ids must be a list"),
        ({"en": ["a", "b"]}, {"ids": ["x", None]}, "the id on line 2 is missing"),
        ({"en": ["a", "b"]}, {"ids": ["x", "x"]}, "'x' is on line 1 and again on line 2"),
        ({"en": ["a", "b"]}, {"ids": ["1", 1]}, "'1' is on line 1 and again on line 2"),
        ({"en": ["a", "b"]}, {"ids": [1.5, 2]}, "the id on line 1 is not a text"),
        ({"en": ["a", "b"]}, {"groups": "gh"}, "groups must be a list"),
        ({"en": ["a"], "de": ["b", "c"]}, {}, "'en' has 1 texts for 2 examples"),
        ({"en": ["a"]}, {"name": ""}, "needs a name"),
        ({"EN": ["a"]}, {}, "written 'en'"),
        ({"german": ["a"]}, {}, "unknown language"),
        ({}, {}, "at least one language"),
    ],
)
def test_from_texts(texts, options, words):
    with pytest.raises(ValueError, match=words):
        Corpus.from_texts(texts, **options)


def test_from_texts_reads_what_can_be_gone_through():
    corpus = Corpus.from_texts({code: (text for text in texts) for code, texts in TWO.items()}, ids=range(5, 7))
    assert corpus["de"] == tuple(TWO["de"])
    assert corpus.ids == ("5", "6")
    assert "de" in corpus
    assert "fr" not in corpus
    assert list(corpus) == ["en", "de"]


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda c: c.select(["en", "en"]), "'en' is given twice"),
        (lambda c: c.select([]), "no languages given"),
        (lambda c: c.select("en"), r"must be a list such as \['en'\]"),
        (lambda c: c.select(["fr"]), "no language 'fr'; available: en, de"),
        (lambda c: c.take([5]), "no row 5"),
        (lambda c: c.take([-1]), "no row -1"),
        (lambda c: c.take([]), "no examples"),
        (lambda c: c.sample(0), "whole number, at least 1; got 0"),
        (lambda c: c.sample(3), "asked for 3 samples of 2"),
        (lambda c: c["en-US"], "no language 'en-US'"),
        (lambda c: Corpus.bundled("en,de"), r"must be a list such as \['en', 'de'\], got 'en,de'"),
        (lambda c: Corpus.bundled(["en", "en"]), "'en' is given twice"),
        (lambda c: Corpus.bundled(["pt"]), "no language 'pt'"),
        (lambda c: Corpus.bundled([]), "no languages given"),
        (lambda c: Corpus.bundled(["en"], fields=["answers"]), "no field 'answers'; available: passage"),
        (lambda c: Corpus.bundled(["en"], fields="passage"), "fields must be a list"),
        (lambda c: Corpus.bundled(["en"], fields=[]), "no fields given"),
        (lambda c: XNLI("bundled", ("en", "en")), "'en' is given twice"),
        (lambda c: XQuAD("bundled", ("en",), max_new_tokens=0), "max_new_tokens must be a whole number"),
    ],
)
def test_parts_of_a_corpus(ask, words):
    with pytest.raises(ValueError, match=words):
        ask(Corpus.from_texts(TWO))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"id": 1, "text": "half \\ud83d"}', "'text' holds half a surrogate pair at character 5"),
        ('{"id": 1, "text": "a\\u0000"}', "'text' holds a NUL"),
        ('{"id": 1, "text": ""}', "'text' is empty"),
        ('{"id": 1, "text": 5}', "'text' is not a text but 5"),
        ('{"id": null, "text": "a"}', "'id' is missing"),
        ('{"id": [1], "text": "a"}', "'id' is not a text"),
        ('{"id": 1}', "no field 'text'"),
        ('{"text": "a"}', "no field 'id'"),
        ("nonsense", "is not JSON"),
        ("", "is not JSON"),
        ('{"id": 0, "text": "b"}', "'0' is on line 1 and again on line 2"),
    ],
)
def test_jsonl(tmp_path, line, words):
    (tmp_path / "en.jsonl").write_text('{"id": 0, "text": "a"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(cl.CorpusError, match=words):
        Corpus.from_jsonl({"en": tmp_path / "en.jsonl"})
    with pytest.raises(cl.CorpusError, match=words):
        Corpus.from_jsonl(tmp_path)


def test_text_folders(tmp_path):
    (tmp_path / "en.txt").write_bytes(b"\xef\xbb\xbftea\nrice\n")
    (tmp_path / "de.txt.gz").write_bytes(gzip.compress(b"Tee\nReis\n"))
    corpus = Corpus.from_files(tmp_path)
    assert corpus["de"] == ("Tee", "Reis")
    assert corpus["en"] == ("tea", "rice")
    (tmp_path / "de.txt").write_text("Tee\nReis\n", encoding="utf-8")
    with pytest.raises(cl.CorpusError, match=r"both de.txt and de.txt.gz are there"):
        Corpus.from_files(tmp_path)
    (tmp_path / "de.txt.gz").write_bytes(b"no gzip")
    (tmp_path / "de.txt").unlink()
    with pytest.raises(cl.CorpusError, match=r"de.txt.gz cannot be read"):
        Corpus.from_files(tmp_path)
    (tmp_path / "de.txt.gz").unlink()
    (tmp_path / "de.txt").write_text("Tee\nReis\n", encoding="utf-16")
    with pytest.raises(cl.CorpusError, match=r"de.txt, line 1 is not UTF-8"):
        Corpus.from_files(tmp_path)
