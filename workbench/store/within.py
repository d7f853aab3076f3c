"""Thoughts that stand within the answers of a store, between their words.

Along `step` lie first a path's thoughts before its answers, then those within them, answer after answer. `thought_draw`
says of which answer each is (-1: before all of them), `thought_place` behind how many of its tokens it stands, and
`thought_offset` behind how many characters of its text. A store without these has thoughts before its answers only.
"""

import numpy as np
import xarray as xr

from .disk import mixed
from .schema import STEP

MARK = "⟨{}⟩"  # of a thought in a text, with its step


def of_draw(dataset: xr.Dataset, draw: int) -> xr.Dataset:
    """The store with one answer of each path, and the thoughts that it had: `step` is then their order."""
    if not 0 <= draw < dataset.sizes["draw"]:
        raise ValueError(f"draw {draw}: the store has {dataset.sizes['draw']} answers of each path, from 0 on")
    one = dataset.isel(draw=[draw])
    if "thought_draw" not in one:
        return one
    own = one["thought_draw"].transpose(*STEP).values
    found = _chosen(one, np.isin(own, (-1, draw)))
    return found.assign(thought_draw=found["thought_draw"].where(found["thought_draw"] < 0, 0).astype(np.int32))


def before_answers(dataset: xr.Dataset) -> xr.Dataset:
    """The store with the thoughts alone that stand before all answers."""
    if "thought_draw" not in dataset:
        return dataset
    own = dataset["thought_draw"].transpose(*STEP).values
    return _chosen(dataset, own < 0).drop_vars(["thought_draw", "thought_place", "thought_offset"], errors="ignore")


def only_within(dataset: xr.Dataset) -> bool:
    """Whether there are thoughts, and none of them stands before the answers: then no change has any to act on."""
    there = dataset["mask"].transpose(*STEP).values
    return "thought_draw" in dataset and bool(there.any()) and not before_answers(dataset)["mask"].values.any()


def _chosen(dataset: xr.Dataset, chosen: np.ndarray) -> xr.Dataset:
    """The thoughts [example, path, step] that are chosen and there, moved up to the first steps."""
    mixtures = "mixture_token" in dataset
    plain = (dataset.drop_vars("thought") if mixtures else dataset).drop_vars("step", errors="ignore")
    chosen = chosen & plain["mask"].transpose(*STEP).values
    order = np.argsort(~chosen, axis=-1, kind="stable")[..., : chosen.sum(-1).max(initial=0)]
    names = [name for name, variable in plain.data_vars.items() if "step" in variable.dims]
    place: dict[str, xr.DataArray] = {dim: xr.DataArray(np.arange(plain.sizes[dim]), dims=dim) for dim in STEP[:2]}
    moved = plain[names].isel({**place, "step": xr.DataArray(order, dims=STEP)})
    found = plain.drop_vars(names).assign({name: moved[name] for name in names})
    found = found.assign(mask=(STEP, np.take_along_axis(chosen, order, -1)))
    return mixed(found) if mixtures else found


def marked(dataset: xr.Dataset, example: str, path: int = 0, draw: int = 0, mark: str = MARK) -> str:
    """The text of an answer with a mark at each place where a thought stands; {} in it is the thought's step."""
    one = dataset.sel(example=example).isel(path=path)
    text = str(one["text"].isel(draw=draw).item())
    if "thought_draw" not in one:
        return text
    parts, behind = [], 0
    for step in np.flatnonzero(one["mask"].values & (one["thought_draw"].values == draw)):
        offset = int(one["thought_offset"].values[step])
        parts += [text[behind:offset], mark.format(step)]
        behind = max(behind, offset)
    return "".join([*parts, text[behind:]])
