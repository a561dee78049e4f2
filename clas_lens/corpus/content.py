"""What a text says, whatever it is called: hashes by which examples are known again under other names, in other orders."""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

CONTENT_PREFIX = "text/"


def text_hash(text: str) -> str:
    """Ten hexadecimal digits of a text, the same for other white space, case and Unicode form of it."""
    same = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(same.encode("utf-8", "surrogatepass")).hexdigest()[:10]


def texts_behind(texts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The names `text/<hash>` of what was read, from the records of each language's texts."""
    hashes = dict.fromkeys(one for text in texts.values() for one in text.get("content", ()))
    return [CONTENT_PREFIX + one for one in hashes]


@cache
def xquad_article_of() -> Mapping[str, int]:
    """The article, 0..47, of each paragraph of XQuAD in its 12 languages, by the paragraph's `text_hash`."""
    table = json.loads((files("clas_lens") / "data" / "xquad_articles.json").read_text(encoding="utf-8"))
    return {one: place for articles in table.values() for place, article in enumerate(articles) for one in article}


def example_keys(corpus: str, ids: Iterable[str]) -> list[str]:
    """The names under which examples are known across corpora and tasks: `<corpus>/<id>`."""
    return [f"{corpus}/{example}" for example in ids]
