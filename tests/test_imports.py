"""Importing costs nothing, and modules import only from rooms before them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clas_lens as cl

HEAVY = ("torch", "transformer_lens", "transformers", "plotly", "pandas", "datasets")
# Data flows one way; a module may import from those before it.
EARLY = ("presets", "languages", "loading", "gguf_files", "checkpoints", "sites", "hooked", "models")
MIDDLE = (
    "text_files",
    "corpus",
    "datasets_io",
    "tokens",
    "artifacts",
    "accumulate",
    "statistics",
    "collect",
    "categories",
    "instance",
)
LATE = ("steering", "clas", "generation", "effects", "prompts", "config", "study", "demo", "cli")
ORDER = (*EARLY, *MIDDLE, *LATE)


@pytest.mark.parametrize("code", ["import clas_lens", "import clas_lens.cli; clas_lens.cli.main(['--help'])"])
def test_nothing_heavy_is_imported_until_used(code):
    script = f"""
import sys
try:
    {code}
except SystemExit:
    pass
print([name for name in {HEAVY} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"


def test_public_names_exist():
    for name in cl.__all__:
        assert getattr(cl, name) is not None
    assert set(cl.__all__) == set(cl._HOME)
    assert set(cl.__all__) <= set(dir(cl))
    with pytest.raises(AttributeError, match="no attribute 'stear'; available: .*steer"):
        cl.stear  # noqa: B018


def imported(path):
    """Modules of this project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_modules_import_only_from_rooms_before_them():
    package = Path(cl.__file__).parent
    modules = {path.stem for path in package.glob("*.py")} - {"__init__"}
    assert modules == set(ORDER)
    allowed_later = {("corpus", "datasets_io")}  # constructors of ParallelCorpus that need the datasets library
    for name in modules:
        for target in imported(package / f"{name}.py"):
            root, _, rest = target.partition(".")
            assert root != "plotly"
            assert root != "analysis" or name == "cli", f"{name} imports analysis"
            if root == "clas_lens" and rest and (name, rest) not in allowed_later:
                assert ORDER.index(rest) < ORDER.index(name), f"{name} imports {rest}"
