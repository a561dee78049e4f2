"""Tables as files: HTML to look at, LaTeX to print (booktabs), CSV to count with."""

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from clas_lens.artifacts import write_text
from clas_lens.given import given, given_each, given_path, given_word
from clas_lens.vocabulary import TableFormat

from ..style.numbers import MINUS
from .table import Column, Table, table_html

SUFFIXES: Mapping[TableFormat, str] = {"latex": "tex", "csv": "csv", "html": "html"}


WIDE = 34  # letters; a column with longer cells is set in lines


LONG = 45  # rows; a longer table goes over pages


LATEX_HEAD = (
    "% \\usepackage{booktabs,longtable,array}; texts in other scripts need LuaLaTeX or XeLaTeX with fonts for them.\n"
)


_LATEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    MINUS: "$-$",
    "σ": "$\\sigma$",
    "\N{GREEK SMALL LETTER ALPHA}": "$\\alpha$",
    "\N{OPEN BOX}": "\\textvisiblespace{}",
    "\N{RETURN SYMBOL}": "\\textbackslash{}n",
    "\N{LEFT-TO-RIGHT MARK}": "",
    "\N{FIRST STRONG ISOLATE}": "",
    "\N{POP DIRECTIONAL ISOLATE}": "",
}


def export_tables(tables: Mapping[str, Table], folder: str | Path, formats: Sequence[TableFormat]) -> list[Path]:
    """Write every table as `<folder>/<name>.tex`, `.csv` and `.html`, as asked; returns the paths."""
    written = []
    target = given_path("folder", folder)
    asked = given_each(formats, str, "formats must be a list", "give ['csv']")
    if not asked:
        raise ValueError("no formats given: give ['csv']")
    kinds: list[TableFormat] = [given_word("format", kind, tuple(SUFFIXES)) for kind in asked]
    for name, table in given(
        tables, Mapping, "export_tables needs tables by name", "run_tables(data) makes them"
    ).items():
        given(table, Table, "export_tables needs Tables", "run_tables(data) makes them")
        for kind in kinds:
            path = target / f"{name}.{SUFFIXES[kind]}"
            write_text(path, _WRITERS[kind](table, name))
            written.append(path)
    return written


def table_csv(table: Table) -> str:
    """Headings and cells; numbers with a plain minus and no separators, so that programs read them."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    group = ["group"] if table.groups else []
    writer.writerow([*group, *(": ".join(filter(None, (one.spanner, one.heading))) for one in table.columns)])
    for place, row in enumerate(table.rows):
        cells = [_plain(cell) if column.numeric else cell for cell, column in zip(row, table.columns, strict=True)]
        writer.writerow([*(table.groups[place : place + 1]), *cells])
    return text.getvalue()


def table_latex(table: Table, label: str) -> str:
    """A `table`, or a `longtable` of many rows, with its notes below."""
    caption = ". ".join(filter(None, (table.title, table.subtitle)))
    title = f"\\caption{{{latex(caption)}}}\\label{{tab:{label}}}"
    notes = "".join(f"{latex(note)}\\par\n" for note in table.notes)
    notes = (
        f"\\par\\smallskip\n\\begin{{minipage}}{{\\linewidth}}\\footnotesize\n{notes}\\end{{minipage}}\n"
        if notes
        else ""
    )
    columns = "".join(map(_latex_column, table.columns))
    body = f"\\toprule\n{_latex_head(table)}\\midrule\n"
    rows = f"{_latex_rows(table)}\\bottomrule\n"
    if len(table.rows) > LONG:
        return f"{LATEX_HEAD}\\begin{{longtable}}{{{columns}}}\n{title}\\\\\n{body}\\endhead\n{rows}\\end{{longtable}}\n{notes}"
    tabular = f"\\begin{{tabular}}{{{columns}}}\n{body}{rows}\\end{{tabular}}\n"
    return f"{LATEX_HEAD}\\begin{{table}}\n\\centering\n{title}\n{tabular}{notes}\\end{{table}}\n"


def latex(text: str) -> str:
    """Text that LaTeX shows as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in " ".join(text.split()))


def _latex_column(column: Column) -> str:
    if column.numeric:
        return "r"
    return "p{0.3\\linewidth}" if max(map(len, column.cells), default=0) > WIDE else "l"


def _latex_head(table: Table) -> str:
    lines = ""
    if table.spanners:
        cells, rules, start = [], [], 1
        for name, width in table.spanners:
            cells.append(f"\\multicolumn{{{width}}}{{c}}{{{latex(name)}}}")
            if name:
                rules.append(f"\\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        lines = f"{' & '.join(cells)} \\\\\n{' '.join(rules)}\n"
    return f"{lines}{' & '.join(map(latex, table.headings))} \\\\\n"


def _latex_rows(table: Table) -> str:
    lines = []
    for place, row in enumerate(table.rows):
        if table.groups and (place == 0 or table.groups[place] != table.groups[place - 1]):
            rule = "\\midrule\n" if place else ""
            lines.append(f"{rule}\\multicolumn{{{len(row)}}}{{l}}{{\\emph{{{latex(table.groups[place])}}}}} \\\\\n")
        cells = [
            f"\\textbf{{{latex(cell)}}}" if place in column.bold else latex(cell)
            for cell, column in zip(row, table.columns, strict=True)
        ]
        lines.append(f"{' & '.join(cells)} \\\\\n")
    return "".join(lines)


def _plain(cell: str) -> str:
    return re.sub(r"(?<=\d),(?=\d{3})", "", cell.replace(MINUS, "-")).removeprefix("+")


def _page(table: Table) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"></head><body>{table_html(table)}</body></html>\n'
    )


_WRITERS: Mapping[TableFormat, Callable[[Table, str], str]] = {
    "latex": table_latex,
    "csv": lambda table, label: table_csv(table),
    "html": lambda table, label: _page(table),
}
