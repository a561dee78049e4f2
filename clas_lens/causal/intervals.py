"""Intervals of mean changes, and of ratios of them, over groups of examples."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from clas_lens.significance.intervals import Interval, intervals_of
from clas_lens.significance.pairs import PairedScores


def change_interval(before: ArrayLike, after: ArrayLike, groups: ArrayLike, *, level: float) -> Interval:
    """Mean of after - before with its t interval over groups, in the units of the two; no bounds (NaN) of a single group."""
    pairs = PairedScores(
        ("",),
        np.array(before, dtype=float)[None],
        np.array(after, dtype=float)[None],
        pd.factorize(np.array(groups))[0],
    )
    if len(pairs.group_sizes) < 2:
        return Interval(float(pairs.mean_gains[0]), float("nan"), float("nan"))
    return intervals_of(pairs, "t", level=level, n_boot=0, seed=0)([0])


def ratio_interval(part: ArrayLike, whole: ArrayLike, groups: ArrayLike, *, level: float) -> Interval:
    """sum(part) / sum(whole), with the interval of its linearisation (part - ratio * whole) / mean(whole).

    All NaN where the whole is 0 or there is nothing.
    """
    parts, wholes = np.array(part, dtype=float), np.array(whole, dtype=float)
    if not len(wholes) or wholes.sum() == 0:
        return Interval(float("nan"), float("nan"), float("nan"))
    ratio = float(parts.sum() / wholes.sum())
    scaled = wholes.mean()
    _, low, high = change_interval(list(ratio * wholes / scaled), list(parts / scaled), groups, level=level)
    return Interval(ratio, ratio + low, ratio + high)
