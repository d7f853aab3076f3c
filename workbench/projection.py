"""Thought vectors as labelled points in a plane: PCA at once, UMAP on request, fitted on the union of what is compared.

    PCA:     z = (x - mean) V_k, V_k the k leading right singular vectors of the centred vectors
    UMAP:    McInnes, Healy, Melville 2018, arXiv:1802.03426 (umap-learn), started from PCA
    densMAP: Narayan, Berger, Cho 2021, doi:10.1038/s41587-020-00801-7: UMAP that also keeps how dense the data are

Read two numbers before believing a map (Venna and Kaski 2001; 1 = perfect, about 0.5 = chance):

    trustworthiness   neighbours on the map are neighbours in the data: no false ones
    continuity        neighbours in the data are neighbours on the map: none torn apart
                      = trustworthiness with the two spaces exchanged
"""

import hashlib
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tokenize import TokenError
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr

from .files import whole
from .store import flatten

How = Literal["pca", "umap", "densmap"]
AXES = ("x", "y", "z")
CHECKED_ROWS = 2000  # both numbers compare all pairs: beyond this many rows a sample is enough
FEWEST = 4  # with three points every map is perfect and says nothing


@dataclass(frozen=True, eq=False)
class Projection:
    """Points of one map, and how far to trust it."""

    points: np.ndarray  # [n, k]
    explained: tuple[float, ...]  # PCA: share of the variance on each axis; else empty, such axes have no share
    trustworthiness: float  # in [0, 1]
    continuity: float  # in [0, 1]
    neighbours: int  # neighbourhood size that both were measured with
    checked_rows: int  # rows they were measured on: all, or a seeded sample of 2000
    method: Literal["pca", "umap", "densmap", "identity"]


def pca(vectors: np.ndarray, dimensions: int = 2, *, neighbours: int = 15, batch: int = 10_000) -> Projection:
    """The `dimensions` directions of largest variance of `vectors` [n, feature], in their units, centred at 0.

    Exact. Where there are more vectors than features they are read `batch` rows at a time (two passes, for the mean and
    for the covariance), so that a million of them need little more memory than they take.
    The sign of each axis is fixed: the largest loading is positive. Raises ValueError for fewer than 4 vectors, NaN or
    infinite values, and vectors that are all the same.
    """
    wide = _checked(vectors, dimensions)
    if batch < 1:
        raise ValueError(f"batch is {batch}: give the number of rows to read at a time, 1 or more")
    if len(wide) > wide.shape[1]:
        points, explained = _of_covariance(wide, dimensions, batch)
    else:
        points, explained = _of_vectors(wide, dimensions)
    return Projection(points, explained, *_trust(wide, points, neighbours), "pca")


def _of_covariance(wide: np.ndarray, dimensions: int, batch: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """Points and shares of the variance from the eigenvectors of the features' covariance."""
    from scipy.linalg import eigh  # heavy, as is scikit-learn below: half a second

    n, feature = wide.shape
    parts = [slice(start, start + batch) for start in range(0, n, batch)]
    mean = sum(wide[part].sum(axis=0, dtype=np.float64) for part in parts) / n
    scatter = np.zeros((feature, feature))
    for part in parts:
        centred = wide[part] - mean
        scatter += centred.T @ centred
    values, loadings = eigh(scatter, subset_by_index=(feature - dimensions, feature - 1))
    values, loadings = values[::-1], loadings[:, ::-1]
    loadings = loadings * np.sign(loadings[np.abs(loadings).argmax(axis=0), np.arange(dimensions)])
    points = np.concatenate([(wide[part] - mean) @ loadings for part in parts])
    return points, tuple(float(value) for value in values.clip(0) / np.trace(scatter))


def _of_vectors(wide: np.ndarray, dimensions: int) -> tuple[np.ndarray, tuple[float, ...]]:
    """The same from the singular vectors of at most as many vectors as features."""
    from sklearn.decomposition import PCA

    # both are exact and deterministic; 'auto' would switch to a randomised approximation for large inputs
    solver = "full" if len(wide) <= 1000 else "arpack"
    wide = wide.astype(np.float64)
    fitted = PCA(dimensions, svd_solver=solver, random_state=0).fit(wide)
    return fitted.transform(wide), tuple(map(float, np.asarray(fitted.explained_variance_ratio_)))


def umap(
    vectors: np.ndarray,
    dimensions: int = 2,
    *,
    seed: int = 0,
    neighbours: int = 15,
    min_distance: float = 0.1,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    density: bool = False,
) -> Projection:
    """UMAP of `vectors` [n, feature]: neighbourhoods are kept, distances and sizes of clusters mean nothing.

    neighbours: size of the neighbourhoods that are kept (at most n - 1); min_distance: how tightly points may be
    packed on the map; density: densMAP, in which tight clusters of the data are tight on the map. The same input, seed
    and umap-learn version give the same points. Compilation costs some 13 s once per process, so points are kept in
    $WORKBENCH_CACHE (default ~/.cache/workbench), named by a hash of all input. Raises ValueError as `pca` does.
    """
    wide = np.ascontiguousarray(_checked(vectors, dimensions), np.float32)
    near = min(neighbours, len(wide) - 1)
    if near < 2:
        raise ValueError(f"neighbours is {neighbours}: UMAP needs at least 2, and 15 is usual; give a larger number")
    settings = f"{wide.shape} {dimensions} {seed} {near} {min_distance} {metric} {version('umap-learn')}"
    key = hashlib.sha256((settings + (" densmap" if density else "")).encode())
    key.update(wide.tobytes())
    file = cache_folder() / "umap" / f"{key.hexdigest()[:32]}.npy"
    points = _cached(file, (len(wide), dimensions))
    if points is None:
        points = _fit_umap(wide, dimensions, seed, near, min_distance, metric, density)
        _keep(file, points)
    return Projection(points, (), *_trust(wide, points, neighbours, metric), "densmap" if density else "umap")


def _fit_umap(
    wide: np.ndarray, dimensions: int, seed: int, near: int, min_distance: float, metric: str, density: bool
) -> np.ndarray:
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
            densmap=density,
            init="pca",
            random_state=seed,
            n_jobs=1,
        )
        return np.asarray(mapper.fit_transform(wide), np.float64)


def placed(vectors: np.ndarray, points: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Where `new` vectors [m, feature] lie on a linear map (PCA) that has `vectors` [n, feature] at `points` [n, k]."""
    middle, origin = vectors.mean(axis=0), points.mean(axis=0)
    loadings = np.linalg.lstsq(vectors - middle, points - origin, rcond=None)[0]  # the shortest: within their span
    return (new - middle) @ loadings + origin


def identity(vectors: np.ndarray, *, neighbours: int = 15) -> Projection:
    """Vectors [n, 1 to 3] as they are: what has no more features than a map has axes needs no map."""
    wide = _checked(vectors, np.shape(vectors)[-1])
    if wide.shape[1] > len(AXES):
        raise ValueError(f"vectors of width {wide.shape[1]} cannot be drawn as they are: use pca() or umap()")
    points = wide.astype(np.float64)
    return Projection(points, (), *_trust(wide, points, neighbours), "identity")


def project(
    stores: xr.Dataset | Mapping[Any, xr.Dataset],
    how: How = "pca",
    dimensions: int = 2,
    *,
    seed: int = 0,
    neighbours: int = 15,
) -> pd.DataFrame:
    """One map of all real thoughts of one store, or of several by name or training step, fitted on their union.

    Stores may share examples, as those of one run at several training steps do: (store, example, path, step) names a
    row. One row per thought: x, y (z), and the columns of `labelled`. Attributes (`.attrs`): how, explained,
    trustworthiness, continuity, neighbours, checked_rows, all as in `Projection`. Vectors with as many features as the
    map has `dimensions` are taken as they are (how = "identity"). Raises ValueError for stores whose vectors differ in
    width, and as `pca` does.
    """
    if how not in get_args(How):
        raise ValueError(f"unknown projection {how!r}: use {', '.join(map(repr, get_args(How)))}")
    if not 1 <= dimensions <= len(AXES):
        raise ValueError(f"dimensions is {dimensions}: a map has 1 to {len(AXES)}; use pca() or umap() for more")
    vectors, table = labelled(stores)
    if vectors.shape[1] == dimensions:
        found = identity(vectors, neighbours=neighbours)
    elif how == "pca":
        found = pca(vectors, dimensions, neighbours=neighbours)
    else:
        found = umap(vectors, dimensions, seed=seed, neighbours=neighbours, density=how == "densmap")
    for axis, values in reversed(list(zip(AXES, found.points.T, strict=False))):
        table.insert(0, axis, values)
    table.attrs = {
        "how": found.method,
        "explained": list(found.explained),
        "trustworthiness": found.trustworthiness,
        "continuity": found.continuity,
        "neighbours": found.neighbours,
        "checked_rows": found.checked_rows,
    }
    return table


def labelled(stores: xr.Dataset | Mapping[Any, xr.Dataset]) -> tuple[np.ndarray, pd.DataFrame]:
    """All real thoughts of one store, or of several by name or training step: vectors [n, feature] float32, and a row
    for each.

    Columns: those of `store.flatten`, store (its name or step; a single store is named after its method), prediction
    and text (what the path was answered with, " | " between draws that differ). Raises ValueError without stores,
    without thoughts, and for stores whose vectors differ in width.
    """
    named = {str(stores.attrs["method"]): stores} if isinstance(stores, xr.Dataset) else dict(stores)
    if not named:
        raise ValueError("no stores to project: give one, or a dict name -> store")
    widths = {name: store.sizes["feature"] for name, store in named.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"stores have vectors of different width {widths}: project them one by one")
    parts = {name: flatten(store) for name, store in named.items()}
    vectors = np.concatenate([part[0] for part in parts.values()])
    if not len(vectors):
        raise ValueError(
            f"no thoughts in {', '.join(map(str, named))}: a map needs a method that writes thought vectors"
        )
    tables = [
        table.assign(
            store=name,
            prediction=_answers(named[name], "prediction", table),
            text=_answers(named[name], "text", table),
        )
        for name, (_, table) in parts.items()
    ]
    # a store without thoughts has no rows, and empty columns would change the types of the others'
    return vectors, pd.concat([table for table in tables if len(table)], ignore_index=True)


def cache_folder() -> Path:
    """Where results that are slow to compute are kept between processes: $WORKBENCH_CACHE or ~/.cache/workbench."""
    return Path(os.environ.get("WORKBENCH_CACHE") or Path.home() / ".cache" / "workbench")


def _checked(vectors: np.ndarray, dimensions: int) -> np.ndarray:
    """`vectors` as floating point numbers, or one sentence why they have no map."""
    wide = np.asarray(vectors)
    wide = wide if wide.dtype in (np.float32, np.float64) else wide.astype(np.float64)
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
    if np.ptp(wide, axis=0).max() <= 1e-6 * max(-wide.min(), wide.max()):
        raise ValueError(
            f"all {n} thought vectors are the same vector: a projection needs at least one direction in which they "
            "differ; the thoughts have collapsed, see diagnostics.describe"
        )
    return wide


def _trust(
    wide: np.ndarray, points: np.ndarray, neighbours: int, metric: str = "euclidean"
) -> tuple[float, float, int, int]:
    """Trustworthiness, continuity, the neighbourhood size (below half the rows, as their formula asks), the rows used.

    metric: of the data; the map is always Euclidean.
    """
    from sklearn.manifold import trustworthiness

    if len(wide) > CHECKED_ROWS:
        rows = np.random.default_rng(0).choice(len(wide), CHECKED_ROWS, replace=False)
        wide, points = wide[rows], points[rows]
    near = max(1, min(neighbours, (len(wide) - 1) // 2))
    wide, points = wide.astype(np.float64), points.astype(np.float64)
    trust = trustworthiness(wide, points, n_neighbors=near, metric=metric)
    # scikit-learn measures its second space by Euclidean distance, which orders unit vectors as the cosine does
    seen = wide / np.linalg.norm(wide, axis=1, keepdims=True).clip(1e-300) if metric == "cosine" else wide
    return float(trust), float(trustworthiness(points, seen, n_neighbors=near)), near, len(wide)


def _answers(store: xr.Dataset, variable: Literal["prediction", "text"], table: pd.DataFrame) -> list[str]:
    """What each row's path was answered with, without repetition."""
    values = store[variable].transpose("example", "path", "draw").values
    answers = {
        (example, path): " | ".join(dict.fromkeys(str(text) or "(no answer)" for text in draws))
        for example, paths in zip(store["example"].values, values, strict=True)
        for path, draws in enumerate(paths)
    }
    return [answers[key] for key in zip(table["example"], table["path"], strict=True)]


def _cached(file: Path, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        with file.open("rb") as handle:  # np.load would open archives and pickles too
            points = np.lib.format.read_array(handle, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError, SyntaxError, TokenError):  # missing or damaged: compute again
        return None
    sound = points.shape == shape and points.dtype == np.float64 and bool(np.isfinite(points).all())
    return points if sound else None


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
