"""Results of `workbench bench` that were kept as JSON: read back, and as tables for figures and notebooks."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..files import checked, quoted, read_json, shown, visible
from ..places import BENCHMARKS

MEASURES = {  # what a part says in one number, and how it is read
    "speedup": "times as fast as the reference",
    "speedup_full": "times as fast, from the second epoch on",
    "speedup_queue": "times as fast, from a queue",
    "speedup_compiled": "times as fast, compiled",
    "speedup_leaves": "times as fast, masks as leaves",
    "speedup_labels": "times as fast, labels kept",
    "speedup_supervised": "times as fast, logits where asked",
    "speedup_bag": "times as fast, mixing by bag",
    "over_floor": "times the floor",
    "over_floor_compiled": "times the floor, compiled",
    "over_generate": "times writing alone",
    "over_adamw": "times AdamW's step, with Muon",
    "over_plain": "times plain, with LT-Tuning's thoughts",
    "over_longer": "times plain on rows as long",
    "over_plain_ready": "times plain, where no row thinks",
    "seconds": "seconds",
    "peak_gb": "GB at most",
}
INNER = (  # parts of a part
    "mid_size", "eight_billion", "queue", "thoughts", "latents", "fast_loop", "optimizers", "mid_size_optimizers",
    "eight_billion_optimizers",
)  # fmt: skip
TIMES = ("median", "low", "high")  # seconds that every way has
RATIOS = ("speedup", "over_floor", "over_generate")  # columns of `ways`, missing where a way has none


def load(path: str | Path) -> dict[str, Any]:
    """One file of results. FileNotFoundError where there is none, ValueError where it holds something else."""
    path = Path(path)
    how = "write one with workbench bench all --out FILE.json"
    if not path.is_file():
        raise FileNotFoundError(f"no results at {shown(path)!r}: {how}")
    try:
        results = checked(read_json(path), {"machine": dict, "commit": str, "created": str}, "it")
        for name, part in parts(results).items():
            wrong = next((key for key, value in part.items() if _measure(key) and not _number(value)), None)
            if wrong is not None:
                raise ValueError(f"{wrong} is no number")
            ways(results, name)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{shown(path)!r} holds no results of workbench bench: {how}") from error
    return results


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e15


def shipped(folder: str | Path = BENCHMARKS) -> dict[str, dict[str, Any]]:
    """Every file of results in a folder by its name without the ending; none where the folder is empty or missing."""
    return {path.stem: load(path) for path in visible(folder, "*.json")}


def parts(results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What was measured, by name: "training", "training mid_size", "generation queue", ...; ValueError if nothing."""
    named = {name: results[name] for name in ("training", "generation", "collect", "diagnostics") if name in results}
    inner = {f"{name} {key}": part[key] for name, part in named.items() for key in INNER if key in part}
    found = dict(sorted((named | inner).items()))
    if not found:
        raise ValueError(
            f"no part of a benchmark among {shown(', '.join(results)) or 'no keys'}: give what `bench` returns"
        )
    return found


def ways(results: Mapping[str, Any], part: str) -> pd.DataFrame:
    """One part's ways in order, the plain one first: way, median, low, high, floor (seconds) and `RATIOS`.

    Of diagnostics: the whole by the clock, then CPU seconds of its parts. What a way lacks is missing. attrs say what
    was measured on what: part, unit, repeats, machine, commit, created and notes.
    """
    known = parts(results)
    if part not in known:
        raise ValueError(f"no part {quoted(part)} in these results: it has {', '.join(known)}")
    found = known[part]
    if part == "diagnostics":
        keys = ("floor", "over_floor")
        rows = [{"way": "in all (wall clock)", "median": found["seconds"]} | {key: found[key] for key in keys}]
        rows += [{"way": name, "median": seconds} for name, seconds in found["parts"].items()]
        notes = ["parts: CPU seconds over all cores", f"peak memory {found['peak_gb']:.3g} GB"]
    else:
        # KeyError where a way has no times
        rows = [{"way": name, **{key: row[key] for key in TIMES}, **row} for name, row in found["rungs"].items()]
        notes = ["floor and its ratio: of the steps, without the prefill"] if "prefill" in found else []
    if "over_generate" in found:
        rows[-1]["over_generate"] = found["over_generate"]
    shape = {key: found[key] for key in ("batch_size", "examples") if key in found} | found.get("shape", {})
    notes.append(", ".join(f"{key.replace('_', ' ')} {value}" for key, value in shape.items()))
    columns = ["way", *TIMES, "floor", *RATIOS]
    table = pd.DataFrame(rows).reindex(columns=columns)
    table[columns[1:]] = table[columns[1:]].astype(float)
    table.attrs = {
        "part": _heading(part),
        "unit": _unit(results, part),
        "repeats": found.get("repeats", 1),
        "machine": _machine(found.get("machine", results["machine"])),  # diagnostics run on the CPU of any machine
        "commit": results["commit"],
        "created": results["created"],
        "notes": [note for note in notes if note],
    }
    return table


def ratio_table(results: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each part and what it says in one number (`MEASURES`), a column for each name of `results`."""
    cells = {}
    for name, found in results.items():
        for part, values in parts(found).items():
            for key, value in values.items():
                if said := _measure(key):
                    cells[_heading(part), said, name] = value
    order = list(dict.fromkeys((part, said) for part, said, _ in cells))
    index = pd.MultiIndex.from_arrays(
        [[part for part, _ in order], [said for _, said in order]], names=["part", "measure"]
    )
    table = pd.DataFrame(index=index, columns=list(results), dtype=float)
    for (part, said, name), value in cells.items():
        table.loc[(part, said), name] = value
    return table


def _heading(part: str) -> str:
    """training mid_size -> training, mid-size."""
    return part.replace(" ", ", ").replace("_", "-")


def _measure(key: str) -> str | None:
    """What a key of a part means in words; None where it is no measure. speedup_draws10 -> times as fast, 10 draws."""
    if key not in MEASURES and key.startswith("speedup_"):
        return "times as fast, " + re.sub(r"^draws(\d+)$", r"\1 draws", key.removeprefix("speedup_")).replace("_", " ")
    return MEASURES.get(key)


def _unit(results: Mapping[str, Any], part: str) -> str:
    """A queue and `collect` are timed as the generation that they are measured with."""
    if part == "diagnostics":
        return "seconds"
    timer = parts(results)[part].get("timer") or results.get("generation", {}).get("timer", "wall")
    return ("CPU seconds" if timer == "cpu" else "seconds") + (" per step" if part.startswith("training") else "")


def _machine(told: Mapping[str, Any]) -> str:
    cores, threads = (f"{told[key]} {key if told[key] != 1 else key[:-1]}" for key in ("cores", "threads"))
    return f"{told['name']} ({told['device']}, {cores}, {threads}), torch {told['torch']}"
