"""Does an intervention help? Evaluation rows compared example by example, in every language and over languages.

Translations of one example are not independent evidence, nor are the examples of one paragraph or premise: intervals and
the tests within a language take groups of examples, jointly in all languages. The tests over languages take one number a
language and hold for the given examples only: where translations rise and fall together, other examples would move all
languages at once, and such a test finds gains that are none (more than a quarter of the time with four languages).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pandas as pd

from clas_lens.given import given, given_number, given_whole, given_word
from clas_lens.significance.intervals import Interval, intervals_of
from clas_lens.significance.pairs import PairedScores, facts_of_rows, pair_scores
from clas_lens.significance.power import Judged, detectable_gain, judge, verdict_of
from clas_lens.significance.tests import (
    benjamini_hochberg,
    differences,
    equivalence_p,
    holm,
    mcnemar_p,
    paired_t_p,
    sign_flip_p,
    wilcoxon_p,
)
from clas_lens.vocabulary import BASE, IntervalMethod, Test, Verdict


@dataclass(frozen=True)
class LanguageSummary:
    """Scores in percent, one a language, before and after, summarised by the paper's conventions.

    Attributes:
        n_languages: with the anchor.
        baseline, gain: means over all languages, the anchor among them; `gain` in percentage points.
        relative_gain: `gain` in percent of `baseline`; None where that is 0.
        sigma_baseline, sigma: standard deviation (ddof=1) over languages without the anchor; None for one language.
        p_t, p_wilcoxon, p_sign_flip: two-sided paired tests over languages without the anchor, from one gain a language. They
            hold for the given examples only: translations of one example rise and fall together, so other examples could
            move all languages at once (`Comparison.targets` resamples examples, and says how much). `p_t` is None for one
            language and for gains that are all alike and not 0.
    """

    n_languages: int
    baseline: float
    gain: float
    relative_gain: float | None
    sigma_baseline: float | None
    sigma: float | None
    p_t: float | None
    p_wilcoxon: float
    p_sign_flip: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """An intervention against a baseline on the same examples; scores in percent, gains in percentage points.

    Attributes:
        languages: one row a language: `language`, `n` examples, `n_groups`, `n_changed` scores, `baseline`, `score`, `gain`,
            `ci_low`, `ci_high`, `test` ("McNemar" or "sign-flip"), `p`, `p_holm` and `p_bh` (corrected over the languages
            without the anchor, so NaN in the anchor's row), `p_equivalent` (small: the gain lies within the margin; the test
            of "no harm"), `detectable` (the smallest gain that these examples would have shown, see `Judged`).
        summary: the paper's average, sigma and tests over languages.
        average: the gain over all languages, as the paper averages it.
        targets: the gain over the languages without the anchor.
        p_examples: the two-sided t-test of `targets`, from one gain a group of examples over all these languages. Of the tests
            over languages this alone speaks of other examples than those given; None where all groups gain alike.
        judged: what the examples say of the gain of `targets`, and what they could have said.
        overlap: some examples were also used to tune the intervention, so its gains are optimistic.
    """

    task: str
    title: str
    metric: str
    metric_title: str
    intervention: str
    baseline: str
    anchor: str | None
    languages: pd.DataFrame = field(repr=False)
    summary: LanguageSummary
    average: Interval
    targets: Interval
    p_examples: float | None
    judged: Judged
    margin: float
    confidence: float
    interval: IntervalMethod
    n_boot: int
    overlap: bool

    @property
    def verdict(self) -> Verdict:
        """On the mean gain over the languages without the anchor: each of the first three is wrong in about 5% of studies.

        "no difference" is one that is not larger than the margin. Of several interventions, each has its own 5%.
        """
        return verdict_of(self.judged, self.targets.estimate)

    @property
    def said(self) -> str:
        """The verdict in words, with the numbers it follows from."""
        gain, low, high = (f"{value:+.2f}" for value in self.targets)
        points = f"{gain} points ({100 * self.confidence:g}% interval {low} to {high})"
        match self.verdict:
            case "helps" | "harms":
                return f"{self.verdict}: {points}"
            case "no difference":
                return f"no difference larger than {self.margin:g} point{'s' if self.margin != 1 else ''}: {points}"
            case "cannot tell":
                least = f"{self.judged.detectable:.1f}"
                return f"cannot tell: {points}; these examples could have shown a gain of {least} (80% power)"


def compare(
    rows: pd.DataFrame,
    intervention: str,
    *,
    baseline: str = BASE,
    anchor: str | None = "en",
    metric: str | None = None,
    margin: float = 1.0,
    confidence: float = 0.95,
    test: Test = "sign-flip",
    interval: IntervalMethod = "t",
    n_boot: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Compare an intervention with a baseline on the same examples.

    What was compared by simulation (`benchmarks/coverage_of_intervals.py`) chose the defaults: t intervals of group gains, and
    sign-flips of whole groups.

    Args:
        rows: a row an example, language and intervention: `task`, `language`, `intervention`, `id`, `group` (examples that
            belong together; the same in every language), and the metric's column.
        anchor: the untouched language, left out of the tests over languages and their corrections; None for no such one.
        metric: a column of shares from 0 to 1; default the one that the rows' column `metric` names.
        test: within a language. "McNemar", for a metric that is true or false, takes examples as independent, which the
            three hypotheses of XNLI's premises are not.
        interval: "t", of one gain a group of examples, or "percentile", of `n_boot` bootstrap draws of groups.
        margin: gains below this many percentage points count as none in `p_equivalent`.

    Raises:
        ValueError: an unknown intervention, anchor or metric; a method against itself; McNemar's test of a metric that is not
            true or false; other examples in one intervention or language than in
            another; fewer than two groups; no language but the anchor.
    """
    given_number("confidence", confidence, above=0, below=1)
    given_number("margin", margin, above=0)
    given_word("test", test, get_args(Test))
    given_word("interval", interval, get_args(IntervalMethod))
    given_whole("seed", seed)
    given_whole("n_boot", n_boot, least=2)
    if isinstance(intervention, str) and intervention == baseline:
        raise ValueError(f"{intervention!r} against itself has no gains: name two interventions of the rows")
    facts = facts_of_rows(rows, metric=metric)
    pairs = pair_scores(rows, baseline, intervention, metric=facts.metric)
    targets = _without_anchor(pairs.languages, anchor)
    interval_of = intervals_of(pairs, interval, level=confidence, n_boot=n_boot, seed=seed)
    before, after = (dict(zip(pairs.languages, side.mean(1), strict=True)) for side in (pairs.before, pairs.after))
    if test == "McNemar" and not pd.api.types.is_bool_dtype(rows[facts.metric]):
        raise ValueError(
            f"McNemar's test needs a metric that is true or false; {facts.metric!r} is not: take test='sign-flip'"
        )
    return Comparison(
        task=facts.task,
        title=facts.title,
        metric=facts.metric,
        metric_title=facts.metric_title,
        intervention=intervention,
        baseline=baseline,
        anchor=anchor,
        languages=_language_rows(pairs, interval_of, targets, test=test, margin=margin, seed=seed),
        summary=summarize_languages(before, after, anchor=anchor, seed=seed),
        average=interval_of(range(len(pairs.languages))),
        targets=interval_of(targets),
        p_examples=paired_t_p(pairs.group_gains[targets].mean(0)),
        judged=judge(pairs, targets, margin=margin, seed=seed),
        margin=margin,
        confidence=confidence,
        interval=interval,
        n_boot=n_boot,
        overlap="overlap" in rows and bool(rows.loc[rows["intervention"] == intervention, "overlap"].eq(True).any()),
    )


def summarize_languages(
    before: Mapping[str, float], after: Mapping[str, float], *, anchor: str | None = "en", seed: int = 0
) -> LanguageSummary:
    """The paper's average, sigma and tests from one score a language, in percent.

    Args:
        anchor: part of the averages, left out of sigma and of the tests; None for no such language.
        seed: of the sign-flip test, where more than 14 languages are too many to enumerate.

    Raises:
        ValueError: different languages before and after, no such anchor, or no other language.
    """
    for side in (before, after):
        given(side, Mapping, "summarize_languages needs scores by language", 'such as {"en": 51.2, "de": 40.3}')
        for code, score in side.items():
            given_number(f"the score in {code!r}", score)
    if set(before) != set(after):
        raise ValueError(
            f"scores before and after are of different languages: only one has {sorted(set(before) ^ set(after))}"
        )
    targets = _without_anchor(tuple(before), anchor)
    first, second = (np.array([float(side[code]) for code in before]) for side in (before, after))
    gains = differences(first, second)
    moved = gains[targets]
    several = len(moved) > 1
    return LanguageSummary(
        n_languages=len(before),
        baseline=float(first.mean()),
        gain=float(gains.mean()),
        relative_gain=float(100 * gains.mean() / first.mean()) if first.mean() else None,
        sigma_baseline=float(first[targets].std(ddof=1)) if several else None,
        sigma=float(second[targets].std(ddof=1)) if several else None,
        p_t=paired_t_p(moved),
        p_wilcoxon=wilcoxon_p(moved),
        p_sign_flip=sign_flip_p(moved, seed=seed),
    )


def _language_rows(
    pairs: PairedScores,
    interval_of: Callable[[Sequence[int]], Interval],
    targets: list[int],
    *,
    test: Test,
    margin: float,
    seed: int,
) -> pd.DataFrame:
    """`Comparison.languages`."""
    rows = []
    for place, code in enumerate(pairs.languages):
        gain, low, high = interval_of([place])
        rows.append(
            {
                "language": code,
                "n": pairs.before.shape[1],
                "n_groups": len(pairs.group_sizes),
                "n_changed": int((pairs.gains[place] != 0).sum()),
                "baseline": float(pairs.before[place].mean()),
                "score": float(pairs.after[place].mean()),
                "gain": gain,
                "ci_low": low,
                "ci_high": high,
                "test": test,
                "p": _example_p(pairs, place, test=test, seed=seed),
                "p_holm": np.nan,
                "p_bh": np.nan,
                "p_equivalent": equivalence_p(pairs.group_gains[place], margin=margin),
                "detectable": detectable_gain(pairs, [place]),
            }
        )
    table = pd.DataFrame(rows)
    p_values = table.loc[targets, "p"].to_numpy()
    table.loc[targets, "p_holm"] = holm(p_values)
    table.loc[targets, "p_bh"] = benjamini_hochberg(p_values)
    return table


def _example_p(pairs: PairedScores, place: int, *, test: Test, seed: int) -> float:
    """The test within one language."""
    match test:
        case "McNemar":
            return mcnemar_p(pairs.before[place] > 0, pairs.after[place] > 0)
        case "sign-flip":
            return sign_flip_p(pairs.group_totals[place], seed=seed)


def _without_anchor(languages: tuple[str, ...], anchor: str | None) -> list[int]:
    """Places of the languages that steering may change."""
    if anchor is not None and anchor not in languages:
        raise ValueError(
            f"no scores in the anchor {anchor!r}; there are: {', '.join(languages)}. Without an anchor give anchor=None."
        )
    targets = [place for place, code in enumerate(languages) if code != anchor]
    if not targets:
        raise ValueError(f"nothing to test: no language besides the anchor {anchor!r}")
    return targets
