"""HTML beside the figures: tables with bars of characters, which also show where scripts and styles are taken away."""

from collections.abc import Mapping, Sequence
from html import escape

import plotly.graph_objects as go

BAR = 6  # characters, the last one in eighths; two columns of bars fit a phone
EIGHTHS = ["", *map(chr, range(0x258F, 0x2588, -1))]  # one eighth of a block to seven


def table(columns: Mapping[str, Sequence[object]]) -> str:
    """A table with a heading row; all cells are escaped."""
    cell = '<t{0} style="text-align:left;padding:0 .8em 0 0;vertical-align:top">{1}</t{0}>'
    head = "".join(cell.format("h", escape(name)) for name in columns)
    lines = zip(*columns.values(), strict=True)
    body = "".join(f"<tr>{''.join(cell.format('d', escape(str(value))) for value in line)}</tr>" for line in lines)
    return f'<table style="line-height:1.35"><tr>{head}</tr>{body}</table>'


def text_bar(share: float, number: str) -> str:
    """A bar of block characters for a share of 0 to 1, and a number on the same line."""
    whole, rest = divmod(round(8 * BAR * min(max(share, 0.0), 1.0)), 8)
    return "\N{FULL BLOCK}" * whole + EIGHTHS[rest] + "\N{NO-BREAK SPACE}" + number


def paragraph(text: str) -> str:
    """Escaped text."""
    return f'<p style="margin:.3em 0">{escape(text)}</p>'


def alert(text: str) -> str:
    """Escaped text that is not to be missed."""
    return f'<p style="margin:.3em 0;padding:.3em .7em;border-left:4px solid #D55E00">{escape(text)}</p>'


def heading(figure: go.Figure) -> str:
    """A figure's title and subtitle as HTML; their markup is plotly's, which escapes data before it comes here."""
    title = figure.layout.title
    small = f'<br><span style="font-size:smaller;opacity:.8">{_joined(title.subtitle.text)}</span>'
    return f'<div style="line-height:1.3;margin:.6em 0 0"><strong>{_joined(title.text)}</strong>{small}</div>'


def _joined(text: str | None) -> str:
    return (text or "").replace("<br>", " ")


def code_block(code: str) -> str:
    """Code with a button that copies it; one click into the code selects all of it."""
    copy = "navigator.clipboard.writeText(this.nextElementSibling.textContent)"
    return (
        f'<button onclick="{copy}" style="margin:.3em 0">copy</button>'
        f'<pre style="user-select:all;overflow-x:auto;line-height:1.35">{escape(code)}</pre>'
    )
