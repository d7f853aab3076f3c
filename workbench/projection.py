"""Thought vectors as labelled points in a plane: PCA at once, UMAP on request, fitted on the union of what is compared.

    PCA:  z = (x - mean) V_k, V_k the k leading right singular vectors of the centred vectors
    UMAP: McInnes, Healy, Melville 2018, arXiv:1802.03426 (umap-learn), started from PCA

Read `trustworthiness` before believing a map: the share of neighbours on the map that are neighbours in the data,
1 = all, about 0.5 = chance (Venna and Kaski 2001).
"""

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import xarray as xr

from .files import whole
from .store import flatten

AXES = ("x", "y", "z")
CHECKED_ROWS = 2000  # trustworthiness compares all pairs: beyond this many rows a sample is enough
FEWEST = 4  # with three points every map is perfect and says nothing


@dataclass(frozen=True, eq=False)
class Projection:
    """Points of one map, and how far to trust it."""

    points: np.ndarray  # [n, k]
    explained: tuple[float, ...]  # PCA: share of the variance on each axis; UMAP: empty, its axes have no such share
    trustworthiness: float  # in [0, 1]
    neighbours: int  # neighbourhood size that trustworthiness was measured with
    checked_rows: int  # rows it was measured on: all, or a seeded sample of 2000
    method: Literal["pca", "umap"]


def pca(vectors: np.ndarray, dimensions: int = 2, *, neighbours: int = 15) -> Projection:
    """The `dimensions` directions of largest variance of `vectors` [n, feature], in their units, centred at 0.

    The sign of each axis is fixed: the largest loading is positive (scikit-learn's rule). Raises ValueError for fewer
    than 4 vectors, NaN or infinite values, and vectors that are all the same.
    """
    from sklearn.decomposition import PCA  # heavy: half a second

    wide = _checked(vectors, dimensions)
    n, feature = wide.shape
    # all three are exact and deterministic; 'auto' would switch to a randomised approximation for large inputs
    solver = "covariance_eigh" if feature <= 1000 else "full" if n <= 1000 else "arpack"
    fitted = PCA(dimensions, svd_solver=solver, random_state=0).fit(wide)
    points = fitted.transform(wide)
    explained = tuple(float(share) for share in fitted.explained_variance_ratio_)
    return Projection(points, explained, *_trust(wide, points, neighbours), "pca")


def umap(
    vectors: np.ndarray,
    dimensions: int = 2,
    *,
    seed: int = 0,
    neighbours: int = 15,
    min_distance: float = 0.1,
    metric: Literal["euclidean", "cosine"] = "euclidean",
) -> Projection:
    """UMAP of `vectors` [n, feature]: neighbourhoods are kept, distances and sizes of clusters mean nothing.

    neighbours: size of the neighbourhoods that are kept (at most n - 1); min_distance: how tightly points may be
    packed on the map. The same input, seed and umap-learn version give the same points. Compilation costs some 13 s
    once per process, so points are kept in $WORKBENCH_CACHE (default ~/.cache/workbench), named by a hash of all
    input. Raises ValueError as `pca` does.
    """
    wide = _checked(vectors, dimensions).astype(np.float32)
    near = min(neighbours, len(wide) - 1)
    if near < 2:
        raise ValueError(f"neighbours is {neighbours}: UMAP needs at least 2, and 15 is usual; give a larger number")
    key = hashlib.sha256(
        f"{wide.shape} {dimensions} {seed} {near} {min_distance} {metric} {version('umap-learn')}".encode()
    )
    key.update(np.ascontiguousarray(wide).tobytes())
    file = cache_folder() / "umap" / f"{key.hexdigest()[:32]}.npy"
    points = _cached(file, (len(wide), dimensions))
    if points is None:
        points = _fit_umap(wide, dimensions, seed, near, min_distance, metric)
        _keep(file, points)
    return Projection(points, (), *_trust(wide, points, neighbours, metric), "umap")


def _fit_umap(wide: np.ndarray, dimensions: int, seed: int, near: int, min_distance: float, metric: str) -> np.ndarray:
    with warnings.catch_warnings():
        # about umap's own optional parts; and about isolated points, which trustworthiness shows where it matters
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        warnings.filterwarnings("ignore", "A (few|large number) of your vertices were disconnected", UserWarning)
        from umap import UMAP

        # init='pca': the default spectral start warns and falls back to noise on small or disconnected sets.
        # n_jobs=1: with a seed umap runs on one thread anyway, and says so in a warning unless told.
        mapper = UMAP(
            n_components=dimensions,
            n_neighbors=near,
            min_dist=min_distance,
            metric=metric,
            init="pca",
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(mapper.fit_transform(wide), np.float64)


def project(
    stores: xr.Dataset | Mapping[str, xr.Dataset],
    how: Literal["pca", "umap"] = "pca",
    dimensions: int = 2,
    *,
    seed: int = 0,
    neighbours: int = 15,
) -> pd.DataFrame:
    """One map of all real thoughts of one store or of several named ones (name -> store), fitted on their union.

    One row per thought: x, y (z), store (the name; a single store is named after its method), prediction (the path's
    answers, " | " between draws that differ), and every column of `store.flatten`. Attributes (`.attrs`): how,
    explained, trustworthiness, neighbours, checked_rows, all as in `Projection`. Raises ValueError for stores whose
    vectors differ in width, and as `pca` does.
    """
    if how not in ("pca", "umap"):
        raise ValueError(f"unknown projection {how!r}: use 'pca' or 'umap'")
    if not 1 <= dimensions <= len(AXES):
        raise ValueError(f"dimensions is {dimensions}: a map has 1 to {len(AXES)}; use pca() or umap() for more")
    named = {str(stores.attrs["method"]): stores} if isinstance(stores, xr.Dataset) else dict(stores)
    if not named:
        raise ValueError("no stores to project: give one, or a dict name -> store")
    widths = {name: store.sizes["feature"] for name, store in named.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"stores have vectors of different width {widths}: project them one by one")
    parts = {name: flatten(store) for name, store in named.items()}
    vectors = np.concatenate([part[0] for part in parts.values()])
    if not len(vectors):
        raise ValueError(f"no thoughts in {', '.join(named)}: a map needs a method that writes thought vectors")
    tables = [
        table.assign(store=name, prediction=_predictions(named[name], table)) for name, (_, table) in parts.items()
    ]
    if how == "umap":
        found = umap(vectors, dimensions, seed=seed, neighbours=neighbours)
    else:
        found = pca(vectors, dimensions, neighbours=neighbours)
    # a store without thoughts has no rows, and empty columns would change the types of the others'
    table = pd.concat([table for table in tables if len(table)], ignore_index=True)
    for axis, values in reversed(list(zip(AXES, found.points.T, strict=False))):
        table.insert(0, axis, values)
    table.attrs = {
        "how": how,
        "explained": list(found.explained),
        "trustworthiness": found.trustworthiness,
        "neighbours": found.neighbours,
        "checked_rows": found.checked_rows,
    }
    return table


def cache_folder() -> Path:
    """Where results that are slow to compute are kept between processes: $WORKBENCH_CACHE or ~/.cache/workbench."""
    return Path(os.environ.get("WORKBENCH_CACHE") or Path.home() / ".cache" / "workbench")


def _checked(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """`vectors` as float64, or one sentence why they have no map."""
    wide = np.asarray(vectors, np.float64)
    if wide.ndim != 2:
        raise ValueError(f"vectors have shape {wide.shape}: a projection takes [n, feature]; use store.flatten first")
    n, feature = wide.shape
    if n < FEWEST:
        raise ValueError(f"{n} thought vectors given: a projection needs at least {FEWEST}; collect more examples")
    if not 1 <= dimensions <= min(n, feature):
        raise ValueError(f"dimensions is {dimensions}: {n} vectors of width {feature} allow 1 to {min(n, feature)}")
    bad = np.flatnonzero(~np.isfinite(wide).all(1))
    if len(bad):
        raise ValueError(
            f"{len(bad)} of {n} thought vectors hold NaN or infinite values (first: row {bad[0]}): "
            "a projection needs finite numbers; look at the training run, or drop these rows"
        )
    # float16 and float32 rounding must not pass for structure
    if np.ptp(wide, axis=0).max() <= 1e-6 * np.abs(wide).max():
        raise ValueError(
            f"all {n} thought vectors are the same vector: a projection needs at least one direction in which they "
            "differ; the thoughts have collapsed, see diagnostics.describe"
        )
    return wide


def _trust(wide: np.ndarray, points: np.ndarray, neighbours: int, metric: str = "euclidean") -> tuple[float, int, int]:
    """Trustworthiness, the neighbourhood size it used (below half the rows, as its formula asks), the rows it used."""
    from sklearn.manifold import trustworthiness

    if len(wide) > CHECKED_ROWS:
        rows = np.random.default_rng(0).choice(len(wide), CHECKED_ROWS, replace=False)
        wide, points = wide[rows], points[rows]
    near = max(1, min(neighbours, (len(wide) - 1) // 2))
    return float(trustworthiness(wide, points, n_neighbors=near, metric=metric)), near, len(wide)


def _predictions(store: xr.Dataset, table: pd.DataFrame) -> list[str]:
    """The answers of each row's path, without repetition."""
    values = store["prediction"].transpose("example", "path", "draw").values
    answers = {
        (example, path): " | ".join(dict.fromkeys(str(text) or "(no answer)" for text in draws))
        for example, paths in zip(store["example"].values, values, strict=True)
        for path, draws in enumerate(paths)
    }
    return [answers[key] for key in zip(table["example"], table["path"], strict=True)]


def _cached(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        points = np.load(file)
    except (OSError, ValueError, EOFError):  # missing or damaged: both mean compute again
        return None
    return points if points.shape == shape else None


def _keep(file: Path, points: np.ndarray) -> None:
    try:
        with whole(file) as temporary, temporary.open("wb") as handle:
            np.save(handle, points)
    except OSError as error:
        warnings.warn(
            f"UMAP points were not kept in {file.parent} ({error.strerror}): set WORKBENCH_CACHE to a folder you may "
            "write, or the next call computes them again",
            stacklevel=3,
        )
