"""Distances to neighbours, exact, in blocks: no array of all pairs is ever held."""

from collections.abc import Iterator

import numpy as np

_BLOCK = 2**22  # numbers held at a time


def nearest_distances(x: np.ndarray, k: int, among: np.ndarray | None = None) -> np.ndarray:
    """Euclidean distances of each row of x [n, feature] to its k nearest rows of `among`, ascending [n, k].

    Without `among`: to the other rows of x (a copy of a row counts as another row, at distance 0).
    """
    from sklearn.neighbors import NearestNeighbors  # heavy: half a second

    others = x if among is None else among
    centre = others.mean(axis=0)  # the search is by |a|^2 + |b|^2 - 2ab, which loses digits far from 0
    search = NearestNeighbors(n_neighbors=k).fit(others - centre)
    found = search.kneighbors(None if among is None else x - centre, return_distance=False)
    distances = np.empty(found.shape)
    for rows in _slices(len(x), k * x.shape[1]):
        distances[rows] = np.linalg.norm(x[rows, None] - others[found[rows]], axis=-1)
    return np.sort(distances, axis=1)


def nearest_rows(x: np.ndarray, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k rows of x [n, feature] that are nearest to one vector [feature]: their positions, nearest first (of equally
    near ones the first), and Euclidean distances [k]; all n where there are fewer than k."""
    distances = np.empty(len(x))
    for rows in _slices(len(x), x.shape[1]):
        distances[rows] = np.linalg.norm(x[rows].astype(np.float64) - query, axis=1)
    found = np.argsort(distances, kind="stable")[:k]
    return found, distances[found]


def squared_distance_blocks(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Blocks (rows of x, their squared distances to all of y [rows, m]), by matrix products: exact to rounding of the
    largest norms, never negative."""
    centre = y.mean(axis=0)
    x, y = x - centre, y - centre
    own = np.square(y).sum(axis=1)
    for rows in _slices(len(x), len(y)):
        block = x[rows] @ y.T
        block *= -2
        block += np.square(x[rows]).sum(axis=1)[:, None]
        block += own
        yield rows, np.maximum(block, 0, out=block)


def _slices(n: int, width: int) -> Iterator[slice]:
    step = max(1, _BLOCK // width)
    return (slice(start, start + step) for start in range(0, n, step))
