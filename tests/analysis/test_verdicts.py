"""Verdict lines: each method's own, and beside it the control that gains most."""

import numpy as np
import pandas as pd
import pytest

import clas_lens as cl
from analysis.tables import verdict_table, verdict_view
from analysis.tables.verdicts import is_control

GAINS = {"base": 0.0, "clas": 0.25, "random": 0.05, "random-2": 0.1, "mine": -0.3}


@pytest.fixture(scope="module")
def comparisons():
    rng = np.random.default_rng(0)
    luck = rng.random((2, 150))
    rows = [
        {"task": "x", "title": "X", "metric": "right", "language": code, "intervention": name, "id": n, "group": n}
        | {"right": bool(luck[place, n] < 0.4 + (gain if code == "de" else 0.0))}
        for name, gain in GAINS.items()
        for place, code in enumerate(("en", "de"))
        for n in range(150)
    ]
    return [cl.compare(pd.DataFrame(rows), name) for name in GAINS if name != "base"]


def test_the_best_control_stands_beside_each_method(comparisons):
    table = verdict_table(comparisons).set_index("intervention")
    assert table["verdict"].to_dict() | {"random": ""} == {
        "clas": "helps",
        "random": "",
        "random-2": "helps",
        "mine": "harms",
    }
    assert table["is_control"].tolist() == [False, True, True, False]
    assert table.loc[["clas", "mine"], "best_control"].tolist() == ["random-2"] * 2
    assert table.loc["clas", "control_gain"] == table.loc["random-2", "gain"]
    assert table.loc[["random", "random-2"], "best_control"].eq("").all()
    own = verdict_table(comparisons, controls=("mine",)).set_index("intervention")
    assert own.loc["clas", "best_control"] == "mine"


def test_as_it_is_shown(comparisons):
    shown = {column.heading: column.cells for column in verdict_view(comparisons).columns}
    assert shown["intervention"] == ("clas", "random (control)", "random-2 (control)", "mine")
    assert shown["verdict"][0].startswith("helps: +")
    assert shown["best control"][0].startswith("random-2 +")
    assert shown["best control"][1] == ""


def test_names_of_controls():
    assert is_control("random")
    assert is_control("noise-12")
    assert not is_control("random-masks")
    assert not is_control("clas-2")
