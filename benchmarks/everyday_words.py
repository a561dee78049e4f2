"""The word list of `cl.lens` against real translations: `python -m benchmarks.everyday_words`.

FLORES-200 dev has the same sentences in all 16 languages. For each word that two English sentences or more have, it counts the
translations that have ours, as it stands or by its beginning (without its last two letters, as languages inflect). A word that
none has may be wrong, or a synonym of the one that translators took; a short word may be found inside others.
"""

import argparse
import re
from pathlib import Path

import clas_lens as cl
from benchmarks.measure import Row, print_table, write_results

DATA = Path(__file__).parents[2] / "shared" / "data" / "flores-200" / "dev"
LEAST = 2  # English sentences with a word


def sentences(language: str) -> list[str]:
    """One a line, the same in every language."""
    (path,) = DATA.glob(f"{language}*")
    return path.read_text(encoding="utf-8").casefold().splitlines()


def found(word: str, texts: list[str]) -> int:
    """How many texts have the word, or its beginning."""
    stem = word.casefold()
    stem = stem if len(stem) < 5 else stem[:-2]
    return sum(stem in text for text in texts)


def main() -> None:
    """Count, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.everyday_words", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    words = cl.lens.everyday_words()
    english = sentences("en")
    places = {
        word: [row for row, text in enumerate(english) if re.search(rf"\b{word}s?\b", text)] for word in words.index
    }
    asked = [word for word, rows in places.items() if len(rows) >= LEAST]
    table: list[Row] = []
    for language in words.columns:
        texts = sentences(language)
        counts = {word: found(words[language][word], [texts[row] for row in places[word]]) for word in asked}
        missing = [f"{words[language][word]} ({word}, 0 of {len(places[word])})" for word in asked if not counts[word]]
        table.append(
            {
                "language": language,
                "asked": len(asked),
                "attested": len(asked) - len(missing),
                "not_found": "; ".join(missing),
            }
        )
    print_table(table)
    write_results(options.out / "everyday_words.json", "everyday words", {"least": LEAST}, table)


if __name__ == "__main__":
    main()
