"""Each choice is said once: whatever is told of some choices is told of all, and of no other."""

from typing import get_args

from analysis.report.methods import WHAT_H_IS
from clas_lens import vocabulary
from clas_lens.causal.components import SITE_NAMES
from clas_lens.study.methods import pass_layers
from clas_lens.tasks.known import TASKS


def test_every_method_has_a_title_and_says_which_layers_it_takes():
    methods = get_args(vocabulary.Method)
    assert set(vocabulary.METHOD_TITLES) == set(methods)
    assert {pass_layers(method) for method in methods} == {"none", "bridge", "all", "searched"}
    assert [method for method in methods if pass_layers(method) == "none"] == ["base"]


def test_every_choice_that_is_told_has_its_words():
    assert set(vocabulary.POSITION_TITLES) == set(get_args(vocabulary.Positions))
    assert set(WHAT_H_IS) == set(SITE_NAMES) == set(get_args(vocabulary.UnitSite))
    assert set(TASKS) == set(get_args(vocabulary.TaskName))
    assert set(vocabulary.ACTIVITY_TITLES) == set(get_args(vocabulary.Activity))
