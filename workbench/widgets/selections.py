"""Selections of thoughts as files: kept ones by name, and the selected rows as a table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import traitlets as tr

from ..analysis.exports import write_csv
from ..files import read_json, shown, write_text

NO_FILTER = ("x", "y", "step", "path", "example", "question", "text")  # have controls of their own, or name one row
FEW = 40  # values a column may have to be filtered by
KEY = ["store", "example", "path", "step"]  # what a thought is known by from one session to the next


def write_selections(points: pd.DataFrame, kept: Mapping[str, tuple[int, ...]], path: str | Path) -> Path:
    """Write selections (name -> rows of `points`) as JSON: of each thought its store, example, path and step."""
    named: Any = points[KEY].astype({"store": str})
    rows = {name: named.iloc[list(chosen)].to_dict(orient="records") for name, chosen in kept.items()}
    write_text(Path(path), json.dumps(rows, ensure_ascii=False, indent=1))
    return Path(path)


def read_selections(points: pd.DataFrame, path: str | Path) -> tuple[dict[str, tuple[int, ...]], int]:
    """The selections in a file as rows of these points, and how many thoughts of them these points do not hold.

    Raises ValueError for a file that `write_selections` did not write.
    """
    if not Path(path).is_file():
        raise ValueError(f"no file at {shown(path)}; give one that save_selections wrote")
    try:
        found = read_json(path)
        given = {name: [tuple(str(row[key]) for key in KEY) for row in rows] for name, rows in found.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{shown(path)!r} holds no selections: give a file that save_selections wrote") from error
    known = {key: row for row, key in enumerate(zip(*(points[name].astype(str) for name in KEY), strict=True))}
    kept = {name: tuple(sorted(known[key] for key in keys if key in known)) for name, keys in given.items()}
    return kept, sum(key not in known for keys in given.values() for key in keys)


def write_rows(rows: pd.DataFrame, path: str | Path) -> Path:
    """Write selected thoughts as a table: .csv, or .jsonl with an object a line."""
    path = Path(path)
    if rows.empty:
        raise ValueError("nothing is selected: draw around some thoughts first")
    if path.suffix == ".csv":
        return write_csv(rows, path)
    if path.suffix != ".jsonl":
        raise ValueError(f"{str(path)!r} ends neither in .csv nor in .jsonl: give it one of these endings")
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.to_dict(orient="records")))
    return path


def rows_named(points: pd.DataFrame, given: Sequence[Any]) -> tuple[int, ...]:
    """Rows of `points`, in ascending order, given by number or as all thoughts of an example by its id."""
    rows: set[int] = set()
    for value in given:
        if isinstance(value, str):
            found = np.flatnonzero(points["example"] == value).tolist()
            if not found:
                raise tr.TraitError(f"no thought of an example {value!r}: give ids that `inspector.questions` has")
            rows |= set(found)
        elif 0 <= int(value) < len(points):
            rows.add(int(value))
        else:
            raise tr.TraitError(f"no thought {value}: give rows of `inspector.points`, 0 to {len(points) - 1}")
    return tuple(sorted(rows))


def passing(points: pd.DataFrame, places: Mapping[str, Any], filters: Mapping[str, Sequence[Any]]) -> np.ndarray:
    """Which points [point, bool] have these places (None: any) and these values of columns (none: any)."""
    there = np.full(len(points), True)
    for column, value in places.items():
        if value is not None:
            there &= (points[column] == value).to_numpy()
    for column, values in filters.items():
        if values:
            there &= points[column].isin(list(values)).to_numpy()
    return there


def few_values(points: pd.DataFrame) -> dict[str, list[tuple[str, Any]]]:
    """The columns with 2 to `FEW` values, and these, as (words, value)."""
    few: dict[str, list[tuple[str, Any]]] = {}
    for name in map(str, points):
        known = points[name].dropna().unique().tolist() if name not in NO_FILTER else []
        if 1 < len(known) <= FEW:
            called = {0.0: "wrong", 1.0: "correct"} if name == "correct" and set(known) <= {0, 1} else {}
            few[name] = [(called.get(value, str(value)), value) for value in sorted(known)]
    return few
