"""A mean with its interval against a setting: number of thoughts, samples, noise, weight of a loss."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import Style, Width, as_text, counted, need, panels, plain, style
from .reference import Reference, add_references, reference_names

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
    need(table, [x, y, low, high, *_given(color, facet)], "a table with one row per mean")
    means = _tidy(table, x, y, color, facet).assign(low=table[low].to_numpy(float), high=table[high].to_numpy(float))
    _check(means, x, log_x)
    split, lines = list(means["panel"].unique()), list(means["line"].unique())
    hundred = split if percent is True else [] if percent is False else list(percent)
    references = reference_lines(reference, split, hundred)
    means = _in_percent(means, hundred)
    single = None
    caption = counted(table, n, of, level)
    if points is not None:
        need(points, [x, y, *_given(color, facet)], "the single results behind the means")
        single = _in_percent(_tidy(points, x, y, color, facet), hundred)
        caption += f"; faint points: {points_are}"
    own = isinstance(y_title, Mapping)
    several = len(lines) > 1
    key = [*(plain(str(line)) for line in lines if several), *dict.fromkeys(line.name for line in references)]
    columns = min(len(split), 3 if width == "page" else 2)
    figure = panels(
        [str(y_title.get(panel, panel)) if own else plain(str(panel)) for panel in split],
        columns,
        (60 if width == "page" else 45) if len(split) == 1 else 38,
        width,
        axes=(x_title or plain(x), "" if own else str(y_title or plain(y) + (" (%)" if percent else ""))),
        legend=key,
        legend_title=plain(color) if color and several else "",
        caption=caption,
        match="x" if own else "xy",
    )
    places = {panel: (k // columns + 1, k % columns + 1) for k, panel in enumerate(split)}
    if band is None:
        band = bool(means.groupby(["line", "panel"]).size().max() > FEW)
    for trace, panel in _traces(means, single, band, f"{as_text(x_title or plain(x))} %{{x}}"):
        row, column = places[panel]
        figure.add_trace(trace, row=row, col=column)
    draw_lines(figure, references, places)
    for panel in split:
        together = [panel] if own else split  # the panels that share this one's axis
        seen = [part[part["panel"].isin(together)].drop(columns=["x", "line", "panel"]) for part in (means, single) if part is not None]
        row, column = places[panel]
        figure.update_yaxes(row=row, col=column, range=span(...))
    figure.update_xaxes(**_settings(means["x"], log_x, columns))
    # bars of several lines at one setting stand side by side, not on each other
    return figure.update_layout(scattermode="group", scattergap=0.85, showlegend=any(key))


def _given(*names: str | None) -> list[str]:
    return [name for name in names if name is not None]


def _tidy(table: pd.DataFrame, x: str, y: str, color: str | None, facet: str | None) -> pd.DataFrame:
    """The columns under the names used here; `line` and `panel` are "" where there is only one."""
    return pd.DataFrame(
        {
            "x": table[x].to_numpy(float),
            "y": table[y].to_numpy(float),
            "line": "" if color is None else table[color].to_numpy(object),
            "panel": "" if facet is None else table[facet].to_numpy(object),
        }
    )


def _check(means: pd.DataFrame, x: str, log_x: bool) -> None:
    """Refuse what cannot be drawn as it is."""
    if means.empty:
        raise ValueError("no rows to draw: give one row per mean")
    if not np.isfinite(means[["x", "y"]]).all(axis=None):
        raise ValueError(f"a mean or its {x!r} is missing or infinite: leave such rows out of the table")
    check_intervals(means["low"], means["y"], means["high"])
    twice = means[means.duplicated(["x", "line", "panel"])]
    if len(twice):
        at = twice.iloc[0]
        raise ValueError(
            f"two means at {x} = {at['x']:g}{f' of {at.line}' if at['line'] != '' else ''}: give one row per setting "
            "(and line and panel); single results belong into `points`"
        )
    if log_x and means["x"].min() <= 0:
        raise ValueError(
            f"{x} is {means['x'].min():g} somewhere, which a logarithmic axis cannot show: "
            "draw it with log_x=False, or leave it out and give its value as a `reference` line"
        )


def check_intervals(low: pd.Series, mean: pd.Series, high: pd.Series) -> None:
    """Refuse means outside their interval; where low and high are both missing there is none."""
    fits = (low <= mean) & (mean <= high) | (low.isna() & high.isna())
    if not fits.all():
        k = int(np.flatnonzero(~fits)[0])
        raise ValueError(
            f"row {k} has the mean {mean.iloc[k]:g} and the interval [{low.iloc[k]:g}, {high.iloc[k]:g}]: "
            "give low <= mean <= high, or leave both bounds missing"
        )


def _traces(
    means: pd.DataFrame, single: pd.DataFrame | None, hundred: list[Any], dense: bool, at: str
) -> Iterator[tuple[go.Scatter, Any]]:
    """Every line of every panel, each line after what stands behind it; a line's first one carries its key."""
    keyed = set()
    for (panel, line), part in means.groupby(["panel", "line"], sort=False):
        look, scale = style(line), 100 if panel in hundred else 1
        ordered = part.sort_values("x")
        values = ordered.assign(**(scale * ordered[["y", "low", "high"]]))
        if single is not None:
            here = single[(single["panel"] == panel) & (single["line"] == line)]
            yield _faint(here["x"], scale * here["y"], look, str(line)), panel
        if dense:
            yield _band(values, look, str(line)), panel
        yield _line(values, look, str(line), dense, at).update(showlegend=line not in keyed), panel
        keyed.add(line)


def _line(values: pd.DataFrame, look: Style, line: str, dense: bool, at: str) -> go.Scatter:
    whiskers = {
        "array": (values["high"] - values["y"]).tolist(),
        "arrayminus": (values["y"] - values["low"]).tolist(),
        "thickness": 1,
        "width": 3,
    }
    return go.Scatter(
        x=values["x"].tolist(),
        y=values["y"].tolist(),
        error_y=None if dense else whiskers,
        customdata=values[["low", "high"]].to_numpy().tolist(),
        mode="lines" if dense else "lines+markers",
        line={"color": look.color, "dash": look.dash if dense else "solid", "width": 1.25},
        marker={"color": look.color, "symbol": look.symbol, "size": 6},
        name=as_text(plain(line)),
        legendgroup=line,
        offsetgroup=line,
        cliponaxis=False,
        hovertemplate=at + ": %{y:.4g} [%{customdata[0]:.4g}, %{customdata[1]:.4g}]<extra>" + as_text(line) + "</extra>",
    )


def _band(values: pd.DataFrame, look: Style, line: str) -> go.Scatter:
    there = values.dropna(subset=["low", "high"])
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


def _faint(x: pd.Series, y: pd.Series, look: Style, line: str) -> go.Scatter:
    return go.Scatter(
        x=x.tolist(),
        y=y.tolist(),
        mode="markers",
        marker={"color": look.color, "symbol": look.symbol, "size": 4, "opacity": 0.35},
        legendgroup=line,
        offsetgroup=line,
        showlegend=False,
        cliponaxis=False,
        hovertemplate="%{x}: %{y:.4g}<extra>" + as_text(line) + "</extra>",
    )


def _ticks(x: pd.Series, log_x: bool, columns: int) -> dict[str, Any]:
    """A tick at each setting where their labels have room, else plotly's."""
    kind: dict[str, Any] = {"type": "log"} if log_x else {}
    settings = np.unique(x)
    places = np.log(settings) if log_x else settings
    room = len(settings) > 1 and np.diff(places).min() > np.ptp(places) * 0.06 * columns
    if room and len(settings) <= FEW:
        return kind | {"tickvals": settings.tolist(), "ticktext": [f"{value:g}" for value in settings]}
    return kind | ({"dtick": 1, "tickformat": "~g"} if log_x else {})
