"""Tables as files: what LaTeX shows is the text, what a program reads are the numbers."""

import csv
import io

import pandas as pd
import pytest

from analysis.tables.files import LONG, export_tables, latex, table_csv, table_latex
from analysis.tables.table import Column, Table, table_of
from clas_lens.cli import main


@pytest.fixture
def table():
    return Table(
        "Gains & losses",
        (
            Column("language", ("de", "zh", "all"), numeric=False),
            Column("score", ("1,033.20", "\N{MINUS SIGN}0.50", ""), "base"),
            Column("gain", ("+1.00", "\N{MINUS SIGN}2.00", "0.00"), "clas_1", bold=frozenset({1})),
        ),
        groups=("by language", "by language", "over"),
        notes=("50% of $5.",),
    )


def test_csv_has_numbers(table):
    rows = list(csv.reader(io.StringIO(table_csv(table))))
    assert rows[0] == ["group", "language", "base: score", "clas_1: gain"]
    assert rows[1:] == [
        ["by language", "de", "1033.20", "1.00"],
        ["by language", "zh", "-0.50", "-2.00"],
        ["over", "all", "", "0.00"],
    ]


def test_latex_has_spanners_groups_bold_and_notes(table):
    text = table_latex(table, "gains")
    assert "\\caption{Gains \\& losses}\\label{tab:gains}" in text
    assert "\\begin{tabular}{lrr}" in text
    assert "\\multicolumn{1}{c}{} & \\multicolumn{1}{c}{base} & \\multicolumn{1}{c}{clas\\_1}" in text
    assert "\\cmidrule(lr){2-2} \\cmidrule(lr){3-3}" in text
    assert "zh & $-$0.50 & \\textbf{$-$2.00} \\\\" in text
    assert text.count("\\emph{") == 2
    assert "50\\% of \\$5." in text
    for name in ("table", "tabular", "minipage"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == 1


def test_latex_shows_text_as_it_is():
    assert latex("a_b {c} \\d ~^ <x>\n#1") == (
        "a\\_b \\{c\\} \\textbackslash{}d \\textasciitilde{}\\textasciicircum{} \\textless{}x\\textgreater{} \\#1"
    )


def test_long_tables_go_over_pages():
    table = table_of(pd.DataFrame({"n": range(LONG + 1)}), "long")
    assert "\\begin{longtable}{r}" in table_latex(table, "long")


def test_files_are_written_and_unknown_formats_refused(table, tmp_path):
    written = export_tables({"gains": table}, tmp_path, ["latex", "csv", "html"])
    assert [path.name for path in written] == ["gains.tex", "gains.csv", "gains.html"]
    with pytest.raises(SystemExit):
        main(["tables", str(tmp_path), "--format", "docx"])


def test_columns_are_equally_long():
    with pytest.raises(ValueError, match="columns of \\[1, 2\\] cells"):
        Table("t", (Column("a", ("1",)), Column("b", ("1", "2"))))
