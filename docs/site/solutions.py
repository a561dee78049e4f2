"""The folded solutions in one file for teachers: `python docs/site/solutions.py` writes docs/teachers/solutions.md."""

import re

from lessons import LESSONS, ROOT, cells_of, heading, title_of

TARGET = ROOT / "docs/teachers/solutions.md"
OPENING = """# Solutions

The folded solutions of the notebooks, for those who teach with them. Made by `python docs/site/solutions.py`;
change a notebook, not this file.
"""


def solutions() -> str:
    """The whole file."""
    parts = [OPENING]
    for path in LESSONS:
        cells = cells_of(path)
        found = [cell for cell in cells if "<summary>Solution" in cell.source]
        parts += [f"## {path.stem}: {title_of(path)}\n"] if found else []
        for cell in found:
            before = [heading(other.source) for other in cells[: cells.index(cell)] if other.cell_type == "markdown"]
            name = [text for text in before if text][-1]
            inside = re.sub(r"</?details>|<summary>.*?</summary>", "", cell.source).strip()
            parts.append(f"### {re.sub(r'^[0-9]+[.] ', '', name)}\n\n{inside}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(solutions(), encoding="utf-8")
