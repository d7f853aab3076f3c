"""Thoughts as points in a plane."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import Width, as_text, legend_title_of, need, panels, style
from .points import MANY, MOST_POINTS, Group, axes_of, caption_of, groups_of, hover_of, looks_of, scale_of, size_of

MOST = 16  # labels or panels one figure can show
MOST_TRACES = 100  # a figure of more is slow to draw and to move


def thought_map(
    points: pd.DataFrame, color: str = "correct", facet: str | None = None, *, width: Width = "page"
) -> go.Figure:
    """Thoughts in the plane, coloured by a label, optionally in panels by another ("step", "method", "store").

    points: what `projection.project` returns. `correct` is drawn as correct and wrong, or as a colour scale where
    paths have several draws; other numbers are labels up to 8 of them, then a colour scale. Panels share their axes.
    Beyond 5000 points WebGL draws them, and the legend no longer hides labels; beyond 20000 hovering says no more than
    where they come from; beyond 100000 a random sample is drawn, and the caption says so.
    Raises ValueError for missing columns and for more than 16 labels or panels.
    """
    need(points, ["x", "y", color, *([facet] if facet else [])], "projection.project(store)")
    if points.empty:
        raise ValueError("no points to draw: give the rows of projection.project")
    everything = [Group("", "", "", np.full(len(points), True))]
    groups = groups_of(points, color, 8)
    split = groups_of(points, facet, MOST, apart=True) if facet else everything
    for what, column, found in (("color", color, groups or []), ("facet", facet, split)):
        if found is None or len(found) > MOST:
            raise ValueError(
                f"{what}={column!r} has too many values: at most {MOST} can be told apart, take another label"
            )
    assert split is not None
    columns = min(len(split), 2 if width == "column" else 4)
    single = 65 if width == "column" else 100
    figure = panels(
        [f"{group.name} (n = {group.rows.sum()})" if facet else "" for group in split],
        columns,
        38 if facet and len(split) > 1 else single,
        width,
        axes=axes_of(points),
        legend=[group.title for group in groups or [] if len(groups or []) > 1],
        legend_title=legend_title_of(points, color),
        caption=caption_of(points),
        match="xy",
    )
    many = len(points) > MANY
    for k, trace in _clouds(points, color, split, groups) if many else _layers(points, color, split, groups):
        figure.add_trace(trace, row=k // columns + 1, col=k % columns + 1)
    for group in groups or []:  # keys of their own: those of many small faint points could not be seen
        key = _trace(points.iloc[:0], color, group, 0, 1).update(x=[None], y=[None], showlegend=True)
        figure.add_trace(key.update(marker_symbol="circle") if many else key)
    if groups is None:
        figure.update_layout(coloraxis=scale_of(points, color, figure.layout.to_plotly_json()))
    for panel in range(len(split)):  # both axes have one unit: what a zoom shows keeps its distances
        place: dict[str, Any] = {"row": panel // columns + 1, "col": panel % columns + 1}
        across = next(figure.select_xaxes(**place)).plotly_name.replace("axis", "")
        figure.update_yaxes(scaleanchor=across, scaleratio=1, **place)
    return figure.update_layout(legend={"itemclick": False, "itemdoubleclick": False} if many else {})


def _clouds(
    points: pd.DataFrame, color: str, split: list[Group], groups: list[Group] | None
) -> Iterator[tuple[int, go.Scattergl]]:
    """The panel's number and its points in one trace, in random order, all as dots: so many must be quick to draw."""
    order = np.random.default_rng(0).permutation(len(points))[:MOST_POINTS]
    looks, (size, opacity) = looks_of(points, color, groups), size_of(len(points))
    for k, panel in enumerate(split):
        rows = order[panel.rows[order]]
        part = points.iloc[rows]
        trace = go.Scattergl(
            x=part["x"].to_numpy(),
            y=part["y"].to_numpy(),
            mode="markers",
            marker={"color": looks.numbers[rows], "size": size, "opacity": opacity, **looks.scale},
            showlegend=False,
            hovertext=hover_of(part, color, len(points)),
            hovertemplate="%{hovertext}<extra></extra>",
        )
        yield k, trace


def _layers(
    points: pd.DataFrame, color: str, split: list[Group], groups: list[Group] | None
) -> Iterator[tuple[int, go.Scatter]]:
    """The panel's number and the trace of every label in every layer, from the back to the front."""
    entries = groups or [Group("", "", "", np.full(len(points), True))]
    most = max(int(group.rows.sum()) for group in entries)
    dealt = _dealt(len(points), len(entries) * len(split))
    for k, panel in enumerate(split):
        for layer in range(dealt.max() + 1):
            for turn in range(len(entries)):  # no label is always the last, which would hide the others
                group = entries[(turn + layer) % len(entries)]
                part = points.loc[panel.rows & group.rows & (dealt == layer)]
                if len(part):
                    # thoughts can coincide: the rim of a rarer label shows behind the more frequent one on it
                    rim = min(1.4, math.sqrt(most / int(group.rows.sum())))
                    yield k, _trace(part, color, group if groups else None, len(points), rim)


def _dealt(n: int, parts: int) -> np.ndarray:
    """A layer for each point at random; drawn label by label, the last would hide the others.

    Every layer has a trace for each of `parts` (labels and panels), of which a browser bears some hundred.
    """
    return np.random.default_rng(0).integers(max(1, min(n // (4 * parts), MOST_TRACES // parts)), size=n)


def _trace(part: pd.DataFrame, color: str, group: Group | None, total: int, rim: float) -> go.Scatter:
    """Points of one label, or of a colour scale where `group` is None."""
    size, opacity = size_of(total)
    marker: dict[str, Any] = {"size": size * rim, "opacity": opacity}
    if group is None:
        marker |= {"color": part[color].tolist(), "coloraxis": "coloraxis"}
    else:
        marker |= {"color": style(group.label).color, "symbol": style(group.label).symbol}
    return go.Scatter(
        x=part["x"].tolist(),
        y=part["y"].tolist(),
        mode="markers",
        marker=marker,
        name=as_text(group.title) if group else "",
        legendgroup=group.title if group else "",
        showlegend=False,
        hovertext=hover_of(part, color, total),
        hovertemplate="%{hovertext}<extra></extra>",
    )
