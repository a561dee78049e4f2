"""What examples could have shown: the smallest gain they would have found, and whether a gain as large as a margin is out."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import optimize, stats

from clas_lens.given import given_number, given_whole
from clas_lens.significance.pairs import PairedScores
from clas_lens.significance.tests import N_FLIPS, paired_t_p, sign_flip_p
from clas_lens.vocabulary import Verdict

POWER, LEVEL = 0.8, 0.05

# The largest change of a score, in points: what a change is taken to be where none was seen.
WHOLE = 100.0


def planned_gain(n: int, *, changed: float, n_groups: int | None = None) -> float:
    """The smallest gain in a language that `n` examples will show, in points: two-sided t-test at 5%, 80% power.

    Args:
        changed: the share of answers that will change from right to wrong or back; 0.1 to 0.2 is usual. Gains of graded scores
            with as many changes are found more easily.
        n_groups: how many paragraphs or premises the examples belong to, if these change together; default each its own.

    Raises:
        ValueError: fewer than 2 groups, more groups than examples, or a share outside 0 to 1.
    """
    n = given_whole("n", n, least=2)
    given_number("changed", changed, above=0, most=1)
    groups = n if n_groups is None else given_whole("n_groups", n_groups, least=2, most=n)
    return min(_needed(groups) * WHOLE * (changed / groups) ** 0.5, WHOLE)


@dataclass(frozen=True)
class Judged:
    """What examples say of the mean gain over some languages.

    Attributes:
        p_difference: the larger p of two tests that it is 0, from groups of examples: Student's t and sign-flips. Where few
            groups change the first finds gains that are none.
        p_within: two one-sided tests; small: the gain lies within the margin.
        detectable: the smallest gain, in points, that would have been found (t-test at 5%) with a chance of 80%.
    """

    p_difference: float
    p_within: float
    detectable: float


def judge(
    pairs: PairedScores, places: Sequence[int], *, margin: float, seed: int = 0, n_flips: int = N_FLIPS
) -> Judged:
    """Judge the mean gain over the languages at these places.

    The spread is that of the gains of groups, as seen; but a gain of d points itself takes changes, as large as those seen,
    in a share of the examples, and so has at least the spread that they bring. Without that, examples of which none changed
    would claim to rule out any gain.
    """
    chosen = list(places)
    totals, gains = pairs.group_totals[chosen].mean(0), pairs.group_gains[chosen].mean(0)
    found = _Spread(pairs, chosen)
    p_t = paired_t_p(gains)
    flips = sign_flip_p(totals, seed=seed, n_flips=n_flips)
    return Judged(
        p_difference=max(flips, 0.0 if p_t is None else p_t),
        p_within=_within_p(float(pairs.mean_gains[chosen].mean()), found, margin),
        detectable=found.detectable(),
    )


def verdict_of(judged: Judged, gain: float) -> Verdict:
    """What may be said of a mean gain that was judged so; `gain` is its estimate."""
    if judged.p_difference < LEVEL:
        return "helps" if gain > 0 else "harms"
    return "no difference" if judged.p_within < LEVEL else "cannot tell"


def detectable_gain(pairs: PairedScores, places: Sequence[int]) -> float:
    """`Judged.detectable` alone."""
    return _Spread(pairs, places).detectable()


class _Spread:
    """The standard error of a mean gain, as seen, and at least what a true gain would bring."""

    def __init__(self, pairs: PairedScores, places: Sequence[int]) -> None:
        gains = pairs.gains[list(places)].mean(0)
        by_group = pairs.group_gains[list(places)].mean(0)
        self.groups, n = len(by_group), len(gains)
        self.seen = float(by_group.var(ddof=1)) / self.groups
        moved = np.abs(gains).sum()
        self._unit = float((gains**2).sum() / moved) if moved else WHOLE
        alone = float(gains.var(ddof=1)) / n
        # How much less than n independent examples these are worth; at worst as much as there are groups.
        self._examples = n / min(max(self.seen / alone, 1.0), n / self.groups) if alone else float(self.groups)

    def error(self, gain: float, *, estimate: float) -> float:
        """The standard error if the true gain were this large, in points, and the estimate that small.

        What the true gain has more than the estimate are changes that happened not to come: their spread counts, too.
        """
        unseen = self._unit * max(gain - abs(estimate), 0.0) / self._examples
        return max(self.seen + unseen, (self._unit * gain - gain**2) / self._examples) ** 0.5

    def detectable(self) -> float:
        """The smallest gain of which this is found: as many standard errors from 0 as are needed."""
        needed = _needed(self.groups)
        by_changes = needed**2 * self._unit / (self._examples + needed**2)
        return min(max(needed * self.seen**0.5, by_changes), WHOLE)


def _within_p(gain: float, spread: _Spread, margin: float) -> float:
    error = spread.error(min(margin, WHOLE), estimate=gain)
    if error == 0:  # the margin is as large as a change can be
        return float(abs(gain) >= margin)
    return float(stats.t.sf((margin - abs(gain)) / error, spread.groups - 1))


@cache
def _needed(groups: int) -> float:
    """How many standard errors a gain has to be away from 0, to be found with the wanted power."""
    freedom = groups - 1
    bound = stats.t.ppf(1 - LEVEL / 2, freedom)

    def lacking(distance: float) -> float:
        return float(stats.nct.sf(bound, freedom, distance)) - POWER

    return float(optimize.brentq(lacking, 0.0, 40.0)) if lacking(40.0) > 0 else 40.0
