"""The words of the domain, each choice said once, and language codes. Loads no torch: the command line is built from these."""

from typing import Literal

import langcodes

# models
Backend = Literal["hooked", "bridge"]

# corpus
Part = Literal["statistics", "tuning", "test"]
Use = Literal["tuning", "test"]
PaddingSide = Literal["left", "right"]

# what is measured and how it is pooled
Quantity = Literal["h", "gate", "gate_act"]
Pooling = Literal["sample", "token", "last"]
Pool = Literal["mean", "last"]
Activity = Literal["mean", "abs_mean", "firing_rate"]

# steering
Positions = Literal["all", "last", "generated"]
Specific = Literal["union", "current", "others"]
SiteKind = Literal["up", "mlp", "residual"]  # in the order in which a layer computes them
MlpSite = Literal["gate", "post"]
Statistic = Literal["mean", "percentile", "zero"]
Missing = Literal["raise", "untouched"]
Blend = Literal["interpolate", "add"]

# tasks, methods, tests
TaskName = Literal["xnli", "xquad"]
PromptStyle = Literal["plain", "chat"]
Instruction = Literal["native", "en"]
Method = Literal[
    "base",
    "clas",
    "int-mu",
    "int-mu-clas",
    "diff-mean",
    "incline",
    "random",
    "other-categories",
    "uniform",
    "noise",
]
Test = Literal["McNemar", "sign-flip"]
IntervalMethod = Literal["t", "percentile"]


def check_language(code: str) -> str:
    """Return `code` if it is a BCP 47 tag in its standard form ("en", "zh-Hans", "pt-BR").

    A nonstandard spelling is refused rather than mended: steering "EN" or "eng" as if it were not the anchor "en" would
    silently change results.

    Raises:
        ValueError: not a language tag, or another spelling of one (which the message gives).
    """
    try:
        standard = langcodes.standardize_tag(code)
        known = langcodes.tag_is_valid(code)
    except (langcodes.LanguageTagError, AttributeError, TypeError):
        standard, known = None, False
    if standard is None or not known:
        raise ValueError(f"unknown language {code!r}: expected a BCP 47 code such as 'en', 'de' or 'zh-Hans'")
    if standard != code:
        raise ValueError(f"language {code!r} is written {standard!r}")
    return code
