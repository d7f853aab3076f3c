"""The standard of evidence in one picture: answers, cross-entropies, swaps and readers, with the sentence below."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..analysis.evidence import CONTROL, LEVEL, SHARES, SOURCES, Evidence
from .intervals import dots, labels_axis, lanes
from .look import (
    BLACK,
    BLUE,
    EDGES,
    GREEN,
    GREY,
    ORANGE,
    SMALL,
    VERMILLION,
    Style,
    Width,
    across_of,
    add_to_caption,
    as_text,
    counted,
    folded,
    panels,
    written,
)
from .means import draw_lines, places, reference_lines, span

ROOM = 10  # pixels
PITCH = 5.2  # mm from one dot to the next, with room for the number above it
LINES = {  # ways of measuring -> how they are drawn
    "free": Style(BLUE),
    "forced": Style(VERMILLION, "diamond"),
    "gold chain": Style(GREEN, "square"),
    "gold answer": Style(ORANGE, "triangle-up"),
    "thoughts": Style(BLACK),
    "question": Style(GREY, "cross"),
}
COSTS = {"chain": "gold chain", "at once": "gold answer"}
NAMES = {
    "own": "own thoughts",
    "other": "another question's",
    "mean": "mean thoughts",
    "untrained": "untrained method's",
    "random": "random, same length",
    "filler": "full stops",
    "nearest": "nearest tokens",
    "none": "no thoughts",
}
ANSWERS, SAVED, SWAPS, READERS = (
    "right answers (%)",
    "own thoughts save (nats per token)",
    "answers follow a swap (points over chance)",
    "labels read (% of their nats)",
)


def evidence(found: Evidence, *, width: Width = "page") -> go.Figure:
    """Four panels of dots with 99 % intervals, of those that were measured: right answers by source of thoughts; nats
    per token that own thoughts save over each other source; how much more often an answer is that of the question whose
    thoughts were given, by slot; what a linear reader finds of each label in thoughts and in the question's words.

    found: what `assess` (evidence/standard.py) or `read_evidence` (analysis/evidence.py) gives. Its sentence is in the
    caption. ValueError where nothing was measured.
    """
    rows = pd.concat([_answers(found), _saved(found), _swaps(found), _readers(found)], ignore_index=True)
    if rows.empty:
        raise ValueError("nothing was measured, so that there is nothing to draw: run workbench evidence again")
    split, lines = list(rows["panel"].unique()), [line for line in LINES if line in set(rows["line"])]
    columns = min(2 if width == "page" else 1, len(split))
    down = {panel: lanes(rows.loc[rows["panel"] == panel]) for panel in split}
    tall = [PITCH * (max(down[panel].values()) + 1.3) for panel in split]
    heights = [max(tall[k : k + columns]) for k in range(0, len(split), columns)]
    room = 0.36 * across_of(width) / columns
    texts = {label: folded(as_text(label), room, SMALL) for label in rows["label"].unique()}
    left = 6 + max(written(line, SMALL) for text in texts.values() for line in text.split("<br>"))
    caption = counted(found.values, "n", "questions", LEVEL)
    figure: Any = panels(
        split, columns, heights, width, axes=("", ""), legend=lines, caption=caption, match="", left=left
    )
    at = places(split, columns)
    keyed: set[str] = set()
    groups: Any = rows.groupby(["panel", "line"], sort=False)
    for (panel, line), part in groups:
        where = [down[panel][label, line] for label in part["label"]]
        form = "+.2f" if panel == SAVED else "+.1f" if panel == SWAPS else ".1f"
        trace = dots(part, where, LINES[str(line)], str(line), form).update(showlegend=line not in keyed)
        keyed.add(str(line))
        figure.add_trace(trace, **at[panel])
    zero = [panel for panel in split if panel in (SAVED, SWAPS)]
    draw_lines(figure, reference_lines({"": dict.fromkeys(zero, 0.0)}, split, []), at, upright=True)
    begin = left / (across_of(width) - EDGES)
    for k, panel in enumerate(split):
        values = rows.loc[rows["panel"] == panel, ["mean", "low", "high"]].to_numpy(float)
        column, size = k % columns, 1 / columns
        ends = [column * size + begin, (column + 1) * size - (0.02 if column < columns - 1 else 0)]
        shown = span(np.append(values.ravel(), 0.0 if panel in zero else np.nan), shares=panel == ANSWERS, edge=0.1)
        figure.update_xaxes(range=shown, domain=ends, showgrid=True, showticklabels=True, **at[panel])
        figure.update_yaxes(**labels_axis(down[panel], texts), **at[panel])
    inside = figure.layout.height - figure.layout.margin.t - figure.layout.margin.b
    for panel in split[: columns * (len(heights) - 1)]:  # their tick labels stand above the next heading
        axis = next(figure.select_yaxes(**at[panel]))
        axis.domain = [axis.domain[0] + ROOM / inside, axis.domain[1]]
    return add_to_caption(figure, f"; numbers: means. {found.sentence}")


def _frame(panel: str, rows: list[tuple[Any, ...]]) -> pd.DataFrame:
    names = pd.Index(["label", "line", "mean", "low", "high"])
    return pd.DataFrame(rows, columns=names).assign(panel=panel)


def _answers(found: Evidence) -> pd.DataFrame:
    """Of each source the answers written freely and forced."""
    rows = [
        (_name(row["source"]), row["measure"], 100 * row["value"], 100 * row["low"], 100 * row["high"])
        for row in found.values.to_dict("records")
        if (row["source"] in SOURCES or row["source"].startswith(CONTROL)) and row["measure"] in SHARES
    ]
    return _frame(ANSWERS, _ordered(rows))


def _name(source: str) -> str:
    return NAMES.get(source, source.removeprefix(CONTROL))


def _saved(found: Evidence) -> pd.DataFrame:
    rows = [
        (_name(row["source"]), COSTS[row["measure"]], row["difference"], row["low"], row["high"])
        for row in found.effects.to_dict("records")
        if row["source"] in SOURCES and row["measure"] in COSTS
    ]
    return _frame(SAVED, _ordered(rows))


def _ordered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """By source, those of ours first, and by the way of measuring."""
    names, lines = list(dict.fromkeys([*NAMES.values(), *(row[0] for row in rows)])), list(LINES)
    return sorted(rows, key=lambda row: (names.index(row[0]), lines.index(row[1])))


def _swaps(found: Evidence) -> pd.DataFrame:
    """All slots, then slot by slot, then all slots along training."""
    rows = []
    for row in found.swaps.to_dict("records"):
        slot, step = str(row["slot"]), str(row["step"])
        label = f"all slots, step {step}" if step else "all slots" if slot == "all" else f"slot {slot}"
        rows.append((label, row["how"], *(100 * row[name] for name in ("difference", "low", "high"))))
    return _frame(SWAPS, rows)


def _readers(found: Evidence) -> pd.DataFrame:
    rows = []
    for row in found.readers.to_dict("records"):
        label, share = str(row["label"]).replace("_", " "), 100 / row["entropy"]
        rows.append((label, "thoughts", *(share * row[name] for name in ("nats", "low", "high"))))
        rows.append((label, "question", share * row["words"], np.nan, np.nan))
    return _frame(READERS, rows)
