"""Tables to read: what `analysis.tables` holds, laid out as in the paper."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import pandas as pd

from clas_lens.given import given_word
from clas_lens.significance.compare import Comparison
from clas_lens.significance.intervals import caution
from clas_lens.significance.pairs import RowFacts, facts_of_rows, labels_of

from ..style.numbers import interval, number, p_value, signed
from .paper import PLACES, paper_table
from .results import decision_table, results_table
from .table import Column, Table, table_of

Correction = Literal["holm", "bh"]


CORRECTIONS = {"holm": "Holm", "bh": "Benjamini-Hochberg"}


# What other columns of scores than a task's own are called.
SCORES = {"correct": "accuracy", "f1": "token F1", "em": "exact match", "f1_segmented": "segmented F1"}


SIGNIFICANT = 0.05


TUNED = "* Tuned on some of these examples: its scores are optimistic."


# Columns of `decision_table`, with the headings that they stand under.
SCORED = [("score (%)", "F1", "f1"), ("score (%)", "exact match", "em"), ("score (%)", "segmented F1", "f1_segmented")]


DECISIONS = [("score (%)", "accuracy", "accuracy"), ("score (%)", "macro F1", "macro_f1")]


DETAILS = [
    *(("next token (%)", "label mass", "label_mass"), ("next token (%)", "near ties", "near_tie")),
    *(
        ("answer", "tokens", "answer_tokens"),
        ("answer", "stopped (%)", "stopped"),
        ("prompt (%)", "cut", "truncated"),
        ("prompt (%)", "gold lost", "gold_lost"),
    ),
]


DECISION_NOTES = [
    "Predicted: how often each label is the answer. Where a gain in accuracy comes with a shift of these shares, suspect a "
    "change of bias; macro F1 weighs the labels alike.",
    "Label mass: mean probability of the label tokens together. Near ties: the two best labels are within one rounding step of "
    "the model's dtype, so rounding may have chosen. Cut: prompts shortened to the token limit.",
]


ANSWER_NOTES = [
    "Segmented F1 takes Chinese by the character and Thai by the grapheme; F1 splits at spaces, where they have none.",
    "Tokens: mean length of an answer. Stopped: it ended by itself, at an end-of-text token or a newline. Cut: contexts "
    "shortened to the token limit; gold lost: the answer was in what was cut.",
]


def results_view(
    comparisons: Sequence[Comparison], *, model: str | None = None, correction: Correction = "holm"
) -> Table:
    """The paper's Table 1 or 2 for one's own run: a row a language, the base score, and what each intervention gains.

    Arguments and errors are those of `results_table`; `correction` chooses which corrected p is shown.
    """
    given_word("correction", correction, get_args(Correction))
    table = results_table(comparisons, model=model)
    first = comparisons[0]
    parts = [table[table["intervention"] == one.intervention].to_dict("records") for one in comparisons]
    papers = [any(pd.notna(row["paper_baseline"]) for row in part) for part in parts]
    columns = [
        Column("", tuple(_row_name(row, first.anchor) for row in parts[0]), numeric=False),
        Column("score", tuple(number(row["baseline"], 2) for row in parts[0]), first.baseline),
    ]
    if any(papers):
        cells = tuple(number(row["paper_baseline"], 2) for row in parts[papers.index(True)])
        columns.append(Column("paper", cells, first.baseline))
    for comparison, part, paper in zip(comparisons, parts, papers, strict=True):
        columns += _intervention_columns(comparison, part, correction, with_paper=paper)
    languages = first.languages
    score = SCORES.get(first.metric, first.metric) if first.metric_title == first.metric else first.metric_title
    size = f"{len(languages)} languages, {languages['n'].iloc[0]:,} parallel examples in each"
    return Table(
        f"{first.title}: {score} in percent, gains in percentage points",
        tuple(columns),
        subtitle=_subtitle(model, size),
        groups=tuple("by language" if row["row"] == "language" else "over languages" for row in parts[0]),
        notes=tuple(_result_notes(comparisons, correction, with_paper=any(papers))),
    )


def decision_view(rows: pd.DataFrame, *, model: str | None = None) -> Table:
    """`decision_table`, laid out: how the model decides (XNLI) or answers (XQuAD), by language and intervention.

    Args:
        rows: evaluation rows of one task.
        model: its name.
    """
    facts, labels, table = facts_of_rows(rows), labels_of(rows), decision_table(rows)
    names = [_marked(*pair) for pair in zip(table["intervention"], table["overlap"], strict=True)]
    sizes = sorted(table["n"].unique())
    counts = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    headed = _headed(table, facts, labels)
    shown = table.assign(intervention=names)[["language", "intervention", *(name for *_, name in headed)]]
    return table_of(
        shown.rename(columns={name: heading for _, heading, name in headed}),
        f"{facts.title}: how the model {'decides' if labels else 'answers'}",
        digits=1,
        spanners={heading: spanner for spanner, heading, _ in headed},
        subtitle=_subtitle(model, f"{counts} examples in each row"),
        notes=(*([TUNED] if table["overlap"].any() else []), *(DECISION_NOTES if labels else ANSWER_NOTES)),
    )


def _headed(table: pd.DataFrame, facts: RowFacts, labels: Sequence[str]) -> list[tuple[str, str, str]]:
    """Spanner, label and name of the columns that a table of decisions has."""
    if labels:
        scored = DECISIONS + [("predicted (%)", name, f"predicted_{name}") for name in labels]
    else:
        own = (
            () if facts.metric in [name for *_, name in SCORED] else (("score (%)", facts.metric_title, facts.metric),)
        )
        scored = [*own, *SCORED]
    return [column for column in [*scored, *DETAILS] if column[2] in table]


def _intervention_columns(
    comparison: Comparison, rows: Sequence[Mapping[Any, Any]], correction: Correction, *, with_paper: bool
) -> list[Column]:
    """One intervention's gain, interval, p, and the paper's gain."""
    name, p_name = _marked(comparison.intervention, comparison.overlap), f"p_{correction}"
    gains = tuple(number(row["score"], 2) if row["row"] == "sigma" else signed(row["gain"]) for row in rows)
    bold = frozenset(place for place, row in enumerate(rows) if row[p_name] < SIGNIFICANT)
    columns = {
        "gain": gains,
        f"{100 * comparison.confidence:g}% interval": tuple(interval(row["ci_low"], row["ci_high"]) for row in rows),
        "p": tuple(p_value(row["p"] if row["language"] == "all" else row[p_name]) for row in rows),
    }
    if with_paper:
        columns["paper"] = tuple(map(_paper_gain, rows))
    return [
        Column(heading, cells, name, bold=bold if heading == "gain" else frozenset())
        for heading, cells in columns.items()
    ]


def _paper_gain(row: Mapping[Any, Any]) -> str:
    if row["row"] == "sigma":
        return number(row["paper_score"], 2)
    return row["paper_p"] if isinstance(row["paper_p"], str) else signed(row["paper_gain"])


def _result_notes(comparisons: Sequence[Comparison], correction: Correction, *, with_paper: bool) -> list[str]:
    """What a reader needs to know to read the numbers."""
    first = comparisons[0]
    languages = first.languages
    test, n_groups = languages["test"].iloc[0], languages["n_groups"].iloc[0]
    others = "languages" if first.anchor is None else f"languages without {first.anchor}"
    n_tested = int(languages["p_holm"].notna().sum())
    notes = [TUNED] if any(one.overlap for one in comparisons) else []
    notes += [
        f"Intervals: {_interval_note(first, int(n_groups))}",
        f"p by language: {test} test against {first.baseline}, two-sided, {CORRECTIONS[correction]}-corrected over "
        f"{n_tested} {others}; bold gains have p below {SIGNIFICANT}.",
        "p, over examples: t-test of the average over "
        f"{others}, from one gain a group of examples; of the p below the languages this alone speaks of other examples.",
        f"p over languages: from one gain a language, over {others}, two-sided, uncorrected. It holds for these examples "
        "only: translations rise and fall together, so that other examples could move all languages at once. Average: over "
        "all languages.",
        f"σ: standard deviation over {others}, of the scores before and, under an intervention, after it.",
    ]
    notes += [_anchor_note(one) for one in comparisons if one.anchor is not None]
    if with_paper:
        n_languages = paper_table(first.task)["language"].nunique()
        notes.append(
            f"paper: {PLACES[first.task]} of arXiv 2601.16390 (CLAS), as printed; its average, σ and p are over "
            f"{n_languages} languages; its p, too, holds for its own examples only."
        )
    return notes


def _interval_note(comparison: Comparison, n_groups: int) -> str:
    """How the intervals were made, and from how few groups."""
    groups = f"the {n_groups:,} groups of examples that belong together, the same in all languages."
    how = {"t": "Student's t over", "percentile": f"percentile bootstrap, {comparison.n_boot:,} draws from"}
    return " ".join(part for part in (how[comparison.interval], groups, caution(n_groups)) if part)


def _anchor_note(comparison: Comparison) -> str:
    """Whether the anchor is left as it was."""
    languages = comparison.languages
    row = languages[languages["language"] == comparison.anchor].iloc[0]
    where = f"{comparison.intervention} in {comparison.anchor}"
    if not row["n_changed"]:
        return f"{where}: no score changed."
    verdict = "lies" if row["p_equivalent"] < SIGNIFICANT else "is not shown to lie"
    margin = f"{comparison.margin:g} percentage point{'s' if comparison.margin != 1 else ''}"
    return f"{where}: the change {verdict} within {margin} (equivalence test, p {p_value(row['p_equivalent'], equals='= ')})."


def _subtitle(model: str | None, size: str) -> str:
    return ", ".join(filter(None, (model, size)))


def _marked(intervention: str, tuned: bool) -> str:
    """The name, with the mark that `TUNED` explains."""
    return f"{intervention} *" if tuned else intervention


def _row_name(row: Mapping[Any, Any], anchor: str | None) -> str:
    match row["row"]:
        case "language":
            return f"{anchor} (anchor)" if row["language"] == anchor else row["language"]
        case "average":
            return "average"
        case "without anchor":
            return f"average without {anchor}"
        case "sigma":
            return "σ of scores"
        case test:
            return f"p, {test}"
