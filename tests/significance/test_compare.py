"""Paired tests and intervals against hand-worked numbers, SciPy, and cases built so that only the right answer fits."""

import itertools
import re
from dataclasses import fields

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from clas_lens.significance.compare import compare, summarize_languages
from clas_lens.significance.comparisons import compare_all, load_comparisons, save_comparisons, why_not_compared
from clas_lens.significance.intervals import intervals_of
from clas_lens.significance.pairs import PairedScores, pair_scores
from clas_lens.significance.tests import (
    benjamini_hochberg,
    control_p,
    equivalence_p,
    holm,
    mcnemar_p,
    paired_t_p,
    sign_flip_p,
    wilcoxon_p,
)


def make_rows(scores, *, task="xquad", metric="f1", **more):
    """Rows from {intervention: {language: [score of example 0, 1, ...]}}."""
    return pd.DataFrame(
        {
            "task": task,
            "language": language,
            "intervention": intervention,
            "id": f"q{i}",
            "group": f"p{i // 2}",
            metric: score,
            "metric": metric,
            **more,
        }
        for intervention, languages in scores.items()
        for language, values in languages.items()
        for i, score in enumerate(values)
    )


@pytest.fixture
def rows():
    """Forty questions in twenty paragraphs; English untouched, German better, Thai noise."""
    rng = np.random.default_rng(1)
    base = {code: rng.random(40) / 2 for code in ("en", "de", "th")}
    steered = {"en": base["en"], "de": base["de"] + 0.4 * rng.random(40), "th": rng.permutation(base["th"])}
    return make_rows({"base": base, "clas": steered})


# --- tests on plain numbers ---


def test_sign_flips_of_three_by_hand():
    # |1 + 2 + 4| = 7 is reached by two of the eight sign choices; |4 + 2 - 1| = 5 or more by four.
    assert sign_flip_p(np.array([1.0, 2.0, 4.0])) == 2 / 8
    assert sign_flip_p(np.array([-1.0, 2.0, 4.0])) == 4 / 8
    assert sign_flip_p(np.array([0.0, 1.0, 2.0, 4.0])) == 2 / 8


def test_sign_flips_are_enumerated_up_to_fourteen_and_drawn_past_it():
    gains = np.random.default_rng(0).normal(1, 2, 14).round(2)
    sums = [abs(np.dot(signs, gains)) for signs in itertools.product((-1, 1), repeat=14)]
    exact = np.mean(np.array(sums) >= abs(gains.sum()) - 1e-9)
    assert sign_flip_p(gains) == exact
    drawn = sign_flip_p(gains, n_flips=4000, seed=5)
    assert drawn == pytest.approx(exact, abs=0.03)
    assert drawn == sign_flip_p(gains, n_flips=4000, seed=5) != sign_flip_p(gains, n_flips=4000, seed=6)
    assert sign_flip_p(np.ones(40), n_flips=999) == 1 / 1000  # no draw of 999 gives one sign to all forty


@pytest.mark.parametrize(("won", "lost"), [(10, 2), (3, 3), (0, 5), (7, 0)])
def test_mcnemar_is_a_binomial_test_of_the_changed(won, lost):
    before = np.array([False] * won + [True] * lost + [True] * 6 + [False] * 4)
    after = np.array([True] * won + [False] * lost + [True] * 6 + [False] * 4)
    assert mcnemar_p(before, after) == pytest.approx(stats.binomtest(won, won + lost, 0.5).pvalue)


def test_mcnemar_by_hand():
    after = np.array([False, True, True, True, True])
    assert mcnemar_p(~after, after) == pytest.approx(2 * (1 + 5) / 32)  # one won or fewer of five, both sides


def test_holm_and_benjamini_hochberg():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(holm(p), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(benjamini_hochberg(p), [0.02, 0.04, 0.04, 0.02])
    # Benjamini and Hochberg (1995), section 3.2: at 0.05 their procedure rejects four of fifteen, Holm's three.
    published = np.array(
        [
            0.0001,
            0.0004,
            0.0019,
            0.0095,
            0.0201,
            0.0278,
            0.0298,
            0.0344,
            0.0459,
            0.3240,
            0.4262,
            0.5719,
            0.6528,
            0.7590,
            1,
        ]
    )
    assert (holm(published) < 0.05).sum() == 3
    assert (benjamini_hochberg(published) < 0.05).sum() == 4


def test_equivalence_needs_the_interval_within_the_margin():
    gains = np.array([0.3, -0.2, 0.1, 0.4, -0.1, 0.2])
    half = stats.t.ppf(0.95, 5) * gains.std(ddof=1) / np.sqrt(6)
    upper = gains.mean() + half  # the 90% interval's end further from 0
    assert equivalence_p(gains, margin=upper) == pytest.approx(0.05)
    assert equivalence_p(gains, margin=1.0) < 0.05 < equivalence_p(gains, margin=0.2)
    with pytest.raises(ValueError, match="margin must be a finite number, above 0"):
        equivalence_p(gains, margin=0.0)


def test_controls_by_hand():
    assert control_p(1.0, [0.2, 1.0, 1.5, -3.0]) == 3 / 5
    assert control_p(2.0, [0.0] * 99) == 0.01
    with pytest.raises(ValueError, match="no control gains"):
        control_p(1.0, [])


def test_no_change_and_equal_changes_have_defined_answers():
    none, same, one = np.zeros(4), np.full(4, 2.0), np.array([3.0])
    assert (paired_t_p(none), wilcoxon_p(none), sign_flip_p(none)) == (1, 1, 1)
    assert (equivalence_p(none, margin=1.0), equivalence_p(same, margin=1.0)) == (0, 1)
    assert (paired_t_p(same), sign_flip_p(same)) == (None, 2 / 16), "no spread says nothing of how much gains vary"
    assert (paired_t_p(one), wilcoxon_p(one), sign_flip_p(one), equivalence_p(one, margin=1.0)) == (None, 1, 1, None)


# --- one score a language ---


def test_summary_leaves_the_anchor_out_of_sigma_and_tests():
    summary = summarize_languages(
        {"en": 80.0, "de": 40.0, "zh": 50.0, "ar": 60.0}, {"en": 80.0, "de": 41.0, "zh": 52.0, "ar": 63.0}
    )
    assert (summary.n_languages, summary.baseline, summary.gain) == (4, 57.5, 1.5)
    assert summary.relative_gain == pytest.approx(150 / 57.5)
    assert (summary.sigma_baseline, summary.sigma) == (10.0, 11.0)
    assert summary.p_t == pytest.approx(2 * stats.t.sf(2 / (1 / np.sqrt(3)), 2))
    assert summary.p_wilcoxon == summary.p_sign_flip == 2 / 8


def test_summary_of_one_language_besides_the_anchor():
    summary = summarize_languages({"en": 0.0, "de": 0.0}, {"en": 0.0, "de": 5.0})
    assert (summary.gain, summary.relative_gain, summary.sigma, summary.p_t) == (2.5, None, None, None)
    assert summary.p_wilcoxon == summary.p_sign_flip == 1


def test_float_rounding_is_no_difference():
    before = {"en": 1.0, "de": 0.3, "zh": 40.2, "ar": 7.7}
    after = {code: score + 0.1 for code, score in before.items()}
    assert len({after[code] - before[code] for code in before}) > 1
    assert summarize_languages(before, after).p_t is None, "gains all alike have no spread to test by"


@pytest.mark.parametrize(
    ("before", "after", "anchor", "message"),
    [
        ({"en": 1.0, "de": 1.0}, {"en": 1.0, "zh": 1.0}, "en", r"only one has \['de', 'zh'\]"),
        ({"de": 1.0}, {"de": 1.0}, "en", "no scores in the anchor 'en'; there are: de. .* give anchor=None"),
        ({"en": 1.0}, {"en": 1.0}, "en", "no language besides the anchor 'en'"),
        ({}, {}, None, "no language besides"),
    ],
)
def test_summaries_that_mean_nothing_are_refused(before, after, anchor, message):
    with pytest.raises(ValueError, match=message):
        summarize_languages(before, after, anchor=anchor)


# --- rows of examples ---


def test_a_comparison_row_by_row(rows):
    result = compare(rows, "clas", n_boot=500)
    table = result.languages.set_index("language")
    for code in ("en", "de", "th"):
        own = rows[rows["language"] == code].pivot(index=["id", "group"], columns="intervention", values="f1")
        assert table.loc[code, "gain"] == pytest.approx(100 * (own["clas"] - own["base"]).mean())
        assert (table.loc[code, "n"], table.loc[code, "n_groups"]) == (40, 20)
        assert table.loc[code, "baseline"] == pytest.approx(100 * own["base"].mean())
        paragraphs = 100 * (own["clas"] - own["base"]).groupby("group").mean()
        assert table.loc[code, "p_equivalent"] == (
            0 if code == "en" else pytest.approx(equivalence_p(paragraphs.to_numpy(), margin=1.0), rel=1e-6)
        )
    assert list(table["test"].unique()) == ["sign-flip"]
    assert table.loc["de", "p"] < 0.001 < table.loc["th", "p"]
    np.testing.assert_allclose(table.loc[["de", "th"], "p_holm"], holm(table.loc[["de", "th"], "p"].to_numpy()))
    assert table.loc[["en"], ["p_holm", "p_bh"]].isna().all(axis=None)
    assert (table.loc["en", ["gain", "ci_low", "ci_high"]] == 0).all()
    assert result.summary == summarize_languages(table["baseline"].to_dict(), table["score"].to_dict())
    assert result.average.estimate == pytest.approx(result.targets.estimate * 2 / 3)
    assert result.average.low == pytest.approx(result.targets.low * 2 / 3)
    assert result.targets.estimate == pytest.approx(table.loc[["de", "th"], "gain"].mean())


def test_mcnemar_where_asked_for_and_when_tuned_on_the_same_examples():
    base = [False] * 9 + [True] * 11
    rows = make_rows(
        {"base": {"en": base, "de": base}, "clas": {"en": base, "de": [True] * 9 + [True] * 10 + [False]}},
        task="xnli",
        metric="correct",
        overlap=True,
    )
    result = compare(rows, "clas", test="McNemar")
    german = result.languages.set_index("language").loc["de"]
    assert german["test"] == "McNemar"
    assert german["p"] == pytest.approx(stats.binomtest(1, 10).pvalue)
    assert german["gain"] == pytest.approx(40)
    assert result.overlap
    rows.loc[rows["intervention"] == "clas", "overlap"] = False
    assert not compare(rows, "clas", n_boot=50).overlap
    assert not compare(rows.drop(columns="overlap"), "clas", n_boot=50).overlap


def test_an_identical_run_is_no_difference(rows):
    base = rows[rows["intervention"] == "base"]
    result = compare(pd.concat([base, base.assign(intervention="again")]), "again")
    assert (result.languages[["gain", "ci_low", "ci_high", "p_equivalent"]] == 0).all(axis=None)
    assert (result.languages["p"] == 1).all()
    assert (result.summary.gain, result.summary.p_t, result.targets) == (0, 1, (0, 0, 0))


def test_a_method_against_itself_is_refused(rows):
    with pytest.raises(ValueError, match="'base' against itself has no gains"):
        compare(rows, "base")


def test_premises_that_flip_together_are_one_piece_of_evidence():
    """Eight of eight hypotheses won, in four premises: 2 of 16 signs, where McNemar counts 2 of 256."""
    base = {"de": [False] * 8 + [True] * 4}
    rows = make_rows({"base": base, "clas": {"de": [True] * 12}}, task="xnli", metric="correct")
    by_premise, by_row = (
        compare(rows, "clas", anchor=None, test=test).languages.iloc[0] for test in ("sign-flip", "McNemar")
    )
    assert (by_premise["test"], by_premise["p"]) == ("sign-flip", 2 / 16)
    assert by_row["p"] == 2 / 256
    with pytest.raises(ValueError, match="McNemar's test needs a metric that is true or false; 'f1' is not"):
        compare(make_rows({"base": {"de": [0.1] * 4}, "clas": {"de": [0.2] * 4}}), "clas", anchor=None, test="McNemar")


def test_the_t_interval_is_scipys_on_the_gains_of_paragraphs(rows):
    result = compare(rows, "clas", confidence=0.9)
    own = rows.pivot(index=["id", "group"], columns=["language", "intervention"], values="f1")
    gains = {code: 100 * (own[code, "clas"] - own[code, "base"]).groupby("group").mean() for code in ("en", "de", "th")}
    table = result.languages.set_index("language")
    for code in ("de", "th"):
        low, high = stats.t.interval(0.9, 19, gains[code].mean(), stats.sem(gains[code]))
        assert (table.loc[code, "ci_low"], table.loc[code, "ci_high"]) == pytest.approx((low, high), rel=1e-6)
    both = (gains["de"] + gains["th"]) / 2
    assert result.targets[1:] == pytest.approx(stats.t.interval(0.9, 19, both.mean(), stats.sem(both)), rel=1e-6)


def test_the_test_over_examples_sees_that_translations_move_together():
    """Six copies of one language: as sure as that language alone, where a test over languages is ever surer."""
    rng = np.random.default_rng(5)
    base = np.full(20, 0.5)
    steered = base + rng.normal(0.02, 0.2, 20).clip(-0.5, 0.5)
    codes = [f"l{i}" for i in range(6)]
    rows = make_rows(
        {"base": dict.fromkeys(codes, base), "clas": {code: steered + 1e-6 * i for i, code in enumerate(codes)}}
    )
    several = compare(rows, "clas", anchor=None)
    alone = compare(rows[rows["language"] == "l0"], "clas", anchor=None)
    paragraphs = 100 * (steered - base).reshape(10, 2).mean(1)
    assert alone.p_examples == pytest.approx(stats.ttest_1samp(paragraphs, 0).pvalue)
    assert several.p_examples == pytest.approx(alone.p_examples, rel=1e-3)
    assert several.summary.p_t < 1e-6 < several.p_examples


def test_t_intervals_of_ten_paragraphs_hold_the_truth():
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        gains = 0.05 + np.repeat(rng.normal(0, 0.1, 10), 3) + rng.normal(0, 0.1, 30)
        pairs = PairedScores(("de",), np.zeros((1, 30)), 100 * gains[None], np.arange(30) // 3)
        _, low, high = intervals_of(pairs, "t", level=0.95, n_boot=2, seed=0)([0])
        covered += low <= 5 <= high
    assert 276 <= covered <= 297  # 285 expected; a percentile bootstrap covers about 265


def test_comparisons_come_back_from_their_file(rows, tmp_path):
    found = compare_all(pd.concat([rows, rows[rows["intervention"] == "clas"].assign(intervention="other")]), "en")
    assert [one.intervention for one in found] == ["clas", "other"]
    again, reason = load_comparisons(save_comparisons(tmp_path / "c.parquet", found))
    assert reason is None
    for one, read in zip(found, again, strict=True):
        pd.testing.assert_frame_equal(one.languages, read.languages)
        for name in (field.name for field in fields(one) if field.name != "languages"):
            assert getattr(one, name) == getattr(read, name)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[rows["intervention"] == "clas"], "no rows of the unsteered model .'base'., only of clas"),
        (lambda rows: rows[rows["intervention"] == "base"], "rows of 'base' alone"),
        (lambda rows: rows[rows["language"] == "en"], "no other language than the anchor 'en'"),
        (lambda rows: rows[rows["id"] == "q0"], "all 1 examples belong to 1 group; at least 2"),
    ],
)
def test_why_there_is_no_comparison(rows, tmp_path, change, reason):
    chosen = change(rows)
    assert compare_all(chosen, "en") == []
    path = save_comparisons(tmp_path / "c.parquet", [], reason=why_not_compared(chosen, "en"))
    none, told = load_comparisons(path)
    assert none == []
    assert re.search(reason, told)


def test_the_interval_is_seeded_and_like_the_normal_one(rows):
    first, again, other = (compare(rows, "clas", interval="percentile", n_boot=4000, seed=seed) for seed in (3, 3, 4))
    assert first.languages.equals(again.languages)
    assert first.targets == again.targets != other.targets
    german = first.languages.set_index("language").loc["de"]
    own = rows[rows["language"] == "de"].pivot(index=["id", "group"], columns="intervention", values="f1")
    paragraphs = 100 * (own["clas"] - own["base"]).groupby("group").mean()
    half = 1.96 * paragraphs.std(ddof=0) / np.sqrt(20)
    assert german["ci_low"] == pytest.approx(paragraphs.mean() - half, abs=0.15 * half)
    assert german["ci_high"] == pytest.approx(paragraphs.mean() + half, abs=0.15 * half)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(100):
        paragraph = np.repeat(rng.normal(0, 0.1, 40), 3)  # three questions share their paragraph's effect
        gains = 0.05 + paragraph + rng.normal(0, 0.05, 120)
        pairs = PairedScores(("de",), np.zeros((1, 120)), 100 * gains[None], np.arange(120) // 3)
        low, high = np.quantile(pairs.bootstrap_gains(n_boot=200), [0.05, 0.95])
        covered += low <= 5 <= high
    assert 80 <= covered <= 98  # resampling questions instead of paragraphs covers about 70


def test_languages_are_resampled_together():
    rng = np.random.default_rng(2)
    gains = rng.normal(0, 0.2, 60)
    base = np.full(60, 0.5)
    up, down = (base + sign * gains.clip(-0.5, 0.5) for sign in (1, -1))

    def interval(german, thai):
        rows = make_rows({"base": {"de": base, "th": base}, "clas": {"de": german, "th": thai}})
        return compare(rows, "clas", anchor=None)

    mirrored, copied = interval(up, down), interval(up, up)
    assert mirrored.targets == pytest.approx((0, 0, 0), abs=1e-9)  # opposite translations cancel in every draw
    german = copied.languages.iloc[0]
    # a copy of a language is no new evidence: the interval must not shrink by sqrt(2)
    assert copied.targets == pytest.approx((german["gain"], german["ci_low"], german["ci_high"]))


def test_groups_of_unequal_size_weigh_by_their_examples():
    base = {"de": [0.0] * 5, "en": [0.0] * 5}
    rows = make_rows({"base": base, "clas": {"de": [1.0, 1, 1, 0, 0], "en": [0.0] * 5}})
    rows["group"] = rows["id"].map({"q0": "a", "q1": "a", "q2": "a", "q3": "b", "q4": "c"})
    pairs = pair_scores(rows, "base", "clas", metric="f1")
    assert pairs.group_sizes.tolist() == [3, 1, 1]
    assert pairs.group_totals[0].tolist() == [300, 0, 0]
    assert pairs.group_gains[0] == pytest.approx([60 + 120 / (5 / 3), 60 - 60 / (5 / 3), 60 - 60 / (5 / 3)])
    assert pairs.group_gains[0].mean() == pytest.approx(pairs.gains[0].mean())
    # all draws of three of a, b, c: with k times a, 3k of 3k + (3 - k) examples won
    assert set(pairs.bootstrap_gains(n_boot=300)[0].round(6)) == {0, 60, round(600 / 7, 6), 100}


def test_a_task_of_ones_own_names_its_metric(rows):
    mine = rows.assign(task="mine").rename(columns={"f1": "score"})
    own = compare(mine.drop(columns="metric"), "clas", metric="score", n_boot=50)
    assert (own.task, own.title, own.metric, own.metric_title) == ("mine", "mine", "score", "score")
    told = compare(mine.assign(metric="score", title="Mine", metric_title="share"), "clas", n_boot=50)
    assert (told.title, told.metric, told.metric_title) == ("Mine", "score", "share")
    assert own.languages.equals(compare(rows, "clas", n_boot=50).languages)


def test_row_order_does_not_matter(rows):
    first = compare(rows, "clas", n_boot=50)
    order = pd.concat(
        [rows[rows["intervention"] == "base"], rows[rows["intervention"] == "clas"].sample(frac=1, random_state=0)]
    )
    assert compare(order, "clas", n_boot=50).languages.equals(first.languages)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.drop(index=161), r"'base' and 'clas' \('clas' lacks them\): 1 missing.*\('de', 'q1'\)"),
        (lambda rows: rows.drop(index=1), r"\('base' lacks them\): 1 missing.*\('en', 'q1'\)"),
        (
            lambda rows: rows[~((rows["language"] == "th") & (rows["id"] == "q7"))],
            r"every language: 1 missing.*\('th', 'q7'\)",
        ),
        (lambda rows: pd.concat([rows, rows.head(1)]), "'base' has the example .*'en', 'q0'.* more than once"),
        (lambda rows: rows.assign(group=rows["language"] + rows["group"]), "'q0' is in several groups"),
        (lambda rows: rows.assign(group=None), "'q0' has no group"),
        (lambda rows: rows.assign(group="only"), r"at least 2 groups of examples; got 1 group\(s\)"),
        (lambda rows: rows.assign(f1=rows["f1"] * 100), "'f1' of 'base' must be a share"),
        (lambda rows: rows.assign(f1=np.nan), "'f1' of 'base' must be a share"),
        (lambda rows: rows.drop(columns="group"), "no column 'group'"),
        (lambda rows: rows.assign(task=["xquad", "xnli"] * 120), "rows of one task; these are of: xquad, xnli"),
        (lambda rows: rows.drop(columns="metric"), r"rows of 'xquad' do not say which column counts .*: give metric="),
        (lambda rows: rows.assign(metric="em"), "no column 'em' in the rows; there are: task, language"),
        (lambda rows: rows.drop(columns="task"), "no column 'task' in the rows; there are: language"),
        (lambda rows: pd.DataFrame(), "no column 'task' in the rows; there are: none"),
        (lambda rows: rows.head(0), "rows of one task; these are of: none"),
        (lambda rows: rows[rows["intervention"] == "base"], "no rows of intervention 'clas'; there are: base"),
        (lambda rows: rows[rows["language"] != "en"], "no scores in the anchor 'en'; there are: de, th"),
    ],
)
def test_rows_that_cannot_be_compared_are_refused(rows, change, message):
    with pytest.raises(ValueError, match=message):
        compare(change(rows), "clas", n_boot=50)
