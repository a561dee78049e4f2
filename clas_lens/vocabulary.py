"""The words of the domain, each choice said once, and language codes. Loads no torch: the command line is built from these."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import langcodes

# models
Backend = Literal["hooked", "bridge"]
DType = Literal["float32", "bfloat16", "float16"]

# corpus
Part = Literal["statistics", "tuning", "test"]
Use = Literal["tuning", "test"]
CorpusName = Literal["bundled", "xquad", "xnli", "files"]
Split = Literal["validation", "test"]  # of XNLI
PaddingSide = Literal["left", "right"]

OnBad = Literal["raise", "drop"]

# what is measured and how it is pooled
Quantity = Literal["h", "gate", "gate_act"]
Pooling = Literal["sample", "token", "last"]
Pool = Literal["mean", "last"]
ReadSite = Literal["residual", "mlp_out"]  # where sentences are read
MapInit = Literal["pca", "random"]
Activity = Literal["mean", "abs_mean", "firing_rate"]
# Its title, and which measures are shares, with thresholds in [0, 1).
ACTIVITY_TITLES: Mapping[Activity, str] = {
    "mean": "mean activation",
    "abs_mean": "|mean activation|",
    "firing_rate": "P(activation > 0)",
}
SHARES: frozenset[Activity] = frozenset({"firing_rate"})
QuantileOver = Literal["pooled", "language"]
NullRates = Literal["fair", "measured"]

# steering
Positions = Literal["all", "last", "generated", "prompt_last"]
# In sentences, and which of them change nothing in a prompt or another text that is read.
POSITION_TITLES: Mapping[Positions, str] = {
    "all": "at all positions",
    "last": "at the last position",
    "generated": "at generated tokens",
    "prompt_last": "at the prompt's last position",
}
AFTER_PROMPTS: frozenset[Positions] = frozenset({"generated"})
AdaptBy = Literal["margin", "distance"]
Specific = Literal["union", "current", "others"]
SiteKind = Literal["attn", "up", "mlp", "mlp_out", "residual"]  # in the order in which a layer computes them
UnitSite = Literal["mlp", "attn"]  # where single units are measured and rescaled
MlpSite = Literal["gate", "post"]
Statistic = Literal["mean", "percentile", "zero"]
Missing = Literal["raise", "untouched"]
Blend = Literal["interpolate", "add"]
Toward = Literal["anchor", "own"]

# the latent language
LensPrompt = Literal["translation", "repetition", "cloze"]

# causes
ScanOver = Literal["layers", "categories", "heads", "neurons"]
ComponentEdit = Literal["mean", "zero", "rescale"]
PatchSite = Literal["residual", "mlp", "heads"]
CauseMeasure = Literal["log_prob", "kl", "score"]
CauseValue = Literal["change", "beyond", "specific"]

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
    "diff-mean-unit",
    "incline",
    "incline-released",
    "language-arithmetics",
    "amplify",
    "sadi",
    "recover",
    "random",
    "other-categories",
    "uniform",
    "noise",
    "shuffled",
]
BASE: Method = "base"  # what all are compared with
CLAS: Method = "clas"  # what is shown where one is
# What a report calls them.
METHOD_TITLES: Mapping[str, str] = {
    "base": "the unsteered model",
    "clas": "CLAS",
    "int-mu": "Int_mu (a language's LAPE neurons set to their mean)",
    "int-mu-clas": "Int_mu on CLAS's language-specific neurons",
    "diff-mean": "DiffMean (the difference of language means added to the residual stream)",
    "incline": "INCLINE (a least-squares map to the anchor's states)",
    "diff-mean-unit": "DiffMean with unit vectors, its layer searched with alpha",
    "incline-released": "INCLINE as released (MLP outputs of all layers, the prompt's last position)",
    "language-arithmetics": "Language Arithmetics (the anchor's LAPE neurons plus their mean, the language's own at 0)",
    "amplify": "amplified language neurons (a language's LAPE neurons times 1 + alpha)",
    "sadi": "SADI (neurons that prefer the anchor at the last token, times 1 + alpha there)",
    "recover": "ReCoVeR (the language's unit vector added in every layer, norms kept)",
    "random": "CLAS on random masks of the same size per layer, matched on size of effect",
    "other-categories": "CLAS on the other two categories",
    "uniform": "all neurons rescaled alike",
    "noise": "Gaussian noise of the same norm (one direction a layer)",
    "shuffled": "CLAS on categories of texts whose language labels were shuffled",
}
CONTROLS: tuple[Method, ...] = ("random", "other-categories", "uniform", "noise", "shuffled")
# Those that are made of the MLP's gates, or write its neurons.
OF_THE_MLP: frozenset[Method] = frozenset({"int-mu", "int-mu-clas", "language-arithmetics", "amplify", "sadi"})
# From the first bridge layer on, all, or all from the one on that is searched with alpha.
PassLayers = Literal["none", "bridge", "all", "searched"]
Test = Literal["McNemar", "sign-flip"]
Verdict = Literal["helps", "harms", "no difference", "cannot tell"]
IntervalMethod = Literal["t", "percentile"]

# what is shown and written
ExportTarget = Literal["checkpoint", "peft", "gguf", "lora", "gguf-lora", "control-vector"]
ReportTexts = Literal["measured", "bundled"]
FigureFormat = Literal["html", "png", "svg", "pdf"]
TableFormat = Literal["latex", "csv", "html"]
Theme = Literal["paper", "light", "dark"]
MaskKind = Literal["clas", "matched random", "other categories", "uniform"]


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


def check_languages(languages: Any, what: str = "languages") -> tuple[str, ...]:
    """The codes of a list of languages, each in its standard form and there once.

    Raises:
        ValueError: a single text ("en,de"), no languages, a language twice, or what `check_language` refuses.
    """
    if isinstance(languages, str | bytes) or not isinstance(languages, Iterable) or getattr(languages, "ndim", 1) == 0:
        codes = [code.strip() for code in languages.split(",")] if isinstance(languages, str) else ["en", "de"]
        raise ValueError(f"{what}: languages must be a list such as {codes}, got {languages!r}")
    chosen = tuple(check_language(code) for code in languages)
    if not chosen:
        raise ValueError(f"{what}: no languages given")
    twice = [code for code in chosen if chosen.count(code) > 1]
    if twice:
        raise ValueError(f"{what}: language {twice[0]!r} is given twice")
    return chosen


def check_anchor(anchor: str, languages: Iterable[str]) -> str:
    """Return `anchor` if it is one of the languages and no other one is the same language elsewhere ("en-US" under "en").

    Raises:
        ValueError: it is not among them, or a variety of it is, which would be steered as if it were another language.
    """
    there = tuple(languages)
    if anchor not in there:
        raise ValueError(f"the anchor {anchor!r} is not among the languages: {', '.join(there)}")
    close = [code for code in there if code != anchor and code.split("-")[0] == anchor.split("-")[0]]
    if close:
        raise ValueError(
            f"{close[0]!r} and the anchor {anchor!r} are one language: steering one as a language other than the anchor "
            "means nothing. Leave it out, or make it the anchor."
        )
    return anchor


def fits_activity(activity: Activity, threshold: float) -> bool:
    """Whether a neuron's activity of this kind can be above and below `threshold`: one of a share is in [0, 1)."""
    return activity not in SHARES or 0 <= threshold < 1
