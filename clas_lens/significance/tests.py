"""Paired tests on plain numbers, each with a stated answer where its formula has none."""

from collections.abc import Sequence, Sized

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from clas_lens.given import given_number, given_whole, in_a_row

# Signs of up to 14 differences (XNLI's languages without English) are all enumerated; of more, this many are drawn.
N_FLIPS = 2**14


DIGITS = 9


def checked(values: Float[np.ndarray, "value"], what: str) -> Float[np.ndarray, "value"]:
    """The values, if they are finite numbers in one row, at least one.

    Raises:
        ValueError: anything else; a NaN would make a p value that looks like one.
    """
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or array.dtype.kind not in "iuf" or not np.isfinite(array).all():
        raise ValueError(f"{what} must be finite numbers in one row, at least one; got {values!r}")
    return array


def _probabilities(p_values: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    array = checked(p_values, "p values")
    if not ((array >= 0) & (array <= 1)).all():
        raise ValueError(f"p values lie between 0 and 1; got {p_values!r}")
    return array


def differences(before: Float[np.ndarray, "*shape"], after: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """after - before, to nine decimals: float rounding must neither make a sign nor break a tie."""
    return (after - before).round(DIGITS)


def paired_t_p(gains: Float[np.ndarray, "pair"]) -> float | None:
    """Two-sided paired t-test of gains, as independent draws. Fewer than two: None; all 0: 1.

    Gains all alike but not 0: None. Their spread is 0, and t would be infinite and p 0 even for two languages that both won
    a single example: without spread nothing says how much a gain varies.
    """
    gains = checked(gains, "gains")
    if len(gains) < 2:
        return None
    if np.ptp(gains) == 0:
        return None if gains[0] else 1.0
    return float(stats.ttest_1samp(gains, 0.0).pvalue)


def wilcoxon_p(gains: Float[np.ndarray, "pair"]) -> float:
    """Two-sided Wilcoxon signed-rank test; zeros are dropped, and 1 if nothing is left."""
    gains = checked(gains, "gains")
    moved = gains[gains != 0]
    return float(stats.wilcoxon(moved).pvalue) if len(moved) else 1.0


def sign_flip_p(gains: Float[np.ndarray, "pair"], *, n_flips: int = N_FLIPS, seed: int = 0) -> float:
    """Two-sided sign-flip test of the sum: how often random signs give as large an absolute sum.

    Zeros have no sign and are left out. With up to log2(`n_flips`) differences every choice of signs is enumerated and p is
    exact; past that, `n_flips` are drawn and p = (1 + #) / (n_flips + 1). All zero: 1.
    """
    gains = checked(gains, "gains")
    n_flips, seed = given_whole("n_flips", n_flips, least=1), given_whole("seed", seed)
    moved = gains[gains != 0]
    if len(moved) < 2:  # SciPy wants two; either sign of one number has the same absolute value
        return 1.0
    test = stats.permutation_test(
        (moved,),
        lambda flipped, axis: np.abs(flipped.sum(axis)),
        permutation_type="samples",
        vectorized=True,
        n_resamples=n_flips,
        batch=512,
        alternative="greater",
        rng=seed,
    )
    return float(test.pvalue)


def mcnemar_p(before: Bool[np.ndarray, "example"], after: Bool[np.ndarray, "example"]) -> float:
    """Exact two-sided McNemar test: of the examples that changed, are as many won as lost? 1 if none changed."""
    before, after = np.asarray(before), np.asarray(after)
    if before.dtype != np.bool_ or after.dtype != np.bool_ or before.shape != after.shape:
        raise ValueError("McNemar's test needs two rows of true or false, of one length")
    won, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return float(stats.binomtest(won, won + lost).pvalue) if won + lost else 1.0


def pitman_morgan_p(before: Float[np.ndarray, "pair"], after: Float[np.ndarray, "pair"]) -> float | None:
    """Two-sided Pitman-Morgan test of equal variances of paired numbers: Pearson's test of sums against differences.

    Var(after) - Var(before) is the covariance of the sum and the difference, so this is how far those gain more that score
    more. Fewer than three pairs: None. Differences all alike: 1, as the variances are the same number.
    """
    before, after = checked(before, "scores before"), checked(after, "scores after")
    if len(before) != len(after):
        raise ValueError(f"pairs are needed: {len(before)} scores before and {len(after)} after")
    gains = differences(before, after)
    if len(gains) < 3:
        return None
    if np.ptp(gains) == 0:
        return 1.0
    total = before + after
    return float(stats.pearsonr(total, gains).pvalue) if np.ptp(total.round(DIGITS)) else 1.0


def levene_p(before: Float[np.ndarray, "pair"], after: Float[np.ndarray, "pair"]) -> float | None:
    """Levene's test of equal variances about the medians (Brown and Forsythe), as if the two were independent samples.

    Of pairs it is far too cautious: what the two have in common counts as noise. Fewer than three: None; no spread at all: 1.
    """
    before, after = checked(before, "scores before"), checked(after, "scores after")
    if len(before) < 3:
        return None
    if np.ptp(before) == np.ptp(after) == 0:
        return 1.0
    return float(stats.levene(before, after, center="median").pvalue)


def equivalence_p(gains: Float[np.ndarray, "pair"], *, margin: float) -> float | None:
    """Two one-sided t-tests: small p says that the mean gain lies within (-margin, margin).

    Gains all alike (a language that steering leaves untouched): 0 if they lie inside, else 1. Fewer than two: None.
    """
    given_number("margin", margin, above=0)
    gains = checked(gains, "gains")
    if len(gains) < 2:
        return None
    if np.ptp(gains) == 0:
        return float(abs(gains[0]) >= margin)
    below = stats.ttest_1samp(gains, -margin, alternative="greater").pvalue
    above = stats.ttest_1samp(gains, margin, alternative="less").pvalue
    return float(max(below, above))


def holm(p_values: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """Holm's step-down p values: the family-wise error rate, under any dependence."""
    p_values = _probabilities(p_values)
    order = np.argsort(p_values)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)).clip(max=1)
    return adjusted


def benjamini_hochberg(p_values: Float[np.ndarray, "test"]) -> Float[np.ndarray, "test"]:
    """Benjamini and Hochberg's step-up p values: the false discovery rate."""
    return np.asarray(stats.false_discovery_control(_probabilities(p_values), method="bh"))


def control_p(observed: float, controls: Sequence[float]) -> float:
    """How often a control (say, matched random masks) gains at least as much: (1 + #{control >= observed}) / (B + 1).

    Each control needs the same search for its strength as the method had.
    """
    given_number("the observed gain", observed)
    if not in_a_row(controls) or not isinstance(controls, Sized) or not len(controls):
        raise ValueError(
            f"no control gains to compare with: run at least one control (99 allow p = 0.01); got {controls!r}"
        )
    for gain in controls:
        given_number("a control's gain", gain)
    return (1 + sum(gain >= observed for gain in controls)) / (len(controls) + 1)
