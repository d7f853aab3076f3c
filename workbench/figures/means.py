"""What figures of means share: their columns and checks, the lines they are compared with, and ranges that hold all."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from .look import as_text, need, plain

Reference = float | Mapping[str, float | Mapping[str, float]] | None
VALUES = ("mean", "low", "high")
_DASHES = ("dash", "dot", "dashdot", "longdash")


class Line(NamedTuple):
    """One reference line of one panel, in the units drawn."""

    name: str  # "" for a single value, which stands for itself
    panel: Any
    at: float
    dash: str


def named(lines: Iterable[Line]) -> list[str]:
    """What the legend says of these lines."""
    return list(dict.fromkeys(line.name for line in lines if line.name))


def percent_panels(percent: bool | Collection[str], panels: Sequence[Any]) -> list[Any]:
    """The panels whose values are shares, to be drawn in percent: all, none, or those named."""
    if isinstance(percent, bool):
        return list(panels) if percent else []
    unknown = [name for name in percent if name not in panels]
    if unknown or isinstance(percent, str):
        raise ValueError(f"percent={percent!r}: give True, False, or a list with any of {', '.join(map(str, panels))}")
    return list(percent)


def reference_lines(reference: Reference, panels: Sequence[Any], hundred: Collection[Any]) -> list[Line]:
    """The lines that a value, name -> value, or name -> {panel: value} asks for; in `hundred` shares become percent.

    Raises ValueError for the name of a panel that is not drawn.
    """
    if reference is None:
        return []
    given = reference if isinstance(reference, Mapping) else {"": reference}
    lines = []
    for k, (name, value) in enumerate(given.items()):
        for panel, at in value.items() if isinstance(value, Mapping) else [(panel, value) for panel in panels]:
            if panel not in panels:
                drawn = ", ".join(map(str, panels)) or "none"
                raise ValueError(f"reference {name!r} is for panel {panel!r}, but the panels drawn are: {drawn}")
            dash = _DASHES[k % len(_DASHES)] if name else "solid"
            lines.append(Line(str(name), panel, float(at) * (100 if panel in hundred else 1), dash))
    return lines


def headings(panels: Sequence[Any], title: str | Mapping[str, str] | None) -> list[str]:
    """What stands above each panel: its own name and unit where `title` has one, else the panel's value."""
    own = title if isinstance(title, Mapping) else {}
    return [str(own.get(panel, plain(str(panel)))) for panel in panels]


def places(panels: Sequence[Any], across: int) -> dict[Any, dict[str, Any]]:
    """The row and column of each panel."""
    return {panel: {"row": k // across + 1, "col": k % across + 1} for k, panel in enumerate(panels)}


def on_axis(panels: Sequence[Any], lines: Iterable[Line], *tables: pd.DataFrame) -> list[float]:
    """Everything that an axis of these panels must show."""
    found = [line.at for line in lines if line.panel in panels]
    for table in tables:
        rows = table.loc[np.isin(table["panel"], panels)]
        found += [value for name in VALUES if name in rows for value in rows[name].tolist()]
    return found


def draw_lines(
    figure: go.Figure, lines: Iterable[Line], at: Mapping[Any, dict[str, Any]], *, upright: bool = False
) -> None:
    """Draw each line across its panel (panel -> its row and col); the first of a name carries its key."""
    keyed = set()
    for line in lines:
        across = {"x0": line.at, "x1": line.at, "y0": 0, "y1": 1, "yref": "y domain"}
        along = {"y0": line.at, "y1": line.at, "x0": 0, "x1": 1, "xref": "x domain"}
        figure.add_shape(
            type="line",
            line={"color": "#555555", "width": 1, "dash": line.dash},
            layer="below",
            name=as_text(line.name),
            legendgroup=f"reference {line.name}",
            showlegend=bool(line.name) and line.name not in keyed,
            **at[line.panel],
            **(across if upright else along),
        )
        keyed.add(line.name)


def span(values: ArrayLike, *, shares: bool = False, edge: float = 0.05) -> list[float]:
    """An axis range around the finite values; shares: these are percentages, and there is little to show beyond 0 and
    100, only the half of a mark that stands there."""
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    large = max(abs(least), abs(most))
    # what differs in its fourth digit only is constant, and should look so
    room = edge * (most - least) if most - least > 1e-3 * large else 0.1 * large or 1
    if shares and least >= 0 and most <= 100:
        mark = 0.015 * (most - least + 2 * room)
        return [max(-mark, least - room), min(100 + mark, most + room)]
    return [least - room, most + room]


def tidy(table: pd.DataFrame, columns: Mapping[str, str | None], what: str) -> pd.DataFrame:
    """A table's columns under the names used here; `line` and `panel` are "" where there is only one."""
    need(table, [name for name in columns.values() if name is not None], what)
    tidy = pd.DataFrame(index=range(len(table)))
    for ours, theirs in columns.items():
        if theirs is None:
            tidy[ours] = ""
        else:
            tidy[ours] = table[theirs].to_numpy(object if ours in ("label", "line", "panel") else float)
    return tidy


def check_intervals(rows: pd.DataFrame) -> None:
    """Refuse means outside their interval; where low and high are both missing there is none."""
    low, middle, high = (rows[name].to_numpy(float) for name in ("low", "mean", "high"))
    bad = np.flatnonzero(~((low <= middle) & (middle <= high) | np.isnan(low) & np.isnan(high)))
    if bad.size:
        k = int(bad[0])
        raise ValueError(
            f"row {k} has the mean {middle[k]:g} and the interval [{low[k]:g}, {high[k]:g}]: "
            "give low <= mean <= high, or leave both bounds missing"
        )
