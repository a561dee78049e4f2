"""The simulations behind the choice of intervals and tests."""

from benchmarks import coverage_of_intervals


def test_the_simulations_of_intervals_and_tests_run():
    methods = {
        row["method"]: row["coverage"] for row in coverage_of_intervals.coverage("XNLI", 10, studies=20, draws=50)
    }
    assert set(methods) == {"t", "percentile", "bootstrap-t", "BCa"}
    assert all(0.5 < share <= 1 for share in methods.values())
    tests = [row["test"] for row in coverage_of_intervals.rejections(10, 0.0, studies=5)]
    assert tests == ["McNemar", "sign-flip of premises"]
    together = {row["test"]: row["rejected"] for row in coverage_of_intervals.over_languages(4, 0.5, studies=500)}
    assert together["t over languages"] > 0.15 > together["t over examples"]
