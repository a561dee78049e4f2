"""Notebooks with dashboards that were saved and are reopened in a real JupyterLab, where no kernel runs."""

import nbformat
import pytest
from lab import Lab, chromium, jupyterlab
from nbclient import NotebookClient
from nbformat.sign import NotebookNotary

WAIT = 180  # seconds, at most: other tests may take both cores
CELL = """
import clas_lens as cl
from analysis.dashboards import BenchView, LayerExplorer
model = cl.load_model({folder!r}, device="cpu")
stats = cl.collect_statistics(model, cl.ParallelCorpus.bundled(["en", "de", "zh"]).take(range(3)), progress=False)
clas = cl.Clas(cl.categorize(stats), layers=(2, 3), alpha=-2.0)
"""
CELLS = ("clas", "BenchView(model, clas, 'Wo ist', 'de')", "LayerExplorer(stats)")
PICTURES = """
const seen = [...document.querySelectorAll('.jp-OutputArea-child img')].filter(image => image.offsetHeight > 0);
return seen.length >= arguments_wanted && seen.every(image => image.naturalWidth > 0 && image.complete);
"""
SAID = "return document.querySelector('.jp-Notebook').innerText"
WIDEST = (
    "const page = document.querySelector('.jp-Notebook').getBoundingClientRect().right;"
    "return Math.max(...[...document.querySelectorAll('.jp-OutputArea-child img')]"
    ".map(image => image.getBoundingClientRect().right)) - page"
)


@pytest.fixture(scope="module")
def saved(folders) -> nbformat.NotebookNode:
    """Run, and kept as JupyterLab keeps it: without the widgets' state, with a kernel that is not there any more."""
    cells = [CELL.format(folder=str(folders["llama"])), *CELLS]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    kernel = {"display_name": "gone", "language": "gone", "name": "gone"}
    notebook.metadata = nbformat.from_dict({"kernelspec": kernel})
    return notebook


@pytest.fixture(scope="module")
def lab(saved, tmp_path_factory):
    """JupyterLab over `no.ipynb`, which is not trusted, and `yes.ipynb`, which is."""
    folder, home, data = (tmp_path_factory.mktemp(name) for name in ("notebooks", "home", "data"))
    nbformat.write(saved, folder / "no.ipynb")
    saved.cells[0].source += "# trusted"  # it is the content that is signed
    nbformat.write(saved, folder / "yes.ipynb")
    NotebookNotary(data_dir=str(data)).sign(nbformat.read(folder / "yes.ipynb", as_version=4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_DATA_DIR", str(data))
        with jupyterlab(folder, home) as (address, log), chromium(home) as browser:
            yield Lab(browser, log, home), address


@pytest.mark.parametrize("trusted", ["no", "yes"])
def test_pictures_stand_for_dashboards(lab, trusted):
    page, address = lab
    page.open(address, f"{trusted}.ipynb", kernel=False)
    # a card, the bench's two figures, the explorer's two
    page.wait("pictures in place of dashboards", PICTURES.replace("arguments_wanted", "5"), WAIT)
    said = page.browser.execute_script(SAID)
    assert "Error displaying widget" not in said
    assert "Loading widget" not in said
    assert "without steering" in said
    for width in (1400, 900, 420):
        page.resize(width)
        page.wait("pictures within the page", f"return (() => {{{WIDEST}}})() <= 0", WAIT)
