"""Experiments: the grid resumes and refuses, the table is what the stores say, and each experiment runs, small."""

import json
from dataclasses import replace
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from workbench import store
from workbench.analysis.scores import Interval, crossed_interval, per_example
from workbench.backbone import Decoding
from workbench.experiments import EXPERIMENTS, Setting, experiment, grid, question
from workbench.experiments.compare import compared, wide
from workbench.experiments.grid import Answers, Cell, Done, run_cell, run_cells
from workbench.experiments.report import against, conditions, correct, difference, effect, limits, tabulate, within
from workbench.experiments.tuning import RATES, rates, tuned
from workbench.methods import METHODS
from workbench.places import DATA
from workbench.training.loop import TrainConfig

pytestmark = pytest.mark.filterwarnings("ignore:no Chromium:UserWarning")
SHIPPED = DATA / "experiments"
TRIED = ("rate-x0.1", "rate-x1", "rate-x10")  # folders of the trials
TINY = TrainConfig(examples=32, epochs=1, batch_size=16, probe_examples=8)
SETTING = Setting(seeds=[0, 1], questions=12, training=TINY, decoding=Decoding(max_new_tokens=8), workers=1)


@pytest.fixture
def here(monkeypatch):
    """Cells run in this process: spawning one for each test would cost seconds."""

    def run(setting, cells, folders, console):
        for cell in cells:
            run_cell(setting, cell, folders[cell.name])

    monkeypatch.setattr(grid, "_run", run)


def test_every_experiment_asks_a_question_and_names_its_cells_apart():
    for name in EXPERIMENTS:
        assert question(name).endswith("?")
        cells = import_module(f"workbench.experiments.{EXPERIMENTS[name]}").cells(SETTING)
        names = [cell.name for cell in cells]
        assert len(set(names)) == len(names)
        assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzLTASC0123456789-_=.+") for name in names)
        trained = {cell.seed for cell in cells if cell.training is not None}
        assert trained == (set() if name == "benchmarks" else {0, 1})  # which trains nothing


def test_the_known_setting_is_kept_and_another_refused(tmp_path, here):
    cells = [Cell("cot", 0, condition={"method": "empty slot"})]
    (done,) = run_cells(SETTING, cells, tmp_path, Console())
    made = (done.folder / "test.nc").stat().st_mtime_ns
    run_cells(SETTING, cells, tmp_path, Console())
    assert (done.folder / "test.nc").stat().st_mtime_ns == made
    with pytest.raises(ValueError, match=r"empty-slot_seed0 was made with another setting; give another --out"):
        run_cells(replace(SETTING, questions=5), cells, tmp_path, Console())
    with pytest.raises(ValueError, match="two cells are called 'empty-slot_seed0'"):
        run_cells(SETTING, cells * 2, tmp_path, Console())


def test_the_backbone_is_loaded_in_the_precision_that_is_asked(tmp_path, here, monkeypatch):
    asked, load = [], grid.Backbone.load
    monkeypatch.setattr(grid.Backbone, "load", lambda *a, **k: (asked.append(k["dtype"]), load(*a, **k))[1])
    cells = [Cell("cot", 0, condition={"method": "empty slot"})]
    run_cells(replace(SETTING, dtype="bfloat16"), cells, tmp_path, Console())
    assert asked == ["bfloat16"]
    with pytest.raises(ValueError, match="was made with another setting"):
        run_cells(SETTING, cells, tmp_path, Console())


def test_a_stopped_cell_goes_on_where_it_was(tmp_path, here):
    stores = {"a": Answers(), "b": Answers(draws=2, temperature=1.0)}
    cell = Cell("soft-prompt", 1, {"thoughts": 2}, replace(TINY, epochs=2), {}, stores)
    (done,) = run_cells(SETTING, [cell], tmp_path, Console())
    first = done.store("a")
    weights = (done.folder / "weights.safetensors").read_bytes()
    for name in ("b.nc", "weights.safetensors"):
        (done.folder / name).unlink()
    made = (done.folder / "a.nc").stat().st_mtime_ns
    (again,) = run_cells(SETTING, [cell], tmp_path, Console())
    assert (done.folder / "weights.safetensors").read_bytes() == weights
    assert (done.folder / "a.nc").stat().st_mtime_ns == made
    assert again.store("b").sizes["draw"] == 2
    assert np.array_equal(first["thought"], again.store("b")["thought"])


@pytest.mark.slow
def test_processes_give_what_one_does_and_an_error_names_its_cell(tmp_path, here, monkeypatch):
    cells = [Cell("soft-prompt", seed, {"thoughts": 2}, TINY) for seed in (0, 1)]
    alone = run_cells(SETTING, cells, tmp_path / "alone", Console())
    monkeypatch.undo()
    beside = run_cells(replace(SETTING, workers=2), cells, tmp_path / "beside", Console())
    for one, other in zip(alone, beside, strict=True):
        assert one.store().drop_attrs().identical(other.store().drop_attrs())
    bad = Cell("cot", 0, stores={"test": Answers(task="gsm8k", data=str(tmp_path / "nothing"))})
    with pytest.raises(ValueError, match=r"^cell cot_seed0: .*nothing"):
        run_cells(SETTING, [bad], tmp_path / "bad", Console())


def test_the_table_is_what_the_stores_say(tmp_path, here):
    cells = [
        Cell(method, seed, {}, training, {"method": method})
        for method, training in (("cot", None), ("soft-prompt", TINY))
        for seed in (0, 1)
    ]
    done = run_cells(SETTING, cells, tmp_path, Console())
    table, runs = tabulate(done, {"accuracy": correct()}, {"samples": 1})
    assert table[["method", "samples", "measure", "n", "runs"]].values.tolist() == [
        ["cot", 1, "accuracy", 12, 2],
        ["soft-prompt", 1, "accuracy", 12, 2],
    ]
    values = np.stack([per_example(store.load(d.folder / "test.nc")) for d in done[2:]])
    wanted = crossed_interval(values)
    wanted = (wanted.mean, max(0, wanted.low), min(1, wanted.high))  # shares end at 0 and 1
    assert (table["mean"][1], table["low"][1], table["high"][1]) == wanted
    assert runs["mean"].tolist()[2:] == values.mean(1).tolist()
    by = {condition["method"]: found for condition, found in conditions(done)}
    base = per_example(by["cot"][0].store())
    assert difference(by["soft-prompt"], by["cot"]).mean == pytest.approx((values - base).mean())
    assert difference(by["soft-prompt"], by["cot"][:1]).mean == pytest.approx((values - base).mean())
    with pytest.raises(ValueError, match=r"seeds \[0\] and \[0, 1\] cannot be paired"):
        difference(by["soft-prompt"][:1], by["cot"])


@pytest.mark.slow
def test_every_condition_is_tuned_over_as_many_trials_and_the_best_on_dev_is_run(tmp_path, here):
    trials = rates(SETTING)
    assert [t.training.lr / TINY.lr for t in trials] == pytest.approx(RATES)
    assert [t.training.adamw_lr / TINY.adamw_lr for t in trials] == pytest.approx(RATES)
    assert {(t.training.examples, t.training.epochs) for t in trials} == {(TINY.examples, TINY.epochs)}
    cells = [Cell("soft-prompt", seed, {"thoughts": 2}, TINY, {"method": "a"}, trials=trials) for seed in (0, 1)]
    cells += [Cell("cot", 0, condition={"method": "b"})]
    asked = tuned(SETTING, cells, tmp_path, Console())
    tried = pd.read_csv(tmp_path / "tuning.csv")
    stores = [store.load(tmp_path / "trials" / "cells" / f"a_{trial}_seed0" / "dev.nc") for trial in TRIED]
    right = [float(per_example(found).mean()) for found in stores]
    assert {found.attrs["split"] for found in stores} == {"dev"}
    assert tried["dev accuracy"].tolist() == pytest.approx(right)
    best = right.index(max(right))
    assert tried["chosen"].tolist() == [k == best for k in range(3)]
    assert [cell.training for cell in asked] == [trials[best].training, trials[best].training, None]
    taken = (tmp_path / "trials" / "cells" / f"a_{TRIED[best]}_seed0" / "weights.safetensors").read_bytes()
    done = run_cells(SETTING, asked, tmp_path, Console())
    assert (done[0].folder / "weights.safetensors").read_bytes() == taken  # the trial is the run of its seed
    assert done[0].store().attrs["split"] == "test"
    assert run_cells(SETTING, tuned(SETTING, cells, tmp_path, Console()), tmp_path, Console()) == done


def test_the_comparison_has_every_method_and_reads_as_a_table(monkeypatch):
    with_backbone = {name for name, cls in METHODS.items() if cls.__module__ != "__main__" and cls.needs == "model"}
    assert set(compared()) == with_backbone
    cells = import_module("workbench.experiments.compare").cells(SETTING)
    assert {cell.task for cell in cells} == {"arith", "arith-shift", "prosqa"}
    for cell in cells:
        assert (cell.training == TINY) == METHODS[cell.method].trained
        assert len(cell.trials) == 3 or not METHODS[cell.method].trained
    only = import_module("workbench.experiments.compare").cells(replace(SETTING, task="gsm8k", data="here"))
    assert {(cell.task, cell.data) for cell in only} == {("gsm8k", "here")}
    row = {"task": "arith", "method": "cot", "mean": 0.5, "low": 0.4, "high": 0.61}
    table = pd.DataFrame([{**row, "measure": m} for m in ("accuracy", "shuffled costs", "tokens")])
    table = pd.concat([table.assign(step=np.nan), table.assign(step=1.0)])
    assert wide(table, "arith").loc["cot"].tolist() == ["50.0 % [40.0, 61.0]", "+50.0 points [+40.0, +61.0]", "0.5"]
    with pytest.raises(ValueError, match="no task 'gsm8k' in this table; it has arith"):
        wide(table, "gsm8k")


@pytest.mark.parametrize("setting", [{"seeds": []}, {"seeds": [1, 1]}, {"questions": 0}, {"workers": 0}])
def test_a_wrong_setting_is_one_sentence(setting):
    with pytest.raises(ValueError, match="give at least"):
        Setting(**setting)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_and_writes_what_it_promises(name, tmp_path, here, monkeypatch, capsys):
    module = import_module(f"workbench.experiments.{EXPERIMENTS[name]}")
    few = {"COUNTS": (1, 2), "WEIGHTS": (0.1, 1.0), "FACTORS": (0.0, 0.5, 1.0), "PROBED": 8, "PATHS": 2}
    few |= {"BOTH": (), "LOOKED": 6, "CHAIN": 2}  # of LT-Tuning: one task
    few |= {"LOOPS": (2, 3), "FREE": 6}  # of LTM: short loops
    few |= {"FEW": 1}  # of Latent-SFT: a seed
    few |= {"MADE": {"arith-shift": ("arith-shift", None)}, "METHODS": {m: METHODS[m] for m in ("cot", "lta-thinker")}}
    for settings, value in few.items():
        if hasattr(module, settings):
            monkeypatch.setattr(module, settings, value)
    small = replace(SETTING, questions=6, training=replace(TINY, examples=16))
    report = experiment(name, small, tmp_path)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["findings"] == list(report.findings)
    assert written["findings"]
    assert written["versions"]["torch"]
    table = pd.read_csv(tmp_path / "table.csv")
    assert len(table) == len(report.table)
    assert "accuracy" in set(table["measure"]) or name == "scaling"
    shares = table[table["measure"].isin(["accuracy", "majority vote", "pass@k"])]
    assert shares["mean"].between(0, 1).all()
    assert set(table["runs"]) <= {1, 2}
    for figure in report.figures:
        assert (tmp_path / "figures" / f"{figure}.html").exists()
    assert written["findings"][0].split(":")[0] in " ".join(capsys.readouterr().out.split())


def test_cells_without_a_value_do_not_count(tmp_path):
    """Thoughts that do not differ have no rank; intervals of what cannot be below 0 end there."""
    ranks = {("dead", 0): np.nan, ("dead", 1): np.nan, ("half", 0): np.nan, ("half", 1): 3.0}
    ranks |= {("live", 0): 1.0, ("live", 1): 5.0}
    done = [Done(Cell("cot", seed, condition={"setting": k, "run": name}), tmp_path)
            for k, name in enumerate(("dead", "half", "live")) for seed in (0, 1)]  # fmt: skip
    table, runs = tabulate(
        done, {"effective rank": lambda d: ranks[str(d.cell.condition["run"]), d.cell.seed], "other": lambda d: 1.0}
    )
    found = table[table["measure"] == "effective rank"].set_index("run")
    assert found["runs"].to_dict() == {"dead": 0, "half": 1, "live": 2}
    assert np.isnan(found.loc["dead", "mean"])
    assert (found.loc["half", "mean"], found.loc["live", "mean"]) == (3, 3)
    assert crossed_interval([[1.0], [5.0]]).low < 0 == found.loc["live", "low"]
    figure = against(table, runs, x="setting")
    drawn = [tuple(trace.x) for trace in figure.data if trace.error_y.array is not None]
    assert drawn == [(1, 2), (0, 1, 2)]  # the panels in their order


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if (SHIPPED / name / "table.csv").exists()])
def test_shipped_intervals_end_where_the_quantity_does(name):
    table = pd.read_csv(SHIPPED / name / "table.csv").dropna(subset=["low", "high"])
    for row in table.to_dict(orient="records"):
        low, high = limits(row["measure"])
        assert min(low, row["mean"]) <= row["low"] <= row["high"] <= max(high, row["mean"]), row


def test_an_interval_is_cut_at_what_its_measure_can_be():
    wide = Interval(0.8, -0.4, 1.45, 3)
    for measure, ends in (
        ("slot cosine", (-0.4, 1.0)),
        ("relative spread", (0.0, 1.0)),
        ("effective rank", (0.0, 1.45)),
        ("accuracy", (0.0, 1.0)),
        ("tokens", (0.0, 1.45)),
        ("dropped costs", (-0.4, 1.45)),
    ):
        found = within(wide, limits(measure))
        assert (found.low, found.high) == ends, measure


def test_where_nothing_could_happen_nothing_is_found(tmp_path, here):
    """All answers wrong on both sides: a floor, whatever its interval says."""
    cells = [Cell("cot", seed, condition={"side": side}) for side in "ab" for seed in (0, 1)]
    done = run_cells(SETTING, cells, tmp_path, Console())
    for cell in done:
        found = cell.store()
        store.save(found.assign(correct=found["correct"] & False), cell.folder / "test.nc")
    first, second = done[:2], done[2:]
    words = effect(difference(first, second), first, second)
    assert words == "can show nothing (all answers are wrong) in"
