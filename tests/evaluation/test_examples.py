"""The worked examples at the top of the clever files say what the code does."""

import doctest
from importlib import import_module

import pytest


@pytest.mark.parametrize("name", ["passes", "prefixes"])
def test_worked_examples(name):
    result = doctest.testmod(import_module(f"clas_lens.evaluation.{name}"))
    assert result.attempted >= 5
    assert result.failed == 0
