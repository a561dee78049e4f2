"""The notebooks as they are committed, read for the site, the slides and the solutions; nothing is executed."""

import base64
import re
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def cells_of(path: Path) -> list[NotebookNode]:
    """A lesson's cells."""
    return list(nbformat.read(path, as_version=4).cells)


def title_of(path: Path) -> str:
    """The lesson's title, from its first cell."""
    return str(cells_of(path)[0].source).splitlines()[0].removeprefix("# ")


def pictures(cell: NotebookNode) -> list[bytes]:
    """The PNGs among a cell's outputs."""
    shown = [output.get("data", {}) for output in cell.get("outputs", [])]
    return [base64.b64decode(data["image/png"]) for data in shown if "image/png" in data]


def picture_names(path: Path) -> Iterator[str]:
    """File names for a lesson's pictures on the site, in their order."""
    return (f"{path.stem}_{number}.png" for number in count())


def heading(text: str) -> str | None:
    """The first heading of a Markdown cell."""
    found = re.search(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return found.group(1) if found else None
