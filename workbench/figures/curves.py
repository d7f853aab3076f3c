"""Values logged during training, as lines over training steps."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .look import Style, Width, as_text, need, panels, plain, style

PROBES = {  # columns of metrics.jsonl, see diagnostics.probe -> panel titles
    "probe_relative_spread": "relative spread (0 to 1)",
    "probe_effective_rank": "effective rank",
    "probe_spread": "spread (variance)",
    "probe_cosine": "question cosine",
    "probe_slot_cosine": "slot cosine",
    "probe_rms": "root mean square",
}
FEW = 40  # up to this many points a line shows each of them


def collapse_by_step(metrics: pd.DataFrame | Mapping[str, pd.DataFrame], *, width: Width = "page") -> go.Figure:
    """The probe set's thoughts over training: one panel per `probe_*` value of metrics.jsonl, one line per run.

    metrics: the table of `runs.read_metrics`, or name -> table. Rows without probe values are left out.
    """
    runs = _runs(metrics)
    found = [name for name in PROBES if any(_values(table, name).size for table in runs.values())]
    if not found:
        raise ValueError(f"no probe values in these metrics: a run must log one of {', '.join(PROBES)}")
    columns = min(len(found), 3 if width == "page" else 2)
    figure = _by_value(runs, {name: PROBES[name] for name in found}, columns, width, "")
    for k, name in enumerate(found):
        # a collapsed run sits at an edge of its panel: cosine at 1, the others at 0
        edge: dict[str, Any] = {"range": [None, 1.03]} if name.endswith("cosine") else {"rangemode": "tozero"}
        figure.update_yaxes(row=k // columns + 1, col=k % columns + 1, **edge)
    return figure


def loss_curves(
    metrics: pd.DataFrame | Mapping[str, pd.DataFrame],
    *,
    log: bool = False,
    window: int = 1,
    apart: bool = False,
    width: Width = "page",
) -> go.Figure:
    """Total loss and its parts over training: one run in one panel, several runs with a panel per part.

    metrics: the table of `runs.read_metrics` (columns step, loss, loss_<part>), or name -> table.
    log: logarithmic loss axis; raises ValueError where a value is 0 or less.
    window: draw means of this many logged values, each at its last step; 1 draws every value, nothing smoothed.
    apart: a panel per part for one run, too: parts differ in size.
    """
    if window < 1:
        raise ValueError(f"window is {window}: give the number of logged values to average, 1 or more")
    runs = {run: _averaged(table, window) for run, table in _runs(metrics).items()}
    parts = {"loss": "total"}
    for table in runs.values():
        need(table, ["loss"], "runs.read_metrics(run)")
        names = [str(name) for name in table if str(name).startswith("loss_")]
        parts |= {name: name.removeprefix("loss_") for name in names if _values(table, name).size}
    for run, table in runs.items() if log else ():
        for name in parts:
            if (_values(table, name) <= 0).any():
                raise ValueError(f"{name} of {run or 'this run'} is 0 or less somewhere: draw it with log=False")
    if len(runs) > 1 or apart:
        columns = 2 if width == "column" or len(parts) in (2, 4) else 3
        titles = {name: plain(part) for name, part in parts.items()}
        figure = _by_value(runs, titles, columns, width, "loss (nats)", window)
    else:
        (table,) = runs.values()
        figure = panels(
            [""],
            1,
            45 if width == "column" else 70,
            width,
            axes=("training step", "loss (nats)"),
            legend=[plain(part) for part in parts.values()],
            caption=_caption(runs, "loss", window),
        )
        figure.add_traces([_line(table, name, plain(part), style(part)) for name, part in parts.items()])
    if log:
        drawn = pd.concat([_values(table, name) for table in runs.values() for name in parts])
        labels = "D2" if drawn.max() < 1000 * drawn.min() else 1  # at 1, 2, 5 in each decade, or at powers of ten
        figure.update_yaxes(type="log", dtick=labels, tickformat="~g")
    return figure


def _averaged(table: pd.DataFrame, window: int) -> pd.DataFrame:
    """Means of `window` successive rows (the last may be of fewer), each at its last step."""
    if window == 1:
        return table
    numbers = table.select_dtypes("number")
    grouped = numbers.groupby(np.arange(len(table)) // window)
    averaged = pd.DataFrame(grouped.mean())
    averaged["step"] = grouped["step"].max()
    return averaged


def _by_value(
    runs: dict[str, pd.DataFrame], titles: dict[str, str], columns: int, width: Width, y_name: str, window: int = 1
) -> go.Figure:
    """A panel per column of `titles`, a line per run."""
    figure = panels(
        list(titles.values()),
        columns,
        34 if width == "page" else 28,
        width,
        axes=("training step", y_name),
        legend=list(runs),
        caption=_caption(runs, next(iter(titles)), window),
    )
    for k, column in enumerate(titles):
        for run, table in runs.items():
            line = _line(table, column, run, style(run)).update(showlegend=k == 0)
            figure.add_trace(line, row=k // columns + 1, col=k % columns + 1)
    return figure.update_xaxes(nticks=5)


def _line(table: pd.DataFrame, column: str, name: str, look: Style) -> go.Scatter:
    values = _values(table, column)
    few = len(values) <= FEW  # then markers tell lines apart, else dashes do
    return go.Scatter(
        x=table.loc[values.index, "step"].tolist(),
        y=values.tolist(),
        name=as_text(name),
        legendgroup=name,
        mode="lines+markers" if few else "lines",
        line={"color": look.color, "dash": "solid" if few else look.dash, "width": 1.25},
        marker={"color": look.color, "symbol": look.symbol, "size": 4},
        hovertemplate="step %{x}: %{y:.4g}<extra>" + name + "</extra>",
    )


def _caption(runs: dict[str, pd.DataFrame], column: str, window: int = 1) -> str:
    if len(runs) > 1:
        drawn = "every logged value, nothing smoothed" if window == 1 else f"means of up to {window} logged values"
        return f"n = {len(runs)} runs; {drawn}"
    ((run, table),) = runs.items()
    drawn = "logged values, nothing smoothed" if window == 1 else f"means, each of up to {window} logged values"
    return f"{run + '; ' if run else ''}n = {_values(table, column).size} {drawn}"


def _values(table: pd.DataFrame, column: str) -> pd.Series:
    """The logged values of a column: rows where it was not logged are NaN."""
    return pd.Series(table[column]).dropna() if column in table else pd.Series(dtype=float)


def _runs(metrics: pd.DataFrame | Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    runs = {"": metrics} if isinstance(metrics, pd.DataFrame) else {str(k): table for k, table in metrics.items()}
    if not runs or any(table.empty for table in runs.values()):
        raise ValueError("no logged steps to draw: give runs.read_metrics(run), or a dict name -> table")
    for table in runs.values():
        need(table, ["step"], "runs.read_metrics(run)")
    return runs
