"""How often intervals of a gain hold the truth, tests within a language reject, and verdicts are wrong, by simulation.

`python -m benchmarks.coverage_of_intervals` writes benchmarks/results/coverage.json. No model is needed: gains are drawn as
XQuAD's are (paragraphs of one to nine questions, most scores unchanged, the rest anywhere) and as XNLI's (premises of three
hypotheses, right or wrong, which in half of the premises that change do so together).
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from scipy import stats

from clas_lens.significance.pairs import PairedScores
from clas_lens.significance.power import judge, verdict_of
from clas_lens.significance.tests import mcnemar_p, sign_flip_p
from clas_lens.vocabulary import Verdict

GROUPS = (5, 10, 20, 40, 80)


LEVEL = 0.95
MARGIN = 0.03  # of the verdicts


Numbers = Any  # one number a group, or a draw and group


Drawn = tuple[Numbers, Numbers]  # totals and sizes


def xquad_like(rng: np.random.Generator, groups: int, gain: float) -> list[Numbers]:
    """The gains of the questions of each paragraph; their mean is `gain`."""
    sizes = rng.integers(1, 10, groups)
    moods = rng.normal(0, 0.1, groups)
    return [
        np.where(rng.random(size) < 0.6, 0.0, rng.beta(0.8, 0.8, size) * 2 - 1) + mood + gain
        for size, mood in zip(sizes, moods, strict=True)
    ]


def xnli_like(rng: np.random.Generator, groups: int, gain: float) -> list[Numbers]:
    """-1, 0 or 1 a hypothesis, three a premise; their mean is `gain`."""
    changed = 0.2
    won = (1 + gain / changed) / 2
    parts = []
    for together in rng.random(groups) < 0.5:
        number = 1 if together else 3
        signs = np.where(rng.random(number) < won, 1.0, -1.0) * (rng.random(number) < changed)
        parts.append(np.repeat(signs, 3) if together else signs)
    return parts


LIKE: dict[str, Callable[[np.random.Generator, int, float], list[Numbers]]] = {"XQuAD": xquad_like, "XNLI": xnli_like}


def intervals(rng: np.random.Generator, totals: Numbers, sizes: Numbers, draws: int) -> dict[str, tuple[float, float]]:
    """Four intervals of totals.sum() / sizes.sum(), by method."""
    n, tail = len(sizes), (1 - LEVEL) / 2
    mean, error = _mean_and_error(totals, sizes)
    chosen = rng.integers(0, n, (draws, n))
    means, errors = _mean_and_error(totals[chosen], sizes[chosen])
    half = stats.t.ppf(1 - tail, n - 1) * error
    low, high = np.quantile(means, [tail, 1 - tail])
    with np.errstate(divide="ignore", invalid="ignore"):
        pivots = np.nan_to_num((means - mean) / errors, nan=0.0)
    first, last = np.quantile(np.clip(pivots, -1e6, 1e6), [tail, 1 - tail])
    return {
        "t": (mean - half, mean + half),
        "percentile": (low, high),
        "bootstrap-t": (mean - last * error, mean - first * error),
        "BCa": _bca(totals, sizes, mean, means, tail),
    }


def _mean_and_error(totals: Numbers, sizes: Numbers) -> tuple[Numbers, Numbers]:
    """The ratio of totals to sizes, and its linearised standard error."""
    n = sizes.shape[-1]
    mean = totals.sum(-1) / sizes.sum(-1)
    spread = (totals - np.expand_dims(mean, -1) * sizes) / sizes.mean(-1, keepdims=True)
    return mean, spread.std(-1, ddof=1) / np.sqrt(n)


def _bca(totals: Numbers, sizes: Numbers, mean: float, means: Numbers, tail: float) -> tuple[float, float]:
    """Efron's bias-corrected and accelerated interval."""
    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    if not 0 < below < 1:
        return mean, mean
    bias = stats.norm.ppf(below)
    left_out = (totals.sum() - totals) / (sizes.sum() - sizes)
    off = left_out.mean() - left_out
    spread = (off**2).sum() ** 1.5
    bend = (off**3).sum() / (6 * spread) if spread else 0.0
    shifted = bias + stats.norm.ppf([tail, 1 - tail])
    low, high = np.quantile(means, stats.norm.cdf(bias + shifted / (1 - bend * shifted)))
    return low, high


def coverage(like: str, groups: int, *, studies: int, draws: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """One row a method: in which share of the studies its interval holds the truth, and how wide it is (points)."""
    rng = np.random.default_rng(seed)
    gain, found = 0.05, []
    for _ in range(studies):
        parts = LIKE[like](rng, groups, gain)
        totals, sizes = np.array([part.sum() for part in parts]), np.array([len(part) for part in parts])
        found.append(intervals(rng, totals, sizes, draws))
    for method in found[0]:
        lows, highs = np.array([one[method] for one in found]).T
        covered = float(((lows <= gain) & (gain <= highs)).mean())
        width = float(np.median(100 * (highs - lows)))
        yield {"like": like, "groups": groups, "method": method, "coverage": covered, "width": round(width, 2)}


def rejections(groups: int, gain: float, *, studies: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """One row a test of XNLI-like answers: how often p < 0.05. At gain 0 that is its size, else its power."""
    rng = np.random.default_rng(seed)
    p_values: dict[str, list[float]] = {"McNemar": [], "sign-flip of premises": []}
    for _ in range(studies):
        parts = xnli_like(rng, groups, gain)
        gains = np.concatenate(parts)
        p_values["McNemar"].append(mcnemar_p(gains < 0, gains > 0))
        p_values["sign-flip of premises"].append(sign_flip_p(np.array([part.sum() for part in parts]), n_flips=999))
    for test, values in p_values.items():
        share = float((np.array(values) < 0.05).mean())
        yield {"test": test, "groups": groups, "gain": 100 * gain, "rejected": share}


def over_languages(
    languages: int, shared: float, *, groups: int = 40, studies: int, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """How often p < 0.05 without any gain, by a t-test over languages and by one over examples.

    Args:
        shared: how much of the variance of an example's gain its translations have in common.
    """
    rng = np.random.default_rng(seed)
    common = rng.normal(0, shared**0.5, (studies, 1, groups))
    gains = common + rng.normal(0, (1 - shared) ** 0.5, (studies, languages, groups))
    for test, sample in {"t over languages": gains.mean(2), "t over examples": gains.mean(1)}.items():
        share = float((stats.ttest_1samp(sample, 0, axis=1).pvalue < 0.05).mean())
        yield {"test": test, "languages": languages, "shared": shared, "rejected": share}


def verdicts(
    like: str, groups: int, gain: float, *, margin: float, studies: int, seed: int = 2026
) -> Iterator[dict[str, Any]]:
    """One row: how often each verdict is passed on the gain in a language, which is `gain` (it and the margin in shares)."""
    rng, counts = np.random.default_rng(seed), dict.fromkeys(get_args(Verdict), 0)
    for _ in range(studies):
        parts = LIKE[like](rng, groups, gain)
        gains = 100 * np.concatenate(parts)[None]
        of_group = np.repeat(np.arange(groups), [len(part) for part in parts])
        pairs = PairedScores(("de",), np.zeros_like(gains), gains, of_group)
        found = judge(pairs, [0], margin=100 * margin, n_flips=500)
        counts[verdict_of(found, float(gains.mean()))] += 1
    shares = {name: count / studies for name, count in counts.items()}
    yield {"like": like, "groups": groups, "gain": 100 * gain, "margin": 100 * margin, **shares}


def main() -> None:
    """Simulate everything and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=800)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--tests", type=int, default=250, help="studies of the tests")
    parser.add_argument("--verdicts", type=int, default=1000, help="studies of the verdicts")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "coverage.json")
    options = parser.parse_args()
    sizes = {"studies": options.studies, "draws": options.draws}
    covered = [row for like in LIKE for groups in GROUPS for row in coverage(like, groups, **sizes)]
    tested = [
        row
        for groups in (*GROUPS, 320)
        for gain in (0.0, 0.05)
        for row in rejections(groups, gain, studies=options.tests)
    ]
    over = [
        row for languages in (4, 14) for shared in (0.0, 0.5) for row in over_languages(languages, shared, studies=4000)
    ]
    judged = [
        row
        for like in LIKE
        for groups in (10, 20, 40, 80, 320)
        for gain in (0.0, MARGIN)
        for row in verdicts(like, groups, gain, margin=MARGIN, studies=options.verdicts)
    ]
    result = {
        "level": LEVEL,
        **sizes,
        "tests": options.tests,
        "coverage": covered,
        "rejections": tested,
        "over_languages": over,
        "verdicts": judged,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
