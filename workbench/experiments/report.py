"""From finished cells to one table: a row per condition and measure, with an interval over seeds and questions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from .. import figures
from ..analysis.diagnostics import describe
from ..analysis.diagnostics.meanings import limits_of
from ..analysis.scores import Interval, crossed_interval, per_example
from ..files import checked, read_json, read_text, shown, visible, write_json, write_text
from ..runs import provenance
from .grid import Done

SHARES = ("accuracy", "majority vote", "pass@k", "readable", "capped")  # measures drawn in percent
POSITIVE = (  # of ours that cannot be below 0; of statistics `limits_of` knows what they can be
    "compression", "distance_ratio", "effective slots", "entropy", "KL", "length", "mass", "over_share", "paths",
    "reasoning length", "seconds", "thoughts", "tokens", "word_to_state",
)  # fmt: skip
Condition = dict[str, Any]
Values = Callable[[Done], Any]  # a value per question [example], or one number for the run


@dataclass(frozen=True)
class Report:
    """What an experiment found: intervals (`table`), the same per seed (`runs`), pictures, and sentences."""

    table: pd.DataFrame
    runs: pd.DataFrame
    figures: dict[str, go.Figure] = field(default_factory=dict)
    findings: tuple[str, ...] = ()


def conditions(done: Sequence[Done]) -> list[tuple[Condition, list[Done]]]:
    """Cells by condition, seeds in order; conditions in the order of their first cell."""
    groups: dict[tuple, list[Done]] = {}
    for cell in done:
        groups.setdefault(tuple(cell.cell.condition.items()), []).append(cell)
    return [(dict(key), sorted(cells, key=lambda d: d.cell.seed)) for key, cells in groups.items()]


def correct(store: str = "test") -> Values:
    """Share of right answers per question."""
    return lambda done: per_example(done.store(store))


def statistic(name: str, store: str = "test") -> Values:
    """One number of `diagnostics.describe` over all slots."""

    def value(done: Done) -> float:
        table = describe(done.store(store), level=None)
        return float(table.loc[(table["step"] == "all") & (table["statistic"] == name), "value"].iloc[0])

    return value


def numbers(*path: str) -> Values:
    """What a cell has measured, by the names that lead to it; NaN where it has none."""

    def value(done: Done) -> Any:
        found: Any = done.measured()
        for name in path:
            found = found.get(name, {})
        return np.nan if found == {} else found

    return value


def tabulate(
    done: Sequence[Done], measures: dict[str, Values], more: Condition | None = None, shares: Sequence[str] = SHARES
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(table, runs): rows of measure, mean, low, high, n, runs per condition, and of measure, seed, mean per cell.

    Cells without a value (NaN) do not count; a mean of none is NaN, and `against` leaves it out.
    `more` is added to every row's condition; intervals end at what the measure can be, those of `shares` at 0 and 1. An
    experiment can join several such tables.
    """
    rows, single = [], []
    for condition, cells in conditions(done):
        for measure, values in measures.items():
            array = np.stack([np.atleast_1d(np.asarray(values(cell), dtype=float)) for cell in cells])
            about = {**condition, **(more or {}), "measure": measure}
            known = array[np.isfinite(array).all(axis=1)]  # thoughts that do not differ have no rank
            found = crossed_interval(known) if len(known) else Interval(np.nan, np.nan, np.nan, 0)
            found = within(found, (0.0, 1.0) if measure in shares else limits(measure))
            rows.append({**about, **vars(found), "runs": len(known)})
            single += [{**about, "seed": d.cell.seed, "mean": m} for d, m in zip(cells, array.mean(1), strict=True)]
    return pd.DataFrame(rows), pd.DataFrame(single)


def limits(measure: str) -> tuple[float, float]:
    """The least and most that a measure can be."""
    if measure in SHARES:
        return 0.0, 1.0
    return (0.0, np.inf) if measure in POSITIVE else limits_of(measure)


def within(found: Interval, ends: tuple[float, float]) -> Interval:
    """An interval that ends where the quantity does; NaN stays, and rounding may leave the mean a little outside."""
    low, high = min(ends[0], found.mean), max(ends[1], found.mean)
    return replace(found, low=max(found.low, low), high=min(found.high, high))


def effect(found: Interval, cells: Sequence[Done], others: Sequence[Done]) -> str:
    """What a difference of accuracies says of its cause, as the verb of a sentence; a floor or ceiling says nothing."""
    right = np.concatenate([np.atleast_1d(correct()(cell)) for cell in (*cells, *others)])
    if (right == right[0]).all() and right[0] in (0.0, 1.0):
        return f"can show nothing (all answers are {'right' if right[0] else 'wrong'}) in"
    return "changes" if sure(found) else "makes no sure difference to"


def where(table: pd.DataFrame, column: str, values: Sequence[Any], keep: bool = True) -> pd.DataFrame:
    """Rows whose `column` is one of `values`, or with `keep=False` the others."""
    return pd.DataFrame(table[table[column].isin(values) == keep])


def means(table: pd.DataFrame, measure: str, by: str) -> dict[Any, float]:
    """The mean of a measure for each value of the column `by`."""
    rows = where(table, "measure", [measure])
    return dict(zip(rows[by].tolist(), rows["mean"].tolist(), strict=True))


def joined(parts: Sequence[tuple[pd.DataFrame, pd.DataFrame]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Several (table, runs) as one."""
    return pd.concat([table for table, _ in parts], ignore_index=True), pd.concat(
        [r for _, r in parts], ignore_index=True
    )


def difference(
    first: Sequence[Done], second: Sequence[Done], values: Values | None = None, other: Values | None = None
) -> Interval:
    """Mean of `values(first) - other(second)`, paired by seed and question; what is not trained may have one cell only.

    `values` is the share of right answers unless given, `other` the same as `values`.
    """
    take = correct() if values is None else values
    ours = {cell.cell.seed: np.atleast_1d(take(cell)) for cell in first}
    theirs = {cell.cell.seed: np.atleast_1d((other or take)(cell)) for cell in second}
    if len(theirs) == 1:
        theirs = dict.fromkeys(ours, next(iter(theirs.values())))
    if ours.keys() != theirs.keys():
        raise ValueError(
            f"runs of seeds {sorted(ours)} and {sorted(theirs)} cannot be paired; give both the same seeds"
        )
    return crossed_interval(np.stack([ours[seed] - theirs[seed] for seed in ours]))


def against(
    table: pd.DataFrame,
    runs: pd.DataFrame,
    *,
    x: str,
    color: str | None = None,
    log_x: bool = False,
    reference: pd.DataFrame | None = None,
    reference_name: str = "",
    x_title: str | None = None,
) -> go.Figure:
    """The table's measures against the setting `x`, a panel each; `reference`: rows drawn as a horizontal line."""
    names = list(dict.fromkeys(table["measure"]))
    table, runs = (rows.dropna(subset=["mean"]) for rows in (table, runs))
    table = table.sort_values("measure", key=lambda column: column.map(names.index), kind="stable")  # panels in order
    lines = (
        None if reference is None else {reference_name: dict(zip(reference["measure"], reference["mean"], strict=True))}
    )
    shares = [name for name in names if name in SHARES]
    return figures.response(
        table, x=x, color=color, facet="measure", log_x=log_x, percent=shares, reference=lines, points=runs,
        x_title=x_title, y_title={name: f"{name} (%)" if name in shares else name for name in names},
        n=max(table["n"].tolist()), of=asked(max(table["runs"].tolist())),
    )  # fmt: skip


def asked(seeds: int, least: int | None = None) -> str:
    """What a figure's n counts: "questions, 3 seeds"; or "1 to 3 seeds" where some have fewer."""
    few = "" if least in (None, seeds) else f"{least} to "
    return f"questions, {few}{seeds} {'seed' if seeds == 1 else 'seeds'}"


def points(interval: Interval) -> str:
    """A difference of shares in words: +3.1 points [+0.2, +6.0]."""
    mean, low, high = (round(100 * value, 1) + 0.0 for value in (interval.mean, interval.low, interval.high))  # no -0.0
    return f"{mean:+.1f} points [{low:+.1f}, {high:+.1f}]"


def percent(interval: Interval) -> str:
    """A share in words: 80.3 % [78.1, 82.4]."""
    return f"{100 * interval.mean:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def sure(interval: Interval) -> bool:
    """Whether the interval excludes zero."""
    return interval.low > 0 or interval.high < 0


def write(report: Report, out: Path, about: dict[str, Any]) -> list[Path]:
    """table.csv, runs.csv, result.json (findings and provenance) and the figures; the paths written."""
    write_text(out / "table.csv", report.table.to_csv(index=False))
    write_text(out / "runs.csv", report.runs.to_csv(index=False))
    write_json(out / "result.json", {**about, "findings": list(report.findings), **provenance()})
    source = {"runs": ["../cells"], "table": "../table.csv"}  # from the figure's sidecar, wherever the folder is moved
    drawn = [p for name, figure in report.figures.items() for p in figures.save(figure, name, out / "figures", source)]
    return [out / "table.csv", out / "runs.csv", out / "result.json", *drawn]


def read(folder: Path) -> Report:
    """What `write` wrote, figures included."""
    if not (folder / "result.json").is_file():
        raise ValueError(f"no finished experiment in {folder}; run `workbench experiment NAME --out {folder}`")
    what = f"what `workbench experiment NAME --out {shown(folder)}` writes"
    path = folder / "result.json"
    findings = checked(read_json(path, what), {"findings": list}, shown(path), f"give {what}")["findings"]
    if not all(isinstance(sentence, str) for sentence in findings):
        raise ValueError(f"{shown(path)}: 'findings' must be a list of sentences; give {what}")
    drawn = {path.stem: figures.redraw(path) for path in visible(folder / "figures", "*.json")}
    table, runs = (_read_table(folder / f"{name}.csv", what) for name in ("table", "runs"))
    return Report(table, runs, drawn, tuple(findings))


def _read_table(path: Path, what: str) -> pd.DataFrame:
    """A table that `write` wrote, whose means are numbers."""
    text = read_text(path, what)
    try:
        table = pd.read_csv(StringIO(text))
    except (ValueError, OverflowError) as error:  # pandas has several kinds of ValueError for what is no CSV
        raise ValueError(f"{shown(path)} is no table ({shown(error)}); give {what}") from error
    for name in ("measure", "mean"):
        if name not in table:
            raise ValueError(f"{shown(path)} has no column {name!r}; give {what}")
    if not pd.api.types.is_numeric_dtype(table["mean"]):
        raise ValueError(f"{shown(path)}: a mean is no number; give {what}")
    return table
