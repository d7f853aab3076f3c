"""All runs and stores of a folder as one table, on the command line and as a widget."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import kept_store, run_folder

from workbench import overview, runs, store
from workbench.__main__ import main
from workbench.commands import listing
from workbench.overview import remove, run_table, sorted_by
from workbench.widgets import Compare, Inspector, Runs, TrainingMonitor


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two runs, one with a store and a counter-test's, and a store of its own."""
    run_folder(tmp_path / "a" / "one", seed=0)
    run_folder(tmp_path / "a" / "two", seed=1, steps=20, spread=0.0001, task="prosqa")
    kept_store(tmp_path / "a" / "one" / "test.nc", accuracy=0.7)
    kept_store(tmp_path / "a" / "one" / "counter" / "other.nc", accuracy=0.1, changed="shuffled")
    kept_store(tmp_path / "lone.nc", accuracy=0.4, seed=1)
    return tmp_path


def test_the_table_has_each_run_and_each_store_of_nobody(home):
    table: Any = run_table(home).set_index("name")
    assert set(table.index) == {"a/one", "a/two", "lone.nc"}
    one = table.loc["a/one"]
    found = store.load(home / "a" / "one" / "test.nc")
    assert one["accuracy"] == pytest.approx(float(found["correct"].mean()))  # not the counter-test's
    assert (one["n"], one["of"], one["step"]) == (40, "dev (test)", 40)
    assert float(one["low"]) < float(one["accuracy"]) < float(one["high"])
    assert (one["minutes"], one["seed"], one["state"]) == (2.0, 0, "finished")
    two = table.loc["a/two"]
    assert (two["accuracy"], two["of"], two["n"]) == (0.25, "probe set", 32)
    assert two["low"] < 0.25 < two["high"]
    assert (two["verdict"], two["task"], two["store"]) == ("collapsed", "prosqa", "")
    assert (table.loc["lone.nc", "kind"], table.loc["lone.nc", "state"]) == ("store", "store")
    assert table["megabytes"].min() > 0


def drawn(shown: Runs) -> Any:
    return shown.figure()


def test_it_is_sorted_by_any_column_and_missing_values_come_last(home):
    table = run_table(home)
    names = {column: list(sorted_by(table, column)["name"]) for column in overview.SORTS}
    assert names["step"][0] == "a/two"
    assert names["minutes"] == ["a/two", "a/one", "lone.nc"]
    assert list(sorted_by(table, "minutes", descending=True)["name"]) == ["a/one", "a/two", "lone.nc"]
    with pytest.raises(ValueError, match="no column 'path' to sort by"):
        sorted_by(table, "path")


def test_what_cannot_be_read_is_said_and_the_rest_is_listed(home):
    (home / "a" / "two" / "metrics.jsonl").write_text('{"step": 1, "loss": "x"}\n')
    (home / "lone.nc").write_bytes(b"no store")
    table = run_table(home).set_index("name")
    assert "metrics.jsonl, line 1" in table.loc["a/two", "remark"]
    assert "lone.nc" in table.loc["lone.nc", "remark"]
    assert table.loc["a/one", "remark"] == ""
    with pytest.raises(ValueError, match="is no folder"):
        run_table(home / "nothing")


def test_only_runs_and_stores_are_removed_and_none_that_trains(home, monkeypatch):
    with pytest.raises(ValueError, match="holds no run"):
        remove([home / "a" / "one", home / "a"])
    monkeypatch.setattr(runs, "running", lambda folder: 1 if folder.name == "two" else None)
    with pytest.raises(ValueError, match="still trains"):
        remove([home / "a" / "one", home / "a" / "two"])
    assert (home / "a" / "one").exists()
    remove([home / "a" / "one", home / "lone.nc"])
    assert list(run_table(home)["name"]) == ["a/two"]


def test_the_command_lists_and_deletes_after_a_question(home, capsys, monkeypatch):
    assert main(["runs", str(home), "--sort", "accuracy", "--descending", "true", "--csv", str(home / "all.csv")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["name", "a/one", "lone.nc", "a/two"]
    assert "25.0 [13.3, 42.1]" in lines[-1]
    assert len((home / "all.csv").read_text().splitlines()) == 4
    assert main(["runs", str(home), "--only", "prosqa lta"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["name", "a/two"]
    assert main(["runs", str(home), "--delete", "[a/two]"]) == 2
    assert "no terminal to ask" in capsys.readouterr().err
    monkeypatch.setattr(listing.sys.stdin, "isatty", lambda: True, raising=False)
    for answer, left in (("n", True), ("y", False)):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert main(["runs", str(home), "--delete", "[a/two]"]) == 0
        assert (home / "a" / "two").exists() == left
    assert main(["runs", str(home), "--delete", "[a/two]"]) == 2


def test_the_widget_marks_opens_and_draws(home):
    shown = Runs(home)
    assert shown.table.shown["columns"][0] == "name"
    assert len(shown.table.shown["rows"]) == 3
    names = list(shown.listed["name"])
    shown.table.marked = [names.index("a/one"), names.index("lone.nc")]
    assert set(shown.marked) == {"a/one", "lone.nc"}
    assert len(drawn(shown).data) == 1  # a store has no curve
    assert shown.open() == ""
    assert isinstance(shown.opened, Compare)
    assert set(shown.opened.stores) == {"a/one", "lone.nc"}
    shown.only = "prosqa"
    assert list(shown.listed["name"]) == ["a/two"]
    assert set(shown.marked) == {"a/one", "lone.nc"}  # what is not shown stays marked
    shown.marked = ("a/one", "a/two")
    shown.widget = "Inspector"
    assert "1 of the marked rows have no store" in shown.open()
    assert isinstance(shown.opened, Inspector)
    shown.widget = "TrainingMonitor"
    with pytest.raises(ValueError, match="shows one run, and 2 are marked"):
        shown.open()
    shown.marked = ("a/two",)
    shown.open()
    assert isinstance(shown.opened, TrainingMonitor)
    assert shown.to_html(home / "page.html").exists()
    shown.close()


def test_the_first_steps_do_not_rule_the_axis(home):
    shown = Runs(home)
    shown.marked = ("a/one", "a/two")
    figure = drawn(shown)
    assert figure.layout.yaxis.range[1] < 1  # and not 60, the first loss
    assert "the axis holds step 2 and later" in figure.layout.title.text.replace("<br>", " ")
    assert figure.data[0].y[0] == 60.0  # drawn all the same
    shown.log = True
    assert drawn(shown).layout.yaxis.type == "log"
    assert drawn(shown).layout.yaxis.range[1] < 0
    shown.log, shown.smooth = False, True
    assert sorted(len(line.x) for line in drawn(shown).data) == [10, 20]
    shown.value = "probe_active"
    assert shown.picture.figure is None
    assert "none of these runs has logged" in shown.told.value


def test_the_widget_deletes_only_when_sure(home):
    shown = Runs(home)
    shown.marked = ("a/two",)
    assert shown._question() == ""
    assert "Delete 1 of them for good" in shown.ask.children[-1].value
    shown._unsure()
    assert shown.ask.children == ()
    assert (home / "a" / "two").exists()
    shown._question()
    shown.ask.children[0].click()
    assert not (home / "a" / "two").exists()
    assert set(shown.rows["name"]) == {"a/one", "lone.nc"}
    assert shown.marked == ()


def test_a_store_is_read_once_while_its_file_stays(home, monkeypatch):
    before = run_table(home)
    monkeypatch.setattr(overview.store, "load", lambda path: pytest.fail("read again"))
    again = run_table(home)
    assert np.array_equal(before["accuracy"], again["accuracy"])
