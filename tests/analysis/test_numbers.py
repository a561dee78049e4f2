"""Numbers as people read them."""

import math

import pytest

from analysis.style.numbers import interval, number, p_value, percent, signed


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1.234, "+1.23"), (-0.5, "\N{MINUS SIGN}0.50"), (-0.001, "0.00"), (0.0, "0.00"), (math.nan, ""), (None, "")],
)
def test_signed_numbers(value, shown):
    assert signed(value) == shown


@pytest.mark.parametrize(
    ("value", "digits", "shown"),
    [
        (-0.5, None, "\N{MINUS SIGN}0.5"),
        (2.0, None, "2"),
        (1234.5, 1, "1,234.5"),
        (-0.04, 1, "0.0"),
        (math.nan, None, ""),
    ],
)
def test_plain_numbers(value, digits, shown):
    assert number(value, digits) == shown


def test_intervals_and_p_values():
    assert interval(-1, 2.5) == "\N{MINUS SIGN}1.00 to +2.50"
    assert interval(math.nan, math.nan) == ""
    assert (p_value(0.0004, equals="= "), p_value(0.0123, equals="= "), p_value(math.nan)) == ("< 0.001", "= 0.012", "")


@pytest.mark.parametrize(
    ("part", "whole", "shown"), [(8, 24, "8 of 24"), (100, 300, "33%"), (1000, 3000, "33.3%"), (0, 99, "0 of 99")]
)
def test_percentages_have_no_false_digits(part, whole, shown):
    assert percent(part, whole) == shown
