"""Importing costs nothing, and modules import only from rooms before them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import clas_lens as cl

HEAVY = ("torch", "transformer_lens", "transformers", "plotly", "pandas", "datasets")
# Data flows one way; a module may import from those before it.
LOAD = ("presets", "languages", "loading", "gguf_files", "checkpoints", "sites", "hooked", "models")
READ = ("text_files", "display", "corpus", "datasets_io", "splits", "tokens", "artifacts")
MEASURE = ("histogram", "accumulate", "statistics", "collect", "categories", "category_views", "instance")
STEER = ("steering", "edits", "clas", "selection", "overwriting", "overwrite", "pooling", "representations")
BASELINES = ("residual", "vectors", "controls", "noise", "tuned", "interventions")
UNDERSTAND = ("alignment", "separation", "sentence_maps", "neurons")
ASK = ("generation", "prefixes", "shared_layers", "effects", "wording", "prompts", "qa_metrics")
TASKS = ("tasks.base", "tasks.xnli", "tasks.xquad", "tasks")
JUDGE = (
    "leakage",
    "evaluation",
    "search",
    "label_bias",
    "paired_tests",
    "paired_scores",
    "significance",
    "evaluation_card",
)
SET_UP = ("config", "options", "plan", "studies", "run_folder")
RUN = ("stages", "methods", "evaluation_stages", "report_data", "study", "demo", "cli")
ORDER = (*LOAD, *READ, *MEASURE, *STEER, *BASELINES, *UNDERSTAND, *ASK, *TASKS, *JUDGE, *SET_UP, *RUN)


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
    assert set(cl.__all__) == {*cl._HOME, "tasks"}
    assert set(cl.__all__) <= set(dir(cl))
    unknown = "stear"
    with pytest.raises(AttributeError, match="no attribute 'stear'; available: .*steer"):
        getattr(cl, unknown)


def imported(path):
    """Modules of this project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_modules_import_only_from_rooms_before_them():
    package = Path(cl.__file__).parent
    files = {".".join(path.relative_to(package).with_suffix("").parts): path for path in package.rglob("*.py")}
    files = {name.removesuffix(".__init__"): path for name, path in files.items() if name != "__init__"}
    assert set(files) == set(ORDER)
    allowed_later = {("corpus", "datasets_io")}  # constructors of ParallelCorpus that need the datasets library
    for name, path in files.items():
        for target in imported(path):
            root, _, rest = target.partition(".")
            assert root != "plotly"
            assert root != "analysis" or name == "cli", f"{name} imports analysis"
            if root == "clas_lens" and rest and (name, rest) not in allowed_later:
                assert ORDER.index(rest) < ORDER.index(name), f"{name} imports {rest}"
