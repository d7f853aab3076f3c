"""Values logged during training, and statistics of stores, as lines over training steps or slots."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..files import shown
from .look import GREY, Style, Width, add_to_caption, as_text, need, panels, plain, side_by_side, style
from .response import response

PROBES = {  # columns of metrics.jsonl, see diagnostics.probe -> panel titles
    "probe_accuracy": "accuracy (share)",  # where the run answers, see TrainConfig.probe_answers
    "probe_relative_spread": "relative spread (share)",
    "probe_effective_rank": "effective rank (directions)",
    "probe_spread": "spread (units²)",
    "probe_cosine": "question cosine",
    "probe_slot_cosine": "slot cosine",
    "probe_rms": "root mean square (units)",
    "probe_kl": "KL (nats per token)",  # of thoughts that are distributions, from their prior
    "probe_active": "active dimensions (of all thoughts)",
    "probe_own": "cost beside own thoughts (nats per token)",
    "probe_shuffled": "cost beside another's thoughts (nats per token)",
}
YARDSTICKS = {  # columns of metrics.jsonl that say what a part would be -> what they are
    "loss_focus_log_steps": "log of the number of steps",  # the focus loss of a generator that cannot tell steps apart
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
    columns = side_by_side(len(found), width)
    figure = _by_value(runs, {name: PROBES[name] for name in found}, columns, width, "")
    for k, name in enumerate(found):
        # a collapsed run sits at an edge of its panel: cosine at 1, the others at 0
        edge: dict[str, Any] = {"rangemode": "tozero"}
        if name.endswith("cosine"):
            least = min(min(_values(table, name), default=1.0) for table in runs.values())
            edge = {"range": [least - 0.05 * max(1 - least, 0.02), 1]}
        figure.update_yaxes(row=k // columns + 1, col=k % columns + 1, **edge)
    return figure


def collapse_along(
    statistics: pd.DataFrame,
    over: Literal["step", "store"] = "step",
    *,
    show: Sequence[str] = ("relative_spread", "cosine", "effective_rank", "norm_ratio"),
    level: float = 0.95,
    width: Width = "page",
) -> go.Figure:
    """Statistics of thoughts with their intervals, slot by slot ("step") or over training ("store"): a panel for each.

    statistics: what `diagnostics.describe` returns, of one store, of several by name (over the slots: a line for each),
    or of one run's by training step (over training: the row "all", and the column store holds numbers). show: those of
    its statistics to draw; those that it lacks are left out, and so are values that are missing: thoughts that do not
    differ have no rank.
    """
    need(statistics, ["statistic", "step", "value", "low", "high", "n", "unit"], "diagnostics.describe(stores)")
    slots = statistics["step"].astype(str) != "all"
    asked = statistics.loc[statistics["statistic"].isin(list(show)) & (slots if over == "step" else ~slots)]
    rows = asked.dropna(subset=["value"])
    found = [name for name in show if (rows["statistic"] == name).any()]
    if not found:
        raise ValueError(f"none of {', '.join(show)} in this table: give what diagnostics.describe returns")
    if over == "store" and ("store" not in rows or not pd.api.types.is_numeric_dtype(rows["store"])):
        raise ValueError("stores without training steps: give diagnostics.describe({step: store, ...})")
    units = dict(zip(rows["statistic"], rows["unit"], strict=True))
    # one dictionary order decides which panel comes first
    table = rows.assign(place=[found.index(name) for name in rows["statistic"]]).sort_values("place", kind="stable")
    several = over == "step" and "store" in rows
    figure = response(
        table.assign(**{over: table[over].astype(int), **({"store": table["store"].astype(str)} if several else {})}),
        x=over, y="value", facet="statistic", color="store" if several else None, level=level, width=width,
        x_title="slot" if over == "step" else "training step",
        y_title={name: statistic_title(name, units[name]) for name in found},
    )  # fmt: skip
    return add_to_caption(figure, "; no point where thoughts do not differ") if len(rows) < len(asked) else figure


def statistic_title(statistic: str, unit: str) -> str:
    """A panel's title: the statistic with its unit, unless its name says that."""
    if statistic == "cosine":
        return "question cosine"
    return plain(statistic) if statistic.endswith(unit) else f"{plain(statistic)} ({unit})"


def loss_curves(
    metrics: pd.DataFrame | Mapping[str, pd.DataFrame], *, log: bool = False, window: int = 1, width: Width = "page"
) -> go.Figure:
    """Total loss and its parts over training: a panel for each, since they differ in size, and a line per run.

    metrics: the table of `runs.read_metrics` (columns step, loss, loss_<part>), or name -> table. A column
    loss_<part>_<what> is something to hold that part against, and stands dotted in its panel.
    log: logarithmic loss axes; raises ValueError where a value is 0 or less.
    window: draw means of this many logged values, each at its last step; 1 draws every value, nothing smoothed.
    """
    if window < 1:
        raise ValueError(f"window is {window}: give the number of logged values to average, 1 or more")
    runs = {run: _averaged(table, window) for run, table in _runs(metrics).items()}
    found = {"loss": "total"}
    for table in runs.values():
        need(table, ["loss"], "runs.read_metrics(run)")
        names = [str(name) for name in table if str(name).startswith("loss_")]
        found |= {name: plain(name.removeprefix("loss_")) for name in names if _values(table, name).size}
    for run, table in runs.items() if log else ():
        for name in found:
            if (_values(table, name) <= 0).any():
                raise ValueError(f"{name} of {run or 'this run'} is 0 or less somewhere: draw it with log=False")
    beside = {name: part for name in found for part in found if part != "loss" and name.startswith(f"{part}_")}
    parts = {name: title for name, title in found.items() if name not in beside}
    columns = side_by_side(len(parts), width)
    figure = _by_value(runs, parts, columns, width, "loss (nats)", window, beside)
    for k, part in enumerate(parts if log else ()):
        together = [part, *(name for name in beside if beside[name] == part)]
        drawn = [value for table in runs.values() for name in together for value in _values(table, name)]
        ratio = max(drawn) / min(drawn)
        # a tick at each power of ten, at 1, 2, 5 in each decade, or where plotly finds round numbers
        labels = 1 if ratio > 1000 else "D2" if ratio > 8 else None
        figure.update_yaxes(
            type="log", dtick=labels, nticks=5, tickformat="~g", row=k // columns + 1, col=k % columns + 1
        )
    return figure


def run_curves(
    metrics: Mapping[str, pd.DataFrame],
    value: str = "loss",
    *,
    log: bool = False,
    window: int = 1,
    skip: float = 0.05,
    width: Width = "page",
) -> go.Figure:
    """One logged value of many runs in one panel, a line for each that has logged it.

    metrics: name -> the table of `runs.read_metrics`; value: one of its columns. window: as in `loss_curves`.
    log: a logarithmic axis; raises ValueError where a value is 0 or less. skip: the share of the longest run whose
    first steps the axis need not hold, since an untrained method's loss dwarfs what comes after; the caption says so.
    """
    if window < 1 or not 0 <= skip < 1:
        raise ValueError(f"window {window}, skip {skip}: give a window of 1 or more and a share from 0 up to 1")
    logged: Any = _runs(metrics).items()
    runs: Any = {run: _averaged(table, window) for run, table in logged if _values(table, value).size}
    if not runs:
        raise ValueError(f"none of these runs has logged {value!r}: give another column of metrics.jsonl")
    if log and any((_values(table, value) <= 0).any() for table in runs.values()):
        raise ValueError(f"{value} is 0 or less somewhere: draw it with log=False")
    name = PROBES.get(value) or (f"{plain(value)} (nats)" if value.startswith("loss") else plain(value))
    figure = _by_value(runs, {value: ""}, 1, width, name, window)
    begin = skip * max(float(table["step"].max()) for table in runs.values())
    kept = [_values(table[table["step"] >= begin], value) for table in runs.values()]
    drawn = np.concatenate([part for part in kept if part.size] or [_values(table, value) for table in runs.values()])
    low, high = (np.log10(end) if log else float(end) for end in (drawn.min(), drawn.max()))
    room = 0.05 * (high - low) or 0.05
    outside = any(_beyond(table, value, drawn.min(), drawn.max()) for table in runs.values())
    axis: dict[str, Any] = {"type": "log", "nticks": 6, "tickformat": "~g"} if log else {}
    figure.update_yaxes(range=[low - room, high + room], **axis)
    figure.update_traces(cliponaxis=True)
    return add_to_caption(figure, f"; the axis holds step {begin:.0f} and later") if outside else figure


def _beyond(table: pd.DataFrame, value: str, low: float, high: float) -> bool:
    values = _values(table, value)
    return bool((values > high).any() or (values < low).any())


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
    runs: dict[str, pd.DataFrame],
    titles: dict[str, str],
    columns: int,
    width: Width,
    y_name: str,
    window: int = 1,
    beside: Mapping[str, str] | None = None,
) -> go.Figure:
    """A panel per column of `titles`, a line per run; `beside`: other columns -> those in whose panel they stand."""
    other = {name: plain(YARDSTICKS.get(name, name.removeprefix("loss_"))) for name in beside or {}}
    figure = panels(
        list(titles.values()),
        columns,
        45 if len(titles) == 1 else 34 if width == "page" else 28,
        width,
        axes=("training step", y_name),
        legend=[*(runs if len(runs) > 1 else []), *other.values()],
        caption=_caption(runs, next(iter(titles)), window),
    )
    for k, column in enumerate(titles):
        place: dict[str, Any] = {"row": k // columns + 1, "col": k % columns + 1}
        told: set[str] = set()  # the first run that has a yardstick carries its key: others may lack it
        for run, table in runs.items():
            keyed = k == 0 and len(runs) > 1
            figure.add_trace(_line(table, column, run, style(run)).update(showlegend=keyed), **place)
            for name in [name for name, part in (beside or {}).items() if part == column]:
                dotted = _line(table, name, other[name], Style(GREY, "x", "dot"))
                dotted.update(mode="lines", line_dash="dot", showlegend=name not in told and bool(dotted.x))
                told |= {name} if dotted.x else set()
                figure.add_trace(dotted, **place)
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
        cliponaxis=False,  # a line along the edge keeps its width
        line={"color": look.color, "dash": "solid" if few else look.dash, "width": 1.25},
        marker={"color": look.color, "symbol": look.symbol, "size": 4},
        hovertemplate="training step %{x}: %{y:.4g}<extra>" + name + "</extra>",
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
    for run, table in runs.items():
        need(table, ["step"], "runs.read_metrics(run)")
        drawn = [name for name in table if name in ("step", "loss", *PROBES) or str(name).startswith("loss_")]
        for name in drawn:
            values: Any = table[name].dropna()
            if len(values) and not (_numeric(values) and np.isfinite(values.astype(float)).all()):
                raise ValueError(
                    f"{shown(name)} of {shown(run) or 'this run'} holds what are no finite numbers: "
                    "give runs.read_metrics(run)"
                )
        if bool(np.any(table["step"].isna())):
            raise ValueError(f"a row of {shown(run) or 'this run'} has no step: give runs.read_metrics(run)")
    return runs


def _numeric(values: pd.Series) -> bool:
    """Whether all values are numbers; a column with gaps can hold them as objects."""
    return all(isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in values.tolist())
