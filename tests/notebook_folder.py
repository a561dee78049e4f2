"""Where the notebooks are, and where tests run them."""

from pathlib import Path

FOLDER = Path(__file__).parents[1] / "notebooks"
TOGETHER = "notebooks that read the same statistics"  # a group that one worker runs


def shared_folder(tmp_path_factory):
    """A folder for all of them, also in JupyterLab: the statistics of one are read by the next."""
    folder = tmp_path_factory.getbasetemp() / "notebooks"
    folder.mkdir(exist_ok=True)
    return folder
