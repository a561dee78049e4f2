"""Run the notebooks and keep outputs that GitHub shows: `python notebooks/make.py`, or `... make.py 00_tour 03_does_it_help`.

Figures become PNG, dashboards their pictures and their tables; progress bars, widget state and times are left out. Each
notebook runs in an empty folder of its own, so the times printed are those of a first run (with the model's file converted).
"""

import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).parent
TIMEOUT = 600
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
# Runs before a notebook's first cell and is not kept.
STATIC = """
import plotly.io as pio
from IPython.display import HTML, display
from analysis.dashboards.dashboard import Dashboard

def show_static(view):
    if view.top.value:
        display(HTML(view.top.value))
    for figure in view.originals:
        pio.show(figure, renderer="png")
    display(HTML(view.note.value))

pio.renderers.default = "png"
get_ipython().display_formatter.ipython_display_formatter.for_type(Dashboard, show_static)
"""


def make(path: Path) -> None:
    """Run one notebook and write it back."""
    notebook = nbformat.read(path, as_version=4)
    cells = notebook.cells
    notebook.cells = [nbformat.v4.new_code_cell(STATIC), *cells]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, timeout=TIMEOUT, kernel_name="python3", resources=resources).execute()
    seconds = time.monotonic() - started
    notebook.cells, notebook.metadata = cells, METADATA
    for place, cell in enumerate((cell for cell in cells if cell.cell_type == "code"), start=1):
        clean(cell, place)
    nbformat.write(notebook, path)
    print(f"{path.stem:24}{seconds:6.0f} s{path.stat().st_size / 1000:8.0f} kB", flush=True)


def clean(cell: NotebookNode, place: int) -> None:
    """Leave out of a cell what changes from run to run or that GitHub does not show."""
    cell.execution_count = place
    cell.metadata.pop("execution", None)
    cell.outputs = [output for output in cell.outputs if not is_progress(output)]
    for output in cell.outputs:
        if output.output_type == "execute_result":
            output.execution_count = place
        if "image/png" in output.get("data", {}):
            output.data = {"image/png": output.data["image/png"]}
            output.metadata = {}


def is_progress(output: NotebookNode) -> bool:
    """Bars, and whatever else is said on stderr. (Dashboards are no widgets here: see STATIC.)"""
    return output.get("name") == "stderr" or WIDGET in output.get("data", {})


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in HERE.glob("*.ipynb")):
        make(HERE / f"{name}.ipynb")
