"""The tour in a real JupyterLab page: what nbclient cannot see. Needs a Chromium; everything else is installed."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Page, sync_playwright

from workbench import runs

ROOT = Path(__file__).parents[1]
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
SMALLER = {
    r"EXAMPLES, EPOCHS, SEED = \d+, \d+": "EXAMPLES, EPOCHS, SEED = 320, 3",
    r"QUESTIONS = \d+": "QUESTIONS = 64",
}
LONG = """
import workbench as wb
folder = wb.runs.RUNS / "notebooks" / "browser"
run = wb.start_training(folder, {"training": {"examples": 320, "epochs": 1000, "probe_every": 5}})
wb.watch(folder, run)
"""
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
# what the captions of a cell's figures say is drawn
DRAWN = (
    """(cell) => [...code()[cell].node.querySelectorAll(".js-plotly-plot .gtitle")].map((text) => text.textContent)"""
)

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it to test notebooks in a real page"),
    pytest.mark.timeout(600),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab on a copy of the notebooks, with nobody's settings but ours."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    for name, values in SETTINGS.items():
        path = home / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    tour = home / "notebooks" / "00_tour.ipynb"
    notebook = nbformat.read(tour, as_version=4)
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for pattern, smaller in SMALLER.items():
        settings.source, found = re.subn(pattern, smaller, settings.source)
        assert found == 1, pattern
    nbformat.write(notebook, tour)
    nbformat.write(
        new_notebook(cells=[new_code_cell(LONG)], metadata=notebook.metadata), home / "notebooks" / "long.ipynb"
    )
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
    for _ in range(240):
        assert server.poll() is None, log.read_text()[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"JupyterLab does not answer: {log.read_text()[-2000:]}")


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield browser.new_page(viewport={"width": 1300, "height": 1000})
        browser.close()


@pytest.fixture
def opened(lab: str, page: Page) -> Iterator[Callable[[str], None]]:
    """opened(name): a notebook of the lab in the page, running all its cells; the page must stay free of errors."""
    errors: list[str] = []
    hosts: set[str | None] = set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: hosts.add(urlparse(request.url).hostname))

    def show(name: str) -> None:
        page.goto(f"{lab}/lab?reset", wait_until="domcontentloaded")
        page.wait_for_function("() => window.jupyterapp !== undefined", timeout=60_000)
        page.evaluate(f"(name) => void ({OPEN})(name)", name)  # waiting here would be without a limit
        page.wait_for_function("() => window.ran !== undefined", timeout=60_000)

    yield show
    assert errors == []
    assert hosts <= {"127.0.0.1", None}, "the page asked the network for something"


def test_the_tour_runs_and_draws(opened: Callable[[str], None], page: Page, tmp_path: Path):
    opened("00_tour.ipynb")
    page.wait_for_function("() => window.finished", timeout=300_000)
    page.wait_for_timeout(1000)  # the last figures are drawn after the last reply
    cells = page.evaluate(STATE)
    page.evaluate("() => code()[6].node.scrollIntoView()")
    page.wait_for_timeout(500)
    page.screenshot(path=str(tmp_path / "tour.png"))
    assert [cell["errors"] for cell in cells] == [[]] * len(cells)
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    # the watched run (losses, thoughts), accuracy, and the map in two colourings
    assert [(k, cell["figures"]) for k, cell in enumerate(cells) if cell["figures"]] == [(2, 2), (4, 1), (6, 1), (7, 1)]
    assert all(cell["points"] > 0 for cell in cells if cell["figures"])
    buttons = page.evaluate("() => [...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title || '')")
    assert buttons
    assert not [title for title in buttons if "loud" in title or "Studio" in title], "a button that uploads the data"


def test_a_watched_run_is_drawn_in_place_and_saved_by_the_stop_button(opened: Callable[[str], None], page: Page):
    folder = runs.RUNS / "notebooks" / "browser"
    shutil.rmtree(folder, ignore_errors=True)
    opened("long.ipynb")
    page.wait_for_function(f"() => ({DRAWN})(0).length === 2", timeout=120_000)
    page.evaluate("() => (window.first = [...code()[0].node.querySelectorAll('.js-plotly-plot')])")
    before = page.evaluate(DRAWN, 0)
    page.wait_for_function(f"(before) => ({DRAWN})(0).every((now, k) => now !== before[k])", arg=before, timeout=60_000)
    assert page.evaluate("() => first.every((figure) => figure.isConnected)"), "drawn anew, not in place"
    page.evaluate("() => void jupyterapp.commands.execute('notebook:interrupt-kernel')")
    page.wait_for_function("() => window.finished", timeout=60_000)
    (cell,) = page.evaluate(STATE)
    assert cell["outputs"] == 4  # progress, two figures, and how the run ended
    assert cell["figures"] == 2
    assert "stopped after step" in cell["errors"][0]
    assert (folder / "checkpoint.pt").exists()
    assert len(runs.read_metrics(folder)) >= 5
    shutil.rmtree(folder)
