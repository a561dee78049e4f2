"""HTML beside the figures: tables with bars of characters, which also show where scripts and styles are taken away."""

from collections.abc import Mapping, Sequence
from html import escape

BAR = 16  # characters


def table(columns: Mapping[str, Sequence[object]]) -> str:
    """A table with a heading row; all cells are escaped."""
    cell = '<t{0} style="text-align:left;padding:0 1em 0 0">{1}</t{0}>'
    head = "".join(cell.format("h", escape(name)) for name in columns)
    lines = zip(*columns.values(), strict=True)
    body = "".join(f"<tr>{''.join(cell.format('d', escape(str(value))) for value in line)}</tr>" for line in lines)
    return f'<table style="line-height:1.35"><tr>{head}</tr>{body}</table>'


def text_bar(share: float) -> str:
    """A bar of block characters for a share of 0 to 1."""
    return "\N{FULL BLOCK}" * round(BAR * min(max(share, 0.0), 1.0))


def paragraph(text: str) -> str:
    """Escaped text."""
    return f'<p style="margin:.3em 0">{escape(text)}</p>'
