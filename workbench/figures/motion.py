"""Thoughts that move: the same thoughts at one training step after another, under a slider."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import SMALL, TEXT, Width, as_text, legend_title_of, need, panels, plain, style, title_of
from .means import span
from .points import (
    MANY,
    MOST_POINTS,
    TOLD,
    Looks,
    axes_of,
    caption_of,
    groups_of,
    hover_of,
    looks_of,
    scale_of,
    size_of,
)

KEY = ["example", "path", "step"]  # which thought a row is
SLIDER = 19  # mm it takes below the axes
MOVE = 600  # milliseconds from one step to the next


def thought_motion(
    points: pd.DataFrame, color: str = "correct", over: str = "store", *, width: Width = "page"
) -> go.Figure:
    """Thoughts in the plane under a slider (and a play button) over the values of a column, in their first order.

    points: what `projection.project({step: store, ...})` returns: one map of, say, a run's stores at several training
    steps. A thought keeps its identity by example, path and step, so it is seen to move where it does; one that a frame
    lacks is absent there. Colours as in `thought_map`. On paper only the first frame shows: draw
    `thought_map(points, color, facet=over)` there. Beyond 5000 points in a frame they jump, as WebGL cannot move them.
    Raises ValueError for missing columns, fewer than two frames, more than 100000 points, a thought twice in a frame.
    """
    need(points, ["x", "y", *KEY, color, over], "projection.project({step: store, ...})")
    if points.empty:
        raise ValueError("no points to draw: give the rows of projection.project")
    names = list(dict.fromkeys(points[over]))
    _check(points, over, names)
    groups = groups_of(points, color, 8)
    figure = panels(
        [""],
        1,
        65 if width == "column" else 100,
        width,
        axes=axes_of(points),
        legend=[group.title for group in groups or [] if len(groups or []) > 1],
        legend_title=legend_title_of(points, color),
        caption=caption_of(points),
        foot=SLIDER,
    )
    looks, total = looks_of(points, color, groups), len(points) // len(names)
    frames = [_frame(points, np.flatnonzero(points[over] == name), looks, color, total) for name in names]
    figure.add_trace(frames[0])
    for group in groups or []:  # keys alone: all labels are in one trace, where thoughts that change theirs can move
        look = style(group.label)
        marker = {"color": look.color, "symbol": look.symbol, "size": 5}
        figure.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=marker, name=as_text(group.title)))
    if groups is None:
        figure.update_layout(coloraxis=scale_of(points, color, figure.layout.to_plotly_json()))
    figure.frames = [go.Frame(data=[data], traces=[0], name=str(at)) for at, data in zip(names, frames, strict=True)]
    # axes that followed the points would hide their motion
    figure.update_xaxes(range=span(points["x"])).update_yaxes(range=span(points["y"]))
    figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False})
    steps = over == "store" and pd.api.types.is_numeric_dtype(points[over])
    return _with_slider(figure, [str(name) for name in names], "training step" if steps else title_of(over))


def _check(points: pd.DataFrame, over: str, names: list[Any]) -> None:
    if len(names) < 2:
        raise ValueError(f"{over} is {names[0]!r} alone: motion needs at least two; project {{step: store, ...}}")
    if len(points) > MOST_POINTS:
        raise ValueError(f"{len(points)} points: at most {MOST_POINTS} can be shown in motion; take fewer examples")
    again = points.duplicated([over, *KEY]).to_numpy()
    if again.any():
        row = points.loc[again].iloc[0]
        at = f"example {row['example']!r}, path {row['path']}, step {row['step']}"
        raise ValueError(f"{at} stands twice in {over} {row[over]!r}: give each thought one row for each {over}")


def _frame(points: pd.DataFrame, rows: np.ndarray, looks: Looks, color: str, total: int) -> go.Scatter | go.Scattergl:
    """The points of one frame, of some `total`, in the order of their identity."""
    ids = np.array(["/".join(map(str, key)) for key in points[KEY].iloc[rows].to_numpy(object)])
    order = ids.argsort()
    rows, ids = rows[order], ids[order]
    part, (size, opacity) = points.iloc[rows], size_of(total)
    marker = {"color": looks.numbers[rows], "size": size, "opacity": opacity, **looks.scale}
    if len(points) <= TOLD:  # else plotly would be long at it
        marker["symbol"] = looks.symbols[rows].tolist()
    drawn = go.Scatter if total <= MANY else go.Scattergl
    return drawn(
        x=part["x"].to_numpy(),
        y=part["y"].to_numpy(),
        ids=ids.tolist(),
        mode="markers",
        marker=marker,
        showlegend=False,
        hovertext=hover_of(part, color, len(points)),
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _with_slider(figure: go.Figure, names: list[str], title: str) -> go.Figure:
    """The figure with a slider and a play button below its axes."""
    how = {"mode": "immediate", "frame": {"duration": MOVE, "redraw": True}, "transition": {"duration": MOVE}}
    below = 8 + 2.6 * TEXT  # pixels: tick labels and the axis's name
    look = {"font": {"size": SMALL}, "bordercolor": "#999999", "borderwidth": 0.75}
    slider = {
        "active": 0,
        "steps": [{"label": as_text(name), "method": "animate", "args": [[name], how]} for name in names],
        "currentvalue": {"prefix": f"{as_text(plain(title))}: ", "font": {"size": TEXT}, "xanchor": "right"},
        "x": 0.14,
        "len": 0.86,
        "y": 0,
        "yanchor": "top",
        "pad": {"t": below, "b": 0},
        "bgcolor": "#E6E6E6",
        "ticklen": 3,
        "minorticklen": 0,
        **look,
    }
    button = {
        "type": "buttons",
        "showactive": False,
        "buttons": [{"label": "▶", "method": "animate", "args": [None, how | {"fromcurrent": True}]}],
        "x": 0,
        "xanchor": "left",
        "y": 0,
        "yanchor": "top",
        "pad": {"t": below + 10, "r": 0},
        **look,
    }
    return figure.update_layout(sliders=[slider], updatemenus=[button])
