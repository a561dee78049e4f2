"""A real JupyterLab over a folder, and a Chromium that looks at it, for tests."""

import json
import os
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from chromium import FLAGS, need

TOKEN = "test"
START, STOP = 180, 8  # seconds, at most: other tests may take both cores
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
# JupyterLab asks which kernel where the notebook's own is not there: it is told none, and the dialog goes.
NO_KERNEL = """
const choice = document.querySelector('.jp-Dialog select');
if (!choice) return false;
choice.value = [...choice.options].find(option => option.text === 'No Kernel').value;
document.querySelector('.jp-Dialog .jp-mod-accept').click();
return true;
"""
CLOSED = f"return !document.querySelector('.jp-Dialog') && {NOTEBOOK}?.content?.widgets?.length > 0"
ERRORS = "return [...document.querySelectorAll('[data-mime-type*=stderr], .jp-RenderedText')].map(e => e.textContent)"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def jupyterlab(folder: Path, home: Path, **more: dict):
    """A server over `folder`, with settings of its own (by plugin) and `more`; its address and its log."""
    for name, values in (SETTINGS | more).items():
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
            try:
                server.wait(timeout=STOP)
            except subprocess.TimeoutExpired:  # it now and then waits for its extensions for ever; kernels end with it
                server.kill()
                server.wait()


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

    def open(self, address: str, name: str, *, kernel: bool = True) -> None:
        """The notebook on screen, with a kernel that is ready; without one it asks, and is told that there is none."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.ui import WebDriverWait

        def answers(browser):
            browser.get(f"{address}/lab/tree/{name}?reset&token={TOKEN}")
            return True

        WebDriverWait(self.browser, START, ignored_exceptions=[WebDriverException]).until(answers)
        if kernel:
            self.wait("notebook with a running kernel", IDLE, START)
        else:
            self.wait("question for a kernel", NO_KERNEL, START)
            self.wait("notebook without a kernel", CLOSED, START)

        self.browser.execute_script(f"window.jupyterapp.shell.activateById({NOTEBOOK}.id)")

    def run_all(self, seconds: int) -> None:
        """Run every cell."""
        self.browser.execute_script(RUN_ALL)
        self.wait("end of the run", "return window.ran", seconds)
        assert self.browser.execute_script("return window.ran") == "done", self.state()

    def resize(self, width: int, height: int = 1000) -> None:
        """The window's size in pixels; JupyterLab is told."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def command(self, name: str, **arguments: object) -> None:
        """One of JupyterLab's own commands, to its end."""
        script = "const done = arguments[2]; window.jupyterapp.commands.execute(arguments[0], arguments[1]).then(() => done())"
        self.browser.execute_async_script(script, name, arguments)
