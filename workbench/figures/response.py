"""A mean with its interval against a setting: number of thoughts, samples, noise, weight of a loss."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import MILLIMETRES, Style, Width, as_text, counted, legend_title_of, panels, plain, side_by_side, style
from .means import (
    VALUES,
    Reference,
    check_intervals,
    draw_lines,
    headings,
    named,
    on_axis,
    percent_panels,
    places,
    reference_lines,
    span,
    tidy,
)

APART = 0.012  # of a log axis's span, between the bars of two lines at one setting
FEW = 12  # up to this many settings on a line each has its bar; beyond it they make a band


def response(
    table: pd.DataFrame,
    *,
    x: str,
    y: str = "mean",
    low: str = "low",
    high: str = "high",
    color: str | None = None,
    facet: str | None = None,
    log_x: bool = False,
    percent: bool | Collection[str] = False,
    reference: Reference = None,
    points: pd.DataFrame | None = None,
    points_are: str = "single seeds",
    band: bool | None = None,
    x_title: str | None = None,
    y_title: str | Mapping[str, str] | None = None,
    n: str | int = "n",
    of: str = "questions",
    level: float = 0.95,
    width: Width = "page",
) -> go.Figure:
    """Means `y` with intervals [`low`, `high`] against the numbers in `x`: a line per `color`, a panel per `facet`.

    table: one row per mean, in any order. A mean whose low and high are both missing is drawn without an interval.
    percent: True where the values are shares, to be drawn times 100; or the names of the panels where they are.
    reference: horizontal lines: a value, name -> value, or name -> {panel: value} for those of some panels only.
    points: single results behind the means, drawn faint: a table with the columns x, y and those of color and facet.
    band: intervals as bands instead of bars with caps (default: where a line has more than 12 settings).
    y_title: the name of all y axes, which then share their range; or panel -> its own name and unit.
    n: what each mean is over, a number or its column; of: what was counted; level: of the intervals. All for the
    caption.

    Raises ValueError for missing columns, means outside their interval, two means of a line at one setting, and
    settings of 0 or less on a logarithmic axis.
    """
    columns = {"x": x, "mean": y, "line": color, "panel": facet}
    means = tidy(table, columns | {"low": low, "high": high}, "a table with one row per mean")
    single = tidy(table.iloc[:0] if points is None else points, columns, "the single results behind the means")
    _check(means, x, log_x)
    split, lines = list(means["panel"].unique()), list(means["line"].unique())
    hundred = percent_panels(percent, split)
    for rows in (means, single):
        rows.loc[np.isin(rows["panel"], hundred), [name for name in VALUES if name in rows]] *= 100
    references = reference_lines(reference, split, hundred)
    own = isinstance(y_title, Mapping)
    key = [plain(str(line)) for line in lines if len(lines) > 1]
    across = side_by_side(len(split), width)
    figure = panels(
        headings(split, y_title),
        across,
        38 if len(split) > 1 else 45 if width == "column" else 60,
        width,
        axes=(x_title or plain(x), "" if own else str(y_title or plain(y) + (" (%)" if percent else ""))),
        legend=[*key, *named(references)],
        legend_title=legend_title_of(table, color) if color and key else "",
        caption=counted(table, n, of, level if any(means["low"].notna()) else None)
        + ("" if points is None else f"; faint points: {points_are}"),
        match="x" if own else "xy",
    )
    at = places(split, across)
    dense = max(means.value_counts(["line", "panel"])) > FEW if band is None else band
    # bars of several lines at one setting stand beside each other; plotly's own shift would be uneven on a log axis
    apart = 10 ** (APART * np.ptp(np.log10(means["x"]))) if log_x and not dense else 1.0
    beside = {str(line): apart ** (k - (len(lines) - 1) / 2) for k, line in enumerate(lines)}
    for panel, trace in _traces(means, single, dense, bool(key), as_text(x_title or plain(x))):
        trace.x = [beside.get(str(trace.offsetgroup), 1.0) * value for value in trace.x or ()]
        figure.add_trace(trace, **at[panel])
    draw_lines(figure, references, at)
    for panel, place in at.items():
        together = [panel] if own else split  # the panels with one y axis
        shares = set(together) <= set(hundred)
        figure.update_yaxes(range=span(on_axis(together, references, means, single), shares=shares), **place)
    figure.update_xaxes(**_settings(means["x"].to_numpy(), log_x, MILLIMETRES[width] / across - 12))
    group = None if dense or log_x or len(lines) == 1 else "group"
    return figure.update_layout(scattermode=group, scattergap=0.85)


def _check(means: pd.DataFrame, x: str, log_x: bool) -> None:
    """Refuse what cannot be drawn as it is."""
    if means.empty:
        raise ValueError("no rows to draw: give one row per mean")
    if not np.isfinite(means[["x", "mean"]].to_numpy()).all():
        raise ValueError(f"a mean or its {x} is missing or infinite: leave such rows out of the table")
    check_intervals(means)
    for at, line, again in zip(means["x"], means["line"], means.duplicated(["x", "line", "panel"]), strict=True):
        if again:
            raise ValueError(
                f"two means at {x} = {at:g}{f' of {line}' if line != '' else ''}: give one row per setting, line and "
                "panel; single results belong into `points`"
            )
    if log_x and min(means["x"]) <= 0:
        raise ValueError(
            f"{x} is {means['x'].min():g} somewhere, which a logarithmic axis cannot show: "
            "draw it with log_x=False, or leave it out and give its value as a `reference` line"
        )


def _traces(
    means: pd.DataFrame, single: pd.DataFrame, dense: bool, keys: bool, setting: str
) -> Iterator[tuple[Any, go.Scatter]]:
    """The panel and trace of every line, each after what stands behind it; the first of a line carries its key."""
    keyed = set()
    for panel, line in dict.fromkeys(zip(means["panel"], means["line"], strict=True)):
        look, name = style(line), str(line)
        here, part = (rows.loc[(rows["panel"] == panel) & (rows["line"] == line)] for rows in (single, means))
        part = part.sort_values("x")
        if len(here):
            yield panel, _faint(here, look, name)
        if dense:
            yield panel, _band(part, look, name)
        yield panel, _line(part, look, name, dense, setting).update(showlegend=keys and line not in keyed)
        keyed.add(line)


def _line(part: pd.DataFrame, look: Style, line: str, dense: bool, setting: str) -> go.Scatter:
    whiskers = {
        "array": (part["high"] - part["mean"]).tolist(),
        "arrayminus": (part["mean"] - part["low"]).tolist(),
        "thickness": 1,
        "width": 3,
    }
    return go.Scatter(
        x=part["x"].tolist(),
        text=[f"{value:g}" for value in part["x"]],
        y=part["mean"].tolist(),
        error_y=None if dense else whiskers,
        customdata=part[["low", "high"]].to_numpy().tolist(),
        mode="lines" if dense else "lines+markers",
        line={"color": look.color, "dash": look.dash if dense else "solid", "width": 1.25},
        marker={"color": look.color, "symbol": look.symbol, "size": 6},
        name=as_text(plain(line)),
        legendgroup=line,
        offsetgroup=line,
        cliponaxis=False,
        hovertemplate=f"{setting} %{{text}}: %{{y:.4g}} [%{{customdata[0]:.4g}}, %{{customdata[1]:.4g}}]"
        f"<extra>{as_text(line)}</extra>",
    )


def _band(part: pd.DataFrame, look: Style, line: str) -> go.Scatter:
    there = part.dropna(subset=["low", "high"])
    return go.Scatter(
        x=[*there["x"], *there["x"][::-1]],
        y=[*there["high"], *there["low"][::-1]],
        fill="toself",
        fillcolor=look.color,
        opacity=0.2,
        mode="none",
        legendgroup=line,
        showlegend=False,
        hoverinfo="skip",
    )


def _faint(part: pd.DataFrame, look: Style, line: str) -> go.Scatter:
    return go.Scatter(
        x=part["x"].tolist(),
        text=[f"{value:g}" for value in part["x"]],
        y=part["mean"].tolist(),
        mode="markers",
        marker={"color": look.color, "symbol": look.symbol, "size": 5, "opacity": 0.4},
        legendgroup=line,
        offsetgroup=line,
        showlegend=False,
        cliponaxis=False,
        hovertemplate=f"%{{text}}: %{{y:.4g}}<extra>{as_text(line)}</extra>",
    )


def _settings(x: np.ndarray, log_x: bool, room: float) -> dict[str, Any]:
    """The x axis: around the settings, with a tick at each where their labels fit into `room` mm, else plotly's."""
    settings = np.unique(x)
    places = np.log10(settings) if log_x else settings
    axis: dict[str, Any] = {"type": "log" if log_x else "linear", "range": span(places)}
    labels = [f"{value:g}" for value in settings]
    broad = 1.5 + 1.4 * max(map(len, labels))  # mm a label takes
    if len(settings) == 1 or np.diff(places).min() * room > broad * np.ptp(places):
        return axis | {"tickvals": settings.tolist(), "ticktext": labels}
    return axis | ({"dtick": 1, "tickformat": "~g"} if log_x else {"nticks": max(4, int(room / 12))})
