"""Does it matter which step the focus loss takes as its positive: the one most like the answer, or any other?

On arith-shift the critical step is known: the first that hangs on a new word. The focus loss gets weight 0.1, ten times
the default, so that a difference could show.
"""

from collections.abc import Sequence

import pandas as pd
import xarray as xr

from .. import figures
from ..analysis.diagnostics import rule_agreement
from ..analysis.scores import Interval
from .grid import Cell, Done, Setting
from .report import Report, asked, conditions, correct, difference, effect, percent, points, statistic, tabulate, where

RULES = ("answer", "middle", "last", "random", "oracle")
WEIGHT = 0.1
MEASURES = {
    "accuracy": correct(),
    "relative spread": statistic("relative_spread"),
    "effective rank": statistic("effective_rank"),
}


def rules(setting: Setting) -> tuple[str, ...]:
    """The oracle needs to know the critical step, which only the arith tasks do."""
    return RULES if setting.task.startswith("arith") else RULES[:-1]


def cells(setting: Setting) -> list[Cell]:
    """No focus loss, and the loss with each rule."""
    rows = [("no focus", {"focus_weight": 0.0})]
    rows += [(rule, {"focus_weight": WEIGHT, "positive": rule}) for rule in rules(setting)]
    return [
        Cell("lta-thinker", seed, options, setting.training, {"positive": title})
        for title, options in rows
        for seed in setting.seeds
    ]


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """Accuracy and the shape of the thoughts for each rule, and each rule against no focus loss."""
    table, runs = tabulate(done, MEASURES)
    by = {condition["positive"]: cells for condition, cells in conditions(done)}
    rows, findings = [], []
    for rule in rules(setting):
        found = difference(by[rule], by["no focus"])
        rows.append({"positive": rule, **vars(found)})
        word = effect(found, by[rule], by["no focus"])
        findings.append(f"Positive by {rule} {word} accuracy: {points(found)} against no focus loss.")
    if "oracle" in by:
        found = difference(by["oracle"], by["answer"])
        findings.append(f"Positive by oracle against positive by answer: {points(found)}.")
    findings += _agreement(by["answer"][0].store())
    drawn = {
        "positive_step": figures.bars(
            where(table, "measure", ["accuracy"]),
            label="positive",
            percent=True,
            x_title="accuracy (%)",
            of=asked(len(setting.seeds)),
        ),
        "positive_step_difference": figures.bars(
            pd.DataFrame(rows),
            label="positive",
            percent=True,
            reference=0.0,
            x_title="accuracy, minus that without focus loss (points)",
            of=asked(len(setting.seeds)),
        ),
    }
    return Report(table, runs, drawn, tuple(findings))


def _agreement(store: xr.Dataset) -> list[str]:
    """How often the step most like the answer is the critical one, where the task knows it.

    Both similarities are of frozen embeddings, so this is the same for every run.
    """
    if "label_critical_step" not in store.coords or "similarity_answer" not in store:
        return []
    table = where(where(rule_agreement(store), "rule", ["answer"]), "other", ["critical"])
    return [
        "Of the questions with several steps, the step most like the answer is the critical one in "
        f"{percent(Interval(row['share'], row['low'], row['high'], row['n']))}, a random step in "
        f"{100 * row['chance']:.1f} %."
        for row in table.to_dict("records")
    ]
