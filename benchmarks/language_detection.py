"""Two language detectors on FLORES-200, whole sentences and short pieces: `python -m benchmarks.language_detection`.

The level from which a text is believed is chosen on the first half of dev and everything is reported on the second, which is
apart from it (devtest is not among the data here).

Each knows that a text is in one of the 16 languages. What matters for routing is not accuracy alone: an anchor text
taken for another language would be steered, another text taken for the anchor only stays as it is. Needs
`lingua-language-detector` and `py3langid`.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.measure import Row, print_table, write_results

DATA = Path(__file__).parents[2] / "shared" / "data" / "flores-200" / "dev"
ANCHOR = "en"
SURE = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
MOST_WRONG = 0.2  # percent of short pieces, steered as another language than theirs, that a level may make
UNSPACED = ("th", "zh")
# A detector: texts -> for each the most probable language and its confidence, among those given.
Detector = Callable[[Sequence[str]], list[tuple[str, float]]]


def lingua_detector(languages: Sequence[str]) -> Detector:
    """lingua with its full models, the texts on all cores."""
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    codes = [getattr(IsoCode639_1, code.upper()) for code in languages]
    detector = LanguageDetectorBuilder.from_iso_codes_639_1(*codes).build()

    def detect(texts: Sequence[str]) -> list[tuple[str, float]]:
        found = detector.compute_language_confidence_values_in_parallel(list(texts))
        return [(one[0].language.iso_code_639_1.name.lower(), one[0].value) for one in found]

    return detect


def py3langid_detector(languages: Sequence[str]) -> Detector:
    """py3langid with probabilities."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(languages))

    def detect(texts: Sequence[str]) -> list[tuple[str, float]]:
        return [(code, float(value)) for code, value in map(identifier.classify, texts)]

    return detect


def pieces(text: str, language: str) -> dict[str, str]:
    """A sentence, its first 20 characters, its first 3 words (6 characters where no spaces are written)."""
    words = text[:6] if language in UNSPACED else " ".join(text.split()[:3])
    return {"sentence": text, "first 20 characters": text[:20], "first 3 words": words}


def measured(name: str, detect: Detector, texts: dict[str, list[str]], piece: str) -> list[Row]:
    """One row a level of confidence, below which a text goes to the anchor."""
    flat = [(code, pieces(text, code)[piece]) for code, lines in texts.items() for text in lines]
    detect([text for _, text in flat[:50]])  # loads what is loaded late
    start = time.perf_counter()
    found = detect([text for _, text in flat])
    seconds = time.perf_counter() - start
    rows = []
    for sure in SURE:
        routed = [
            (truth, code if value >= sure else ANCHOR) for (truth, _), (code, value) in zip(flat, found, strict=True)
        ]
        anchor = [code for truth, code in routed if truth == ANCHOR]
        others = [pair for pair in routed if pair[0] != ANCHOR]
        by_language = {c: [code == truth for truth, code in routed if truth == c] for c in texts}
        worst = min(by_language, key=lambda code: sum(by_language[code]) / len(by_language[code]))
        rows.append(
            {
                "detector": name,
                "piece": piece,
                "sure_from": sure,
                "right_percent": percent(sum(truth == code for truth, code in routed), len(routed)),
                "anchor_steered_percent": percent(sum(code != ANCHOR for code in anchor), len(anchor)),
                "other_untouched_percent": percent(sum(code == ANCHOR for _, code in others), len(others)),
                "other_as_another_percent": percent(sum(code not in (ANCHOR, t) for t, code in others), len(others)),
                "worst": f"{worst} {percent(sum(by_language[worst]), len(by_language[worst]))}",
                "texts_per_second": round(len(flat) / seconds),
            }
        )
    return rows


def chosen(rows: list[Row]) -> float:
    """The lowest level at which, of the part to choose on, no anchor text and at most `MOST_WRONG` percent of others, of any
    piece, are steered as a language that they are not in.
    """
    for sure in SURE:
        own = [row for row in rows if row["part"] == "choice" and row["sure_from"] == sure]
        wrong = max(row["other_as_another_percent"] for row in own)
        if wrong <= MOST_WRONG and all(row["anchor_steered_percent"] == 0 for row in own):
            return sure
    raise ValueError(f"no level keeps within {MOST_WRONG} percent")


def percent(part: int, whole: int) -> float:
    """With one decimal."""
    return round(100 * part / whole, 1)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.language_detection", description=__doc__)
    parser.add_argument("--texts", type=int, default=200, help="sentences a language and part")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    options = parser.parse_args()
    lines = {path.stem: path.read_text(encoding="utf-8").splitlines() for path in sorted(DATA.glob("*.txt"))}
    half = len(next(iter(lines.values()))) // 2
    parts = {"choice": slice(0, half), "report": slice(half, None)}
    rows: list[Row] = []
    for name, make in (("lingua", lingua_detector), ("py3langid", py3langid_detector)):
        detect = make(list(lines))
        for part, where in parts.items():
            texts = {code: own[where][: options.texts] for code, own in lines.items()}
            for piece in pieces("", ANCHOR):
                rows += [{"part": part, **row} for row in measured(name, detect, texts, piece)]
    print_table(rows)
    levels = {name: chosen([row for row in rows if row["detector"] == name]) for name in ("lingua", "py3langid")}
    print(f"chosen: {levels}")
    settings = {"texts": options.texts, "chosen": levels}
    write_results(options.out / "language_detection.json", "language_detection", settings, rows)


if __name__ == "__main__":
    main()
