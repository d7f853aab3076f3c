"""Settings chosen on the dev split before the runs that count, so that every condition is tuned equally hard.

A cell with `trials` is run with each of them first, with the first seed of its condition; the one with the most right
answers on dev (of equals, the earlier) is taken for all seeds. OUT/tuning.csv says what was tried.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console

from ..files import write_text
from .grid import Answers, Cell, Setting, Trial, run_cells
from .report import correct

RATES = (0.1, 1.0, 10.0)  # times the learning rates of the setting


def rates(setting: Setting) -> tuple[Trial, ...]:
    """The setting's budget at three learning rates."""
    training = setting.training
    return tuple(
        Trial(f"rate x{factor:g}", {}, replace(training, lr=factor * training.lr, adamw_lr=factor * training.adamw_lr))
        for factor in RATES
    )


def tuned(setting: Setting, cells: Sequence[Cell], out: Path, console: Console) -> list[Cell]:
    """The cells with the settings that did best on dev; those without trials as they are."""
    firsts: dict[tuple, Cell] = {}
    for cell in cells:
        if cell.trials:
            firsts.setdefault(_condition(cell), cell)
    if not firsts:
        return list(cells)
    asked = [(key, trial, _trial_cell(cell, trial)) for key, cell in firsts.items() for trial in cell.trials]
    done = run_cells(setting, [cell for _, _, cell in asked], out / "trials", console)
    right = [float(correct("dev")(found).mean()) for found in done]
    best: dict[tuple, int] = {}
    for place, (key, _, _) in enumerate(asked):
        if key not in best or right[place] > right[best[key]]:
            best[key] = place
    rows = [
        {**cell.condition, "dev accuracy": right[place], "chosen": best[key] == place}
        for place, (key, _, cell) in enumerate(asked)
    ]
    write_text(out / "tuning.csv", pd.DataFrame(rows).to_csv(index=False))
    chosen = [_with(cell, asked[best[_condition(cell)]][1]) if cell.trials else cell for cell in cells]
    for cell in chosen:
        place = best.get(_condition(cell))
        if place is not None and cell.seed == done[place].cell.seed:
            _take(done[place].folder, out / "cells" / cell.name)
    return chosen


def _condition(cell: Cell) -> tuple:
    return tuple(cell.condition.items())


def _trial_cell(cell: Cell, trial: Trial) -> Cell:
    """The run of a trial: the cell with the trial's settings, answering the dev split."""
    condition = {**cell.condition, "trial": trial.name}
    stores = {"dev": Answers(split="dev")}
    return replace(_with(cell, trial), condition=condition, stores=stores, measure=None)


def _with(cell: Cell, trial: Trial) -> Cell:
    training = trial.training if cell.training is not None else None
    return replace(cell, options={**cell.options, **trial.options}, training=training, trials=())


def _take(trial: Path, folder: Path) -> None:
    """A chosen trial is the run of its seed: its weights and metrics are taken over, its answers to dev are not."""
    if folder.exists():
        return
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(trial, unfinished, ignore=shutil.ignore_patterns("cell.json", "*.nc", "process.json"))
    unfinished.rename(folder)
