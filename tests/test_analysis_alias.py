"""`clas_lens.analysis` is `analysis` where that is ours, and is there where something else has that name."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from clas_lens.analysis.figures.layers import layer_distribution

import analysis
import clas_lens as cl

ROOT = Path(analysis.__file__).parents[1]
USED = """
import sys
sys.path.insert(0, {root!r})
sys.path.insert(0, {folder!r})
{first}
import clas_lens as cl
from clas_lens.analysis import layer_distribution
from clas_lens.analysis.dashboards import SteeringBench
from clas_lens.analysis.figures.layers import layer_distribution as same
from clas_lens.analysis.report import RunData
from clas_lens.analysis.report.page import render_page
from clas_lens.analysis.tables.table import _template

assert same is layer_distribution is cl.analysis.layer_distribution is cl.analysis.figures.layer_distribution
assert RunData.__module__ == "clas_lens.analysis.report.run"
assert "</html>" in render_page([], title="title", subtitle="")
assert _template()
import analysis
print(analysis.mine, cl.analysis.__name__)
"""


def test_both_names_are_one_package():
    assert cl.analysis is analysis
    assert layer_distribution is analysis.layer_distribution
    import clas_lens.analysis.report.run as same

    import analysis.report.run as run

    assert same is run
    assert run.__spec__.name == run.__name__ == "analysis.report.run"
    with pytest.raises(ModuleNotFoundError, match="analysis.figure'"):
        import clas_lens.analysis.figure  # noqa: F401


@pytest.mark.parametrize(("kind", "first"), [("file", ""), ("package", "import analysis")])
def test_a_stranger_of_that_name_is_left_alone(kind, first, tmp_path):
    file = tmp_path / "analysis.py" if kind == "file" else tmp_path / "analysis" / "__init__.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine = 1\n")
    code = USED.format(root=str(ROOT), folder=str(tmp_path), first=first)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "1 clas_lens.analysis\n", result.stderr


def test_the_command_line_draws_beside_a_stranger(small_cats, tmp_path):
    (tmp_path / "analysis.py").write_text("raise RuntimeError('a script of yours ran')\n")
    small_cats.save(tmp_path / "cats.safetensors")
    code = f"""
import sys
sys.path.insert(1, {str(ROOT)!r})
from clas_lens import NeuronCategories
from clas_lens.cli import main
from clas_lens.analysis import layer_distribution
assert layer_distribution(NeuronCategories.load("cats.safetensors")).data
print(main(["tables", "nowhere"]))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "1\n", result.stderr
    assert "a script of yours" not in result.stderr


def test_analysis_imports_its_own_files_relatively():
    for path in (ROOT / "analysis").rglob("*.py*"):
        if path.suffix in (".py", ".pyi"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                assert not [name for name in names if name.split(".")[0] == "analysis"], path
