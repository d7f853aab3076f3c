"""Stores joined along a dimension, and flattened to one row per thought."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from .schema import DRAW, PADDING, SAME, SIGNAL, STEP, VARIABLES, check


def concat(datasets: Sequence[xr.Dataset], dim: Literal["example", "path", "draw"] = "example") -> xr.Dataset:
    """Join stores of one method on one task.

    Along `example` ids must differ; along `path` or `draw` the examples must be the same (matched by id). Fewer steps
    or reasoning steps are padded (mask False, NaN, ""). `reference` is the first store's. Attributes that differ are
    joined with " | ", `seconds` is summed. Optional variables must be in all stores or in none.
    """
    if not datasets:
        raise ValueError("no stores to join: give at least one")
    if dim not in ("example", "path", "draw"):
        raise ValueError(f"stores cannot be joined along {dim!r}: use 'example', 'path' or 'draw'")
    first = datasets[0]
    for other in datasets[1:]:
        _joinable(first, other, dim)
    longest = {name: max(d.sizes.get(name, 0) for d in datasets) for name in ("step", "reasoning")}
    shared = ["reference", "vocabulary", "embedding"]
    parts = [_pad(d.drop_vars(shared, errors="ignore"), longest) for d in datasets]
    if dim != "example":
        parts = [part.sel(example=first.indexes["example"]) for part in parts]
    if dim == "draw" and any("thought_draw" in part and bool((part["thought_draw"] >= 0).any()) for part in parts):
        raise ValueError("stores with thoughts within their answers cannot be joined along 'draw': join along 'path'")
    if dim == "draw" and not all(parts[0][["thought", "mask"]].equals(part[["thought", "mask"]]) for part in parts[1:]):
        raise ValueError("stores to join along 'draw' hold different thoughts: join them along 'path'")
    joined = xr.concat(
        parts, dim, data_vars="minimal", coords="minimal", compat="override", join="override", combine_attrs="drop"
    )
    if "reference" in first:
        joined["reference"] = first["reference"]
    if "vocabulary" in first:
        words = xr.concat([d["embedding"] for d in datasets], "vocabulary").drop_duplicates("vocabulary")
        joined = joined.assign_coords(embedding=words.sortby("vocabulary"))
    joined.attrs = _merged_attributes(datasets)
    check(joined, values=False)
    return joined


def _joinable(first: xr.Dataset, other: xr.Dataset, dim: str) -> None:
    for name in SAME:
        one, another = first.attrs.get(name, ""), other.attrs.get(name, "")
        if one != another:
            raise ValueError(
                f"stores differ in {name} ({one!r} and {another!r}): "
                "join only parts of one run, and compare others side by side"
            )
    missing = {str(name) for name in set(first.variables) ^ set(other.variables)}
    if missing:
        raise ValueError(f"only some stores hold {', '.join(sorted(missing))}: drop it or collect it for all")
    for name in {"example", "path", "draw", "rank", "feature"} - {dim, "example"}:
        if first.sizes.get(name) != other.sizes.get(name):
            sizes = f"{first.sizes[name]} and {other.sizes[name]}"
            raise ValueError(
                f"stores have different numbers of {name} ({sizes}): only steps are padded, select equal ones"
            )
    if dim != "example" and set(first.indexes["example"]) != set(other.indexes["example"]):
        raise ValueError(f"stores to join along {dim!r} hold different examples: select the shared ids first")


def _pad(dataset: xr.Dataset, longest: dict[str, int]) -> xr.Dataset:
    for dim, size in longest.items():
        missing = size - dataset.sizes.get(dim, size)
        if missing:
            values: dict[str, Any] = {
                str(name): PADDING[VARIABLES.get(str(name), SIGNAL).dtype]
                for name in dataset.data_vars
                if dim in dataset[name].dims
            }
            values["thought"] = 0.0  # plain zeros stay finite under arithmetic; the mask says what is real
            dataset = dataset.drop_vars(dim, errors="ignore").pad({dim: (0, missing)}, constant_values=values)
    return dataset


def _merged_attributes(datasets: Sequence[xr.Dataset]) -> dict[str, str | int | float]:
    merged = {}
    for name in dict.fromkeys(name for d in datasets for name in d.attrs):
        values = list(dict.fromkeys(d.attrs[name] for d in datasets if name in d.attrs))
        if name == "seconds":
            merged[name] = float(sum(d.attrs.get(name, 0.0) for d in datasets))
        elif name == "created":
            merged[name] = max(values)
        elif name == "versions" and len(values) > 1:
            merged[name] = json.dumps([json.loads(value) for value in values])
        else:
            merged[name] = values[0] if len(values) == 1 else " | ".join(map(str, values))
    return merged


def flatten(dataset: xr.Dataset) -> tuple[np.ndarray, pd.DataFrame]:
    """One row per real thought vector: `(vectors [n, feature] float32, table)`, in the order example, path, step.

    The table has example, path, step, correct (mean over the path's draws, or of the one answer that a thought stands
    in), question, gold, each label_<name>, each signal_<name>, draw and place where a store has thoughts within its
    answers, method, task. Without thoughts both are empty.
    """
    mask = dataset["mask"].transpose(*STEP).values
    rows, paths, steps = np.nonzero(mask)
    vectors = dataset["thought"].transpose(*STEP, "feature").values[mask].astype(np.float32)
    table = pd.DataFrame({"example": dataset["example"].values[rows], "path": paths, "step": steps})
    table["correct"] = dataset["correct"].mean("draw").transpose("example", "path").values[rows, paths]
    if "thought_draw" in dataset:
        draws = dataset["thought_draw"].transpose(*STEP).values[mask]
        own = dataset["correct"].transpose(*DRAW).values[rows, paths, draws.clip(0)]
        table["correct"] = np.where(draws < 0, table["correct"], own)
        table["draw"], table["place"] = draws, dataset["thought_place"].transpose(*STEP).values[mask]
    labels = sorted(str(name) for name in dataset.coords if str(name).startswith("label_"))
    for name in ("question", "gold", *labels):
        table[name] = dataset[name].values[rows]
    for name in sorted(str(name) for name in dataset.data_vars if str(name).startswith("signal_")):
        table[name] = dataset[name].transpose(*STEP).values[mask]
    return vectors, table.assign(method=dataset.attrs["method"], task=dataset.attrs["task"])
