"""Watching runs, without a browser: what is shown, and how watching ends. The processes are small scripts."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from workbench import runs
from workbench.figures import loss_curves
from workbench.widgets import watching as widgets
from workbench.widgets.watching import curves, summary, watch

ROW = {"step": 1, "seconds": 0.5, "loss": 2.0, "loss_likelihood": 1.5, "probe_spread": 0.1, "probe_slot_cosine": 0.2}
TRAINS = """
import json, signal, sys, time
row, steps, code = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
for step in range(1, steps + 1):
    with open("metrics.jsonl", "a") as file:
        file.write(json.dumps(row | {"step": step}) + "\\n")
    time.sleep(0.01)
    if asked:
        print(f"stopped after step {step}")
        sys.exit(130)
print("the end")
sys.exit(code)
"""


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, dict[str, Any]]]:
    """What a page would show: (place, mime data), in order."""
    found: list[tuple[int, dict[str, Any]]] = []
    places: list[object] = []

    def put(handle: object, content: dict[str, Any]) -> object:
        if handle is None:
            handle = object()
            places.append(handle)
        found.append((places.index(handle), content))
        return handle

    monkeypatch.setattr(widgets, "_put", put)
    return found


def training(folder: Path, steps: int = 5, code: int = 0) -> subprocess.Popen[bytes]:
    """A process that logs `steps` steps as training does, and ends with `code`."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", TRAINS, json.dumps(ROW), str(steps), str(code)]
    with open(folder / "log.txt", "wb") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)


def kinds(shown: list[tuple[int, dict[str, Any]]]) -> list[tuple[int, str]]:
    return [(place, next(iter(content))) for place, content in shown]


def test_a_watched_run_is_drawn_until_it_ends_and_stays_as_plain_figures(shown, tmp_path, monkeypatch):
    monkeypatch.setattr("plotly.io.renderers.default", "plotly_mimetype")
    watch(tmp_path, training(tmp_path, 30), every=0.05)
    assert [place for place, _ in kinds(shown)][-2:] == [1, 2]
    assert {kind for place, kind in kinds(shown) if place == 0} == {"text/html"}
    live, kept = "application/vnd.jupyter.widget-view+json", "application/vnd.plotly.v1+json"
    assert [kind for place, kind in kinds(shown) if place == 1] == [live, kept]  # in between it changed in place
    assert "step 30" in [content["text/html"] for place, content in shown if place == 0][-1]
    figure: Any = go.Figure({key: shown[-2][1][kept][key] for key in ("data", "layout")})
    assert list(figure.data[0].x) == list(range(1, 31))


def test_several_runs_that_begin_one_after_the_other(shown, tmp_path):
    folders = {"a": tmp_path / "a", "b": tmp_path / "b"}
    first = training(folders["a"], 100)
    watch(folders, [first, training(folders["b"], 3)], every=0.05)
    text = [content["text/html"] for place, content in shown if place == 0]
    assert "starting" in text[0] or "step" in text[0]
    assert "<b>a</b>: step 100" in text[-1]
    assert "<b>b</b>: step 3" in text[-1]


def test_watching_can_end_at_a_step_and_the_run_goes_on(shown, tmp_path):
    process = training(tmp_path, 500)
    watch(tmp_path, process, until=3, every=0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    watch(tmp_path, process)  # one that was stopped has not failed


def test_an_interrupt_stops_the_run_and_says_what_it_said(shown, tmp_path, monkeypatch):
    process = training(tmp_path, 10_000)

    def press(seconds: float) -> None:
        while not (tmp_path / "metrics.jsonl").exists():
            pause(0.05)
        raise KeyboardInterrupt

    pause = time.sleep
    monkeypatch.setattr(widgets.time, "sleep", press)
    with pytest.raises(KeyboardInterrupt, match="stopped after step"):
        watch(tmp_path, process)
    assert process.returncode == 130


def test_a_run_that_fails_is_an_error_with_its_last_words(shown, tmp_path):
    with pytest.raises(RuntimeError, match=r"ended with exit code 1: the end"):
        watch(tmp_path, training(tmp_path, 2, code=1), every=0.05)


def test_somebody_elses_run_is_watched_until_its_result(shown, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")
    (tmp_path / "result.json").write_text("{}")
    watch(tmp_path)
    assert "step 1" in shown[0][1]["text/html"]
    process = training(tmp_path, 1)
    with pytest.raises(ValueError, match="1 processes for 2 folders"):
        watch({"a": tmp_path, "b": tmp_path}, process)
    process.wait()


def test_a_line_that_is_still_being_written_is_left_for_the_next_look(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW)[:20])
    assert len(widgets.rows_of(tmp_path)) == 1
    assert widgets.rows_of(tmp_path / "nowhere").empty


def test_the_summary_names_each_warning_once_and_escapes_names():
    rows = [ROW | {"warnings": ["all <equal>"]}, ROW | {"step": 2}, ROW | {"step": 3, "warnings": ["all <equal>"]}]
    text = summary({"<i>": pd.DataFrame(rows), "late": pd.DataFrame()})
    assert text.count("⚠") == 1
    assert "<b>&lt;i&gt;</b>: step 3" in text
    assert "all &lt;equal&gt;" in text
    assert "<b>late</b>: starting" in text


def test_there_are_curves_for_what_was_logged():
    assert curves({"late": pd.DataFrame()}) == []
    assert len(curves({"a": pd.DataFrame([ROW])})) == 2
    assert len(curves({"a": pd.DataFrame([{"step": 1, "loss": 1.0}])})) == 1


def test_a_last_window_is_drawn_when_it_is_whole():
    tables = {name: pd.DataFrame({"step": range(1, n + 1), "loss": 1.0}) for name, n in (("long", 41), ("new", 1))}
    long, new = curves(tables)[0].data
    assert list(long.x) == list(range(2, 41, 2))  # not the mean of step 41 alone
    assert list(new.x) == [1]  # better than nothing


def test_loss_curves_can_average():
    table = pd.DataFrame({"step": np.arange(1, 6), "loss": [1.0, 3, 5, 7, 8], "loss_a": [2.0, 2, 4, 4, np.nan]})
    table["warnings"] = [["text is left out"]] * 5
    figure: Any = loss_curves(table, window=2)
    total, part = figure.data
    assert (list(total.x), list(total.y)) == ([2, 4, 5], [2.0, 6.0, 8.0])
    assert (list(part.x), list(part.y)) == ([2, 4], [2.0, 4.0])
    assert (total.xaxis, part.xaxis) == ("x", "x2")
    assert "means, each of up to 2 logged values" in figure.layout.title.text
    several: Any = loss_curves({"a": table, "b": table}, window=2)
    assert "means of up to 2" in several.layout.title.text
    with pytest.raises(ValueError, match="window is 0"):
        loss_curves(table, window=0)


def test_training_starts_as_the_command_line_would_and_refuses_what_it_would(shown, tmp_path):
    with pytest.raises(ValueError, match="no run at"):
        runs.start_training(tmp_path)
    with pytest.raises(RuntimeError, match=r"exit code 2: .*no backbone at 'nanu'"):
        watch(tmp_path, runs.start_training(tmp_path, {"backbone": "nanu"}), every=0.05)
    (tmp_path / "metrics.jsonl").touch()
    with pytest.raises(ValueError, match="holds a run already"):
        runs.start_training(tmp_path, {})
