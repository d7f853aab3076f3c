"""The store: thoughts and answers of one method on one task, as a plain `xr.Dataset` in one netCDF file.

    thought(example, path, step, feature)   a question has several paths (thoughts), a path several steps (positions)
    correct(example, path, draw)            a path has several draws (answers)

Mixtures of words are written as such (`mixture_token`, `mixture_weight`, and the words' embeddings), not as vectors;
`load` gives `thought` all the same, made when it is used.

A thought stands before its path's answers, or within one of them: then `thought_draw` says in which, `thought_place`
behind how many of its tokens (see `within`). All of a path lie along `step`, those before its answers first, then
answer after answer; `mask` says where there is one, so that any path may have any number.

Everything after `collect` reads only this. Dimensions go by name, so their order never matters. `step` may have length
0 (a method without thoughts). `SCHEMA`, `VARIABLES`, `COORDINATES` and `ATTRIBUTES` are the written schema.
"""

import glob
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .files import whole

SCHEMA = "workbench-store-1"
DIMENSIONS = ("example", "path", "step", "component", "draw", "rank", "reasoning", "reference", "vocabulary", "feature")


class Kind(NamedTuple):
    """What one variable must be: its dimensions, its kind of value, whether every store has it."""

    dims: tuple[str, ...]
    dtype: Literal["float", "int", "bool", "text", "any"]
    required: bool = False


STEP = ("example", "path", "step")
COMPONENT = (*STEP, "component")  # of the words mixed into a thought, the heaviest first
DRAW = ("example", "path", "draw")
RANK = (*STEP, "rank")  # the first words that a thought is read as, likeliest or nearest first
VARIABLES = {
    "thought": Kind((*STEP, "feature"), "float", True),
    "mask": Kind(STEP, "bool", True),  # False = padding, not a thought
    "text": Kind(DRAW, "text", True),
    "prediction": Kind(DRAW, "text", True),  # "" = no answer could be read
    "correct": Kind(DRAW, "bool", True),
    "length": Kind(DRAW, "int", True),  # generated tokens
    "finished": Kind(DRAW, "bool", True),  # False = stopped at the length cap
    "token": Kind(STEP, "int"),
    "thought_draw": Kind(STEP, "int"),  # the answer it stands in, -1 = before all of them; without this all do
    "thought_place": Kind(STEP, "int"),  # tokens of that answer before it, 0 before the first
    "thought_offset": Kind(STEP, "int"),  # characters of that answer's text before it
    "mixture_token": Kind(COMPONENT, "int"),  # -1 = padding
    "mixture_weight": Kind(COMPONENT, "float"),
    "lens_id": Kind(RANK, "int"),  # by the output head (logit lens); -1, "" and NaN where there is no thought
    "lens_token": Kind(RANK, "text"),
    "lens_probability": Kind(RANK, "float"),
    "near_id": Kind(RANK, "int"),  # by the cosine of the word's embedding
    "near_token": Kind(RANK, "text"),
    "near_cosine": Kind(RANK, "float"),
    "similarity_answer": Kind(("example", "reasoning"), "float"),  # NaN where an example has fewer gold steps
    "similarity_question": Kind(("example", "reasoning"), "float"),
    "step_text": Kind(("example", "reasoning"), "text"),  # the gold steps, "" where an example has fewer
    "step_vector": Kind(("example", "reasoning", "feature"), "float"),  # mean embedding of a gold step's tokens, or NaN
}
SIGNAL = Kind(STEP, "float")  # variables called signal_<name>
COORDINATES = {
    "example": Kind(("example",), "text", True),
    "question": Kind(("example",), "text", True),
    "gold": Kind(("example",), "text", True),
    # a sample of the backbone's token embeddings; xarray makes any variable named like its dimension a coordinate
    "reference": Kind(("reference", "feature"), "float"),
    "vocabulary": Kind(("vocabulary",), "int"),  # the tokens in mixtures, ascending, and their embeddings
    "embedding": Kind(("vocabulary", "feature"), "float"),
}
LABEL = Kind(("example",), "any")  # coordinates called label_<name>
ATTRIBUTES = ("schema", "method", "config", "backbone", "task", "split", "seed", "versions", "commit", "created")
# Stores that differ here are not parts of one store.
SAME = ("schema", "method", "config", "backbone", "task", "prompts", "training_step")

_DTYPES = {"float": "f", "int": "iu", "bool": "b", "text": "UOT", "any": "fiubUOT"}
_SENTENCES = {"float": "floating point", "int": "integer", "bool": "bool", "text": "text", "any": "text or numbers"}
_PADDING: dict[str, bool | int | float | str] = {"float": np.nan, "int": -1, "bool": False, "text": ""}
LAZY = 2**26  # bytes of thoughts that are read at a time from a store that stays on disk
_FLOAT16 = float(np.finfo(np.float16).max)


# ------------------------------------------------------------------------------------------------------------- check


def check(dataset: xr.Dataset, *, values: bool = True) -> None:
    """Raise ValueError with one sentence about the first thing that makes `dataset` no valid store.

    `values=False` looks at names, dimensions and types only (nothing lazy is read).
    """
    for problem in _problems(dataset, values):
        raise ValueError(problem)


def _problems(dataset: xr.Dataset, values: bool) -> Iterable[str]:
    found = dataset.attrs.get("schema")
    if found != SCHEMA:
        yield (
            f"this dataset has schema {found!r} and this workbench reads {SCHEMA!r}: "
            "collect it again, or read it with the version named in its attribute 'versions'"
        )
    yield from _attribute_problems(dataset)
    yield from _name_problems(dataset)
    ids = dataset.indexes["example"]
    if not ids.is_unique:
        twice = ids[ids.duplicated()][0]
        yield f"example id {twice!r} occurs more than once: ids must be unique, give each example its own"
    if values:
        yield from _value_problems(dataset)


def _attribute_problems(dataset: xr.Dataset) -> Iterable[str]:
    for name in ATTRIBUTES:
        if name not in dataset.attrs:
            yield f"the store lacks the attribute {name!r}: set each of {', '.join(ATTRIBUTES)}"
    for name, value in dataset.attrs.items():
        if not isinstance(value, str | int | float | np.integer | np.floating) or isinstance(value, bool):
            kind = type(value).__name__
            yield f"attribute {name!r} is a {kind}: attributes are text or numbers, write it as JSON text"
        elif name in ATTRIBUTES and name != "seed" and not isinstance(value, str):
            yield f"attribute {name!r} is {value!r}: it must be text"
    try:
        json.loads(dataset.attrs["versions"])
    except json.JSONDecodeError:
        yield f"attribute 'versions' is {dataset.attrs['versions']!r}: it must be JSON text, use json.dumps"
    try:
        datetime.fromisoformat(dataset.attrs["created"])
    except ValueError:
        yield f"attribute 'created' is {dataset.attrs['created']!r}: it must be an ISO time such as 2026-01-31T12:00:00"


def _name_problems(dataset: xr.Dataset) -> Iterable[str]:
    for what, schema, prefix, free, present in (
        ("coordinate", COORDINATES, "label_", LABEL, dataset.coords),
        ("variable", VARIABLES, "signal_", SIGNAL, dataset.data_vars),
    ):
        for name, kind in schema.items():
            if kind.required and name not in present:
                yield f"the store lacks the {what} {name!r}: add it with dimensions ({', '.join(kind.dims)})"
        for key, array in present.items():
            name = str(key)
            kind = schema.get(name, free if name.startswith(prefix) else None)
            if kind is None and name in dataset.indexes:  # plain numbering of a dimension does no harm
                continue
            if kind is None:
                yield f"unknown {what} {name!r}: a store has {', '.join(schema)}, {prefix}<name>; rename or drop it"
            elif set(array.dims) != set(kind.dims):
                given, allowed = ", ".join(map(str, array.dims)), ", ".join(kind.dims)
                yield f"{what} {name!r} has dimensions ({given}): it must have ({allowed}), in any order"
            elif array.dtype.kind not in _DTYPES[kind.dtype]:
                yield f"{what} {name!r} has dtype {array.dtype}: it must be {_SENTENCES[kind.dtype]}, convert it"
    for name in ("example", "path", "draw", "feature"):
        if dataset.sizes[name] == 0:
            yield f"dimension {name!r} has length 0: a store needs at least one (only 'step' may be empty)"


def _value_problems(dataset: xr.Dataset) -> Iterable[str]:
    mask = dataset["mask"].transpose(*STEP).values
    name, last = ("mixture_weight", "component") if "mixture_weight" in dataset else ("thought", "feature")
    broken = ~np.isfinite(dataset[name].transpose(*STEP, last).values)  # a mixture is finite where its weights are
    bad = np.asarray((broken.any(-1) & mask).any((1, 2)))
    if bad.any():
        first = dataset.indexes["example"][bad][0]
        yield (
            f"{bad.sum()} of {bad.size} examples have NaN or infinite thoughts (first: {first!r}): "
            "thoughts must be finite where mask is True, look at the training run"
        )
    if "thought_draw" in dataset:
        own = dataset["thought_draw"].transpose(*STEP).values[mask]
        if own.size and not (own.min() >= -1 and own.max() < dataset.sizes["draw"]):
            most = dataset.sizes["draw"] - 1
            yield f"'thought_draw' goes from {own.min()} to {own.max()}: it must be -1 (before all answers) to {most}"
    for name, variable in dataset.variables.items():
        if variable.dtype.kind == "O" and not all(isinstance(value, str) for value in variable.values.ravel()):
            yield f"{str(name)!r} mixes text with other values: convert it to text, or to one type of number"
    if "reference" in dataset and not bool(np.isfinite(dataset["reference"]).all()):
        yield "'reference' holds NaN or infinite values: token embeddings must be finite, sample them again"
    if bool((dataset["correct"] & (dataset["prediction"] == "")).any()):
        yield "'correct' is True where 'prediction' is empty: an unread answer cannot be right, grade again"
    if bool((dataset["length"] < 0).any()):
        yield "'length' holds negative values: it counts generated tokens, collect again"


# ---------------------------------------------------------------------------------------------------- save and load


def save(dataset: xr.Dataset, path: str | Path) -> Path:
    """Check and write a store; returns the path. An interrupted save leaves an older file as it was.

    Vectors are written as float16, or as float32 where a value exceeds float16's 65504; padding (mask False) as 0.
    Characters netCDF text cannot hold become U+FFFD (NUL) and ? (lone surrogates).
    """
    path = Path(path)
    if path.suffix != ".nc":
        raise ValueError(f"store path {str(path)!r} does not end in '.nc': give it that ending")
    check(dataset)
    plain = dataset.transpose(*DIMENSIONS, missing_dims="ignore").drop_encoding()
    if "mixture_token" in plain:
        plain = plain.drop_vars("thought")
    else:
        plain = plain.assign({"thought": plain["thought"].where(plain["mask"], 0).astype(plain["thought"].dtype)})
    encoding = {}
    for name, variable in plain.variables.items():
        if variable.dtype.kind in "UOT":
            clean = [_storable(text) for text in variable.values.ravel()]
            plain[name] = (variable.dims, np.array(clean, dtype=object).reshape(variable.shape))
            continue
        encoding[name] = {"zlib": True, "complevel": 4, "shuffle": True} if variable.size else {}
        if name in ("thought", "reference", "embedding", "step_vector"):
            fits = variable.size == 0 or float(abs(variable).max()) <= _FLOAT16
            encoding[name]["dtype"] = "float16" if fits else "float32"
    with whole(path) as partial:
        plain.to_netcdf(partial, engine="h5netcdf", encoding=encoding)
    return path


def _storable(text: object) -> str:
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
    parts = [_read(part, lazy=True) for part in _files(path)]
    for part in parts:
        check(part, values=False)
    return parts[0] if len(parts) == 1 else concat(parts)


def _files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(path, str | Path):
        files = [Path(part) for part in path]
    elif Path(path).is_dir():
        files = sorted(Path(path).glob("*.nc"))
    else:
        files = sorted(Path(found) for found in glob.glob(str(path)))
    if not files:
        raise FileNotFoundError(f"no store in {str(path)!r}: give a .nc file, a folder or glob of such, or a list")
    return files


def _read(path: Path, *, lazy: bool) -> xr.Dataset:
    if not path.is_file():
        raise FileNotFoundError(f"no store at {str(path)!r}: check the path, or make one with `workbench collect`")
    try:
        if lazy:
            dataset = xr.open_dataset(path, engine="h5netcdf", cache=False)
            dataset = dataset.assign({name: dataset[name].load() for name in dataset.variables if name != "thought"})
            if "thought" in dataset:  # a task for each compressed block takes longer than to read it
                count = LAZY * dataset.sizes["example"] // max(1, dataset["thought"].nbytes)
                dataset = dataset.assign(thought=dataset["thought"].chunk({"example": max(1, count)}))
        else:
            dataset = xr.load_dataset(path, engine="h5netcdf")
    except PermissionError:
        raise
    except OSError as error:
        raise ValueError(
            f"{str(path)!r} is no netCDF file ({error}): give a store, or collect again if damaged"
        ) from error
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


# -------------------------------------------------------------------------------------------------- join and flatten


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
                str(name): _PADDING[VARIABLES.get(str(name), SIGNAL).dtype]
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
