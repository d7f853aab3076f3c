"""The shape of a cloud of thoughts: its eigenvalues, and its distances beside a Gaussian's."""

import math
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import Width, as_text, counted, legend_title_of, panels, plain, side_by_side, style
from .means import headings, places, span, tidy
from .points import MANY

QUANTILES = 20000  # of one panel: more would lie on each other
FLOOR = 1e-8  # of the largest eigenvalue: what is less is rounding, and would fill a log axis


def spectrum(
    table: pd.DataFrame,
    *,
    color: str | None = None,
    n: str | int = "n",
    of: str = "thoughts",
    unit: str = "units²",
    width: Width = "page",
) -> go.Figure:
    """Eigenvalues of covariances in descending order, on a log axis, and the share of variance up to each.

    table: direction (1, 2, ...), eigenvalue, cumulative (the share of the variance in this and larger directions, in
    [0, 1]), and the column `color`, which has a line for each value. n: the number of thoughts, or its column.
    Eigenvalues below 1e-8 of the largest are left out, and the caption says so.
    Raises ValueError for missing columns, negative eigenvalues, and shares outside [0, 1].
    """
    columns = {"direction": "direction", "eigenvalue": "eigenvalue", "cumulative": "cumulative", "line": color}
    rows = tidy(table, columns, "a table with one row per direction")
    lines = list(rows["line"].unique())
    rows = rows.sort_values("direction", kind="stable")
    values, shares = rows["eigenvalue"].to_numpy(), rows["cumulative"].to_numpy()
    if not rows.size or not values.max(initial=0) > 0:
        raise ValueError("no eigenvalue above 0: thoughts without variance have no spectrum")
    if values.min() < 0 or shares.min() < 0 or shares.max() > 1 + 1e-6:
        raise ValueError(
            f"eigenvalues from {values.min():g} and cumulative shares from {shares.min():g} to {shares.max():g}: "
            "give eigenvalues of 0 or more and shares between 0 and 1"
        )
    twice = rows.duplicated(["direction", "line"]).to_numpy()
    if twice.any():
        direction, line = rows.loc[twice, ["direction", "line"]].iloc[0]
        whose = f" for {line}" if color else ""
        raise ValueError(f"direction {direction:g} stands twice{whose}: give one spectrum a line, of one slot each")
    key = [plain(str(line)) for line in lines if len(lines) > 1]
    least = FLOOR * values.max()
    hidden = int((values < least).sum())
    figure = panels(
        [f"eigenvalue ({unit})", "variance up to here (%)"],
        2,
        45 if width == "page" else 34,
        width,
        axes=("direction, by size", ""),
        legend=key,
        legend_title=legend_title_of(table, color) if color and key else "",
        caption=counted(table, n, of, None)
        + (f"; left out: {hidden} below {_power(math.log10(FLOOR))} of the largest eigenvalue" if hidden else ""),
    )
    few = len(set(rows["direction"])) <= 30  # then markers tell lines apart, else dashes do
    for line in lines:
        part = rows.loc[rows["line"] == line]
        seen = part.loc[part["eigenvalue"] >= least]
        figure.add_trace(_line(seen["direction"], seen["eigenvalue"], str(line), few, bool(key)), row=1, col=1)
        figure.add_trace(_line(part["direction"], 100 * part["cumulative"], str(line), few, False), row=1, col=2)
    figure.update_yaxes(type="log", **_decades(values[values >= least]), row=1, col=1)
    return figure.update_yaxes(range=[0, 100], row=1, col=2)


def _decades(values: np.ndarray) -> dict[str, Any]:
    """Ticks of a logarithmic axis: at 1, 2, 5 within a decade, at each power of ten, or at every second one."""
    least, most = np.log10(values.min()), np.log10(values.max())
    if most - least < 1:
        return {"dtick": "D2"}
    if most - least <= 5:
        return {"dtick": 1}
    powers = [k for k in range(int(np.floor(least)), int(np.ceil(most)) + 1) if k % 2 == 0]
    return {"tickvals": [10.0**k for k in powers], "ticktext": [_power(k) for k in powers]}


def _power(k: float) -> str:
    """A power of ten as one writes it on paper."""
    return f"10{str(round(k)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}" if k else "1"


def _line(x: Any, y: Any, line: str, few: bool, keyed: bool) -> go.Scatter:
    look = style(line)
    return go.Scatter(
        x=x.tolist(),
        y=y.tolist(),
        mode="lines+markers" if few else "lines",
        line={"color": look.color, "dash": "solid" if few else look.dash, "width": 1.25},
        marker={"color": look.color, "symbol": look.symbol, "size": 4},
        name=as_text(plain(line)),
        legendgroup=line,
        showlegend=keyed,
        cliponaxis=False,
        hovertemplate=f"direction %{{x}}: %{{y:.4g}}<extra>{as_text(line)}</extra>",
    )


def _slots(step: str) -> str:
    return "all slots" if step == "all" else f"slot {step}"


def distance_qq(
    table: pd.DataFrame,
    *,
    facet: str | None = None,
    unit: str = "squared Mahalanobis distance",
    of: str = "thoughts",
    width: Width = "page",
) -> go.Figure:
    """Observed squared Mahalanobis distances beside the chi-square quantiles a Gaussian's would have: on the diagonal.

    table: what `diagnostics.qq_table` returns, or any with expected and observed (one row per thought) and the column
    `facet`, which has a panel for each value. Beyond
    20000 rows in a panel every k-th by size is drawn, the ends always, and the caption says so.
    """
    rows = tidy(table, {"expected": "expected", "observed": "observed", "panel": facet}, "one row per thought")
    if rows.empty:
        raise ValueError("no rows to draw: give one row per thought")
    if not np.isfinite(rows[["expected", "observed"]].to_numpy()).all():
        raise ValueError("an expected or observed distance is missing or infinite: leave such rows out of the table")
    split = list(rows["panel"].unique())
    sizes = [int((rows["panel"] == panel).sum()) for panel in split]
    thinned = max(sizes) > QUANTILES
    across = side_by_side(len(split), width)
    figure = panels(
        headings(split, {panel: _slots(str(panel)) for panel in split} if facet == "step" else None),
        across,
        (60 if width == "page" else 55) if len(split) == 1 else 45 if width == "page" else 32,
        width,
        axes=("chi-square quantile", unit),
        caption=f"n = {min(sizes) if len(set(sizes)) == 1 else f'{min(sizes)} to {max(sizes)}'} {of}"
        + (f", {QUANTILES} of them drawn" if thinned else "")
        + "; on the line: as a Gaussian's",
        match="",
    )
    for panel, place in places(split, across).items():
        part = rows.loc[rows["panel"] == panel].sort_values("expected")
        keep = np.unique(np.linspace(0, len(part) - 1, min(len(part), QUANTILES)).round().astype(int))
        look, drawn = style(panel), part.iloc[keep]
        ends = span([0.0, *part["expected"], *part["observed"]], edge=0.03)
        figure.add_shape(
            type="line", x0=0, y0=0, x1=ends[1], y1=ends[1], line={"color": "#555555", "width": 1}, **place
        )
        kind = go.Scatter if len(drawn) <= MANY else go.Scattergl
        figure.add_trace(
            kind(
                x=drawn["expected"].tolist(),
                y=drawn["observed"].tolist(),
                mode="markers",
                marker={"color": look.color, "symbol": look.symbol, "size": 4, "opacity": 0.6},
                name=as_text(plain(str(panel))),
                showlegend=False,
                hovertemplate="expected %{x:.4g}, observed %{y:.4g}<extra></extra>",
            ),
            **place,
        )
        figure.update_xaxes(range=[0, span([0.0, *part["expected"]], edge=0.05)[1]], nticks=5, **place)
        figure.update_yaxes(range=[0, ends[1]], nticks=5, **place)
    return figure
