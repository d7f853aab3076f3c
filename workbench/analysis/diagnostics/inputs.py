"""What every statistic takes: finite float64 arrays, feature axis last; anything else gets one sentence.

And what tables take of stores: one path's thoughts, the labels of its questions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

Stores = xr.Dataset | Mapping[Any, xr.Dataset]  # one, or several by name, such as their training steps


def finite(values: ArrayLike, name: str) -> np.ndarray:
    """`values` in float64; ValueError where one is NaN or infinite."""
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinite values: mask or drop those first")
    return array


def samples(vectors: ArrayLike, need: int = 2, name: str = "vectors") -> np.ndarray:
    """All axes but the last as samples [sample, feature] in float64, at least `need` of them."""
    array = finite(vectors, name)
    if array.ndim < 2 or array.shape[-1] == 0:
        raise ValueError(f"{name} of shape {array.shape}: give samples x features, with at least one feature")
    array = array.reshape(-1, array.shape[-1])
    if len(array) < need:
        raise ValueError(f"{len(array)} samples in {name}: this statistic needs at least {need}, give more examples")
    return array


def two_clouds(p_samples: ArrayLike, q_samples: ArrayLike, need: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Samples of p and of q with the same features."""
    p, q = samples(p_samples, need, "p"), samples(q_samples, need, "q")
    if p.shape[1] != q.shape[1]:
        raise ValueError(f"p has {p.shape[1]} features and q has {q.shape[1]}: both need the same")
    return p, q


def as_thoughts(vectors: ArrayLike, mask: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Thoughts [example, step, feature] in float64 (0 where masked) and their mask [example, step]."""
    x = np.asarray(vectors, dtype=np.float64)
    present = np.ones(x.shape[:2], dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    if x.ndim != 3 or present.shape != x.shape[:2]:
        raise ValueError(
            f"thoughts {x.shape} with mask {present.shape}: give [example, step, feature], [example, step]"
        )
    return finite(np.where(present[..., None], x, 0), "thoughts"), present


def ratio(top: np.ndarray, below: np.ndarray) -> float:
    """Ratio of sums; 0 of nothing."""
    return float(top.sum() / below.sum()) if below.any() else 0.0


# ------------------------------------------------------------------------------------------------------- of stores


def by_name(stores: Stores) -> dict[Any, xr.Dataset]:
    """Several stores as they are called; one by its method."""
    if isinstance(stores, xr.Dataset):
        return {stores.attrs["method"]: stores}
    if not stores:
        raise ValueError("no stores: give at least one")
    return dict(stores)


def path_thoughts(store: xr.Dataset, path: int) -> tuple[np.ndarray, np.ndarray]:
    """One path's thoughts [example, step, feature] and their mask [example, step]."""
    if not 0 <= path < store.sizes["path"]:
        raise ValueError(f"path {path} of a store with {store.sizes['path']} paths: give one of those, counted from 0")
    one = store[["thought", "mask"]].isel(path=path)
    return as_thoughts(
        one["thought"].transpose("example", "step", "feature").values, one["mask"].transpose("example", "step").values
    )


def question_labels(store: xr.Dataset, label: str, path: int) -> np.ndarray:
    """Of each question [example]: "correct" (most draws of this path are right), "gold" (the answer), or a label_<name>
    of the store."""
    if label == "correct":
        return store["correct"].isel(path=path).mean("draw").values > 0.5
    if label == "gold" or (label.startswith("label_") and label in store.coords):
        return store[label].values
    known = ", ".join(["correct", "gold", *(str(name) for name in store.coords if str(name).startswith("label_"))])
    raise ValueError(f"no label {label!r} in this store: it has {known}")


def rows_of(store: xr.Dataset, ids: np.ndarray) -> np.ndarray:
    """Where the examples with these ids stand in the store."""
    place = {str(name): k for k, name in enumerate(store["example"].values)}
    return np.array([place[str(name)] for name in ids], dtype=np.int64)


def chosen_rows(store: xr.Dataset, examples: Sequence[str] | int | None) -> np.ndarray:
    """Where the examples stand that are meant by ids, by how many of the first, or by None (all)."""
    known = store["example"].values.astype(str)
    if examples is None or isinstance(examples, int):
        return np.arange(len(known))[:examples]
    unknown = sorted(set(examples) - set(known))
    if unknown:
        raise ValueError(f"no example {unknown[0]!r} in this store: give ids of its examples, or how many")
    return rows_of(store, np.array(examples))
