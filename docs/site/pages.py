"""Pages of the site that are made, not written: API reference, lessons, slides, changelog. A hook of MkDocs (mkdocs.yml)."""

import ast
import re
from importlib.util import resolve_name
from pathlib import Path

from gallery import more_of_the_gallery
from lessons import LESSONS, ROOT, cells_of, heading, picture_names, pictures, title_of
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from slides import deck

FENCE = "````"  # code and answers may hold three


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages: dict[str, str | bytes] = {
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "notebooks/README.md": to_pages((ROOT / "notebooks/README.md").read_text(encoding="utf-8")),
        **reference(),
    }
    for path in LESSONS:
        pages |= lesson(path)
        pages[f"slides/{path.stem}.html"] = deck(path)
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The gallery goes on with what the lessons draw."""
    if page.file.src_uri != "gallery.md":
        return markdown
    homes = public_names(ROOT / "analysis")
    drawing = {name for name, home in homes.items() if home.startswith("analysis.figures.")}
    return f"{markdown}\n\n{more_of_the_gallery(markdown, drawing)}\n"


def to_pages(text: str) -> str:
    """Links to notebooks lead to their pages, and folded solutions hold Markdown."""
    return re.sub(r"\]\((\w+)\.ipynb", r"](\1.md", text).replace("<details>", '<details markdown="1">')


# --- lessons ---


def lesson(path: Path) -> dict[str, str | bytes]:
    """A notebook's page and its pictures."""
    parts, files, last, names = [], {}, title_of(path), picture_names(path)
    for cell in cells_of(path):
        if cell.cell_type == "markdown":
            parts.append(to_pages(cell.source))
            last = heading(cell.source) or last
            continue
        parts.append(code(cell.source, folded=cell.metadata.get("jupyter", {}).get("source_hidden", False)))
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = next(names)
                files[f"notebooks/{name}"] = pictures({"outputs": [output]})[0]
                parts.append(f"![Figure of the section “{last}”]({name})")
            elif "text/html" in data:
                parts.append(f'<div class="answer">{re.sub(chr(10) + "+", chr(10), data["text/html"])}</div>')
            else:
                parts.append(f"{FENCE}text\n{(output.get('text') or data.get('text/plain', '')).rstrip()}\n{FENCE}")
    return {f"notebooks/{path.stem}.md": "\n\n".join(parts) + "\n", **files}


def code(source: str, *, folded: bool) -> str:
    """A cell's code; that of checks is folded, as in JupyterLab."""
    block = f"{FENCE}python\n{source}\n{FENCE}"
    return '??? note "The check\'s code"\n\n' + re.sub("^", "    ", block, flags=re.MULTILINE) if folded else block


# --- reference ---


def public_names(package: Path) -> dict[str, str]:
    """Name -> the module that it comes from, of a package's door."""
    name = ".".join(package.relative_to(ROOT).parts)
    stub = package / "__init__.pyi"
    tree = ast.parse((stub if stub.exists() else package / "__init__.py").read_text(encoding="utf-8"))
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            home = resolve_name("." * node.level + (node.module or ""), name)
            if home != name and home.split(".")[0] in ("clas_lens", "analysis") and home != "clas_lens.doors":
                found |= {alias.name: home for alias in node.names}
    return {key: home for key, home in found.items() if home not in ("clas_lens", "analysis")}


def reference() -> dict[str, str]:
    """One page a folder, with every public name; and one with the names of `import clas_lens as cl`."""
    top = public_names(ROOT / "clas_lens")
    folders = sorted(path.parent for root in ("clas_lens", "analysis") for path in (ROOT / root).glob("*/__init__.py"))
    pages, told = {}, {}
    for folder in folders:
        package = ".".join(folder.relative_to(ROOT).parts)
        names = public_names(folder) | {name: home for name, home in top.items() if home.startswith(f"{package}.")}
        summary = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
        entries = [f"::: {home}.{name}\n" for name, home in sorted(names.items()) if home.startswith(f"{package}.")]
        pages[f"reference/{package}.md"] = f"# {package}\n\n{summary}\n\n" + "\n".join(entries)
        told[package] = summary.splitlines()[0]
    rows = [f"| `cl.{name}` | [{home}.{name}][] |" for name, home in sorted(top.items())]
    own = [f"::: {home}.{name}\n" for name, home in sorted(top.items()) if home.count(".") == 1]
    pages["reference/index.md"] = "\n".join(
        [
            *("# Reference", "", "Made from the docstrings. The rest of the public names hang on their folder.", ""),
            *("| folder | |", "|---|---|", *(f"| [{name}]({name}.md) | {text} |" for name, text in told.items())),
            *("", "## import clas_lens as cl", "", "| name | |", "|---|---|", *rows, "", *own),
        ]
    )
    return pages
