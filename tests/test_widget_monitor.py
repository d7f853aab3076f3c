"""The training monitor without a browser: states of a run's folder, starting, stopping, finding it again.

The processes are small scripts that log as training does; `test_browser_training.py` trains for real.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from kept_pages import pictures

from workbench import runs
from workbench.analysis.diagnostics import glance
from workbench.widgets import TrainingMonitor

LONG = 100_000  # steps that nobody waits for
ROW = {"step": 1, "seconds": 0.5, "loss": 2.0, "loss_likelihood": 1.5, "probe_relative_spread": 0.3}
TRAINS = """
import json, pathlib, signal, sys, time
row, steps, resume, code = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "yes", int(sys.argv[4])
path = pathlib.Path("metrics.jsonl")
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(1))
done = len(path.read_text().splitlines()) if resume else 0
print(f"training it: 1 trainable of 2 parameters, {steps - done} steps, 1 process (cpu)", flush=True)
for step in range(done + 1, steps + 1):
    with path.open("a") as file:
        file.write(json.dumps(row | {"step": step, "seconds": step / 100}) + "\\n")
    time.sleep(0.02)
    if asked:
        print(f"stopped after step {step}", flush=True)
        sys.exit(130)
if code:
    print("out of luck", flush=True)
    sys.exit(code)
pathlib.Path("result.json").write_text("{}")
"""


@pytest.fixture
def scripted(monkeypatch):
    """Training is the script above, for as many steps as the settings say."""

    def start(folder: Path, config: dict[str, Any] | None = None, *, threads: int = 1) -> subprocess.Popen[bytes]:
        again = config is None
        settings = runs.read_config(folder) if again else config
        if not again:
            runs.write_config(folder, settings)
        training = settings["training"]
        row = ROW | training.get("row", {})
        command = [sys.executable, "-c", TRAINS, json.dumps(row), str(training["epochs"])]
        command += ["yes" if again else "no", str(training.get("code", 0))]
        with open(folder / "log.txt", "ab") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
        started.append(process)
        runs.note_process(folder, process.pid)
        return process

    started: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(runs, "start_training", start)
    yield
    for process in started:
        process.kill()
        process.wait()


def settings(steps: int, **training: Any) -> dict[str, Any]:
    return {"task": "arith-shift", "training": {"epochs": steps} | training}


def until(monitor: TrainingMonitor, *states: str, step: int = 0) -> None:
    """Look until the run is in one of these states, at this step or beyond."""
    for _ in range(20_000):
        monitor.look()
        if monitor.state in states and monitor.step >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"{monitor.state} at step {monitor.step}")


def test_a_run_is_started_stopped_found_again_and_goes_on(scripted, tmp_path):
    monitor = TrainingMonitor(tmp_path, settings(LONG))
    assert (monitor.state, monitor._go.disabled, monitor._end.disabled) == ("ready", False, True)
    monitor._go.click()
    until(monitor, "running", step=3)
    assert (monitor._go.disabled, monitor._end.disabled) == (True, False)
    assert f"step {monitor.step} of {LONG}" in monitor._status.value
    again = TrainingMonitor(tmp_path)  # as after a restart of the kernel: it knows only the folder
    assert again.state == "running"
    again._end.click()
    until(again, "stopped")
    until(monitor, "stopped")
    step = monitor.step
    assert 3 <= step < LONG
    assert monitor._go.description == "Go on"
    again._go.click()
    until(again, "running", step=step + 2)
    assert runs.read_metrics(tmp_path)["step"].is_monotonic_increasing
    again.stop()
    until(again, "stopped")
    monitor.close()
    again.close()


def test_a_finished_run_says_so_and_cannot_be_started(scripted, tmp_path):
    monitor = TrainingMonitor(tmp_path, settings(3))
    monitor.start()
    until(monitor, "finished")
    assert monitor.step == 3
    assert (monitor._go.disabled, monitor._end.disabled) == (True, True)
    monitor.start()
    assert monitor.state == "finished"
    x = [point for trace in monitor._pictures[0].figure.data for point in trace.x]
    assert set(x) == {1, 2, 3}
    assert TrainingMonitor(tmp_path).state == "finished"


def test_a_run_that_fails_says_its_last_words_and_can_go_on(scripted, tmp_path):
    monitor = TrainingMonitor(tmp_path, settings(2, code=1))
    monitor.start()
    until(monitor, "failed")
    assert "out of luck" in monitor._status.value
    assert monitor._go.description == "Go on"
    assert not monitor._go.disabled


def test_two_monitors_watch_two_runs(scripted, tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    one, other = (TrainingMonitor(folder, settings(LONG)) for folder in folders)
    one.start()
    other.start()
    until(one, "running", step=2)
    one.stop()
    until(one, "stopped")
    other.look()
    assert other.state == "running"
    other.stop()
    until(other, "stopped")


def test_in_a_notebook_it_looks_by_itself(scripted, tmp_path):
    async def notebook() -> TrainingMonitor:
        monitor = TrainingMonitor(tmp_path, settings(3))
        monitor.every = 0.01
        monitor.start()
        for _ in range(20_000):
            await asyncio.sleep(0.01)
            if monitor.state == "finished":
                break
        monitor.close()
        return monitor

    assert asyncio.run(notebook()).step == 3


def test_what_collapse_looks_like_while_it_happens(scripted, tmp_path):
    row = {"probe_relative_spread": 0.001, "probe_slot_cosine": 0.2, "warnings": ["all <equal>"]}
    monitor = TrainingMonitor(tmp_path, settings(2, row=row))
    monitor.start()
    until(monitor, "finished")
    assert "collapsed" in monitor._status.value
    assert "relative spread 0.001 is below 0.02" in monitor._status.value
    assert monitor.warnings == ("all <equal>",)
    assert "all &lt;equal&gt;" in monitor._status.value
    page = monitor.to_html(tmp_path / "page.html").read_text()
    assert pictures(page)
    assert "relative spread 0.001" in page


def test_accuracy_is_drawn_and_said_where_the_run_answers(scripted, tmp_path):
    monitor = TrainingMonitor(tmp_path, settings(3, row={"probe_accuracy": 0.25}))
    monitor.start()
    until(monitor, "finished")
    assert "25 % of the probe set answered rightly at step 3" in monitor._status.value
    assert "; 25 % at the first look, step 1" in monitor._status.value
    figure = monitor._pictures[1].figure
    assert figure.layout.annotations[0].text == "accuracy (share)"
    assert set(figure.data[0].y) == {0.25}


def test_a_glance_is_the_verdict_of_the_numbers_it_has():
    assert glance({"relative_spread": 0.3, "slot_cosine": 0.1}).state == "healthy"
    assert glance({"relative_spread": 0.3}).evidence == ("relative spread 0.3",)
    assert glance({"relative_spread": 0.05}).state == "drifting"
    assert glance({"relative_spread": 0.3, "slot_cosine": 0.8}).state == "drifting"
    found = glance({"relative_spread": 0.01, "slot_cosine": 0.999})
    assert found.state == "collapsed"
    assert len(found.evidence) == 2


def test_folders_that_hold_something_else(scripted, tmp_path):
    empty = TrainingMonitor(tmp_path / "empty")
    assert empty.state == "nothing"
    assert "Give settings to start one" in empty._status.value
    empty.start()
    assert empty.state == "nothing"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "metrics.jsonl").write_text(json.dumps(ROW) + "\n" + json.dumps(ROW)[:9])
    monitor = TrainingMonitor(theirs)
    assert (monitor.state, monitor.step, monitor._end.disabled) == ("elsewhere", 1, True)
    (theirs / "result.json").write_text("{}")
    monitor.look()
    assert monitor.state == "finished"


def test_other_settings_than_the_folders_are_remarked(scripted, tmp_path):
    monitor = TrainingMonitor(tmp_path, settings(1))
    monitor.start()
    until(monitor, "finished")
    assert "This folder holds" not in TrainingMonitor(tmp_path, settings(1))._status.value
    assert "another training: give" in TrainingMonitor(tmp_path, settings(2))._status.value


def test_settings_that_cannot_be_started_are_a_sentence(tmp_path, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no room")

    monkeypatch.setattr(runs, "start_training", refuse)
    monitor = TrainingMonitor(tmp_path, settings(1))
    monitor.start()
    assert monitor.state == "ready"
    assert "no room" in monitor._status.value


def test_processes_are_known_by_id_and_beginning(tmp_path):
    assert runs.running(tmp_path) is None
    assert not runs.stop_training(tmp_path)
    listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # tests may run where Ctrl-C is ignored
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], preexec_fn=listen)
    runs.note_process(tmp_path, process.pid)
    assert runs.running(tmp_path) == process.pid
    about = json.loads((tmp_path / "process.json").read_text())
    for other in ({"began": about["began"] - 100}, {"machine": "another"}, {"pid": 2**22 + 1}):
        (tmp_path / "process.json").write_text(json.dumps(about | other))
        assert runs.running(tmp_path) is None
    (tmp_path / "process.json").write_text(json.dumps(about))
    assert runs.stop_training(tmp_path)
    for _ in range(20_000):  # ended, though nobody has waited for it yet
        if runs.running(tmp_path) is None:
            break
        time.sleep(0.01)
    assert runs.running(tmp_path) is None
    assert process.wait() in (-signal.SIGINT, 1, 130)
