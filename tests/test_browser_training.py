"""Widgets of training in a real page: keys walk the positive steps, a run trains, shows its curve and stops."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import CHROMIUM, STATE, asked, browsed, open_notebook, served, write_notebook
from playwright.sync_api import Locator, Page
from stores import synthetic_store

from workbench import runs, store

STEPS = """
import workbench as wb
from pathlib import Path
stores = {int(path.stem): wb.store.load(path) for path in sorted(Path(FOLDER).glob("*.nc"))}
steps = wb.widgets.PositiveSteps(stores)
steps
"""
SHAPE = """
collapse = wb.widgets.Collapse({"one": stores})
collapse
"""
PROBE = """
probe = wb.widgets.Probe(stores[20], lambda example, thoughts: f"{example} {thoughts.sum():.3f}")
probe
"""
TRAIN = """
import workbench as wb
settings = {"training": {"examples": 64, "epochs": 1000, "probe_every": 2, "probe_answers": 8}}
monitors = [wb.widgets.TrainingMonitor(f"{FOLDER}/{name}", settings) for name in ("one", "two")]
for monitor in monitors:
    monitor.every = 2.0
"""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser training"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it to test widgets in a real page"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The address of a JupyterLab, and the folder that its notebooks work in."""
    home = tmp_path_factory.mktemp("lab")
    (home / "work").mkdir()
    for step, state in ((0, "collapsed"), (10, "merged"), (20, "healthy")):
        found = synthetic_store(30, steps=3, reasoning=4, state=state).assign_attrs(training_step=step)
        store.save(found, home / "work" / f"{step}.nc")
    folder = f"FOLDER = {str(home / 'work')!r}\n"
    write_notebook(home / "notebooks" / "shape.ipynb", folder + STEPS, SHAPE, PROBE)
    write_notebook(home / "notebooks" / "train.ipynb", folder + TRAIN, "monitors[0]", "monitors[1]")
    with served(home) as address:
        yield address, home / "work"


def finished(page: Page, cells: int) -> None:
    """All cells have run without an error."""
    page.wait_for_function("() => window.finished")
    found = page.evaluate(STATE)
    assert [cell["errors"] for cell in found] == [[]] * cells


def button(page: Page, cell: int, text: str) -> Locator:
    """Of a widget; its name begins with an icon's letter."""
    return page.locator(".jp-CodeCell").nth(cell).locator("button.jupyter-button", has_text=text)


def picture(page: Page, cell: int, path: Path) -> None:
    page.evaluate("() => jupyterapp.shell.collapseLeft()")
    page.evaluate("(k) => code()[k].node.querySelector('.jp-Cell-outputWrapper').scrollIntoView()", cell)
    page.wait_for_timeout(700)
    page.screenshot(path=str(path))


def test_keys_and_sliders_walk_through_stores(lab: tuple[str, Path], tmp_path: Path):
    with browsed(1100, 1250) as page:
        open_notebook(page, lab[0], "shape.ipynb")
        finished(page, 3)
        page.wait_for_function("() => code().every((cell) => cell.node.querySelector('.js-plotly-plot .main-svg'))")
        first = asked(page, "print(steps.question)")
        ids = json.loads(asked(page, "import json; print(json.dumps(steps.questions['example'].tolist()))"))
        assert first == ids[0]
        page.locator(".wb-grid").first.focus()
        for key, place in (("ArrowDown", 1), ("ArrowDown", 2), ("ArrowDown", 3), ("ArrowUp", 2)):
            page.keyboard.press(key)
            page.wait_for_function(f"() => code()[0].node.querySelector('h3').textContent === '{ids[place]}'")
        assert asked(page, "print(steps.question)") == ids[2]
        assert page.evaluate("() => panel.content.activeCellIndex") == 0, "the notebook took the key"
        picture(page, 0, tmp_path / "positive_steps.png")

        text = "() => code()[1].node.querySelector('.wb-pane').textContent"
        assert "healthy" in page.evaluate(text)
        drawn = "() => code()[1].node.querySelector('.js-plotly-plot .scatterlayer').innerHTML"
        before = page.evaluate(drawn)
        slider = page.locator(".jp-CodeCell").nth(1).locator(".noUi-handle").first
        slider.focus()
        slider.press("ArrowLeft")
        page.wait_for_function(f"() => ({text})().includes('at training step 10')")
        page.wait_for_function(f"(before) => ({drawn})() !== before", arg=before)
        assert asked(page, "print(collapse.checkpoint)") == "10"
        picture(page, 1, tmp_path / "collapse.png")

        slider = page.locator(".jp-CodeCell").nth(2).locator(".noUi-handle").first
        slider.focus()
        for _ in range(4):
            slider.press("ArrowRight")
        page.wait_for_function("() => /moved .0.20 .*another answer/.test(code()[2].node.textContent)")
        assert float(asked(page, "print(probe.amount)")) == pytest.approx(0.2)
        picture(page, 2, tmp_path / "probe.png")


def test_a_run_started_from_the_page_trains_shows_its_curve_and_stops(lab: tuple[str, Path], tmp_path: Path):
    address, work = lab
    step = "() => [...code()].slice(1).map((c) => Number(c.node.textContent.match(/step (\\d+) of/)?.[1] ?? 0))"
    try:
        with browsed(1100, 1250) as page:
            open_notebook(page, address, "train.ipynb")
            finished(page, 3)
            for cell in (1, 2):
                button(page, cell, "Start").press("Enter")
            page.wait_for_function(f"() => ({step})().every((now) => now >= 3)")
            curve = "() => code()[1].node.querySelectorAll('.js-plotly-plot .scatterlayer .point').length"
            page.wait_for_function(f"() => ({curve})() >= 3")
            asked(page, "1")  # the kernel is free while both train
            button(page, 1, "Stop").press("Enter")
            page.wait_for_function("() => code()[1].node.textContent.includes('stopped, its last checkpoint')")
            picture(page, 1, tmp_path / "training.png")
            assert (work / "one" / "checkpoint.pt").exists()
            done = runs.read_metrics(work / "one")["step"].max()
            assert done >= 3
            assert runs.running(work / "one") is None
            assert runs.running(work / "two") is not None, "stopping one stopped the other"

            page.evaluate("() => panel.sessionContext.session.kernel.restart()")
            page.evaluate("() => panel.sessionContext.session.kernel.info")
            page.evaluate(
                "() => { window.finished = false; jupyterapp.commands.execute('notebook:run-all-cells')"
                ".then(() => (window.finished = true)) }"
            )
            finished(page, 3)
            page.wait_for_function("() => code()[2].node.textContent.includes(': training')")
            assert asked(page, "print(monitors[0].state, monitors[1].state)") == "stopped running"
            button(page, 2, "Stop").press("Enter")
            page.wait_for_function("() => code()[2].node.textContent.includes('stopped, its last checkpoint')")
    finally:
        for name in ("one", "two"):
            runs.stop_training(work / name)
        for _ in range(100):
            if all(runs.running(work / name) is None for name in ("one", "two")):
                break
            time.sleep(0.1)
