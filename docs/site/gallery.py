"""The gallery's second half: each figure that a lesson draws, with the line that draws it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lessons import LESSONS, cells_of, heading, picture_names, title_of


@dataclass(frozen=True)
class LessonFigure:
    """A picture of a lesson and the last line of its cell.

    Attributes:
        name: the function that draws it, or the figure's name in a run folder.
        picture: its file's name.
        section: the heading that it stands under.
    """

    name: str
    line: str
    picture: str
    section: str
    lesson: Path


def lesson_figures(lesson: Path) -> Iterator[LessonFigure]:
    """Those of a lesson whose cell ends with the call that draws it, or with `show("name")` of a run's figure."""
    section, names = title_of(lesson), picture_names(lesson)
    for cell in cells_of(lesson):
        if cell.cell_type == "markdown":
            section = heading(cell.source) or section
            continue
        found = [next(names) for output in cell.outputs if "image/png" in output.get("data", {})]
        line = cell.source.rstrip().splitlines()[-1] if cell.source.strip() else ""
        called = re.match(r'show\("(\w+)"\)|(?:\w+ = )?(\w+)\(', line)
        if found and called:
            yield LessonFigure(called[1] or called[2], line, found[0], section, lesson)


def more_of_the_gallery(text: str, functions: set[str]) -> str:
    """Markdown to put behind the gallery's own: figures that are not in it, each once, and the functions left without.

    Args:
        text: the gallery's own.
        functions: all that draw a figure.
    """
    shown: dict[str, LessonFigure] = {}
    for lesson in LESSONS:
        for one in lesson_figures(lesson):
            if f"{one.name}(" not in text:
                shown.setdefault(one.name, one)
    left = sorted(name for name in functions if name not in shown and f"{name}(" not in text)
    parts = ["## In the notebooks", *map(_entry, shown.values())]
    if left:
        listed = ", ".join(f"[{name}](reference/analysis.figures.md)" for name in left)
        parts.append(f"Without a picture here: {listed}.")
    return "\n\n".join(parts)


def _entry(one: LessonFigure) -> str:
    drawn = (
        f"`{one.line}`"
        if not one.line.startswith("show(")
        else f"`{one.name}` of a run folder: `clas-lens figures RUN`"
    )
    where = f"notebooks/{one.lesson.stem}.md"
    return (
        f"{drawn}\n\n![Figure of the section “{one.section}”](notebooks/{one.picture})\n\n"
        f"[{title_of(one.lesson)}]({where}): {one.section}"
    )
