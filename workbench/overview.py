"""All runs and stores under a folder as one table: what each is, how far it got, what came out, how large it is.

What is read of a store is remembered while its file stays as it is, so that looking again costs little.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from . import runs, store
from .analysis.diagnostics import collapse, glance, settled
from .analysis.diagnostics.inputs import path_thoughts
from .analysis.scores import accuracy, wilson
from .files import read_json, shown

COLUMNS = (
    "name", "state", "method", "task", "backbone", "seed", "step", "accuracy", "low", "high", "n", "of", "verdict",
    "minutes", "megabytes", "created", "remark", "kind", "path", "store",
)  # fmt: skip
SORTS = COLUMNS[:-3]  # by which the table can be sorted


class _Store(NamedTuple):
    """What a row takes of a store."""

    attrs: dict[str, Any]
    found: tuple[float, float, float, int]  # accuracy, low, high, questions
    verdict: str


def run_table(folder: str | Path = runs.RUNS, say: Callable[[int, int, str], None] | None = None) -> pd.DataFrame:
    """A row for each run under `folder`, and for each store that lies in no run's folder; newest first.

    name: its place under `folder`; state: finished, stopped, failed, running, begun, or "store"; step: of training;
    accuracy (share, with low, high, a 95 % interval over n questions) is that of its last store, or of the questions it
    answered while it trained, and `of` says which; verdict: of collapse, likewise; minutes: of training; megabytes: of
    its folder or file; created: UTC; remark: what could not be read; kind: "run" or "store"; path; store: the
    file whose numbers stand here, "" for none. say(done, of, name) is told of each as it is read.

    Raises ValueError where `folder` is none.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{shown(folder)} is no folder: give one with runs or stores in it, such as {runs.RUNS}")
    homes = sorted(path.parent for path in folder.rglob("config.yaml") if _is_run(path.parent))
    inside = {home: sorted(home.rglob("*.nc")) for home in homes}
    held = {path for paths in inside.values() for path in paths}
    alone = [path for path in sorted(folder.rglob("*.nc")) if path not in held]
    places: list[Path] = [*homes, *alone]
    rows = []
    for done, place in enumerate(places):
        if say is not None:
            say(done, len(places), str(place.relative_to(folder)))
        row = _run(place, inside[place]) if place in inside else _lone(place)
        rows.append({"name": str(place.relative_to(folder)), "path": str(place)} | row)
    table = pd.DataFrame(rows, columns=pd.Index(COLUMNS))
    for name in ("seed", "step", "n"):
        table[name] = table[name].astype("Int64")
    return table.sort_values("created", ascending=False, kind="stable", na_position="last").reset_index(drop=True)


def sorted_by(table: pd.DataFrame, column: str, descending: bool = False) -> pd.DataFrame:
    """The table by one of its columns; rows that lack it come last."""
    if column not in SORTS:
        raise ValueError(f"no column {column!r} to sort by: use one of {', '.join(SORTS)}")
    return table.sort_values(column, ascending=not descending, kind="stable", na_position="last").reset_index(drop=True)


def remove(paths: Sequence[str | Path]) -> None:
    """Remove runs (folders) and stores (files) for good; ValueError, before anything is gone, where one trains on."""
    found = [Path(path) for path in paths]
    for path in found:
        if path.is_dir() and not _is_run(path):
            raise ValueError(f"{shown(path)} holds no run: give the folder of one")
        if path.is_dir() and (runs.running(path) is not None or runs.elsewhere(path)):
            raise ValueError(f"{shown(path)} still trains: stop it first")
        if not path.is_dir() and not (path.is_file() and path.suffix == ".nc"):
            raise ValueError(f"{shown(path)} is no run and no store: nothing is removed")
    for path in found:
        if path.is_dir():
            runs.discard(path)
        else:
            path.unlink()


def _is_run(folder: Path) -> bool:
    return (folder / "config.yaml").is_file() and (runs.begun(folder) or (folder / "process.json").is_file())


# --------------------------------------------------------------------------------------------------------------- a run


def _run(folder: Path, stores: list[Path]) -> dict[str, Any]:
    """What the files of a run's folder say."""
    row: dict[str, Any] = {"kind": "run", "state": _state(folder), "megabytes": _size(folder), "store": ""}
    remarks = []
    try:
        config = runs.read_config(folder)
        row |= {name: config.get(name) for name in ("task", "backbone", "method")}
        row["seed"] = (config.get("training") or {}).get("seed", 0)
        row["method"], row["backbone"] = row["method"] or "lta-thinker", row["backbone"] or "nano"
    except ValueError as error:
        remarks.append(str(error))
    try:
        row |= _logged(folder, str(row.get("backbone", "nano")))
    except (ValueError, OSError) as error:
        remarks.append(str(error))
    row["created"] = _when(folder)
    for path in sorted(stores, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            known = _read(str(path), path.stat().st_mtime_ns, path.stat().st_size)
        except (ValueError, OSError, KeyError) as error:
            remarks.append(str(error))
            continue
        if not known.attrs.get("changed"):  # the answers to a counter-test are not the run's
            row |= _of(known) | {"store": str(path), "of": f"{known.attrs['split']} ({path.stem})"}
            break
    return row | {"remark": "; ".join(remarks)}


def _logged(folder: Path, backbone: str) -> dict[str, Any]:
    """How far a run got, and what it saw of its probe set last."""
    if not (folder / "metrics.jsonl").exists():
        return {}
    table: Any = runs.read_metrics(folder)
    if not len(table):
        return {}
    row: dict[str, Any] = {"step": int(table["step"].iloc[-1])}
    if "seconds" in table and table["seconds"].notna().any():
        row["minutes"] = float(table["seconds"].dropna().iloc[-1]) / 60
    if "probe_accuracy" in table:
        row |= _probed(table, folder)
    if "probe_relative_spread" in table and table["probe_relative_spread"].notna().any():
        last = table.dropna(subset=["probe_relative_spread"]).iloc[-1]
        known = {
            name: float(last[f"probe_{name}"]) for name in ("relative_spread", "slot_cosine") if f"probe_{name}" in last
        }
        row["verdict"] = glance(known, backbone=backbone).state
    return row


def _probed(table: pd.DataFrame, folder: Path) -> dict[str, Any]:
    """The last accuracy on the probe set; its interval where the run says how many questions it answered."""
    right = table["probe_accuracy"].dropna()
    if right.empty:
        return {}
    count = (runs.read_config(folder).get("training") or {}).get("probe_answers")
    row: dict[str, Any] = {"accuracy": float(right.iloc[-1]), "of": "probe set"}
    if count:
        low, high = wilson(float(right.iloc[-1]) * count, count)
        row |= {"low": low, "high": high, "n": count}
    return row


def _state(folder: Path) -> str:
    if runs.running(folder) is not None:
        return "running"
    if (folder / "result.json").exists():
        return "finished"
    how = runs.ended(folder)
    return how if how in ("stopped", "failed") else "begun"


def _when(folder: Path) -> str:
    """When a run was finished, else when it was last written to."""
    path = folder / "result.json"
    if path.exists():
        try:
            return str(read_json(path)["created"])
        except (ValueError, KeyError, TypeError):
            pass
    newest = max((path.stat().st_mtime for path in folder.iterdir() if path.is_file()), default=0.0)
    return _stamp(newest)


def _stamp(seconds: float) -> str:
    return pd.Timestamp(seconds, unit="s", tz="UTC").isoformat(timespec="seconds")


def _size(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


# ------------------------------------------------------------------------------------------------------------- a store


def _lone(path: Path) -> dict[str, Any]:
    """What a store says that lies in no run's folder."""
    about = path.stat()
    row: dict[str, Any] = {"kind": "store", "state": "store", "megabytes": about.st_size / 1e6, "store": str(path)}
    try:
        known = _read(str(path), about.st_mtime_ns, about.st_size)
    except (ValueError, OSError, KeyError) as error:
        return row | {"remark": str(error), "created": _stamp(about.st_mtime), "store": ""}
    attrs = known.attrs
    row |= {name: attrs.get(name) for name in ("method", "task", "backbone", "created")}
    changed = f", {attrs['changed']}" if attrs.get("changed") else ""
    return row | _of(known) | {"seed": attrs.get("seed"), "of": f"{attrs['split']}{changed}", "remark": ""}


def _of(known: _Store) -> dict[str, Any]:
    """Accuracy, verdict and training step of a store."""
    row: dict[str, Any] = dict(zip(("accuracy", "low", "high", "n"), known.found, strict=True))
    if known.verdict:
        row["verdict"] = known.verdict
    step = known.attrs.get("training_step")
    return row | ({"step": int(step)} if step is not None else {})


@lru_cache(maxsize=4096)
def _read(path: str, changed: int, size: int) -> _Store:
    """Of a store's file as it is now, `changed` and `size` being what tells that from another."""
    found = store.load(path)
    right = accuracy(found)
    try:
        verdict = settled(collapse(*path_thoughts(found, 0)), found.attrs).state if found.sizes["step"] else ""
    except ValueError:  # a single question cannot collapse
        verdict = ""
    return _Store(dict(found.attrs), (right.mean, right.low, right.high, right.n), verdict)
