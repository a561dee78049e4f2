"""What the gains go with: the fits of measures of the languages, and whether the scores' variance stays (paper, 4.1 to 4.3)."""

from collections.abc import Mapping, Sequence

import pandas as pd

from clas_lens.given import given, given_each, given_frame
from clas_lens.representations.alignment import AlignmentError, fit_gain
from clas_lens.significance.compare import Comparison
from clas_lens.significance.tests import levene_p, pitman_morgan_p

FIT_COLUMNS = ("measure", "n", "slope", "loo_low", "loo_high", "r", "p", "spearman")


def variance_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Does steering change how far the languages' scores lie apart?

    The paper does not name its test (p > 0.05 on XNLI, section 4.1). Pitman and Morgan's is one for paired scores; Levene's,
    which treats the scores before and after as independent, stands beside it.

    Returns:
        One row an intervention: `intervention`, `n` (languages without the anchor), `sigma_baseline`, `sigma` (of scores, in
        points, ddof=1), `ratio` (sigma / sigma_baseline), `p_pitman_morgan`, `p_levene`. p over languages hold for the given
        examples only.
    """
    how = "compare(rows, ...) makes one"
    rows = []
    for one in given_each(comparisons, Comparison, "variance_table needs a list of Comparisons", how):
        table = one.languages[one.languages["language"] != one.anchor]
        before, after = (table[name].to_numpy(dtype=float) for name in ("baseline", "score"))
        first, second = one.summary.sigma_baseline, one.summary.sigma
        ratio = second / first if first and second is not None else None
        tests = pitman_morgan_p(before, after), levene_p(before, after)
        rows.append((one.intervention, len(table), first, second, ratio, *tests))
    names = ["intervention", "n", "sigma_baseline", "sigma", "ratio", "p_pitman_morgan", "p_levene"]
    return pd.DataFrame(rows, columns=names).astype(dict.fromkeys(names[2:], float))


def fit_table(frame: pd.DataFrame, measures: Mapping[str, str], *, anchor: str = "en") -> pd.DataFrame:
    """Each measure's line against the gain.

    Args:
        frame: one row a language: language, gain, and the measures' columns.
        measures: column to its name in words.

    Returns:
        One row a measure: `FIT_COLUMNS`, with slopes on axes divided by their largest magnitude, and `loo_low`, `loo_high` the
        smallest and largest slope with one language left out; NaN where no line can be fitted.
    """
    given(
        measures, Mapping, "fit_table needs the names of measures by column", 'such as {"change": "change of cosine"}'
    )
    given_frame(frame, ("language", "gain", *measures), "fit_table", "one row a language")
    rows: list[tuple[object, ...]] = []
    for column, name in measures.items():
        try:
            fit = fit_gain(frame, column, anchor=anchor)
        except AlignmentError:
            rows.append((name, int((frame["language"] != anchor).sum()), *[float("nan")] * 6))
        else:
            rows.append((name, fit.n, fit.slope, fit.loo_low, fit.loo_high, fit.r, fit.p, fit.spearman))
    return pd.DataFrame(rows, columns=list(FIT_COLUMNS))
