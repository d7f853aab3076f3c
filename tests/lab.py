"""A JupyterLab of its own, and a page of a real browser in it: what tests of notebooks and widgets share."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import nbformat
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
SETTINGS = {
    # cells outside the window have outputs, too
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
OPEN = """async (path) => {
    const app = window.jupyterapp;
    await app.restored;
    const panel = await app.commands.execute("docmanager:open", { path, factory: "Notebook" });
    await panel.context.ready;
    await panel.sessionContext.ready;
    await panel.sessionContext.session.kernel.info;
    window.panel = panel;
    window.code = () => panel.content.widgets.filter((cell) => cell.model.type === "code");
    window.ran = app.commands.execute("notebook:run-all-cells").then(() => (window.finished = true));
}"""
STATE = """() => code().map((cell) => ({
    count: cell.model.executionCount,
    outputs: cell.model.sharedModel.outputs.length,
    errors: cell.model.sharedModel.outputs.filter((output) => output.output_type === "error").map((o) => o.evalue),
    figures: cell.node.querySelectorAll(".js-plotly-plot").length,
    points: cell.node.querySelectorAll(".js-plotly-plot .scatterlayer .point").length,
}))"""
# anywidget gives a widget two seconds to load, after which it hears nothing: here these have passed before it begins,
# as on a machine that is busy enough
BUSY = """AbortSignal.timeout = ((limit) => (time) =>
limit(time === 2000 ? 0 : time))(AbortSignal.timeout.bind(AbortSignal))"""
TOO_LATE = "Failed to initialize model"  # what anywidget then complains of
WAIT = 70_000  # milliseconds, for whatever is to come: a shared machine may be many times slower than a quiet one
ASK = """async (code) => {
    const future = panel.sessionContext.session.kernel.requestExecute({ code, silent: false, store_history: false });
    let said = "";
    future.onIOPub = ({ content }) => (said += content.text ?? content.evalue ?? "");
    await future.done;
    return said.trim();
}"""


@contextmanager
def served(home: Path) -> Iterator[str]:
    """The address of a JupyterLab on `home`/notebooks, with nobody's settings but ours."""
    (home / "notebooks").mkdir(exist_ok=True)
    for name, values in SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    private = ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    folders = {f"JUPYTER_{name}": name for name in private} | {"IPYTHONDIR": "ipython", "HOME": "home"}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    environment = os.environ | {name: str(home / folder) for name, folder in folders.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}"]
    command += ["--ServerApp.port_retries=0", f"--ServerApp.root_dir={home / 'notebooks'}"]
    command += ["--IdentityProvider.token=", "--LabApp.expose_app_in_browser=True"]
    with open(home / "lab.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(f"{address}/api/status", server, home / "lab.log")
        yield address
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(WAIT // 500):
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"JupyterLab does not answer: {log.read_text()[-2000:]}")


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook of code cells for the kernel that runs the tests."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    path.parent.mkdir(parents=True, exist_ok=True)
    cells_ = [new_code_cell(source) for source in cells]
    nbformat.write(new_notebook(cells=cells_, metadata={"kernelspec": kernel}), path)


@contextmanager
def browsed(width: int = 1300, height: int = 1000, *, busy: bool = False) -> Iterator[Page]:
    """A page of a fresh browser, which must stay free of errors, failed requests and requests to the network.

    busy: where every widget loads too late for anywidget.
    """
    errors: list[str] = []
    failed: list[str] = []
    hosts: set[str | None] = set()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(WAIT)
        if busy:
            page.add_init_script(BUSY)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlparse(request.url).hostname))
        page.on("websocket", lambda socket: hosts.add(urlparse(socket.url).hostname))
        page.on("requestfailed", lambda request: failed.append(f"{request.failure} {request.url}"))
        page.on("response", lambda reply: failed.append(f"{reply.status} {reply.url}") if reply.status >= 400 else None)
        yield page
        failures = [one for one in failed if "ERR_ABORTED" not in one]  # the page itself gave those up, as it may
        browser.close()
    others = [error for error in errors if TOO_LATE not in error]
    assert not others, others
    assert failures == []
    assert hosts <= {"127.0.0.1", None}, "the page asked the network for something"


def open_notebook(page: Page, address: str, name: str) -> None:
    """Show a notebook of the lab, and start to run all its cells (`window.finished` tells when they are)."""
    page.goto(f"{address}/lab?reset", wait_until="domcontentloaded")
    page.wait_for_function("() => window.jupyterapp !== undefined")
    page.evaluate(f"(name) => void ({OPEN})(name)", name)  # waiting here would be without a limit
    page.wait_for_function("() => window.ran !== undefined")


def asked(page: Page, code: str) -> str:
    """What the notebook's kernel prints when it runs `code`, or the message of its error."""
    return page.evaluate(ASK, code)


def told(page: Page, code: str, wanted: str) -> None:
    """Wait until the notebook's kernel prints `wanted` when it runs `code`: what the page does takes its time."""
    found = asked(page, code)
    for _ in range(WAIT // 100):
        if found == wanted:
            return
        page.wait_for_timeout(100)
        found = asked(page, code)
    assert found == wanted
