"""The written schema of a store, and whether a dataset keeps to it."""

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr

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
    "label_critical_step": Kind(("example",), "int"),  # the one label that diagnostics know: of `step_text`, from 0
}
LABEL = Kind(("example",), "any")  # coordinates called label_<name>
ATTRIBUTES = ("schema", "method", "config", "backbone", "task", "split", "seed", "versions", "commit", "created")
# Stores that differ here are not parts of one store.
SAME = ("schema", "method", "config", "backbone", "task", "prompts", "training_step")

_DTYPES = {"float": "f", "int": "iu", "bool": "b", "text": "UOT", "any": "fiubUOT"}
_SENTENCES = {"float": "floating point", "int": "integer", "bool": "bool", "text": "text", "any": "text or numbers"}
PADDING: dict[str, bool | int | float | str] = {"float": np.nan, "int": -1, "bool": False, "text": ""}
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
    except (ValueError, RecursionError):
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
