"""The label-bias baseline against hand-worked numbers and scikit-learn."""

import numpy as np
import pandas as pd
import pytest

from clas_lens.evaluation.label_bias import LabelBias, fit_label_bias, with_label_bias


def rows(probabilities, gold, language="de", prefix="tuning-"):
    table = pd.DataFrame(probabilities, columns=["p_entailment", "p_neutral", "p_contradiction"])
    prediction = table.to_numpy().argmax(1)
    return table.assign(
        language=language,
        intervention="base",
        group=[f"{prefix}{row}" for row in range(len(gold))],
        gold=gold,
        prediction=prediction,
        correct=prediction == np.array(gold),
    )


def test_a_constant_prediction_is_shifted_to_the_labels_frequencies():
    """The same scores in every row: without a penalty the fitted probabilities are the labels' shares."""
    table = rows([[0.1, 0.8, 0.1]] * 10, [0] * 5 + [1] * 3 + [2] * 2)
    bias = fit_label_bias(table, ridge=1e-9)
    with pytest.raises(ValueError, match="10 of 10 rows are of premises that the bias was fitted on"):
        with_label_bias(table, bias)
    assert with_label_bias(table, bias, allow_overlap=True)["overlap"].all()
    shifted = with_label_bias(rows([[0.1, 0.8, 0.1]] * 10, [0] * 5 + [1] * 3 + [2] * 2, prefix="test-"), bias)
    assert not shifted["overlap"].any()
    np.testing.assert_allclose(
        shifted.loc[0, ["p_entailment", "p_neutral", "p_contradiction"]].astype(float), [0.5, 0.3, 0.2], atol=1e-4
    )
    assert (shifted["prediction"] == 0).all()
    assert shifted["correct"].sum() == 5
    assert set(shifted["intervention"]) == {"label-bias"}
    assert table["correct"].sum() == 3, "the rows given stay as they were"


def test_languages_have_their_own_bias_and_a_label_that_never_occurs_stays_finite():
    german, swahili = rows([[0.2, 0.5, 0.3]] * 4, [0, 0, 0, 0]), rows([[0.2, 0.5, 0.3]] * 4, [2, 2, 2, 2], "sw")
    bias = fit_label_bias(pd.concat([german, swahili])).biases
    assert np.isfinite([*bias["de"], *bias["sw"]]).all()
    assert bias["de"][0] > 0 > bias["de"][2]
    assert bias["sw"][2] > 0 > bias["sw"][0]


def test_the_gradient_is_zero_at_the_fit():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet([1, 1, 1], size=40)
    gold = rng.integers(0, 3, size=40)
    bias = np.array(fit_label_bias(rows(probabilities, gold), ridge=2.0).biases["de"])

    def loss(shift):
        shifted = probabilities * np.exp(shift)
        return 2.0 * (shift**2).sum() / 2 - np.log(shifted[np.arange(40), gold] / shifted.sum(1)).sum()

    for direction in np.eye(3):
        assert loss(bias) < min(loss(bias + 0.01 * direction), loss(bias - 0.01 * direction))


def test_a_task_of_two_labels():
    """PAWS-X's: a bias gives the share of each label, as with three."""
    two = rows([[0.2, 0.5, 0.3]] * 4, [0, 0, 0, 1]).drop(columns=["p_entailment", "p_neutral", "p_contradiction"])
    two = two.assign(p_no=0.4, p_yes=0.6)
    shifted = with_label_bias(two, fit_label_bias(two, ridge=1e-9), allow_overlap=True)
    np.testing.assert_allclose(shifted.loc[0, ["p_no", "p_yes"]].astype(float), [0.75, 0.25], atol=1e-4)
    assert shifted["correct"].sum() == 3


def test_errors():
    table = rows([[0.2, 0.5, 0.3]], [0])
    with pytest.raises(ValueError, match="p_neutral, p_contradiction must add up to 1 in every row"):
        fit_label_bias(table.drop(columns="p_entailment"))
    with pytest.raises(ValueError, match="a probability a label .columns p_<label>.*found: language, intervention"):
        fit_label_bias(table.drop(columns=["p_entailment", "p_neutral", "p_contradiction"]))
    with pytest.raises(ValueError, match="rows of one intervention are needed, got: base, clas"):
        fit_label_bias(pd.concat([table, table.assign(intervention="clas")]))
    with pytest.raises(ValueError, match="fitted on other labels than p_entailment"):
        with_label_bias(table, LabelBias({"de": (0.0, 0.0)}, frozenset()))
    with pytest.raises(ValueError, match="no bias for de; fitted: sw"):
        with_label_bias(table, LabelBias({"sw": (0.0, 0.0, 0.0)}, frozenset()))
