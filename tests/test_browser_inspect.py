"""Inspector and Compare in a real JupyterLab page: the mouse, the keyboard, what is drawn."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lab import CHROMIUM, STATE, WAIT, asked, browsed, open_notebook, served, told, write_notebook
from playwright.sync_api import Page, expect
from stores import synthetic_store

from workbench import store

INSPECT = """
from workbench import store
from workbench.widgets import Inspector
inspector = Inspector(store.load("one.nc"), color="step")
inspector
"""
COMPARE = """
from workbench import store
from workbench.widgets import Compare
compare = Compare({"first": store.load("one.nc"), "second": store.load("two.nc")})
compare
"""
OVERFLOWING = """() => [...document.querySelectorAll(".jp-OutputArea-output, .widget-box, .widget-html")]
    .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.className)"""
PIXELS = 'print(*(f"{{x}} {{y}}" for x, y in {}.live.points[:, :2]))'
WIDTH, HEIGHT = 1000, 1500

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("browser inspect"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found: install it to test widgets in a real page"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    home = tmp_path_factory.mktemp("lab")
    write_notebook(home / "notebooks" / "inspect.ipynb", INSPECT)
    write_notebook(home / "notebooks" / "compare.ipynb", COMPARE)
    one = synthetic_store(examples=30, steps=3)
    odd = np.array(one["question"].values, dtype=object)
    odd[0] = "<img src=x onerror=alert(1)> " + "longword" * 60
    store.save(one.assign_coords(question=("example", odd.astype(str))), home / "notebooks" / "one.nc")
    two = synthetic_store(examples=30, steps=3, seed=0, accuracy=0.3)
    store.save(two.assign_coords(question=("example", odd.astype(str))), home / "notebooks" / "two.nc")
    with served(home) as address:
        yield address


@pytest.fixture
def page(lab: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """The page of a notebook, run, with nothing beside it; "busy": on a machine where all widgets load too late."""
    name, _, busy = request.param.partition(" ")
    with browsed(WIDTH, HEIGHT, busy=bool(busy)) as page:
        open_notebook(page, lab, name)
        page.wait_for_function("() => window.finished")
        page.evaluate("() => jupyterapp.commands.execute('application:toggle-left-area')")
        page.locator(".jp-OutputArea canvas").first.wait_for()
        page.wait_for_timeout(1500)  # the first frames
        assert [cell["errors"] for cell in page.evaluate(STATE)] == [[]]
        yield page
        page.screenshot(path=str(tmp_path / "page.png"))


each = pytest.mark.parametrize


def lasso(page: Page, corners: list[tuple[float, float]]) -> None:
    """Draw around an area, slowly enough for the page to follow."""
    page.mouse.move(*corners[0])
    page.mouse.down()
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        for part in np.linspace(0, 1, 12)[1:]:
            page.mouse.move(x0 + part * (x1 - x0), y0 + part * (y1 - y0))
            page.wait_for_timeout(12)
    page.mouse.up()
    page.wait_for_timeout(700)


def pixels(page: Page, points: str = "inspector.map") -> np.ndarray:
    """Where each point of the first map is on the page: the canvas's height shows -1 to 1, its middle is 0."""
    box = page.locator(".jp-OutputArea canvas").first.bounding_box()
    assert box is not None
    places = np.array(asked(page, PIXELS.format(points)).split(), float).reshape(-1, 2)
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    return middle + places * np.array([1, -1]) * box["height"] / 2


@each("page", ["inspect.ipynb"], indirect=True)
def test_a_lasso_selects_exactly_the_thoughts_under_it(page: Page):
    points = pixels(page)
    low, high = np.quantile(points, 0.25, axis=0), np.quantile(points, 0.75, axis=0)
    # edges where no point is near, so that rounding of the line cannot matter
    x0, x1, y0, y1 = (gap(points[:, k], end) for k, end in ((0, low[0]), (0, high[0]), (1, low[1]), (1, high[1])))
    inside = (points[:, 0] > x0) & (points[:, 0] < x1) & (points[:, 1] > y0) & (points[:, 1] < y1)
    assert 5 < inside.sum() < 80
    lasso(page, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    told(page, "print(*inspector.selection)", " ".join(map(str, np.flatnonzero(inside))))
    questions = asked(page, "print(*inspector.selected['example'].unique())").split()
    expect(page.locator(".wb-grid").first.locator("tbody tr")).to_have_count(len(questions), timeout=WAIT)
    asked(page, "inspector.select(())\ninspector.step = 1")
    page.wait_for_timeout(500)
    lasso(page, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)])  # what is hidden cannot be drawn around
    told(
        page,
        "print(*sorted(inspector.selection))",
        " ".join(str(row) for row in np.flatnonzero(inside) if row % 3 == 1),
    )


def gap(values: np.ndarray, near: float) -> float:
    """The middle of the widest gap between values among those close to `near`."""
    ordered = np.sort(values)
    gaps = np.diff(ordered)
    close = np.abs(ordered[:-1] - near) < np.ptp(values) / 4
    k = int(np.argmax(np.where(close, gaps, 0)))
    return float(ordered[k] + gaps[k] / 2)


@each("page", ["inspect.ipynb"], indirect=True)
def test_a_slider_changes_the_plot_and_the_mouse_reads_a_point(page: Page):
    canvas = page.locator(".jp-OutputArea canvas").first
    before = canvas.screenshot()
    slider = page.locator(".noUi-handle").first
    slider.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(700)
    told(page, "print(inspector.step)", "0")
    after = canvas.screenshot()
    assert after != before
    page.keyboard.press("ArrowLeft")
    page.wait_for_timeout(700)
    told(page, "print(inspector.step)", "None")
    row = 4
    x, y = pixels(page)[row]
    page.mouse.move(x, y)
    page.wait_for_timeout(700)
    hovered = int(asked(page, "print(inspector.map.live.hovering)"))
    assert np.linalg.norm(pixels(page)[hovered] - (x, y)) < 8
    card = page.locator(".wb-card").first
    assert asked(page, f"print(inspector.points['gold'][{hovered}])") in card.inner_text()
    box = card.bounding_box()
    assert box is not None
    assert box["height"] <= 6 * 20
    page.mouse.click(x, y)
    page.wait_for_timeout(700)
    told(page, "print(inspector.selection == (inspector.thought,))", "True")


@each("page", ["inspect.ipynb"], indirect=True)
def test_the_keyboard_reaches_everything(page: Page):
    page.locator(".jp-OutputArea button").first.focus()
    seen = []
    for _ in range(60):
        seen.append(
            page.evaluate(
                "() => { const e = document.activeElement; return [e.tagName, e.className, e.title, e.ariaLabel,"
                " e.textContent.slice(0, 30)].join('|') }"
            )
        )
        page.keyboard.press("Tab")
    text = "\n".join(seen)
    for words in ("PCA", "UMAP", "noUi-handle", "SELECT", "INPUT", "Show all", "lasso", "Select all shown", "Keep"):
        assert words in text, words
    for words in ("Export", "sort by question", "questions of the selected", "nearest thoughts of other"):
        assert words in text, words
    grid = page.locator(".wb-grid").first
    grid.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(500)
    told(page, "print(inspector.question)", "1")
    page.keyboard.press("Home")
    page.wait_for_timeout(500)
    told(page, "print(inspector.question)", "0")  # the one with markup and a long word
    assert page.locator("img[src=x]").count() == 0
    assert (
        page.evaluate(
            "() => { const o = document.querySelector('.jp-OutputArea-output'); return o.scrollWidth - o.clientWidth }"
        )
        <= 1
    )
    assert page.evaluate(OVERFLOWING) == []  # no scrollbar for the sake of a margin
    header = grid.locator("th button").nth(1)
    header.press("Enter")
    page.wait_for_timeout(500)
    told(page, "print(inspector.table.sort)", "gold")
    golds = grid.locator("tbody td:nth-child(2)").all_inner_texts()
    assert golds == asked(page, "print(*inspector.table.frame['gold'].astype(int).sort_values())").split()


@each("page", ["compare.ipynb", "compare.ipynb busy"], indirect=True)
def test_what_is_selected_on_one_map_is_selected_on_the_other(page: Page):
    for figure in range(2):  # which move what is below them
        page.locator(".js-plotly-plot .main-svg").nth(figure).wait_for()
    page.wait_for_timeout(1000)
    points = pixels(page, "compare.maps['first']")
    x0 = gap(points[:, 0], float(np.quantile(points[:, 0], 0.85)))
    (x1, y1), y0 = points.max(axis=0) + 5, points[:, 1].min() - 5  # all that is right of it
    inside = points[:, 0] > x0
    assert 1 < inside.sum() < 30
    lasso(page, [(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    under = asked(page, f"print(*compare.maps['first'].points['example'].iloc[{np.flatnonzero(inside).tolist()}])")
    picked = asked(page, "print(*compare.selection)").split()
    assert sorted(picked) == sorted(set(under.split()))
    assert len(picked) < 20, "of 30 questions"
    code = "print(*sorted(set(compare.maps['second'].points['example'].iloc[list(compare.maps['second'].selection)])))"
    assert asked(page, code).split() == sorted(picked)
    rows = page.locator(".wb-grid tbody tr")
    assert rows.count() == int(asked(page, "print(len(compare.listed))"))
    rows.first.click()
    page.wait_for_timeout(700)
    assert asked(page, "print(compare.question)") != ""
    assert page.locator(".wb-columns > div").count() == 2
    assert page.locator(".js-plotly-plot").count() == 2
    shown = page.locator(".js-plotly-plot .point").count()
    assert shown >= 2  # a dot for each run
    assert page.evaluate(
        "() => [...document.querySelectorAll('.modebar-btn')].every((b) => !/loud|Studio/.test(b.dataset.title))"
    )
    page.evaluate("() => document.querySelector('.wb-columns').scrollIntoView({block: 'end'})")
