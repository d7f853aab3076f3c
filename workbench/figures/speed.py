"""Speed: the ways of doing one thing, from the plain one to the one with all shortcuts, each beside its floor."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import BLACK, BLUE, GREY, SMALL, Width, as_text, beside, need, panels

COLUMNS = ["way", "median", "low", "high", "floor", "speedup", "over_floor", "over_generate"]
RATIOS = {"speedup": "as fast", "over_floor": "the floor", "over_generate": "writing alone"}
ABOUT = ["part", "unit", "repeats", "machine", "commit", "created", "notes"]  # of the table's attrs
PITCH = 8.0  # mm from one bar to the next, with room for the words above it
SOURCE = "bench.ways(results, part)"


def speed(table: pd.DataFrame, *, width: Width = "page") -> go.Figure:
    """Each way's median seconds as a bar with quartiles, its floor as an upright mark, its ratios as words above it.

    table: as `bench.ways` returns it, first row on top; its attrs say what was measured on which machine. A
    way without low and high has no whisker, one without a floor no mark. The first way is what others are faster than.
    Raises ValueError for missing columns or attrs, no rows, and seconds that are missing, negative or outside their
    quartiles.
    """
    _check(table)
    about = table.attrs
    ways, left = beside(list(table["way"]), width)
    floors = table["floor"].notna()
    said = [f"n = {about['repeats']} repeats" if about["repeats"] != 1 else "n = 1 run"]
    said += ["bars: medians, whiskers: quartiles"] if any(table["low"].notna()) else []
    said += ["black marks: the floor"] if any(floors) else []
    origin = f"{about['machine']}; commit {about['commit']}, {about['created'][:10]}"
    at = list(range(len(table)))
    figure = panels(
        [about["part"]],
        1,
        PITCH * (len(table) + 0.4),
        width,
        axes=(about["unit"], ""),
        caption=f"{'; '.join([', '.join(said), *about['notes']])}. {origin}",
        left=left,
    )
    figure.add_trace(_bars(table, at))
    marks = [k for k, marked in zip(at, floors, strict=True) if marked]
    figure.add_trace(_marks([float(table["floor"].iloc[k]) for k in marks], marks))
    words = [_words(row, first=k == 0) for k, row in enumerate(table.to_dict("records"))]
    figure.add_trace(
        go.Scatter(
            x=[0.0] * len(at),
            y=[k - 0.42 for k in at],
            text=words,
            mode="text",
            textposition="middle right",
            textfont={"size": SMALL},
            cliponaxis=False,
            hoverinfo="skip",
            name="ratios",
        )
    )
    most = float(np.nanmax(table[["median", "high", "floor"]].to_numpy(float)))
    figure.update_xaxes(range=[0, 1.04 * most], showgrid=True)
    return figure.update_yaxes(
        tickvals=at,
        ticktext=ways,
        range=[len(at) - 0.6, -0.8],
        ticks="",
        ticklabelstandoff=2,
        showline=False,
    )


def _check(table: pd.DataFrame) -> None:
    need(table, COLUMNS, SOURCE)
    missing = [name for name in ABOUT if name not in table.attrs]
    if missing:
        raise ValueError(f"the table's attrs lack {', '.join(missing)}: give what {SOURCE} returns")
    if table.empty:
        raise ValueError("no rows to draw: give one row per way")
    for way, low, median, high in table[["way", "low", "median", "high"]].itertuples(index=False):
        if not (np.isfinite(median) and median >= 0):
            raise ValueError(f"{way!r} took {median} seconds: give 0 or more")
        if low > median or high < median:
            raise ValueError(f"{way!r} took {median:.4g} seconds, outside its quartiles {low:.4g} and {high:.4g}")


def _bars(table: pd.DataFrame, at: list[int]) -> go.Bar:
    seconds = table["median"]
    whiskers = {
        "array": (table["high"] - seconds).tolist(),
        "arrayminus": (seconds - table["low"]).tolist(),
        "thickness": 1,
        "width": 3,
        "color": "#444444",
    }
    return go.Bar(
        x=seconds.tolist(),
        y=at,
        width=0.36,
        orientation="h",
        marker={"color": [GREY] + [BLUE] * (len(at) - 1)},
        error_x=whiskers if any(table["low"].notna()) else None,
        customdata=[
            as_text(way) + ("" if np.isnan(low) else f", quartiles {low:.4g} and {high:.4g} s")
            for way, low, high in table[["way", "low", "high"]].itertuples(index=False)
        ],
        hovertemplate="%{x:.4g} s: %{customdata}<extra></extra>",
        name="seconds",
    )


def _marks(floors: list[float], at: list[int]) -> go.Scatter:
    return go.Scatter(
        x=floors,
        y=at,
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 8, "color": BLACK, "line": {"width": 2}},
        hovertemplate="floor: %{x:.4g} s<extra></extra>",
        cliponaxis=False,
        name="floor",
    )


def _words(row: Mapping[Any, Any], first: bool) -> str:
    """'0.112 s, 2.48× as fast, 4.54× the floor'."""
    ratios = {name: row[name] for name in RATIOS if not (first and name == "speedup")}
    said = [f"{_times(value)}× {RATIOS[name]}" for name, value in ratios.items() if np.isfinite(value)]
    return ", ".join([f"{row['median']:.3g} s", *said])


def _times(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"
