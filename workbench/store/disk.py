"""Stores to files and back: checked, whole or absent, vectors as float16; mixtures are written as such."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from . import sealed
from .schema import (
    DIMENSIONS,
    VARIABLES,
    check,
)

LAZY = 2**26  # bytes of thoughts that are read at a time from a store that stays on disk
_FLOAT16 = float(np.finfo(np.float16).max)


def save(dataset: xr.Dataset, path: str | Path) -> Path:
    """Check and write a store; returns the path. An interrupted save leaves an older file as it was.

    Vectors are written as float16, or as float32 where a value exceeds float16's 65504; padding (mask False) as 0.
    Characters netCDF text cannot hold become U+FFFD (NUL) and ? (lone surrogates). The file carries a checksum.
    """
    check(dataset)
    path = sealed.writable(path)
    plain = dataset.transpose(*DIMENSIONS, missing_dims="ignore").drop_encoding()
    if "mixture_token" in plain:
        plain = plain.drop_vars("thought")
    else:
        plain = plain.assign({"thought": plain["thought"].where(plain["mask"], 0).astype(plain["thought"].dtype)})
    plain.attrs = {name: storable(v) if isinstance(v, str) else v for name, v in plain.attrs.items()}
    encoding = {}
    for name, variable in plain.variables.items():
        if variable.dtype.kind in "UOT":
            clean = [storable(text) for text in variable.values.ravel()]
            kind: Any = object if clean else "U1"  # without a text to look at objects would be written as numbers
            plain[name] = (variable.dims, np.array(clean, dtype=kind).reshape(variable.shape))
            continue
        encoding[name] = {"zlib": True, "complevel": 4, "shuffle": True} if variable.size else {}
        if name in ("thought", "reference", "embedding", "step_vector"):
            fits = variable.size == 0 or float(abs(variable).max()) <= _FLOAT16
            encoding[name]["dtype"] = "float16" if fits else "float32"
    sealed.write(plain, encoding, path)
    return path


def storable(text: object) -> str:
    """A text as netCDF can hold it."""
    return str(text).replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def load(path: str | Path | Sequence[str | Path]) -> xr.Dataset:
    """Read a store. One file is read whole; a folder, a glob or a list of part files is joined along `example`, with
    vectors left on disk until they are used (dask).

    Raises FileNotFoundError or ValueError with one sentence.
    """
    if isinstance(path, str | Path) and (
        Path(path).is_file() or not (Path(path).is_dir() or glob.has_magic(str(path)))
    ):
        dataset = _read(Path(path), lazy=False)
        check(dataset)
        return dataset
    parts = [_read(part, lazy=True) for part in sealed.part_files(path)]
    for part in parts:
        check(part, values=False)
    return parts[0] if len(parts) == 1 else concat(parts)


def _read(path: Path, *, lazy: bool) -> xr.Dataset:
    dataset = sealed.read(path, lazy=["thought"] if lazy else [])
    if lazy and "thought" in dataset:  # a task for each compressed block takes longer than to read it
        count = LAZY * dataset.sizes["example"] // max(1, dataset["thought"].nbytes)
        dataset = dataset.assign(thought=dataset["thought"].chunk({"example": max(1, count)}))
    dataset = dataset.set_coords([name for name in dataset.data_vars if str(name).startswith("label_")])  # see `write`
    for name, array in dataset.items():  # earlier versions wrote text of which there is none as numbers
        kind = VARIABLES.get(str(name))
        if kind and kind.dtype == "text" and array.size == 0 and array.dtype.kind == "f":
            dataset[name] = array.astype(object)
    if "mixture_token" in dataset and "thought" not in dataset:
        dataset = mixed(dataset)
    # netCDF returns numpy scalars; plain numbers compare, print and serialise as they were given
    dataset.attrs = {
        name: value.item() if isinstance(value, np.generic) else value for name, value in dataset.attrs.items()
    }
    return dataset


def mixed(dataset: xr.Dataset) -> xr.Dataset:
    """A store with `thought` made from its mixtures, a few examples at a time whenever it is used (dask)."""
    words = dataset["vocabulary"].values
    rows = dataset["embedding"].transpose("vocabulary", "feature").values.astype(np.float32)

    def mix(tokens: np.ndarray, weights: np.ndarray) -> np.ndarray:
        out = np.zeros((*tokens.shape[:-1], rows.shape[1]), np.float32)
        for component in range(tokens.shape[-1] if len(words) else 0):  # one by one: all at once is a large array
            token, weight = tokens[..., component], weights[..., component].astype(np.float32)
            known = np.searchsorted(words, np.where(token < 0, words[0], token))
            out += np.where(token < 0, 0, weight)[..., None] * rows[known]
        return out

    thought = xr.apply_ufunc(
        mix, *(dataset[name].chunk({"example": 16, "component": -1}) for name in ("mixture_token", "mixture_weight")),
        input_core_dims=[["component"]] * 2, output_core_dims=[["feature"]], dask="parallelized",
        output_dtypes=[np.float32], dask_gufunc_kwargs={"output_sizes": {"feature": rows.shape[1]}},
    )  # fmt: skip
    return dataset.assign(thought=thought)
