"""Lines that a figure's values are to be compared with (zero, chance, the empty slot), and ranges that hold both."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go

from .look import as_text

Reference = float | Mapping[str, float | Mapping[str, float]] | None
_DASHES = ("dash", "dot", "dashdot", "longdash")


class Line(NamedTuple):
    """One reference line of one panel, in the units drawn."""

    name: str  # "" for a single value, which stands for itself
    panel: Any
    at: float
    dash: str


def reference_lines(reference: Reference, panels: Sequence[Any], hundred: Collection[Any]) -> list[Line]:
    """The lines that a value, name -> value, or name -> {panel: value} asks for; in `hundred` shares become percent.

    Raises ValueError for the name of a panel that is not drawn.
    """
    if reference is None:
        return []
    named = reference if isinstance(reference, Mapping) else {"": reference}
    lines = []
    for k, (name, value) in enumerate(named.items()):
        for panel, at in (value.items() if isinstance(value, Mapping) else [(panel, value) for panel in panels]):
            if panel not in panels:
                drawn = ", ".join(map(str, panels)) or "none"
                raise ValueError(f"reference {name!r} is for panel {panel!r}, but the panels drawn are: {drawn}")
            dash = _DASHES[k % len(_DASHES)] if name else "solid"
            lines.append(Line(str(name), panel, float(at) * (100 if panel in hundred else 1), dash))
    return lines


def draw_lines(
    figure: go.Figure, lines: Iterable[Line], places: Mapping[Any, tuple[int, int]], *, upright: bool = False
) -> None:
    """Draw each line across its panel (panel -> row, column); the first of a name carries its key."""
    keyed = set()
    for line in lines:
        across = {"x0": line.at, "x1": line.at, "y0": 0, "y1": 1, "yref": "y domain"}
        along = {"y0": line.at, "y1": line.at, "x0": 0, "x1": 1, "xref": "x domain"}
        row, column = places[line.panel]
        figure.add_shape(
            type="line",
            line={"color": "#555555", "width": 1, "dash": line.dash},
            layer="below",
            name=as_text(line.name),
            legendgroup=f"reference {line.name}",
            showlegend=bool(line.name) and line.name not in keyed,
            row=row,
            col=column,
            **(across if upright else along),
        )
        keyed.add(line.name)


def span(values: np.ndarray, *, shares: bool = False, edge: float = 0.05) -> list[float]:
    """An axis range around the finite values; shares: these are percentages, beyond 0 and 100 there is nothing."""
    least, most = float(np.nanmin(values)), float(np.nanmax(values))
    room = edge * (most - least) or 0.1 * abs(most) or 1
    if shares and least >= 0 and most <= 100:
        return [max(0, least - room), min(100, most + room)]
    return [least - room, most + room]
