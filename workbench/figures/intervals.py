"""Conditions side by side, each a dot with its interval: accuracies, ablations, paired differences, counter-tests."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import SMALL, Style, Width, as_text, beside, counted, legend_title_of, need, panels, plain, style
from .means import (
    VALUES,
    Reference,
    check_intervals,
    draw_lines,
    headings,
    named,
    on_axis,
    places,
    reference_lines,
    span,
    tidy,
)

KEYS = ["label", "line", "panel"]
PITCH = 6.5  # mm from one dot to the next, with room for the number above it


def accuracy(table: pd.DataFrame, *, color: str | None = None, width: Width = "page") -> go.Figure:
    """Accuracies in percent with their intervals, first row on top; a panel per task.

    table: mean, low, high as shares in [0, 1], n = number of questions, and `name`, or `store` and `measure` as
    `scores.accuracy_table` has them. color: a column that colours the dots, such as "method".
    """
    need(table, ["mean", "low", "high", "n"], "scores.accuracy_table(stores)")
    low, mean, high = (np.asarray(table[name], float) for name in ("low", "mean", "high"))
    if not ((low >= 0) & (low <= mean) & (mean <= high) & (high <= 1)).all():
        raise ValueError("the table needs shares with 0 <= low <= mean <= high <= 1: divide percentages by 100")
    facet = "task" if "task" in table and len(set(table["task"])) > 1 else None
    named = table.assign(name=_names(table))
    return bars(named, label="name", color=color, facet=facet, percent=True, x_title="accuracy (%)", width=width)


def _names(table: pd.DataFrame) -> list[str]:
    if "name" in table:
        return [str(name) for name in table["name"]]
    need(table, ["store"], "scores.accuracy_table(stores)")
    if "measure" in table and len(set(table["measure"])) > 1:
        return [f"{store}, {measure}" for store, measure in zip(table["store"], table["measure"], strict=True)]
    return [str(store) for store in table["store"]]


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
    facet: a panel per value, below each other, each with its own labels; or, on a page, in `columns`
    that share all labels.
    A row whose low and high are both missing has no interval.
    reference: upright lines: a value (0 for differences), name -> value, or name -> {panel: value}.
    percent: the values are shares, drawn times 100.
    x_title: the name of all x axes, which then share their range; or panel -> its own name and unit.
    n: what each mean is over, a number or its column (where it differs, labels say it); of: what was counted; level:
    of the intervals.

    Raises ValueError for missing columns, means outside their interval, and rows that nothing tells apart.
    """
    if columns < 1:
        raise ValueError(f"columns is {columns}: give the number of panels side by side, 1 or more")
    names = {"label": label, "mean": mean, "low": low, "high": high, "line": color, "panel": facet}
    rows = tidy(table, names, "a table with one row per mean")
    _check(rows)
    caption = counted(table, n, of, level if any(rows["low"].notna()) else None)
    if isinstance(n, str) and len(set(table[n])) > 1:
        rows["label"] = [f"{name} (n = {size:.0f})" for name, size in zip(rows["label"], table[n], strict=True)]
    if percent:
        rows[list(VALUES)] *= 100
    split, lines = list(rows["panel"].unique()), list(rows["line"].unique())
    references = reference_lines(reference, split, split if percent else [])
    own = isinstance(x_title, Mapping)
    key = [plain(str(line)) for line in lines if len(lines) > 1]
    across = 1 if width == "column" else min(columns, len(split))
    slots = {panel: lanes(rows if across > 1 else rows.loc[rows["panel"] == panel]) for panel in split}
    texts, left = beside([str(label) for label in rows["label"]], width)
    folded = dict(zip(map(str, rows["label"]), texts, strict=True))
    figure = panels(
        headings(split, x_title),
        across,
        [PITCH * (max(slots[panel].values()) + 1.3) for panel in split[::across]],
        width,
        axes=("" if own else str(x_title or plain(mean) + (" (%)" if percent else "")), ""),
        legend=[*key, *named(references)],
        legend_title=legend_title_of(table, color) if color and key else "",
        caption=f"{caption}; numbers: means",
        match=("" if own else "x") + ("y" if across > 1 else ""),
        left=left,
    )
    at = places(split, across)
    for panel, trace in _traces(rows, slots, bool(key), percent):
        figure.add_trace(trace, **at[panel])
    draw_lines(figure, references, at, upright=True)
    for panel, place in at.items():
        values = on_axis([panel] if own else split, references, rows)
        figure.update_xaxes(range=span(values, shares=percent, edge=0.08), showgrid=True, **place)
        figure.update_yaxes(**labels_axis(slots[panel], folded), **place)
    return figure


def _check(rows: pd.DataFrame) -> None:
    """Refuse what cannot be drawn as it is."""
    if rows.empty:
        raise ValueError("no rows to draw: give one row per condition")
    missing = [str(label) for label, gone in zip(rows["label"], rows["mean"].isna(), strict=True) if gone]
    if missing:
        raise ValueError(f"the mean of {missing[0]!r} is missing: leave such rows out of the table")
    check_intervals(rows)
    twice = [str(label) for label, again in zip(rows["label"], rows.duplicated(KEYS), strict=True) if again]
    if twice:
        raise ValueError(
            f"rows share a name: {twice[0]!r} stands twice; give each row its own, or tell rows apart by "
            "`color` or `facet`"
        )


def lanes(rows: pd.DataFrame) -> dict[tuple[Any, Any], float]:
    """How far down each (label, line) stands: one slot each, and half a slot between labels of several lines."""
    slots: dict[tuple[Any, Any], float] = {}
    at = 0.0
    for label in rows["label"].unique():
        lines = rows.loc[rows["label"] == label, "line"].unique()
        slots |= {(label, line): at + k for k, line in enumerate(lines)}
        at += len(lines) + (0.5 if len(lines) > 1 else 0)
    return slots


def _traces(
    rows: pd.DataFrame, slots: Mapping[Any, Mapping[tuple[Any, Any], float]], keys: bool, percent: bool
) -> Iterator[tuple[Any, go.Scatter]]:
    """The panel and dots of each line; the first of a line carries its key."""
    form = ("+" if min(rows["mean"]) < 0 else "") + (".1f" if percent else ".3g")
    keyed = set()
    for panel, line in dict.fromkeys(zip(rows["panel"], rows["line"], strict=True)):
        part = rows.loc[(rows["panel"] == panel) & (rows["line"] == line)]
        at = [slots[panel][name, line] for name in part["label"]]
        yield panel, dots(part, at, style(line), str(line), form).update(showlegend=keys and line not in keyed)
        keyed.add(line)


def dots(part: pd.DataFrame, at: list[float], look: Style, line: str, form: str) -> go.Scatter:
    sides = pd.DataFrame({"up": part["high"] - part["mean"], "down": part["mean"] - part["low"]})
    sides = sides.astype(object).where(sides.notna(), None)  # without an interval: no bar
    return go.Scatter(
        x=part["mean"].tolist(),
        y=at,
        error_x={"array": sides["up"].tolist(), "arrayminus": sides["down"].tolist(), "thickness": 1.5, "width": 0},
        customdata=[
            [as_text(name), None if pd.isna(low) else low, None if pd.isna(high) else high]
            for name, low, high in part[["label", "low", "high"]].to_numpy()
        ],
        mode="markers+text",
        text=[f"{value:{form}}".replace("-", "−") for value in part["mean"]],
        textposition="top center",
        textfont={"size": SMALL},
        marker={"color": look.color, "symbol": look.symbol, "size": 7},
        name=as_text(plain(line)),
        legendgroup=line,
        cliponaxis=False,
        hovertemplate="%{customdata[0]}: %{x:.4g} [%{customdata[1]:.4g}, %{customdata[2]:.4g}]"
        f"<extra>{as_text(line)}</extra>",
    )


def labels_axis(slots: Mapping[tuple[Any, Any], float], texts: Mapping[str, str]) -> dict[str, Any]:
    """The y axis: a label in the middle of its slots, downwards, with room for the number above the first dot."""
    places: dict[str, list[float]] = {}
    for (label, _), at in slots.items():
        places.setdefault(str(label), []).append(at)
    return {
        "tickvals": [sum(found) / len(found) for found in places.values()],
        "ticktext": [texts[label] for label in places],
        "range": [max(slots.values()) + 0.5, -0.8],
        "ticks": "",
        "ticklabelstandoff": 2,
        "showline": False,
    }
