"""Tidy tables of one's own run: the paper's Tables 1 and 2 with intervals and its figures, and what lies under the scores."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pandas as pd
from sklearn.metrics import f1_score

from clas_lens.given import given_each
from clas_lens.significance.compare import Comparison
from clas_lens.significance.pairs import facts_of_rows, labels_of
from clas_lens.tasks.known import TASKS

from .paper import PAPER_TASKS, paper_model, paper_summary, paper_table

PAPER_METHODS = {"clas": "clas", "int-mu": "intmu"}


RESULT_COLUMNS = (
    *("row", "language", "intervention", "n", "n_changed", "baseline", "score", "gain", "ci_low", "ci_high"),
    *("p", "p_holm", "p_bh", "p_equivalent", "paper_baseline", "paper_score", "paper_gain", "paper_p"),
)


def results_table(comparisons: Sequence[Comparison], *, model: str | None = None) -> pd.DataFrame:
    """Scores in percent and gains in percentage points, by language and over languages, with the paper's beside them.

    Args:
        comparisons: of different interventions with one baseline, on the same task, metric and examples.
        model: its name. The paper's numbers are joined if it is one of the paper's models, the metric is the paper's, and the
            intervention is named "clas" or "int-mu" (or "int_mu", in any case).

    Returns:
        For each intervention one row a language (`row` is "language"), and with language "all" the rows "average" (over all
        languages, as in the paper), "without anchor", "sigma" (standard deviation over languages without the anchor), "over
        examples" (the t-test that takes groups of examples, all these languages together), and "paired t-test", "Wilcoxon",
        "sign-flip" (over these languages). Columns: `RESULT_COLUMNS`; NaN where a row has no use for one.
        The paper's average, sigma and p are over the paper's languages, whatever the run's.

    Raises:
        ValueError: no comparisons, one intervention twice, or comparisons that share no baseline.
    """
    check_alike(comparisons)
    parts = []
    for comparison in comparisons:
        languages = comparison.languages.sort_values("language").assign(row="language")
        over = pd.DataFrame(_over_languages(comparison)).assign(language="all")
        part = pd.concat([languages, over]).assign(intervention=comparison.intervention)
        paper = _paper_rows(comparison, model)
        if paper:
            part = part.merge(pd.DataFrame(paper), on=["row", "language"], how="left")
        parts.append(part.reindex(columns=list(RESULT_COLUMNS)))
    return pd.concat(parts, ignore_index=True)


def decision_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What lies under the scores: how a model decides or answers, by language and intervention.

    Args:
        rows: evaluation rows of one task, one a example, language and intervention.

    Returns:
        One row a `language` and `intervention`, all but `n` and `answer_tokens` in percent. Rows with a probability a label
        (`p_<label>`, as XNLI's): `accuracy`, `macro_f1` (a label that is neither there nor predicted counts as 0),
        `predicted_<label>`, `label_mass` (mean probability of the label tokens together; NaN if not measured) and, where rows
        tell, `near_tie` (the two best labels are within rounding of each other). Others, as XQuAD's: the metric and, where
        the rows have them, `f1`, `em`, `f1_segmented`, `answer_tokens` (mean new tokens), `stopped`, `gold_lost`. Both: `n`,
        `truncated`, and `overlap` (bool: some of the examples tuned this intervention).

    Raises:
        ValueError: rows of several tasks, or rows that do not name their metric.
    """
    metric = facts_of_rows(rows).metric
    measure = partial(_decisions, labels=labels_of(rows)) if labels_of(rows) else partial(_answers, metric=metric)
    order = {name: place for place, name in enumerate(rows["intervention"].unique())}
    table = [
        {
            "language": language,
            "intervention": intervention,
            "n": len(part),
            **measure(part),
            "truncated": 100 * part["truncated"].mean() if "truncated" in part else float("nan"),
            "overlap": "overlap" in part and bool(part["overlap"].eq(True).any()),
        }
        for (language, intervention), part in rows.groupby(["language", "intervention"])
    ]
    by = ["language", "intervention"]
    return pd.DataFrame(table).sort_values(by, key=lambda c: c.map(order) if c.name == by[1] else c, ignore_index=True)


def check_alike(comparisons: Sequence[Comparison]) -> None:
    """Raise `ValueError` unless the comparisons can stand in one table."""
    given_each(comparisons, Comparison, "a list of Comparisons is needed", "compare(rows, ...) makes one")
    if not comparisons:
        raise ValueError("no comparisons to tabulate")
    names = [comparison.intervention for comparison in comparisons]
    if len(set(names)) != len(names):
        raise ValueError(f"interventions need different names; got: {', '.join(names)}")
    first, *others = comparisons
    key = ["language", "n", "baseline"]
    for other in others:
        settings = [(one.task, one.metric, one.baseline, one.anchor, one.confidence) for one in (first, other)]
        if settings[0] != settings[1] or not first.languages[key].equals(other.languages[key]):
            raise ValueError(
                f"{first.intervention!r} and {other.intervention!r} were not compared with the same baseline scores: "
                f"{settings[0]} and {settings[1]} on {len(first.languages)} and {len(other.languages)} languages"
            )


def _over_languages(comparison: Comparison) -> list[dict[str, Any]]:
    """The rows below the languages."""
    summary = comparison.summary
    means = [("average", summary.baseline, comparison.average)]
    if comparison.anchor is not None:
        targets = comparison.languages[comparison.languages["language"] != comparison.anchor]
        means.append(("without anchor", float(targets["baseline"].mean()), comparison.targets))
    rows: list[dict[str, Any]] = [
        {"row": row, "baseline": base, "score": base + gain, "gain": gain, "ci_low": low, "ci_high": high}
        for row, base, (gain, low, high) in means
    ]
    rows.append({"row": "sigma", "baseline": summary.sigma_baseline, "score": summary.sigma})
    tests = {
        "over examples": comparison.p_examples,
        "paired t-test": summary.p_t,
        "Wilcoxon": summary.p_wilcoxon,
        "sign-flip": summary.p_sign_flip,
    }
    return rows + [{"row": row, "p": p} for row, p in tests.items()]


def _paper_rows(comparison: Comparison, model: str | None) -> list[dict[str, Any]]:
    """The paper's numbers by row and language, where it has some for this model, metric and intervention."""
    name, method = paper_model(model or ""), PAPER_METHODS.get(comparison.intervention.lower().replace("_", "-"))
    metric = next((TASKS[task].metric for task in PAPER_TASKS if task == comparison.task), None)
    if name is None or method is None or metric != comparison.metric:
        return []
    table, last = paper_table(comparison.task), paper_summary(comparison.task).set_index("model").loc[name]
    rows = [
        {"row": "language", "language": row["language"], **_paper_means(row, method)}
        for row in table[table["model"] == name].to_dict("records")
    ]
    rows.append({"row": "average", "language": "all", **_paper_means(last, method)})
    sigmas = {"paper_baseline": last["sigma_base"], "paper_score": last[f"sigma_{method}"]}
    rows.append({"row": "sigma", "language": "all", **sigmas})
    if method == "clas":
        rows.append({"row": "paired t-test", "language": "all", "paper_p": last["clas_p"]})
    return rows


def _paper_means(row: Any, method: str) -> dict[str, float]:
    base, gain = row["base"], row[f"{method}_gain"]
    return {"paper_baseline": base, "paper_score": base + gain, "paper_gain": gain}


def _decisions(rows: pd.DataFrame, *, labels: Sequence[str]) -> dict[str, float]:
    places = list(range(len(labels)))
    macro = f1_score(
        rows["gold"].astype(int), rows["prediction"].astype(int), labels=places, average="macro", zero_division=0
    )
    shares = {f"predicted_{name}": 100 * rows["prediction"].eq(label).mean() for label, name in enumerate(labels)}
    return {
        "accuracy": 100 * rows["gold"].eq(rows["prediction"]).mean(),
        "macro_f1": 100 * float(macro),
        **shares,
        "label_mass": 100 * rows["label_mass"].mean() if "label_mass" in rows else float("nan"),
        **({"near_tie": 100 * rows["near_tie"].mean()} if "near_tie" in rows else {}),
    }


def _answers(rows: pd.DataFrame, *, metric: str) -> dict[str, float]:
    measured = dict.fromkeys([metric, "f1", "em", "f1_segmented", "stopped", "gold_lost"])
    shares = {name: 100 * rows[name].mean() for name in measured if name in rows}
    return shares | ({"answer_tokens": rows["n_new_tokens"].mean()} if "n_new_tokens" in rows else {})
