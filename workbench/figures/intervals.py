"""Conditions side by side, each a dot with its interval: accuracies, ablations, paired differences, counter-tests."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import Width, as_text, counted, need, panels, plain, style
from .reference import Reference, add_references, reference_names
from .response import check_intervals

PITCH = 6.5  # mm from one dot to the next below it, with room for the number above it


def accuracy(table: pd.DataFrame, *, color: str | None = None, width: Width = "page") -> go.Figure:
    """Accuracies in percent with their intervals, first row on top; a panel per task.

    table: mean, low, high as shares in [0, 1], n = number of questions, and `name`, or `store` and `measure` as
    `scores.accuracy_table` has them. color: a column that colours the dots, such as "method".
    """
    need(table, ["mean", "low", "high", "n"], "scores.accuracy_table(stores)")
    low, mean, high = (table[name].to_numpy(float) for name in ("low", "mean", "high"))
    if not ((low >= 0) & (low <= mean) & (mean <= high) & (high <= 1)).all():
        raise ValueError("the table needs shares with 0 <= low <= mean <= high <= 1: divide percentages by 100")
    named = table.assign(name=_names(table))
    facet = "task" if "task" in table and table["task"].nunique() > 1 else None
    return bars(named, label="name", color=color, facet=facet, percent=True, x_title="accuracy (%)", width=width)


def bars(
    table: pd.DataFrame,
    *,
    label: str,
    mean: str = "mean",
    low: str = "low",
    high: str = "high",
    color: str | None = None,
    facet: str | None = None,
    reference: Reference = None,
    percent: bool = False,
    columns: int = 1,
    x_title: str | Mapping[str, str] | None = None,
    n: str | int = "n",
    of: str = "questions",
    level: float = 0.95,
    width: Width = "page",
) -> go.Figure:
    """Each row's mean as a dot with its interval and its number, first row on top.

    label: the column with the names at the left; rows that share one differ in `color` and stand below each other.
    facet: a panel per value, below each other with their own labels; or `columns` side by side with the same ones.
    A row whose low and high are both missing has no interval.
    reference: upright lines: a value (0 for differences), name -> value, or name -> {panel: value}.
    percent: the values are shares, drawn times 100.
    x_title: the name of all x axes, which then share their range; or panel -> its own name and unit.
    n: what each mean is over, a number or its column; of: what was counted; level: of the intervals.

    Raises ValueError for missing columns, means outside their interval, and rows that nothing tells apart.
    """
    need(table, [label, mean, low, high, *(name for name in (color, facet) if name)], "a table with one row per mean")
    if table.empty:
        raise ValueError("no rows to draw: give one row per condition")
    check_intervals(table[low].astype(float), table[mean].astype(float), table[high].astype(float))
