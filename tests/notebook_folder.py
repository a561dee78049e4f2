"""Where the notebooks are, where tests run them, and what their cells say."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "notebooks"
TOUR = "00_tour"
WIDGET = "application/vnd.jupyter.widget-view+json"
TOGETHER = "notebooks that read the same statistics"  # a group that one worker runs


def shared_folder(tmp_path_factory):
    """A folder for all of them, also in JupyterLab: the statistics of one are read by the next."""
    folder = tmp_path_factory.getbasetemp() / "notebooks"
    folder.mkdir(exist_ok=True)
    return folder


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def answering_cells(notebook):
    """The ids of the cells that say something; progress bars aside."""
    return [cell.id for cell in code_cells(notebook) if not all(is_progress(output) for output in cell.outputs)]


def is_progress(output):
    data = output.get("data", {})
    return output.get("name") == "stderr" or (WIDGET in data and "text/html" not in data)
