"""Tables to read: what `analysis.tables` holds, laid out as in the paper, as great-tables objects (all text escaped)."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Any, Literal, NamedTuple

import pandas as pd
from great_tables import GT, html, loc, style

from analysis.tables.paper import PLACES, paper_table
from analysis.tables.results import decision_table, labels_of, results_table
from clas_lens.significance.compare import Comparison
from clas_lens.significance.intervals import caution
from clas_lens.significance.pairs import RowFacts, facts_of_rows

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
    *(("next token (%)", "label mass", "label_mass"), ("answer", "tokens", "answer_tokens")),
    *(
        ("answer", "stopped (%)", "stopped"),
        ("prompt (%)", "cut", "truncated"),
        ("prompt (%)", "gold lost", "gold_lost"),
    ),
]


DECISION_NOTES = [
    "Predicted: how often each label is the answer. Where a gain in accuracy comes with a shift of these shares, suspect a "
    "change of bias; macro F1 weighs the labels alike.",
    "Label mass: mean probability of the label tokens together. Cut: prompts shortened to the token limit.",
]


ANSWER_NOTES = [
    "Segmented F1 takes Chinese by the character and Thai by the grapheme; F1 splits at spaces, where they have none.",
    "Tokens: mean length of an answer. Stopped: it ended by itself, at an end-of-text token or a newline. Cut: contexts "
    "shortened to the token limit; gold lost: the answer was in what was cut.",
]


class Column(NamedTuple):
    """A column of a view: what stands above it, what in it, and which of its rows are bold."""

    spanner: str
    label: str
    cells: list[str]
    bold: list[int]


def results_view(comparisons: Sequence[Comparison], *, model: str | None = None, correction: Correction = "holm") -> GT:
    """The paper's Table 1 or 2 for one's own run: a row a language, the base score, and what each intervention gains.

    Arguments and errors are those of `results_table`; `correction` chooses which corrected p is shown.
    """
    table = results_table(comparisons, model=model)
    first = comparisons[0]
    parts = [table[table["intervention"] == one.intervention].to_dict("records") for one in comparisons]
    papers = [any(pd.notna(row["paper_baseline"]) for row in part) for part in parts]
    columns = [Column(first.baseline, "score", [_number(row["baseline"]) for row in parts[0]], [])]
    if any(papers):
        cells = [_number(row["paper_baseline"]) for row in parts[papers.index(True)]]
        columns.append(Column(first.baseline, "paper", cells, []))
    for comparison, part, paper in zip(comparisons, parts, papers, strict=True):
        columns += _intervention_columns(comparison, part, correction, with_paper=paper)
    languages = first.languages
    stub = pd.DataFrame(
        {
            "part": ["by language" if row["row"] == "language" else "over languages" for row in parts[0]],
            "row": [_row_name(row, first.anchor) for row in parts[0]],
        }
    )
    score = SCORES.get(first.metric, first.metric) if first.metric_title == first.metric else first.metric_title
    title = f"{first.title}: {score} in percent, gains in percentage points"
    subtitle = f"{len(languages)} languages, {languages['n'].iloc[0]:,} parallel examples in each"
    view = _lay_out(stub, columns, title=title, about=(model, subtitle), beside=False)
    for note in _result_notes(comparisons, correction, with_paper=any(papers)):
        view = view.tab_source_note(note)
    return view


def decision_view(rows: pd.DataFrame, *, model: str | None = None) -> GT:
    """`decision_table`, laid out: how the model decides (XNLI) or answers (XQuAD), by language and intervention.

    Args:
        rows: evaluation rows of one task.
        model: its name.
    """
    facts, labels, table = facts_of_rows(rows), labels_of(rows), decision_table(rows)
    names = [_marked(*pair) for pair in zip(table["intervention"], table["overlap"], strict=True)]
    columns = [
        Column(spanner, label, [_number(value, digits=1) for value in table[name]], [])
        for spanner, label, name in _headed(table, facts, labels)
    ]
    stub = pd.DataFrame({"part": table["language"], "row": names})
    sizes = sorted(table["n"].unique())
    counts = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    subtitle = f"{counts} examples in each row"
    title = f"{facts.title}: how the model {'decides' if labels else 'answers'}"
    view = _lay_out(stub, columns, title=title, about=(model, subtitle), beside=True)
    if table["overlap"].any():
        view = view.tab_source_note(TUNED)
    for note in DECISION_NOTES if labels else ANSWER_NOTES:
        view = view.tab_source_note(note)
    return view


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
    gains = [_number(row["score"]) if row["row"] == "sigma" else _number(row["gain"], signed=True) for row in rows]
    bold = [place for place, row in enumerate(rows) if row[p_name] < SIGNIFICANT]
    intervals = [_interval(row["ci_low"], row["ci_high"]) for row in rows]
    p_values = [_p_value(row["p"] if row["language"] == "all" else row[p_name]) for row in rows]
    columns = [
        Column(name, "gain", gains, bold),
        Column(name, f"{100 * comparison.confidence:g}% interval", intervals, []),
        Column(name, "p", p_values, []),
    ]
    if with_paper:
        columns.append(Column(name, "paper", [_paper_gain(row) for row in rows], []))
    return columns


def _paper_gain(row: Mapping[Any, Any]) -> str:
    if row["row"] == "sigma":
        return _number(row["paper_score"])
    return row["paper_p"] if isinstance(row["paper_p"], str) else _number(row["paper_gain"], signed=True)


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
            f"{n_languages} languages."
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
    return f"{where}: the change {verdict} within {margin} (equivalence test, p {_p_value(row['p_equivalent'], equals='= ')})."


def _lay_out(
    stub: pd.DataFrame, columns: Sequence[Column], *, title: str, about: Sequence[str | None], beside: bool
) -> GT:
    """Rows in parts (named beside or above them), columns under spanners, and one restrained look."""
    ids = [f"column {place}" for place in range(len(columns))]
    cells = pd.DataFrame({name: column.cells for name, column in zip(ids, columns, strict=True)})
    view = GT(pd.concat([stub, cells], axis=1), rowname_col="row", groupname_col="part")
    view = view.tab_header(title, ", ".join(part for part in about if part)).cols_align("right", ids)
    view = view.cols_label({name: column.label for name, column in zip(ids, columns, strict=True)})
    for spanner, members in groupby(zip(ids, columns, strict=True), key=lambda pair: pair[1].spanner):
        inside = [name for name, _ in members]
        # great-tables takes a plain spanner for HTML, and {{...}} in any for units
        shown = html(escape(spanner).replace("{", "&#123;"))
        view = view.tab_spanner(shown, columns=inside, id=f"over {inside[0]}")
        view = view.tab_style(style.css("padding-left: 28px;"), [loc.body(inside[0]), loc.column_labels(inside[0])])
    for name, column in zip(ids, columns, strict=True):
        view = view.tab_style(style.text(weight="bold"), loc.body(name, column.bold)) if column.bold else view
    # notes as wide as the table, not the table as wide as its longest note
    view = view.tab_style(style.css("max-width: 0; white-space: normal;"), loc.source_notes())
    return view.tab_options(
        table_font_names=["Inter", "Helvetica", "Arial", "sans-serif"],
        table_font_size="14px",
        heading_align="left",
        heading_title_font_size="18px",
        data_row_padding="3px",
        row_group_padding="4px",
        row_group_font_weight="600",
        row_group_as_column=beside,
        source_notes_font_size="12px",
        source_notes_padding="2px",
    )


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


def _number(value: float, *, signed: bool = False, digits: int = 2) -> str:
    """With a true minus and no negative zero; empty for what is not there."""
    if pd.isna(value):
        return ""
    rounded = round(float(value), digits) + 0.0
    return f"{rounded:{'+' if signed and rounded else ''}.{digits}f}".replace("-", "−")


def _interval(low: float, high: float) -> str:
    return "" if pd.isna(low) else f"{_number(low, signed=True)} to {_number(high, signed=True)}"


def _p_value(value: float | None, *, equals: str = "") -> str:
    if value is None or pd.isna(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{equals}{value:.3f}"
