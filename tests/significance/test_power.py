"""What examples can show: by hand, and the error rates of verdicts and of the promised power, on simulated studies."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import clas_lens as cl
from clas_lens.significance.comparisons import load_comparisons, save_comparisons
from clas_lens.significance.pairs import PairedScores
from clas_lens.significance.power import judge, planned_gain, verdict_of

QUICK = {"n_flips": 500}


def pairs_of(gains, groups):
    """Scores that change by these points."""
    gains = np.atleast_2d(np.asarray(gains, dtype=float))
    before = np.where(gains > 0, 0.0, 100.0) * (gains != 0)
    return PairedScores(tuple("abcdefgh"[: len(gains)]), before, before + gains, np.asarray(groups))


def drawn(rng, n_groups, changed, gain, *, languages=3, together=0.5):
    """XNLI-like: premises of three hypotheses, right or wrong; half of the premises, and languages in part, change together."""
    won = (1 + gain / changed) / 2
    shape = (languages, n_groups, 3)

    def draws(shape):
        return 100.0 * np.where(rng.random(shape) < won, 1, -1) * (rng.random(shape) < changed)

    own, shared = draws(shape), draws((1, n_groups, 3))
    gains = np.where(rng.random(shape) < together, shared, own)
    as_one = rng.random((1, n_groups, 1)) < together
    gains = np.where(as_one, gains[:, :, :1], gains)
    return pairs_of(gains.reshape(languages, -1), np.repeat(np.arange(n_groups), 3))


def rates(seed, runs, *, margin=1.0, **study):
    rng, counts = np.random.default_rng(seed), dict.fromkeys(("helps", "harms", "no difference", "cannot tell"), 0)
    for _ in range(runs):
        pairs = drawn(rng, **study)
        places = range(len(pairs.languages))
        counts[verdict_of(judge(pairs, places, margin=margin, **QUICK), pairs.mean_gains.mean())] += 1
    return {name: count / runs for name, count in counts.items()}


def test_the_smallest_gain_is_that_of_the_t_tests_power():
    rng = np.random.default_rng(0)
    gains = 100.0 * rng.integers(-1, 2, 60)
    found = judge(pairs_of(gains, np.arange(60)), [0], margin=1.0).detectable
    distance = found / (gains.std(ddof=1) / 60**0.5)
    bound = stats.t.ppf(0.975, 59)
    assert stats.nct.sf(bound, 59, distance) == pytest.approx(0.8, abs=1e-6)


def test_where_nothing_changed_little_is_ruled_out():
    """As many as 7.9 / n can have changed and still leave no trace in five studies (rule of three, at 80% power)."""
    few, many = (judge(pairs_of(np.zeros(n), np.arange(n)), [0], margin=1.0) for n in (50, 2000))
    assert few.detectable == pytest.approx(100 * 8.2 / 58, abs=1)
    assert few.p_within > 0.05
    assert few.p_difference == many.p_difference == 1.0
    assert many.p_within < 0.05
    assert many.detectable < 0.5


def test_examples_that_change_together_show_less():
    gains = 100.0 * np.random.default_rng(1).integers(-1, 2, 20)
    alone = judge(pairs_of(np.repeat(gains, 3), np.arange(60)), [0], margin=1.0)
    together = judge(pairs_of(np.repeat(gains, 3), np.repeat(np.arange(20), 3)), [0], margin=1.0)
    assert together.detectable > 1.6 * alone.detectable


def test_plans_by_the_normal_formula():
    assert planned_gain(100_000, changed=0.1) == pytest.approx(
        100 * (1.960 + 0.8416) * (0.1 / 100_000) ** 0.5, rel=1e-3
    )
    assert planned_gain(300, changed=0.1, n_groups=100) == planned_gain(100, changed=0.1)
    assert planned_gain(2, changed=1.0) == 100
    for bad in ({"n": 1, "changed": 0.1}, {"n": 10, "changed": 0.0}, {"n": 10, "changed": 0.1, "n_groups": 11}):
        with pytest.raises(ValueError, match="must be"):
            planned_gain(**bad)


def rows_of(pairs):
    parts = []
    for name, scores in (("base", pairs.before), ("clas", pairs.after)):
        for code, line in zip(("de", "zh", "sw"), scores, strict=False):
            part = {
                "language": code,
                "intervention": name,
                "id": range(len(line)),
                "group": pairs.groups,
                "right": line / 100,
            }
            parts.append(pd.DataFrame(part))
    return pd.concat(parts).assign(task="x", metric="right")


@pytest.mark.parametrize(
    ("gain", "margin", "said"),
    [
        (0.15, 1.0, "helps: "),
        (-0.15, 1.0, "harms: "),
        (0.0, 20.0, "no difference larger than 20 points: "),
        (0.0, 1.0, "cannot tell: "),
    ],
)
def test_verdicts_in_words(gain, margin, said, tmp_path):
    pairs = drawn(np.random.default_rng(3), 100, 0.2, gain)
    found = cl.compare(rows_of(pairs), "clas", anchor=None, margin=margin)
    assert found.said.startswith(said)
    assert f"{found.targets.estimate:+.2f} points (95% interval " in found.said
    assert found.said.startswith(found.verdict)
    assert ("could have shown a gain of" in found.said) == (found.verdict == "cannot tell")
    assert (found.languages["detectable"] > found.judged.detectable).all()
    again, _ = load_comparisons(save_comparisons(tmp_path / "c.parquet", [found]))
    assert again[0].said == found.said
    assert again[0].judged == found.judged


# --- error rates ---

RUNS = 300
NOISE = 3 * (0.05 * 0.95 / RUNS) ** 0.5  # three standard errors of a rate of 5%


@pytest.mark.parametrize("groups", [6, 12, 60])
@pytest.mark.parametrize("changed", [0.02, 0.2])
def test_where_there_is_no_gain_few_verdicts_find_one(groups, changed):
    found = rates(groups, RUNS, n_groups=groups, changed=changed, gain=0.0)
    assert found["helps"] + found["harms"] <= 0.05 + NOISE


@pytest.mark.parametrize(("groups", "changed", "margin"), [(12, 0.02, 2.0), (60, 0.05, 3.0), (200, 0.1, 3.0)])
def test_a_gain_as_large_as_the_margin_is_rarely_called_no_difference(groups, changed, margin):
    found = rates(groups, RUNS, n_groups=groups, changed=changed, gain=margin / 100, margin=margin)
    assert found["no difference"] <= 0.05 + NOISE
    assert found["harms"] <= 0.05


def test_with_enough_examples_no_difference_is_said():
    found = rates(0, 60, n_groups=1000, changed=0.05, gain=0.0, margin=2.0)
    assert found["no difference"] > 0.8


@pytest.mark.parametrize(("groups", "changed"), [(60, 0.2), (150, 0.1)])
def test_a_gain_as_large_as_detectable_is_found_four_times_in_five(groups, changed):
    rng = np.random.default_rng(7)
    spread = [drawn(rng, groups, changed, 0.0) for _ in range(40)]
    gain = np.median([judge(pairs, range(3), margin=1.0, **QUICK).detectable for pairs in spread]) / 100
    assert gain < changed
    found = rates(groups, 300, n_groups=groups, changed=changed, gain=gain)
    assert 0.68 <= found["helps"] <= 0.92
