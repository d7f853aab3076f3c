"""Counter-tests: do the thoughts matter? Answer with them taken away, swapped, averaged, noised or cut, and compare.

dropped, zeroed           is it the thoughts, or the room they take?
shuffled, averaged        is it what they say about this question, or what they say about all?
noised:X                  how exact must they be?
truncated:K               how many of them are used?
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import xarray as xr

from .. import store
from ..analysis.scores import compare
from ..backbone import Decoding
from ..methods import LatentMethod
from ..store.within import only_within
from ..tasks import Example, Task
from .asking import change_of
from .collect import collect

CHANGES = ("dropped", "zeroed", "shuffled", "averaged", "noised:0.25", "noised:0.5", "noised:1")
UNCHANGED = "unchanged"


def counter(
    method: LatentMethod,
    task: Task,
    examples: Sequence[Example],
    *,
    changes: Sequence[str] = CHANGES,
    split: str | None = None,
    decoding: Decoding | None = None,
    batch_size: int = 128,
    seed: int = 0,
    out: Mapping[str, Path] | None = None,
) -> dict[str, xr.Dataset]:
    """A store with the thoughts unchanged and one for each change (see `changes`), on the same examples and seed.

    The first remembers what another question's thoughts cost (attribute `counter`), for the collapse verdict.

    `out` says where each of `counted(changes)` is written as soon as it is done; as with `collect`, the same call goes
    on after a stop within the store that it was at. ValueError where all thoughts stand within the answers, which no
    change reaches.
    """
    for name in changes:
        change_of(name, len(examples))
    found: dict[str, xr.Dataset] = {}
    for name in counted(changes):
        found[name] = collect(
            method, task, examples, split=split, decoding=decoding, batch_size=batch_size, seed=seed,
            change=None if name == UNCHANGED else name, out=None if out is None else out[name],
        )  # fmt: skip
        if only_within(found[name]):
            raise ValueError(
                f"all thoughts of {method.name!r} stand within its answers, and a change is of those before them; "
                "compare its answers with those of a run without thoughts"
            )
    if "shuffled" in found and len(examples) > 1:
        row = compare(found[UNCHANGED], found["shuffled"]).iloc[0]
        cost = {name: float(row[key]) for name, key in (("lost", "difference"), ("low", "low"), ("high", "high"))}
        found[UNCHANGED].attrs["counter"] = json.dumps({"shuffled": cost | {"n": int(row["n"])}})
        if out is not None:
            store.save(found[UNCHANGED], out[UNCHANGED])
    return found


def counted(changes: Sequence[str]) -> tuple[str, ...]:
    """The names of the stores that `counter` makes for these changes."""
    twice = next((name for name in changes if list(changes).count(name) > 1 or name == UNCHANGED), None)
    if twice is not None:
        raise ValueError(f"the change {twice!r} is asked for twice; give each once, {UNCHANGED!r} comes by itself")
    return (UNCHANGED, *changes)


def counter_table(stores: Mapping[str, xr.Dataset], same: Callable[[str, str], bool] | None = None) -> pd.DataFrame:
    """A row per change: accuracy with it, and what is lost (`difference` with low, high and p, paired by question)."""
    if UNCHANGED not in stores:
        raise ValueError(f"no store called {UNCHANGED!r} among {', '.join(stores)}; give the one without a change too")
    rows = []
    for name, changed in stores.items():
        if name != UNCHANGED:
            row = compare(stores[UNCHANGED], changed, same=same).iloc[0]
            rows.append(
                {
                    "change": name,
                    "accuracy": row["mean_second"],
                    **{key: row[key] for key in ("difference", "low", "high", "p", "n")},
                }
            )
    return pd.DataFrame(rows).assign(unchanged=float(stores[UNCHANGED]["correct"].mean()))


def verdict(table: pd.DataFrame) -> str:
    """One sentence from `counter_table`: whether the content of the thoughts matters, their presence, or nothing."""
    rows = {str(row["change"]): row for row in table.to_dict("records")}
    missing = [name for name in ("dropped", "shuffled") if name not in rows]
    if missing:
        raise ValueError(f"no row for {missing[0]}; a verdict needs the changes dropped and shuffled")

    def said(name: str) -> str:
        row = rows[name]
        return f"{name} costs {100 * row['difference']:.1f} points [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"

    reached = {float(rows[name][key]) for name in ("dropped", "shuffled") for key in ("accuracy", "unchanged")}
    if reached in ({0.0}, {1.0}):
        which = "right" if reached == {1.0} else "wrong"
        return f"Every answer is {which}, with whichever thoughts: nothing can be lost, and so nothing is said of them."
    if rows["shuffled"]["low"] > 0:
        return f"What the thoughts say about their question matters: {said('shuffled')}, {said('dropped')}."
    if rows["dropped"]["low"] > 0:
        return f"Thoughts help, but any question's do: {said('dropped')}, {said('shuffled')}."
    if rows["dropped"]["high"] < 0:
        return f"The thoughts do harm: {said('dropped')}, {said('shuffled')}."
    return f"The thoughts make no sure difference: {said('dropped')}, {said('shuffled')}."
