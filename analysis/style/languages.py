"""One colour and one symbol a language, the same in every figure, whatever other languages are in it.

The colours were chosen by a search for the largest smallest distance (OKLab) between any two, in normal vision and as seen
with deuteranopia and protanopia, that still stand out on white and on near-black; and the symbols so that the colours that
are closest never share one.
"""

import hashlib

from clas_lens.given import given

ANCHOR_COLOUR, ANCHOR_SYMBOL = "#DB2449", "star"


# (colour, symbol): the languages of XNLI, XQuAD and the bundled corpus. English alone has the star.
_STYLES = {
    "en": (ANCHOR_COLOUR, ANCHOR_SYMBOL),
    "ar": ("#DB7900", "circle"),
    "bg": ("#61AA6D", "diamond"),
    "de": ("#0086CE", "diamond"),
    "el": ("#0CCEE7", "diamond"),
    "es": ("#86CE00", "triangle-down"),
    "fr": ("#4931FF", "triangle-up"),
    "hi": ("#FF79AA", "circle"),
    "ro": ("#929EF3", "triangle-up"),
    "ru": ("#556D0C", "square"),
    "sw": ("#9E7986", "triangle-up"),
    "th": ("#9E00C2", "triangle-down"),
    "tr": ("#615592", "circle"),
    "ur": ("#DBB686", "square"),
    "vi": ("#B661FF", "triangle-down"),
    "zh": ("#F318C2", "square"),
}


_COLOURS = tuple(colour for colour, symbol in _STYLES.values() if symbol != ANCHOR_SYMBOL)


_OTHER_SYMBOLS = ("pentagon", "hexagon", "hourglass", "bowtie", "cross", "x", "star-square", "star-diamond")


_NAMES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "ro": "Romanian",
    "ru": "Russian",
    "sw": "Swahili",
    "th": "Thai",
    "tr": "Turkish",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh": "Chinese",
}


def language_name(code: str) -> str:
    """What a language is called in titles; its code where it is none of XNLI's, XQuAD's or the bundled corpus's."""
    given(code, str, "a language code is needed", "such as 'de'")
    return _NAMES.get(code, code)


def language_style(code: str) -> tuple[str, str]:
    """A language's (colour, symbol). One that is not in the table gets its own from its code, with another set of symbols."""
    given(code, str, "a language code is needed", "such as 'de'")
    if code in _STYLES:
        return _STYLES[code]
    number = int.from_bytes(hashlib.sha256(code.encode()).digest()[:8])
    return _COLOURS[number % len(_COLOURS)], _OTHER_SYMBOLS[number // len(_COLOURS) % len(_OTHER_SYMBOLS)]
