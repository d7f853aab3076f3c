"""The tour in a real JupyterLab page: what nbclient cannot see. Needs a Chromium; everything else is installed."""

import re
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import nbformat
import pytest
from lab import CHROMIUM, STATE, browsed, open_notebook, served, write_notebook
from playwright.sync_api import Page

from workbench import runs

ROOT = Path(__file__).parents[1]
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
# what the captions of a cell's figures say is drawn
DRAWN = (
    """(cell) => [...code()[cell].node.querySelectorAll(".js-plotly-plot .gtitle")].map((text) => text.textContent)"""
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("tour"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it to test notebooks in a real page"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a JupyterLab on a copy of the notebooks."""
    home = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    tour = home / "notebooks" / "00_tour.ipynb"
    notebook = nbformat.read(tour, as_version=4)
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    for pattern, smaller in SMALLER.items():
        settings.source, found = re.subn(pattern, smaller, settings.source)
        assert found == 1, pattern
    nbformat.write(notebook, tour)
    write_notebook(home / "notebooks" / "long.ipynb", LONG)
    with served(home) as address:
        yield address


@pytest.fixture
def page() -> Iterator[Page]:
    with browsed() as page:
        yield page


@pytest.fixture
def opened(lab: str, page: Page) -> Callable[[str], None]:
    """opened(name): a notebook of the lab in the page, running all its cells."""
    return partial(open_notebook, page, lab)


def test_the_tour_runs_and_draws(opened: Callable[[str], None], page: Page, tmp_path: Path):
    opened("00_tour.ipynb")
    page.wait_for_function("() => window.finished")
    page.wait_for_timeout(1000)  # the last figures are drawn after the last reply
    cells = page.evaluate(STATE)
    page.evaluate("() => code()[5].node.scrollIntoView()")
    page.wait_for_timeout(500)
    page.screenshot(path=str(tmp_path / "tour.png"))
    assert [cell["errors"] for cell in cells] == [[]] * len(cells)
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    # accuracy, the map, the watched run (losses, thoughts), and its own accuracy
    drawn = {k: cell["figures"] for k, cell in enumerate(cells) if cell["figures"]}
    assert drawn == {3: 1, 5: 1, 10: 2, 11: 1}
    assert all(cell["points"] > 0 for cell in cells if cell["figures"])
    buttons = page.evaluate("() => [...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title || '')")
    assert buttons
    assert not [title for title in buttons if "loud" in title or "Studio" in title], "a button that uploads the data"


def test_a_watched_run_is_drawn_in_place_and_saved_by_the_stop_button(opened: Callable[[str], None], page: Page):
    folder = runs.RUNS / "notebooks" / "browser"
    shutil.rmtree(folder, ignore_errors=True)
    opened("long.ipynb")
    page.wait_for_function(f"() => ({DRAWN})(0).length === 2")
    page.evaluate("() => (window.first = [...code()[0].node.querySelectorAll('.js-plotly-plot')])")
    before = page.evaluate(DRAWN, 0)
    page.wait_for_function(f"(before) => ({DRAWN})(0).every((now, k) => now !== before[k])", arg=before)
    assert page.evaluate("() => first.every((figure) => figure.isConnected)"), "drawn anew, not in place"
    page.evaluate("() => void jupyterapp.commands.execute('notebook:interrupt-kernel')")
    page.wait_for_function("() => window.finished")
    (cell,) = page.evaluate(STATE)
    assert cell["outputs"] == 4  # progress, two figures, and how the run ended
    assert cell["figures"] == 2
    assert "stopped after step" in cell["errors"][0]
    assert (folder / "checkpoint.pt").exists()
    assert len(runs.read_metrics(folder)) >= 5
    shutil.rmtree(folder)
