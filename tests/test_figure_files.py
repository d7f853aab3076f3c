"""Figures as files: what is written, that it needs no network and uploads nothing, and that it comes back."""

import base64
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import plotly.graph_objects as go
import pytest
from choreographer.browsers.chromium import Chromium
from test_figure_means import accuracies
from test_figures import EVERY, metrics, points

from workbench.figures import GALLERY, accuracy, export, loss_curves, redraw, save, thought_map

BROWSER = os.environ.get("BROWSER_PATH") or Chromium.find_browser(skip_local=False)
needs_browser = pytest.mark.skipif(
    BROWSER is None or not Path(BROWSER).is_file(), reason="no Chromium found (Debian: apt-get install chromium)"
)


def plain(value):
    """Figure JSON whose arrays are lists of numbers, a missing one being None."""
    if isinstance(value, dict) and "bdata" in value:
        numbers = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
        rows = numbers.reshape([int(size) for size in value.get("shape", str(len(numbers))).split(",")])
        return np.where(np.isnan(rows), None, rows).tolist() if rows.dtype.kind == "f" else rows.tolist()
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EVERY, *GALLERY])
def test_a_sidecar_redraws_the_same_figure(name, tmp_path):
    figure = EVERY[name][0]() if name in EVERY else GALLERY[name].draw("column")
    before = figure.to_json()
    paths = save(figure, "it", tmp_path, {"store": tmp_path / "a.nc", "run": "r", "commit": "c"}, formats=[])
    assert [path.name for path in paths] == ["it.json"]
    again = redraw(paths[0])
    assert plain(json.loads(again.to_json())) == plain(json.loads(before))
    assert figure.to_json() == before
    sidecar = json.loads(paths[0].read_text(encoding="utf-8"))
    assert sidecar["source"] == {"store": str(tmp_path / "a.nc"), "run": "r", "commit": "c"}
    assert sidecar["versions"]["plotly"]
    assert "commit" in sidecar
    first = paths[0].read_bytes()
    save(again, "it", tmp_path, sidecar["source"], formats=[])
    assert paths[0].read_bytes() == first  # no clock in it: the same figure, the same file


def test_a_sidecar_holds_plain_numbers_even_of_arrays(tmp_path):
    values = np.array([[1.5, np.nan], [3.0, 4.0]])
    figure = go.Figure([go.Heatmap(z=values), go.Scatter(y=np.array([1, 2], dtype=np.int32))])
    (path,) = save(figure, "α-1", tmp_path, formats=[])
    data = json.loads(path.read_text(encoding="utf-8"))["figure"]["data"]
    assert data[0]["z"] == [[1.5, None], [3.0, 4.0]]
    assert data[1]["y"] == [1, 2]
    assert redraw(path).data[1].y == (1, 2)


def test_html_is_one_file_without_network_or_upload(tmp_path):
    html, _ = save(thought_map(points()), "map", tmp_path / "new" / "folder", formats=["html"])
    text = html.read_text(encoding="utf-8")
    assert "plotly.js v" in text  # embedded
    assert not re.search(r"<(script|link)[^>]+(src|href)=", text)
    assert '"showSendToCloud": false' in text
    assert '"plotlyServerURL"' not in text
    assert sorted(path.name for path in html.parent.iterdir()) == ["map.html", "map.json"]


def test_on_a_screen_text_is_larger_and_all_that_depends_on_it(tmp_path):
    figure = thought_map(points(), "label_operations", "step")
    before = figure.to_json()
    html, _ = save(figure, "map", tmp_path, formats=["html"])
    rest = html.read_text(encoding="utf-8").split("Plotly.newPlot(")[-1]
    for _ in range(3):  # its arguments: where, data, layout
        layout, end = json.JSONDecoder().raw_decode(rest.lstrip(", \n"))
        rest = rest.lstrip(", \n")[end:]
    assert layout["template"]["layout"]["font"]["size"] == pytest.approx(1.4 * 8 * 96 / 72)
    assert layout["margin"]["b"] == pytest.approx(1.4 * figure.layout.margin.b)
    assert layout["title"]["pad"]["b"] == pytest.approx(1.4 * figure.layout.title.pad.b)
    assert "width" not in layout  # it fills its window
    (title,) = [a for a in layout["annotations"] if a.get("name") == "x title"]
    (printed,) = [a for a in figure.layout.annotations if a.name == "x title"]
    assert title["yshift"] == pytest.approx(1.4 * printed.yshift)
    assert figure.to_json() == before
    size = float(re.findall(r"font-size:([\d.]+)em", layout["legend"]["title"]["text"])[0])
    assert size * layout["legend"]["title"]["font"]["size"] == pytest.approx(1.4 * 8 * 96 / 72, rel=0.01)


def test_on_a_screen_numbers_written_into_a_figure_are_as_large_as_those_beside_it(tmp_path):
    html, _ = save(accuracy(accuracies()), "accuracy", tmp_path, formats=["html"])
    rest = html.read_text(encoding="utf-8").split("Plotly.newPlot(")[-1]
    _, end = json.JSONDecoder().raw_decode(rest.lstrip(", \n"))
    (trace,), _ = json.JSONDecoder().raw_decode(rest.lstrip(", \n")[end:].lstrip(", \n"))
    assert trace["textfont"]["size"] == pytest.approx(1.4 * 7 * 96 / 72)
    assert trace["marker"]["size"] == 7


@needs_browser
def test_png_has_the_dots_asked_for(tmp_path):
    small, _ = save(accuracy(accuracies(), width="column"), "accuracy", tmp_path, formats=["png"], dpi=150)
    assert int.from_bytes(small.read_bytes()[16:20], "big") == pytest.approx(85 / 25.4 * 150, abs=2)


@pytest.mark.slow
@needs_browser
def test_the_browser_shows_no_upload_button(tmp_path):
    def buttons(path):
        flags = "--headless --no-sandbox --disable-dev-shm-usage --disable-quic --no-first-run --disable-sync"
        command = [BROWSER, *flags.split(), "--disable-background-networking", "--disable-component-update"]
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        done = subprocess.run(
            [*command, profile, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=600
        )
        return set(re.findall('data-title="([^"]*)"', done.stdout))

    figure = accuracy(accuracies())
    as_in_a_notebook, foreign = tmp_path / "notebook.html", tmp_path / "plain.html"
    figure.write_html(as_in_a_notebook)  # no config: the figure itself must say so
    go.Figure(figure.data).write_html(foreign)
    assert "Share chart..." in buttons(foreign)  # otherwise this test sees nothing
    seen = buttons(as_in_a_notebook)
    assert "Pan" in seen
    assert "Share chart..." not in seen
    assert "Share chart..." not in buttons(save(go.Figure(figure.data), "saved", tmp_path, formats=["html"])[0])


@pytest.mark.slow
@needs_browser
def test_png_pdf_and_svg_have_print_size(tmp_path):
    paths = save(accuracy(accuracies(), width="column"), "accuracy", tmp_path, formats=["png", "pdf", "svg"])
    assert [path.suffix for path in paths] == [".png", ".pdf", ".svg", ".json"]
    png, pdf, svg = (path.read_bytes() for path in paths[:3])
    assert png[:4] == b"\x89PNG"
    assert int.from_bytes(png[16:20], "big") == pytest.approx(85 / 25.4 * 300, abs=2)  # 300 dots per inch
    box = re.search(rb"MediaBox *\[0 0 ([\d.]+)", pdf)
    assert box is not None
    assert float(box[1]) == pytest.approx(85 / 25.4 * 72, abs=1)  # points
    assert b'width="321"' in svg
    assert b"lta_thinker" in svg


@pytest.fixture
def no_server(monkeypatch):
    import kaleido

    kaleido.stop_sync_server(silence_warnings=True)
    monkeypatch.setattr(export, "_server", False)


@pytest.mark.parametrize(("path", "reason"), [("/no/such/browser", "was not found"), ("/bin/false", "does not start")])
def test_without_chromium_html_and_sidecar_are_written_and_one_sentence_says_so(
    path, reason, tmp_path, monkeypatch, no_server
):
    monkeypatch.setenv("BROWSER_PATH", path)
    with pytest.warns(
        UserWarning, match=f"^png, pdf skipped, because Chromium {reason}: install it .*chromium"
    ) as seen:
        paths = save(accuracy(accuracies()), "accuracy", tmp_path, formats=["png", "pdf"])
    assert len(seen) == 1
    assert [found.name for found in paths] == ["accuracy.html", "accuracy.json"]
    assert sorted(found.name for found in tmp_path.iterdir()) == ["accuracy.html", "accuracy.json"]


def test_save_refuses_names_and_formats(tmp_path):
    figure = go.Figure()
    with pytest.raises(ValueError, match="'a/b' is no file name: use letters"):
        save(figure, "a/b", tmp_path)
    with pytest.raises(ValueError, match=r"formats=\['jpg'\]: give a list with any of html, png, pdf, svg"):
        save(figure, "a", tmp_path, formats=["jpg"])
    with pytest.raises(ValueError, match="formats='png': give a list"):
        save(figure, "a", tmp_path, formats="png")
    assert not list(tmp_path.iterdir())


def test_redraw_refuses_what_is_no_sidecar(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no sidecar at .*: give the \.json file"):
        redraw(tmp_path / "none.json")
    for text in ("{", "[]", "{}", '{"figure": {"data": [{"type": "nonsense"}]}}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match="is no sidecar of a figure"):
            redraw(tmp_path / "bad.json")


def test_nothing_half_written_when_writing_fails(tmp_path, monkeypatch):
    figure = accuracy(accuracies())
    save(figure, "it", tmp_path, formats=["html"])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        save(loss_curves(metrics()), "it", tmp_path, formats=["html"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
