"""What figures of thoughts as points share: labels, colours, sizes, axes, captions, and what a point says."""

import textwrap
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from .look import BLUE, PIXEL, VERMILLION, as_text, style, title_of

TWO_SIDED = ((0.0, VERMILLION), (0.5, "#BDBDBD"), (1.0, BLUE))  # the ends are the colours of wrong and correct
MOST_POINTS = 100_000  # what is more is thinned at random: nobody sees the difference, and a page can still be opened
MANY = 5000  # beyond this many points a browser needs WebGL to stay responsive
TOLD = 20_000  # beyond this many points their questions and answers would be most of the page
SIZES = ((1000, (5, 0.75)), (5000, (4, 0.6)), (np.inf, (3, 0.5)))  # points -> pixels, opacity


class Group(NamedTuple):
    """The points with one value of a column."""

    label: object
    title: str  # as it is among the others
    name: str  # as it is alone
    rows: np.ndarray  # bool, one per point


class Looks(NamedTuple):
    """How points are drawn. A colour by name for each would take plotly long to check; numbers on a scale do not."""

    numbers: np.ndarray  # where on the scale each stands
    symbols: np.ndarray
    scale: dict[str, Any]  # of a trace's marker


def size_of(total: int) -> tuple[float, float]:
    """Pixels and opacity of each of so many points."""
    return next(look for most, look in SIZES if total <= most)


def groups_of(points: pd.DataFrame, column: str, most: int, *, apart: bool = False) -> list[Group] | None:
    """A group for each value of a column, or None where its numbers need a scale: fractions, and whole numbers that
    span more than `most` (apart: of which there are more than `most`)."""
    values = points[column]
    known = values.dropna().unique().tolist()
    if column == "correct":
        if not set(known) <= {0, 1}:
            return None
        found = [("correct", "correct", "correct", 1), ("wrong", "wrong", "wrong", 0)]
    elif pd.api.types.is_numeric_dtype(values):
        range_ = len(known) if apart or not known else max(known) - min(known) + 1
        if any(value != int(value) for value in known) or range_ > most:
            return None
        kind = "training step" if column == "store" else title_of(column)
        found = [(int(value), str(int(value)), f"{kind} {int(value)}", value) for value in sorted(known)]
    else:
        found = [(str(value), str(value), str(value), value) for value in known]
    groups = [Group(label, title, name, np.asarray(values == value)) for label, title, name, value in found]
    groups.append(Group("unknown", "unknown", f"unknown {title_of(column)}", np.asarray(values.isna())))
    return [group for group in groups if group.rows.any()]


def looks_of(points: pd.DataFrame, color: str, groups: list[Group] | None) -> Looks:
    """How every point is drawn: by its label, or where `groups` is None by its number on the figure's colour scale."""
    if groups is None:
        return Looks(points[color].to_numpy(float), np.full(len(points), "circle"), {"coloraxis": "coloraxis"})
    numbers, symbols = np.zeros(len(points)), np.full(len(points), "circle", dtype=object)
    colors = []
    for k, group in enumerate(groups):
        look = style(group.label)
        numbers[group.rows], symbols[group.rows] = k, look.symbol
        colors += [[k / len(groups), look.color], [(k + 1) / len(groups), look.color]]
    steps = {"colorscale": colors, "cmin": -0.5, "cmax": len(groups) - 0.5, "showscale": False}
    return Looks(numbers, symbols, steps)


def axes_of(points: pd.DataFrame) -> tuple[str, str]:
    name = {"umap": "UMAP", "densmap": "densMAP"}.get(points.attrs.get("how", ""))
    if name:
        return f"{name} 1 (arbitrary units)", f"{name} 2 (arbitrary units)"
    if points.attrs.get("how") == "identity":
        return "feature 1 (units of the vectors)", "feature 2 (units of the vectors)"
    shares = [100 * share for share in points.attrs.get("explained", ())]
    if points.attrs.get("how") == "pca" and len(shares) >= 2:
        return f"PC 1 ({shares[0]:.0f} % of variance)", f"PC 2 ({shares[1]:.0f} % of variance)"
    return "x", "y"


def scale_of(points: pd.DataFrame, color: str, layout: dict[str, Any]) -> dict[str, Any]:
    """A colour scale, both ways from grey at 0 where numbers have both signs, and its bar beside the upper panels, no
    longer than one reads at a glance."""
    inner = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    correct = color == "correct"
    bar = {
        "title": {"text": "share of right answers" if correct else title_of(color)},
        "len": min(1, 60 * PIXEL / inner),
        "y": 1,
        "yanchor": "top",
    }
    if correct:
        return {"colorbar": bar, "colorscale": TWO_SIDED, "cmin": 0, "cmax": 1}
    numbers = points[color].to_numpy(float)
    end = float(np.nanmax(np.abs(numbers)))
    if np.nanmin(numbers) < 0 < np.nanmax(numbers):
        return {"colorbar": bar, "colorscale": TWO_SIDED, "cmin": -end, "cmax": end}
    return {"colorbar": bar, "colorscale": "Cividis"}


def caption_of(points: pd.DataFrame) -> str:
    counted = f"n = {len(points)} thoughts"
    if "example" in points:
        counted += f" of {points['example'].nunique()} questions"
    if len(points) > MOST_POINTS:
        counted += f", of which {MOST_POINTS} are drawn, taken at random"
    found = [f"{name} {points.attrs[name]:.2f}" for name in ("trustworthiness", "continuity") if name in points.attrs]
    if not found or points.attrs.get("how") == "identity":
        return counted
    sample = points.attrs["checked_rows"]
    on = f", on {sample} of them" if sample < len(points) else ""
    return f"{counted}; {', '.join(found)} ({points.attrs['neighbours']} neighbours{on})"


_FACTS = ("gold", "prediction", "store", "example", "path", "step")


def hover_of(part: pd.DataFrame, color: str, total: int) -> list[str]:
    """What a point says: question, gold, prediction, where it is, and its label; of very many only the last two. As
    text, never as markup."""
    known = ("store", "example", "path", "step") if total > TOLD else _FACTS
    names = [name for name in known if name in part] + ([color] if color not in known else [])
    questions = part["question"].tolist() if "question" in part and total <= TOLD else [""] * len(part)
    wrapped = {q: textwrap.wrap(textwrap.shorten(str(q), 300), 60) for q in set(questions)}
    texts = []
    for question, *values in zip(questions, *(part[name].tolist() for name in names), strict=True):
        facts = [f"{title_of(name)}: {_short(value)}" for name, value in zip(names, values, strict=True)]
        texts.append("<br>".join(as_text(line) for line in [*wrapped[question], *facts]))
    return texts


def _short(value: object) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
