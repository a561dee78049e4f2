"""The one kind of table: text by column, shown in a page and in notebooks (as files: `files.py`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from ..style.numbers import number


@dataclass(frozen=True)
class Column:
    """One column: what stands above it, and a cell a row.

    Attributes:
        spanner: what stands above the heading, over all neighbours with the same one; "" for nothing.
        numeric: set to the right.
        bold: rows of bold cells.
    """

    heading: str
    cells: tuple[str, ...]
    spanner: str = ""
    numeric: bool = True
    bold: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """Columns of equally many cells, all plain text.

    Attributes:
        groups: what each row belongs to, shown above the first of its neighbours with the same; () for no groups.
        notes: how to read it, a sentence or more each.
        filtered: long enough that a page offers to filter it.
    """

    title: str
    columns: tuple[Column, ...]
    subtitle: str = ""
    groups: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    filtered: bool = False

    def __post_init__(self) -> None:
        lengths = {len(column.cells) for column in self.columns} | ({len(self.groups)} if self.groups else set())
        if len(lengths) != 1:
            raise ValueError(f"{self.title}: columns of {sorted(lengths)} cells; a table's are all as long")

    @property
    def headings(self) -> tuple[str, ...]:
        return tuple(column.heading for column in self.columns)

    @property
    def rows(self) -> tuple[tuple[str, ...], ...]:
        return tuple(zip(*(column.cells for column in self.columns), strict=True))

    @property
    def spanners(self) -> list[tuple[str, int]]:
        """What stands above the headings, and over how many columns; empty without any."""
        runs = [(name, len(list(run))) for name, run in groupby(column.spanner for column in self.columns)]
        return runs if any(name for name, _ in runs) else []

    def _repr_html_(self) -> str:
        return table_html(self)


def table_html(table: Table, *, filter: bool = False) -> Markup:
    """The table as HTML, all text escaped, with a field to filter its rows by (which the page's script serves)."""
    return Markup(_template().render(table=table, spanners=table.spanners, filter=filter, side=_side))


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("table.html")


def _side(column: Column) -> Markup:
    if column.numeric:
        return Markup(' class="number" style="text-align:right;font-variant-numeric:tabular-nums"')
    return Markup(' style="text-align:start"')


def table_of(
    frame: pd.DataFrame,
    title: str,
    *,
    digits: int | Mapping[str, int] = 2,
    signed: Sequence[str] = (),
    spanners: Mapping[str, str] | None = None,
    **options: Any,
) -> Table:
    """A frame's columns as text: numbers with `digits`, those named in `signed` with their sign, nothing for NaN.

    Args:
        digits: of all columns, or by column (2 for those not named).
        spanners: by column.
        options: the table's own.
    """
    return Table(
        title,
        tuple(
            Column(
                str(name),
                _cells(
                    frame[name], digits if isinstance(digits, int) else digits.get(str(name), 2), sign=name in signed
                ),
                (spanners or {}).get(str(name), ""),
                pd.api.types.is_numeric_dtype(frame[name]),
            )
            for name in frame
        ),
        **options,
    )


def _cells(column: pd.Series, digits: int, *, sign: bool) -> tuple[str, ...]:
    if pd.api.types.is_bool_dtype(column) or not pd.api.types.is_numeric_dtype(column):
        return tuple("" if pd.isna(value) else str(value) for value in column)
    whole = pd.api.types.is_integer_dtype(column)
    return tuple(number(value, 0 if whole else digits, sign=sign) for value in column)
