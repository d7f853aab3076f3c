"""Thoughts as points in a plane."""

import math
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import BLUE, PIXEL, VERMILLION, Width, as_text, need, panels, plain, style

CORRECTNESS = ((0.0, VERMILLION), (0.5, "#BDBDBD"), (1.0, BLUE))  # the ends are the colours of wrong and correct
MOST = 16  # labels or panels one figure can show
MOST_TRACES = 100  # a figure of more is slow to draw and to move
MOST_POINTS = 20000  # what is more is thinned at random: nobody sees the difference, and a page stays light
MANY = 5000  # beyond this many points a browser needs WebGL to stay responsive
SIZES = ((1000, (5, 0.75)), (5000, (4, 0.6)), (np.inf, (3, 0.5)))  # points -> pixels, opacity


class Group(NamedTuple):
    """The points with one value of a column."""

    label: object
    title: str  # as it is among the others
    name: str  # as it is alone
    rows: np.ndarray  # bool, one per point


def thought_map(
    points: pd.DataFrame, color: str = "correct", facet: str | None = None, *, width: Width = "page"
) -> go.Figure:
    """Thoughts in the plane, coloured by a label, optionally in panels by another ("step", "method", "store").

    points: what `projection.project` returns. `correct` is drawn as correct and wrong, or as a colour scale where
    paths have several draws; other numbers are labels up to 8 of them, then a colour scale. Panels share their axes.
    Beyond 20000 points a random sample of them is drawn, and the caption says so.
    Raises ValueError for missing columns and for more than 16 labels or panels.
    """
    need(points, ["x", "y", color, *([facet] if facet else [])], "projection.project(store)")
    if points.empty:
        raise ValueError("no points to draw: give the rows of projection.project")
    everything = [Group("", "", "", np.full(len(points), True))]
    groups = _groups(points, color, most_numbers=8)
    split = _groups(points, facet, most_numbers=MOST) if facet else everything
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
        axes=_axes(points),
        legend=[group.title for group in groups or [] if len(groups or []) > 1],
        legend_title=_title(color),
        caption=_caption(points),
        match="xy",
    )
    for k, trace in _layers(points, color, split, groups):
        figure.add_trace(trace, row=k // columns + 1, col=k % columns + 1)
    for group in groups or []:  # keys of their own: those of many small faint points could not be seen
        figure.add_trace(_trace(points.iloc[:0], color, group, 0, 1).update(x=[None], y=[None], showlegend=True))
    if groups is None:
        figure.update_layout(coloraxis=_scale(color, figure.layout.to_plotly_json()))
    return figure


def _layers(
    points: pd.DataFrame, color: str, split: list[Group], groups: list[Group] | None
) -> Iterator[tuple[int, go.Scatter | go.Scattergl]]:
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
                    rim = min(1.6, math.sqrt(most / int(group.rows.sum())))
                    yield k, _trace(part, color, group if groups else None, min(len(points), MOST_POINTS), rim)


def _dealt(n: int, parts: int) -> np.ndarray:
    """A layer for each point at random, -1 for those not drawn; drawn label by label, the last would hide the others.

    Every layer has a trace for each of `parts` (labels and panels), of which a browser bears some hundred.
    """
    draw = np.random.default_rng(0)
    layers = draw.integers(max(1, min(n // (4 * parts), MOST_TRACES // parts)), size=n)
    if n > MOST_POINTS:
        layers[draw.choice(n, n - MOST_POINTS, replace=False)] = -1
    return layers


def _trace(part: pd.DataFrame, color: str, group: Group | None, total: int, rim: float) -> go.Scatter | go.Scattergl:
    """Points of one label, or of a colour scale where `group` is None."""
    size, opacity = next(look for most, look in SIZES if total <= most)
    marker: dict[str, Any] = {"size": size * rim, "opacity": opacity}
    if group is None:
        marker |= {"color": part[color].tolist(), "coloraxis": "coloraxis"}
    else:
        marker |= {"color": style(group.label).color, "symbol": style(group.label).symbol}
    drawn = go.Scatter if total <= MANY else go.Scattergl
    return drawn(
        x=part["x"].tolist(),
        y=part["y"].tolist(),
        mode="markers",
        marker=marker,
        name=as_text(group.title) if group else "",
        legendgroup=group.title if group else "",
        showlegend=False,
        hovertext=_hover(part, color),
        hovertemplate="%{hovertext}<extra></extra>",
    )


def _groups(points: pd.DataFrame, column: str, most_numbers: int) -> list[Group] | None:
    """A group for each value of a column, or None where its numbers need a scale."""
    values = points[column]
    known = values.dropna().unique().tolist()
    if column == "correct":
        if not set(known) <= {0, 1}:
            return None
        found = [("correct", "correct", "correct", 1), ("wrong", "wrong", "wrong", 0)]
    elif pd.api.types.is_numeric_dtype(values):
        if known and (any(value != int(value) for value in known) or max(known) - min(known) >= most_numbers):
            return None
        found = [(int(value), str(int(value)), f"{_title(column)} {int(value)}", value) for value in sorted(known)]
    else:
        found = [(str(value), str(value), str(value), value) for value in known]
    groups = [Group(label, title, name, np.asarray(values == value)) for label, title, name, value in found]
    groups.append(Group("unknown", "unknown", f"unknown {_title(column)}", np.asarray(values.isna())))
    return [group for group in groups if group.rows.any()]


def _title(column: str) -> str:
    """A column as readers know it: the steps of a thought vector are its slots, those of an answer are steps."""
    return {"step": "slot", "correct": "answer"}.get(column, plain(column))


def _axes(points: pd.DataFrame) -> tuple[str, str]:
    if points.attrs.get("how") == "umap":
        return "UMAP 1 (arbitrary units)", "UMAP 2 (arbitrary units)"
    shares = [100 * share for share in points.attrs.get("explained", ())]
    if points.attrs.get("how") == "pca" and len(shares) >= 2:
        return f"PC 1 ({shares[0]:.0f} % of variance)", f"PC 2 ({shares[1]:.0f} % of variance)"
    return "x", "y"


def _scale(color: str, layout: dict[str, Any]) -> dict[str, Any]:
    """A colour bar beside the upper panels, no longer than one reads at a glance."""
    inner = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    correct = color == "correct"
    bar = {
        "title": {"text": "share of right answers" if correct else _title(color)},
        "len": min(1, 60 * PIXEL / inner),
        "y": 1,
        "yanchor": "top",
    }
    limits = {"colorscale": CORRECTNESS, "cmin": 0, "cmax": 1} if correct else {"colorscale": "Cividis"}
    return {"colorbar": bar, **limits}


def _caption(points: pd.DataFrame) -> str:
    counted = f"n = {len(points)} thoughts"
    if "example" in points:
        counted += f" of {points['example'].nunique()} questions"
    if len(points) > MOST_POINTS:
        counted += f", of which {MOST_POINTS} are drawn, taken at random"
    if "trustworthiness" not in points.attrs:
        return counted
    trust = f"trustworthiness {points.attrs['trustworthiness']:.2f} ({points.attrs['neighbours']} neighbours"
    sample = points.attrs["checked_rows"]
    return f"{counted}; {trust}{f', on {sample} of them' if sample < len(points) else ''})"


def _hover(part: pd.DataFrame, color: str) -> list[str]:
    """What a point says: question, gold, prediction, where it is, and its label. As text, never as markup."""
    names = [name for name in ("gold", "prediction", "store", "example", "path", "step") if name in part]
    names += [color] if color not in names else []
    questions = part["question"].tolist() if "question" in part else [""] * len(part)
    wrapped = {q: textwrap.wrap(textwrap.shorten(str(q), 300), 60) for q in set(questions)}
    texts = []
    for question, *values in zip(questions, *(part[name].tolist() for name in names), strict=True):
        facts = [f"{_title(name)}: {_short(value)}" for name, value in zip(names, values, strict=True)]
        texts.append("<br>".join(as_text(line) for line in [*wrapped[question], *facts]))
    return texts


def _short(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
