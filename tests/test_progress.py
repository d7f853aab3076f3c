"""What one sees of long work where output goes to a file: lines with totals, not one line of bars."""

import io
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console

from workbench import progress as home
from workbench.experiments import grid
from workbench.experiments.grid import Cell, Setting
from workbench.progress import Lines, progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [100.0]
    monkeypatch.setattr(home.time, "monotonic", lambda: now[0])
    return now


def test_lines_come_after_two_seconds_and_then_every_fifteen(clock):
    file = io.StringIO()
    with Lines("train two", 100, 20, file) as bar:
        for _ in range(80):
            clock[0] += 0.5
            bar.set_postfix(loss="0.5")
            bar.update()
    lines = file.getvalue().splitlines()
    assert lines[0] == "train two: 24 of 100, 2 s, 38 s to go, loss=0.5"
    assert lines[1] == "train two: 54 of 100, 17 s, 23 s to go, loss=0.5"
    assert lines[-1] == "train two: 100 of 100, 40 s, loss=0.5"
    assert len(lines) == 4
    assert "\r" not in file.getvalue()


def test_what_is_done_at_once_says_nothing(clock):
    file = io.StringIO()
    with Lines("answer", 3, file=file) as bar:
        clock[0] += 1
        bar.update(3)
    assert file.getvalue() == ""


def test_a_file_gets_lines_and_a_terminal_a_bar(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    assert isinstance(progress("train", 3), Lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert not isinstance(progress("train", 3), Lines)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert progress("train", 3).disable  # pyright: ignore[reportAttributeAccessIssue]


def test_a_grid_says_in_a_file_how_far_it_is(monkeypatch, tmp_path):
    file = io.StringIO()
    monkeypatch.setattr(home, "DELAY", -1.0)
    monkeypatch.setattr(grid, "run_cell", lambda setting, cell, folder: time.sleep(0.5))
    monkeypatch.setattr(grid, "ProcessPoolExecutor", lambda workers, *rest, **named: ThreadPoolExecutor(workers))
    setting = Setting(seeds=[0], workers=1, questions=4)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    cells = [Cell("cot", 0, condition={"arm": name}) for name in ("a", "b")]
    grid._run(setting, cells, {f"{name}_seed0": tmp_path / name for name in ("a", "b")}, Console(file=file))
    assert re.match(r"2 runs, steps: [01] of 2, \d+ s", file.getvalue())
