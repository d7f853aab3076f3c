"""Does it matter which step the focus loss takes as its positive: the one most like the answer, or any other?

On arith-shift the critical step is known: the first that hangs on a new word. The focus loss gets weight 0.1, ten times
the default, so that a difference could show.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from .. import figures
from ..scores import Interval, mean_interval
from .grid import Cell, Done, Setting
from .report import Report, conditions, correct, difference, percent, points, statistic, sure, tabulate, where

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
        word = "changes" if sure(found) else "makes no sure difference to"
        findings.append(f"Positive by {rule} {word} accuracy: {points(found)} against no focus loss.")
    hit = agreement(by["answer"][0].store())
    if hit is not None:
        findings.append(
            f"Of the questions with several steps, the step most like the answer is the critical one in {percent(hit)}."
        )
    drawn = {
        "positive_step": figures.bars(where(table, "measure", ["accuracy"]), label="positive", percent=True),
        "positive_step_difference": figures.bars(pd.DataFrame(rows), label="positive", percent=True, reference=0.0),
    }
    return Report(table, runs, drawn, tuple(findings))


def agreement(store: xr.Dataset) -> Interval | None:
    """How often the step most like the answer is the critical one, among questions with several steps; None unknown.

    Both similarities are of frozen embeddings, so this is the same for every run.
    """
    if "label_critical_step" not in store.coords or "similarity_answer" not in store:
        return None
    similarity = store["similarity_answer"].transpose("example", "reasoning").values
    several = np.isfinite(similarity).sum(1) > 1
    chosen = np.nan_to_num(similarity[several], nan=-np.inf).argmax(1)
    return mean_interval(chosen == store["label_critical_step"].values[several])
