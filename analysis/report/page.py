"""One self-contained HTML page: figures as data, plotly.js once, own style and script, nothing loaded from elsewhere.

Every text goes through Jinja's escaping; figures go through JSON whose <, > and & are written as escapes, so that nothing in
data can end the element it stands in.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from ..style.look import template, words_of
from ..tables.table import Table, table_html
from .pieces import Drawn, Missing


@dataclass(frozen=True)
class Prose:
    """Paragraphs, each with a heading of its own or none ("")."""

    paragraphs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    """Text to copy."""

    text: str


@dataclass(frozen=True)
class Facts:
    """Names and values in short."""

    items: tuple[tuple[str, str], ...]


Block = Drawn | Missing | Table | Prose | Code | Facts


@dataclass(frozen=True)
class Section:
    """A part of the page with an entry in its navigation."""

    id: str
    title: str
    lead: str
    blocks: Sequence[Block]


def render_page(sections: Sequence[Section], *, title: str, subtitle: str) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=PackageLoader(__name__.rpartition(".")[0]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.filters["alt"] = alt_text
    environment.filters["table"] = lambda table: table_html(table, filter=table.filtered)
    drawn = [block for section in sections for block in section.blocks if isinstance(block, Drawn)]
    data = {
        "figures": {block.name: _without_template(block.figure) for block in drawn},
        "templates": {name: template(dark=name == "dark").to_plotly_json() for name in ("light", "dark")},
    }
    source = environment.loader.get_source if environment.loader else None
    assert source is not None
    style, script = (source(environment, name)[0] for name in ("report.css", "report.js"))
    return environment.get_template("report.html").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        style=Markup(style),  # our own files, and plotly's
        script=Markup(script),
        plotly=Markup(get_plotlyjs()),
        data=htmlsafe_json_dumps(data, dumps=_dumps),
    )


def alt_text(block: Drawn) -> str:
    """A figure in words for who does not see it: its title, what it is of, and how to read it."""
    return ". ".join(filter(None, [words_of(block.figure), block.caption]))


def _without_template(figure: go.Figure) -> dict[str, Any]:
    """A figure's data and layout; the page puts the look of the day on it."""
    content = json.loads(figure.to_json())
    content["layout"].pop("template", None)
    return content


def _dumps(value: object, **options: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
