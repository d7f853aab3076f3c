"""`workbench runs`: the overview on a terminal, or in a file; removing runs, after one more question."""

import sys
from typing import Any

import pandas as pd
from jsonargparse import Namespace
from tqdm.auto import tqdm

from ..files import written
from ..overview import SORTS, remove, run_table, sorted_by

SHOWN = ("name", "state", "method", "task", "backbone", "seed", "step", "accuracy", "of", "verdict", "minutes", "MB")


def runs(given: Namespace) -> None:
    """Print the table of `overview.run_table`; or remove what is named."""
    with tqdm(desc="reading", unit="run", delay=1, leave=False) as bar:

        def say(done: int, of: int, name: str) -> None:
            bar.total = of
            bar.update(done + 1 - bar.n)

        table: Any = run_table(given.folder, say)
    if given.delete:
        _delete(table, given.delete)
        return
    down = given.sort == "created" if given.descending is None else given.descending
    table = sorted_by(_holding(table, given.only.lower().split()), given.sort, down)
    if given.csv is not None:
        with written(given.csv):
            table.to_csv(given.csv, index=False)
    print(_printed(table) if len(table) else "no runs and no stores" + f" with {given.only}" * bool(given.only))
    unread: Any = table[table["remark"].astype(bool)]
    for row in unread.to_dict(orient="records"):
        print(f"{row['name']}: {row['remark']}")


def _holding(table: pd.DataFrame, words: list[str]) -> Any:
    """The rows that hold all words somewhere."""
    kept = [
        all(word in " ".join(map(str, row)).lower() for word in words)
        for row in table[list(SORTS)].itertuples(index=False)
    ]
    return table[kept]


def _printed(table: pd.DataFrame) -> str:
    """The table as text: per cent with intervals, missing values as nothing."""
    shown: Any = table.assign(MB=[f"{size:.1f}" for size in table["megabytes"]])
    shown["accuracy"] = [
        "" if pd.isna(mean) else f"{100 * mean:.1f}" + ("" if pd.isna(low) else f" [{100 * low:.1f}, {100 * high:.1f}]")
        for mean, low, high in table[["accuracy", "low", "high"]].to_numpy(float)
    ]
    shown["of"] = [
        f"{of}, n = {n}" if pd.notna(n) else of for of, n in zip(table["of"].fillna(""), table["n"], strict=True)
    ]
    shown["minutes"] = ["" if pd.isna(value) else f"{value:.1f}" for value in table["minutes"]]
    return shown[list(SHOWN)].astype(object).where(lambda found: found.notna(), "").to_string(index=False)


def _delete(table: pd.DataFrame, names: list[str]) -> None:
    unknown = [name for name in names if name not in set(table["name"])]
    if unknown:
        raise ValueError(f"no run {unknown[0]!r} here: give names as `workbench runs` lists them")
    if not sys.stdin.isatty():
        raise ValueError("deleting is asked about first, and there is no terminal to ask: run this in one")
    chosen = table[table["name"].isin(names)]
    for path in chosen["path"]:
        print(path)
    if (
        input(f"delete these {len(chosen)}, {chosen['megabytes'].sum():.1f} MB, for good? [y/N] ").strip().lower()
        == "y"
    ):
        remove(list(chosen["path"]))
        print("deleted")
    else:
        print("nothing was deleted")
