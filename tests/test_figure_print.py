"""Figures as a browser draws them at print size: no text runs into another or over the edge."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator

import pandas as pd
import plotly.graph_objects as go
import pytest
from playwright.sync_api import sync_playwright
from plotly.offline import get_plotlyjs

from workbench.figures import GALLERY, accuracy, readout, step_similarity, template
from workbench.figures.gallery import marked
from workbench.figures.look import TEXT, folded, written

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
# every text of the figure with its corners, a line of several lines being several texts
TEXTS = """async (figure) => {
    const place = document.getElementById("figure");
    await Plotly.newPlot(place, figure.data, figure.layout, { staticPlot: true });
    const corner = place.getBoundingClientRect();
    const shown = (node) => node.textContent.trim() && getComputedStyle(node).visibility !== "hidden";
    return [...place.querySelectorAll("svg text")].filter(shown).flatMap((text) => {
        const lines = [...text.querySelectorAll("tspan.line")];
        return (lines.length ? lines : [text]).map((node) => {
            const box = node.getBoundingClientRect();
            return [node.textContent, box.left - corner.left, box.top - corner.top, box.right - corner.left,
                    box.bottom - corner.top];
        });
    });
}"""
# how wide ten letters m and ten letters i are in the font of figures, as this browser finds it, at 100 pixels
LETTERS = """(family) => {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = `100px ${family}`;
    return [pen.measureText("mmmmmmmmmm").width, pen.measureText("iiiiiiiiii").width];
}"""
HELVETICA = (833, 222)  # by its published table; Arial, Liberation Sans and the other fonts that stand in for it agree
Box = tuple[str, float, float, float, float]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found (Debian: apt-get install chromium)")


@pytest.fixture(scope="module")
def texts() -> Iterator[Callable[[go.Figure], list[Box]]]:
    """A browser's page that draws a figure and says where its texts are, in pixels from its upper left corner.

    Figures are laid out for Helvetica and what stands in for it; where a machine has neither, nothing can be judged.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 800, "height": 1200})
        page.set_content('<div id="figure"></div>')
        if page.evaluate(LETTERS, template().layout.font.family) != pytest.approx(HELVETICA, rel=0.01):
            pytest.skip("no font as wide as Helvetica found (Debian: apt-get install fonts-liberation)")
        page.add_script_tag(content=get_plotlyjs())
        yield lambda figure: [tuple(box) for box in page.evaluate(TEXTS, json.loads(str(figure.to_json())))]
        browser.close()


def complaints(boxes: list[Box], width: float, height: float) -> list[str]:
    """Texts over the edge, and pairs of which one runs into the other by more than a pixel."""
    found = []
    for text, left, top, right, bottom in boxes:
        if min(left, top) < -1 or right > width + 1 or bottom > height + 1:
            found.append(f"{text!r} leaves the figure")
    for (one, *a), (other, *b) in itertools.combinations(boxes, 2):
        # a line's box is higher than its letters: two lines may touch
        if min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 3:
            found.append(f"{one!r} runs into {other!r}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize("name", GALLERY)
def test_no_text_runs_into_another_or_over_the_edge(name, width, texts):
    figure = marked(GALLERY[name].draw(width))
    boxes = texts(figure)
    assert any("invented numbers" in text or text == "numbers)" for text, *_ in boxes)
    assert complaints(boxes, figure.layout.width, figure.layout.height) == []


def test_a_text_that_runs_into_another_is_found(texts):
    """The test above can fail."""
    figure = GALLERY["accuracy"].draw("column")
    figure.add_annotation(text="in the way", x=0.65, y=0, xref="paper", yref="paper", yanchor="top", yshift=-20)
    figure.add_annotation(text="outside", x=1, y=1, xref="paper", yref="paper", xshift=60)
    found = complaints(texts(figure), figure.layout.width, figure.layout.height)
    assert any("in the way" in complaint for complaint in found)
    assert "'outside' leaves the figure" in found


@pytest.mark.parametrize("text", ["accuracy (%)", "Thoughts of another question", "WWW mmm ill", "0.0123 ± 4,567"])
def test_widths_of_texts_are_about_those_of_the_browser(text, texts):
    figure = go.Figure(layout={"template": "none", "width": 300, "height": 100, "font_family": "Helvetica"})
    figure.add_annotation(text=text, x=0.5, y=0.5, font_size=10, showarrow=False)
    ((_, left, _, right, _),) = [box for box in texts(figure) if box[0] == text]
    assert written(text, 10) == pytest.approx(right - left, rel=0.12)
    assert all(written(line, 10) <= 60 for line in folded(text, 60, 10).split("<br>") if " " in line)


def test_a_legends_title_stands_on_the_line_of_its_entries(texts):
    table = GALLERY["ablations"].draw("page")
    assert table.layout.legend.title.side == "left"
    places = {text: (top + bottom) / 2 for text, _, top, _, bottom in texts(table)}
    assert places["task"] == pytest.approx(places["arith"], abs=1)
    bare = table.update_layout(legend_title={"text": "task", "side": "left", "font": {"size": TEXT}})
    without = {text: (top + bottom) / 2 for text, _, top, _, bottom in texts(bare)}
    assert abs(without["task"] - without["arith"]) > 3  # what `key_title` is for


def test_long_labels_and_captions_are_folded(texts):
    names = ["a label that is much longer than what stands beside it would like to be", "b"]
    table = pd.DataFrame({"name": names, "mean": [0.2, 0.4], "low": [0.1, 0.3], "high": [0.3, 0.5], "n": 1000})
    figure = marked(accuracy(table, width="column"))
    boxes = texts(figure)
    assert sum(text in names[0] for text, *_ in boxes) >= 2  # in several lines
    assert complaints(boxes, figure.layout.width, figure.layout.height) == []


@pytest.mark.slow
@pytest.mark.parametrize("width", ["column", "page"])
def test_names_of_questions_have_room_beside_a_colour_bar(width, texts):
    ids = ["e9f00825e634", "WWWWWWWWWWWW", "fdd2e74d570c"]
    words = [{"thought": f"{name}, slot {slot}", "rank": rank, "token": " harvests", "score": 1 / rank}
             for name in ids for slot in range(2) for rank in (1, 2, 3)]  # fmt: skip
    steps = [{"example": name, "step": k, "similarity": 0.3 * k, "chosen": k == 2} for name in ids for k in range(3)]
    for figure in (readout(pd.DataFrame(words), width=width), step_similarity(pd.DataFrame(steps), width=width)):
        boxes = texts(figure)
        assert any("WWWWWWWWWWWW" in text for text, *_ in boxes)
        assert complaints(boxes, figure.layout.width, figure.layout.height) == []
