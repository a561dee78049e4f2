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

ROOT = Path(cl.__file__).parents[1]
HEAVY = ("torch", "transformer_lens", "transformers", "plotly", "pandas", "datasets")
# Data flows down this line; a folder imports from those before it, and the files come first: any folder may import them.
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


def test_no_two_errors_have_one_name():
    """Who catches `cl.ExportError` catches every error of that name."""
    doors = ("clas_lens", *(f"clas_lens.{name}" for name in FOLDERS), *ANALYSIS)
    offered = [(name, getattr(door, name)) for door in map(importlib.import_module, doors) for name in door.__all__]
    errors = {(name, one) for name, one in offered if isinstance(one, type) and issubclass(one, Exception)}
    assert len({name for name, _ in errors}) == len(errors)


def imported(path):
    """What a file of either package imports, wherever in it: modules, and names from them, which may be modules too."""
    here = module_of(path, door=True).split(".")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = here[: -node.level] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield from ([module] if "." in module else [])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def module_of(path, *, door=False):
    """A file's name as a module; a door's is its folder's, unless `door` keeps its own."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name if door else name.removesuffix(".__init__")


def test_what_is_imported_is_resolved(tmp_path, monkeypatch):
    """Folders that are named from their package, and relative imports of a file and of a door, at any level."""
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    source = """
from clas_lens import study, __version__
from . import look
from .numbers import number as n
from ..tables.table import Table
import analysis.report
def later():
    from .. import figures
"""
    found = {
        "clas_lens.study",
        "clas_lens.__version__",
        "analysis.style",
        "analysis.style.look",
        "analysis.style.numbers",
        "analysis.style.numbers.number",
        "analysis.tables.table",
        "analysis.tables.table.Table",
        "analysis.report",
        "analysis.figures",
    }
    for name in ("labels.py", "__init__.py"):
        path = tmp_path / "analysis" / "style" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        assert set(imported(path)) == found


def test_folders_import_only_from_those_before_them():
    package = ROOT / "clas_lens"
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert there - {"__init__"} == set(ORDER)
    for path in package.rglob("*.py"):
        floor = path.relative_to(package).parts[0].removesuffix(".py")
        for target in imported(path) if floor != "__init__" else ():
            root, _, rest = target.partition(".")
            assert root != "plotly", path
            assert root != "analysis" or floor == "analysis", f"{path} imports analysis"
            if root == "clas_lens" and rest != "__version__":
                assert ORDER.index(rest.split(".")[0]) <= ORDER.index(floor), f"{path} imports {target}"


def test_folders_of_the_analysis_import_only_from_those_before_them():
    package, order = ROOT / "analysis", [name.split(".")[-1] for name in ANALYSIS[1:]]
    assert {path.parent.name for path in package.glob("*/__init__.py")} == set(order)
    for path in package.glob("*/*.py"):
        for target in imported(path):
            root, _, rest = target.partition(".")
            floor = rest.split(".")[0]
            if root == "analysis":
                assert order.index(floor) <= order.index(path.parent.name), f"{path} imports {target}"
            elif root == "clas_lens":
                assert floor in (*FILES, *FOLDERS), f"{path} imports {target}"


@pytest.mark.parametrize("package", ["clas_lens", "analysis"])
def test_no_two_files_import_each_other(package):
    graph = {
        module_of(path): {name for name in imported(path) if name.startswith(f"{package}.")}
        for path in (ROOT / package).rglob("*.py")
    }
    graphlib.TopologicalSorter(graph).prepare()


def test_constraints_differ_in_transformer_lens_alone():
    def pins(name):
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        return {line for line in lines if not line.startswith("#")}

    assert {line.split("==")[0] for line in pins("constraints.txt") ^ pins("constraints-tl4.txt")} == {
        "transformer-lens"
    }
