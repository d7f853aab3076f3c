"""What does a small real model make of the benchmarks, with worked steps and at once?

Nothing is trained. Every task is asked in the plain reply form with four examples of its train split (`prompts`), so
that what cannot be read is the model's doing and not the form's. Beside the share of right answers stand that of
answers in which one can be read at all, and that of answers cut at the length cap.

`data` is a folder with a folder of native files for each benchmark: gsm8k, aqua, strategyqa, date_understanding. Those
that are not there are left out; sums in invented words are made here, and stand for arithmetic that nobody can have
read before.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import figures
from ..analysis.scores import per_example
from ..backbone import Decoding
from .grid import Cell, Done, Setting
from .report import Report, Values, asked, correct, tabulate, where

FILES = ("gsm8k", "aqua", "strategyqa", "date_understanding")
OWN = ("invented-sums", "arith")
ARMS = ("cot", "direct")
SETTING = Setting(
    backbone="smollm2", prompts="plain:4", seeds=[0], questions=200, decoding=Decoding(max_new_tokens=128)
)


def tasks(setting: Setting) -> dict[str, str | None]:
    """Each task that is asked and where it reads."""
    folder = None if setting.data is None else Path(setting.data)
    there = {} if folder is None else {name: str(folder / name) for name in FILES if (folder / name).is_dir()}
    return {**there, **dict.fromkeys(OWN)}


def cells(setting: Setting) -> list[Cell]:
    return [
        Cell(method, setting.seeds[0], {}, None, {"task": name, "method": method}, task=name, data=source)
        for method in reversed(ARMS)  # what is quick first
        for name, source in tasks(setting).items()
    ]


def readable(done: Done) -> Any:
    """Of each question the share of its answers in which one could be read."""
    found = done.store()
    return per_example(found.assign(correct=found["prediction"] != ""))


def capped(done: Done) -> Any:
    """Of each question the share of its answers that were cut at the length cap."""
    found = done.store()
    return per_example(found.assign(correct=~found["finished"]))


MEASURES: dict[str, Values] = {"accuracy": correct(), "readable": readable, "capped": capped}


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """Shares with 95 % intervals over questions, per task and method."""
    table, runs = tabulate(done, MEASURES)
    findings = []
    for name in dict.fromkeys(table["task"]):
        said, own = [], where(table, "task", [name])
        for method in ARMS:
            rows = where(own, "method", [method]).set_index("measure")
            right, read, cut = (rows.loc[measure] for measure in MEASURES)
            shares = ", ".join(f"{100 * row['mean']:.0f} % {word}" for row, word in ((read, "readable"), (cut, "cut")))
            interval = f"[{100 * right['low']:.1f}, {100 * right['high']:.1f}]"
            said.append(f"{method} {100 * right['mean']:.1f} % {interval} right, {shares}")
        findings.append(f"{name} ({int(own['n'].iloc[0])} questions): {'; '.join(said)}.")
    drawn = {
        "benchmarks": figures.bars(
            where(table, "measure", ["accuracy"]), label="task", color="method", percent=True,
            x_title="accuracy (%)", of=asked(1),
        )
    }  # fmt: skip
    return Report(table, runs, drawn, tuple(findings))
