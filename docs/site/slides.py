"""One deck a lesson, from the notebooks' headings, prose and figures: `python docs/site/slides.py FOLDER` writes them as HTML.

A deck is one file without a network: arrow keys or a click turn the page, printing gives a slide a page.
"""

import base64
import html
import re
import sys
from pathlib import Path

from lessons import LESSONS, cells_of, heading, pictures, title_of
from markdown import markdown
from nbformat import NotebookNode

TEMPLATE = Path(__file__).with_name("deck.html")
LINES = 12  # of code that can be read from the last row


def deck(path: Path) -> str:
    """A lesson's slides as one HTML page."""
    shown = "\n".join(f"<section><div>{slide}</div></section>" for slide in slides(path))
    page = TEMPLATE.read_text(encoding="utf-8")
    return page.replace("{{ title }}", html.escape(title_of(path))).replace("{{ slides }}", shown)


def slides(path: Path) -> list[str]:
    """Each Markdown cell is a slide, each figure and each short piece of code one of its own; solutions and checks are none."""
    found, last = [], title_of(path)
    for cell in cells_of(path):
        if cell.id.startswith(("solution", "check")):
            continue
        if cell.cell_type == "markdown":
            last = heading(cell.source) or last
            found.append(prose(cell.source, last))
        elif pictures(cell):
            for picture in pictures(cell):
                source = base64.b64encode(picture).decode()
                alt = html.escape(f"Figure of the section “{last}”", quote=True)
                found.append(f'<h2>{html.escape(last)}</h2><img alt="{alt}" src="data:image/png;base64,{source}">')
        elif cell.source.count("\n") < LINES:
            found.append(f"<h2>{html.escape(last)}</h2><pre>{html.escape(cell.source)}</pre>{answer(cell)}")
    return found


def prose(text: str, last: str) -> str:
    """A Markdown cell; links become their words, as a slide is no place to click."""
    plain = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    titled = plain if heading(text) else f"## {last}\n\n{plain}"
    return markdown(titled, extensions=["tables", "fenced_code", "sane_lists"])


def answer(cell: NotebookNode) -> str:
    """What the code printed, if it is short."""
    text = "".join(output.get("text", "") for output in cell.outputs)
    return f'<pre class="answer">{html.escape(text)}</pre>' if 0 < text.count("\n") <= LINES else ""


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for lesson in LESSONS:
        (folder / f"{lesson.stem}.html").write_text(deck(lesson), encoding="utf-8")
