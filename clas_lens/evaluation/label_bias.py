"""A baseline that steers nothing: shift each label's score by a constant per language, fitted on tuning rows.

A steered model can gain on XNLI by answering "neutral" less often. This says how much of a gain such a shift alone buys.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import minimize
from scipy.special import log_softmax

from clas_lens.given import given, given_flag, given_frame, given_number, given_text
from clas_lens.significance.pairs import labels_of


@dataclass(frozen=True)
class LabelBias:
    """What `fit_label_bias` found.

    Attributes:
        biases: language to one addition a label.
        groups: the premises that it was fitted on.
    """

    biases: Mapping[str, tuple[float, ...]]
    groups: frozenset[str]


def fit_label_bias(rows: pd.DataFrame, *, ridge: float = 1.0) -> LabelBias:
    """One addition to each label's log-probability, per language, by penalised maximum likelihood.

    Args:
        rows: `evaluate`'s, of one intervention (the unsteered model, as a rule) on the tuning examples of a task whose rows
            have a probability a label (`p_<label>`, as XNLI's).
        ridge: weight of the squared biases against the summed log-likelihood, in examples; it keeps a bias finite where a
            label never occurs.

    Raises:
        ValueError: rows without label probabilities, or of several interventions.
    """
    columns = _checked(rows)
    given_number("ridge", ridge, least=0)
    biases = {str(language): _fit(table, columns, ridge) for language, table in rows.groupby("language", sort=False)}
    return LabelBias(biases, frozenset(rows["group"]))


def _fit(rows: pd.DataFrame, columns: list[str], ridge: float) -> tuple[float, ...]:
    scores, gold = _log_probabilities(rows, columns), rows["gold"].to_numpy()

    def loss(bias: np.ndarray) -> tuple[float, np.ndarray]:
        log_p = log_softmax(scores + bias, axis=1)
        error = np.exp(log_p).sum(0) - np.bincount(gold, minlength=len(columns))
        return ridge * bias @ bias / 2 - log_p[np.arange(len(gold)), gold].sum(), ridge * bias + error

    return tuple(float(value) for value in minimize(loss, np.zeros(len(columns)), jac=True).x)


def with_label_bias(
    rows: pd.DataFrame, bias: LabelBias, *, name: str = "label-bias", allow_overlap: bool = False
) -> pd.DataFrame:
    """The same rows as they would be with a bias: new probabilities, predictions and `correct`, under another name.

    Raises:
        ValueError: as in `fit_label_bias`, a language without a bias, or premises that the bias was fitted on, unless
            `allow_overlap`; the column `overlap` then says which.
    """
    columns = _checked(rows)
    given(bias, LabelBias, "with_label_bias needs a LabelBias", "fit_label_bias(rows) makes one")
    given_text("name", name)
    missing = sorted(set(rows["language"]) - set(bias.biases))
    if missing:
        raise ValueError(f"no bias for {', '.join(missing)}; fitted: {', '.join(bias.biases)}")
    if any(len(one) != len(columns) for one in bias.biases.values()):
        raise ValueError(
            f"the bias was fitted on other labels than {', '.join(columns)}: fit it on rows of the same task"
        )
    overlap = rows["group"].isin(bias.groups)
    if overlap.any() and not given_flag("allow_overlap", allow_overlap):
        raise ValueError(
            f"{int(overlap.sum())} of {len(rows)} rows are of premises that the bias was fitted on: fit on the validation "
            "split and report on the test split, or say allow_overlap=True"
        )
    shift = np.array([bias.biases[language] for language in rows["language"]])
    probabilities = np.exp(log_softmax(_log_probabilities(rows, columns) + shift, axis=1))
    prediction = probabilities.argmax(1)
    table = rows.assign(intervention=name, prediction=prediction, correct=prediction == rows["gold"].to_numpy())
    table[columns], table["overlap"] = probabilities, overlap
    return table


def _log_probabilities(rows: pd.DataFrame, columns: list[str]) -> np.ndarray:
    tiny = np.finfo(np.float64).tiny  # a probability of 0 stays finite
    return np.log(np.maximum(rows[columns].to_numpy(dtype=np.float64), tiny))


def _checked(rows: pd.DataFrame) -> list[str]:
    """The columns of the labels' probabilities, in the order of the labels."""
    wanted = ("language", "intervention", "group", "gold")
    given_frame(rows, wanted, "a label bias", "evaluate's rows of a task with labels, such as XNLI")
    columns = [f"p_{label}" for label in labels_of(rows)]
    if len(columns) < 2:
        raise ValueError(
            "a label bias needs a probability a label (columns p_<label>, as XNLI's rows have); found: "
            f"{', '.join(map(str, rows))}"
        )
    if not rows[columns].apply(pd.to_numeric, errors="coerce").ge(0).all(axis=None):
        raise ValueError(f"{', '.join(columns)} must be probabilities in every row; some are not")
    if not np.allclose(rows[columns].sum(axis=1), 1, atol=1e-3):
        raise ValueError(
            f"{', '.join(columns)} must add up to 1 in every row: a label's column is missing, or was changed"
        )
    if not rows["gold"].isin(range(len(columns))).all():
        raise ValueError(f"gold must be 0 to {len(columns) - 1} in every row, got {sorted(set(rows['gold']), key=str)}")
    names = list(rows["intervention"].unique())
    if len(names) != 1:
        raise ValueError(f"rows of one intervention are needed, got: {', '.join(names) or 'none'}")
    return columns
