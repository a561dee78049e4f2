"""Every hostile input of the Python API, one by one: refused in our own words, or right; and how many of each."""

from collections import Counter

import pytest
from hostile import door_cases, drawn_cases, inner_cases, kind_cases, measured_cases, scored_cases, steered_cases
from hostile.case import judge

PARTS = (measured_cases, steered_cases, scored_cases, drawn_cases, inner_cases, door_cases, kind_cases)
CASES = [case for part in PARTS for case in part.CASES]
TALLY: Counter[str] = Counter()


@pytest.mark.filterwarnings("ignore:steer.* does nothing by itself")
@pytest.mark.parametrize("case", CASES, ids=[f"{number}-{case}" for number, case in enumerate(CASES)])
def test_hostile_input(case, world):
    outcome, said = judge(case, world)
    TALLY[outcome] += 1
    assert outcome == ("refused" if case.says else "right"), f"{outcome}: {said}"


def test_nothing_is_silently_wrong_or_obscure(request):
    asked = sum(item.originalname == "test_hostile_input" for item in request.session.items)
    if asked < len(CASES):
        pytest.skip("not all inputs were tried in this run")
    assert TALLY.total() == len(CASES), "pytest-xdist has spread this file over its workers"
    assert len(CASES) >= 200
    assert set(TALLY) == {"refused", "right"}, TALLY
