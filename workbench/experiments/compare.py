"""Which method is better at equal budget: all that are registered, on the same examples, tuned over as many trials?

A trained method sees the same examples for as many epochs, at the best of three learning rates on dev; one that trains
nothing takes the best of the options it names itself. Where the setting's task is one of the small made ones, all of
those are run, else that task alone.

A method of your own is compared too where it stands in a module that has been imported (not in a notebook cell: cells
run in processes of their own).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from .. import figures
from ..analysis.diagnostics import describe
from ..analysis.scores import cost, crossed_interval
from ..evidence.counter import verdict
from ..methods import METHODS, LatentMethod
from ..store.within import only_within
from ..tasks import Task
from .grid import Answers, Cell, Done, Setting, Trial
from .report import Report, Values, asked, conditions, correct, difference, joined, percent, points, statistic, tabulate
from .tuning import RATES, rates

MADE = {"arith": ("arith", None), "arith-shift": ("arith-shift", None), "prosqa": ("prosqa", "mini")}
CHANGES = ("shuffled", "dropped")
STEPWISE = "relative spread"  # of the thoughts at one place, between questions: 0 = it says the same to all
FIRST = 4  # thoughts that are shown; chains can have hundreds
BASE = "cot"  # what differences are taken to: the backbone as it is, writing its steps


def cells(setting: Setting) -> list[Cell]:
    """Every method on every task with every seed; one without weights and chance gives one cell."""
    tasks = MADE if setting.task in MADE else {setting.task: (setting.task, setting.data)}
    stores = {"test": Answers(), **{change: Answers(change=change) for change in CHANGES}}
    found = []
    for title, (task, data) in tasks.items():
        for name in compared():
            cls = METHODS[name]
            training, trials = setting.training, rates(setting)
            if not cls.trained:
                training, trials = None, tuple(Trial(_words(options), dict(options)) for options in cls.trials)
            for seed in setting.seeds if cls.trained else setting.seeds[:1]:
                condition: dict[str, str | int | float] = {"task": title, "method": name}
                found.append(Cell(name, seed, {}, training, condition, stores, measure, task, data, trials))
    return found


def compared() -> list[str]:
    """The registered methods that think with the backbone and that other processes can import, the baselines first."""
    names = [name for name, cls in METHODS.items() if cls.__module__ != "__main__" and cls.needs == "model"]
    return sorted(names, key=lambda name: not METHODS[name].__module__.endswith(".baselines"))


def measure(method: LatentMethod, task: Task) -> dict[str, float]:
    """What no store holds."""
    return {"trainable parameters": method.trainable_parameters}


def spent(name: str) -> Values:
    """A cost per question of the answers, in the stores' words."""
    return lambda done: float(cost(done.store())[name])


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """A row for each measure of each method on each task, and per task who is best and whose thoughts matter."""
    everywhere = {
        "accuracy": correct(),
        "tokens": spent("tokens"),
        "thoughts": spent("thoughts"),
        "seconds": spent("seconds"),
        "trainable parameters": lambda cell: float(cell.measured()["trainable parameters"]),
    }
    thinking = [cell for cell in done if cell.store().sizes["step"]]
    clouds = {"relative spread": statistic("relative_spread"), "effective rank": statistic("effective_rank")}
    parts = [tabulate(done, everywhere), tabulate(thinking, clouds)] if thinking else [tabulate(done, everywhere)]
    table, runs = joined(parts)
    steps, step_runs = _by_step(thinking)
    lost, said = _counter_tests(thinking)
    table = pd.concat([table, lost], ignore_index=True)
    accuracy = pd.DataFrame(table[table["measure"] == "accuracy"])
    of = asked(len(setting.seeds))
    drawn = {
        "compare_accuracy": figures.bars(
            accuracy, label="method", color="task", percent=True, x_title="accuracy (%)", of=of
        )
    }
    if len(lost):
        drawn["compare_counter"] = figures.bars(
            pd.DataFrame(lost[lost["measure"] == "shuffled costs"]), label="method", color="task", percent=True,
            reference=0.0, x_title="accuracy lost with another question's thoughts (points)", of=of,
        )  # fmt: skip
    if len(steps):
        drawn["compare_by_step"] = figures.response(
            steps, x="step", color="method", facet="task", points=step_runs, x_title="thought",
            y_title=f"{STEPWISE} (share)", n=max(steps["n"].tolist()), of="seeds",
        )  # fmt: skip
        table, runs = joined([(table, runs), (steps, step_runs)])
    return Report(table, runs, drawn, tuple([*_findings(done), *said]))


def wide(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """The table of one task as one is used to read it: a row per method, a column per measure, intervals in brackets.

    `table` is a report's, of any experiment of this kind, or read from its CSV.
    """
    rows = pd.DataFrame(table[table["task"] == task])
    if not len(rows):
        known = ", ".join(dict.fromkeys(table["task"]))
        raise ValueError(f"no task {task!r} in this table; it has {known}")
    if "step" in rows:
        rows = rows[pd.isna(rows["step"])]  # single thoughts are for the figure
    written = rows.assign(value=[_written(row) for row in pd.DataFrame(rows).to_dict("records")])
    order = list(dict.fromkeys(rows["method"])), list(dict.fromkeys(rows["measure"]))
    pivoted = written.pivot(index="method", columns="measure", values="value")
    return pivoted.loc[order[0], order[1]].fillna("–").rename_axis(columns=None)


def _written(row: dict) -> str:
    if row["measure"] == "accuracy":
        return f"{100 * row['mean']:.1f} % [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
    if row["measure"].endswith("costs"):
        return f"{100 * row['mean']:+.1f} points [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}]"
    if row["measure"] == "trainable parameters":
        return f"{row['mean']:,.0f}"
    return f"{row['mean']:.3g}"


def _words(options: dict[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "as it is"


def _by_step(thinking: Sequence[Done]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How much each of the first thoughts differs between questions: where a method collapses, and from which on."""
    parts = []
    for _, cells in conditions(thinking):
        tables = {cell.folder: describe(cell.store(), level=None) for cell in cells}
        rows = {folder: t[t["statistic"] == STEPWISE.replace(" ", "_")] for folder, t in tables.items()}
        found = {folder: dict(zip(t["step"].astype(str), t["value"], strict=True)) for folder, t in rows.items()}
        steps = sorted(int(step) for step in set.intersection(*map(set, found.values())) if step != "all")
        for step in steps[:FIRST]:
            parts.append(tabulate(cells, {STEPWISE: _at(found, str(step))}, {"step": step}))
    return joined(parts) if parts else (pd.DataFrame(), pd.DataFrame())


def _at(found: dict[Path, dict[str, float]], step: str) -> Values:
    return lambda cell: found[cell.folder][step]


def _counter_tests(thinking: Sequence[Done]) -> tuple[pd.DataFrame, list[str]]:
    """What is lost with thoughts of another question and without any, and a verdict for each method on each task."""
    rows, said = [], []
    for condition, cells in conditions(thinking):
        if any(only_within(cell.store()) for cell in cells):
            said.append(
                f"{condition['method']} on {condition['task']}: its thoughts stand within its answers, where none are "
                "shuffled or dropped"
            )
            continue
        found = {change: difference(cells, cells, correct(), correct(change)) for change in CHANGES}
        for change, lost in found.items():
            rows.append({**condition, "measure": f"{change} costs", **vars(lost), "runs": len(cells)})
        right = {name: np.mean([correct(name)(cell).mean() for cell in cells]) for name in ("test", *found)}
        costs = [
            {"change": name, "difference": lost.mean, "accuracy": right[name], "unchanged": right["test"], **vars(lost)}
            for name, lost in found.items()
        ]
        judged = verdict(pd.DataFrame(costs))
        said.append(f"{condition['method']} on {condition['task']}: {judged}")
    return pd.DataFrame(rows), said


def _findings(done: Sequence[Done]) -> list[str]:
    """Per task: how the base does, and every other method against it."""
    tasks: dict[str, dict[str, list[Done]]] = {}
    for condition, cells in conditions(done):
        tasks.setdefault(condition["task"], {})[condition["method"]] = cells
    trials = f"best of {len(RATES)} learning rates on dev"
    found = []
    for task, methods in tasks.items():
        base = crossed_interval(np.stack([correct()(cell) for cell in methods[BASE]]))
        base = replace(base, low=max(0.0, base.low), high=min(1.0, base.high))
        others = {name: difference(cells, methods[BASE]) for name, cells in methods.items() if name != BASE}
        ranked = sorted(others.items(), key=lambda item: -item[1].mean)
        text = ", ".join(f"{name} {points(lost)}" for name, lost in ranked)
        found.append(f"{task} ({trials}): {BASE} has {percent(base)}; against it {text}.")
    return found
