"""Importing costs nothing, and modules import only from rooms before them."""

import ast
import graphlib
import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from IPython.core.completer import IPCompleter, provisionalcompleter

import clas_lens as cl

HEAVY = ("torch", "transformer_lens", "transformers", "plotly", "pandas", "datasets")
# Data flows down this line; a folder imports from those before it, and a file of the first seven from any of them.
FILES = ("vocabulary", "given", "doors", "provenance", "seals", "artifacts", "saved", "display")
FOLDERS = ("models", "cluster", "corpus", "significance", "statistics", "categories", "steering", "representations", "tasks", "baselines", "evaluation", "lens", "causal", "export", "study")  # fmt: skip # noqa: E501
ANALYSIS = ("analysis", *(f"analysis.{name}" for name in ("style", "tables", "figures", "report", "dashboards")))
ORDER = (*FILES, *FOLDERS, "analysis", "completion", "commands", "cli", "__main__")


@pytest.mark.parametrize(
    "code", ["import clas_lens, clas_lens.analysis", "import clas_lens.cli; clas_lens.cli.main(['--help'])"]
)
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


@pytest.mark.parametrize("door", ["clas_lens", *(f"clas_lens.{name}" for name in FOLDERS), *ANALYSIS])
def test_public_names_exist_and_win_over_files(door):
    module = importlib.import_module(door)
    assert dir(module) == module.__all__
    for name in module.__all__:
        assert getattr(module, name) is not None
    importlib.import_module("clas_lens.steering.steer")
    assert callable(cl.steering.steer)
    unknown = "stear"
    with pytest.raises(AttributeError, match="no attribute 'stear'; available: .*" + module.__all__[-1]):
        getattr(module, unknown)


@pytest.mark.parametrize("door", ["clas_lens", *(f"clas_lens.{name}" for name in FOLDERS), *ANALYSIS])
def test_completion_offers_the_public_names_alone(door):
    """Also where the completer reads the files in place of `dir`."""
    completer = IPCompleter(namespace={"door": importlib.import_module(door)})
    with provisionalcompleter():
        offered = {one.text for one in completer.completions("door.", 5)}
    assert offered == {name for name in importlib.import_module(door).__all__ if not name.startswith("_")}


def imported(path):
    """Modules of this project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_folders_import_only_from_those_before_them():
    package = Path(cl.__file__).parent
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert there - {"__init__"} == set(ORDER)
    for path in package.rglob("*.py"):
        floor = path.relative_to(package).parts[0].removesuffix(".py")
        for target in imported(path) if floor != "__init__" else ():
            root, _, rest = target.partition(".")
            assert root != "plotly", path
            assert root != "analysis" or floor == "analysis", f"{path} imports analysis"
            if root == "clas_lens" and rest:
                assert ORDER.index(rest.split(".")[0]) <= ORDER.index(floor), f"{path} imports {target}"


def test_no_two_files_import_each_other():
    package = Path(cl.__file__).parent
    graph = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): {
            name for name in imported(path) if name.startswith("clas_lens.")
        }
        for path in package.rglob("*.py")
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_constraints_differ_in_transformer_lens_alone():
    def pins(name):
        lines = (Path(__file__).parents[1] / name).read_text(encoding="utf-8").splitlines()
        return {line for line in lines if not line.startswith("#")}

    assert {line.split("==")[0] for line in pins("constraints.txt") ^ pins("constraints-tl4.txt")} == {
        "transformer-lens"
    }
