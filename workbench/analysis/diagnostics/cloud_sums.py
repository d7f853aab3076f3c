"""The clouds of a path's steps in few passes: spectra, cosines, neighbours of a sample, the verdict.

covariance = sum over blocks of (x - mean)'(x - mean) / n     blocks in float32, their sum in float64
"""

from concurrent.futures import Future, wait
from typing import NamedTuple

import numpy as np

from .blocks import Thoughts, Workers
from .cloud import NOTHING, STILL, active_variances, covariance_eigenvalues, dimension_of, directions_of
from .divergences import gaussian_kl_shrunk
from .thoughts import PerExample
from .verdict import Thresholds, Verdict, judged

ROWS = 4096  # of a block of which products are taken: enough to keep the processor busy
CANDIDATES = 8  # nearest in float32, of which the nearest in float64 are taken


class _Sums(NamedTuple):
    """What blocks of a step's thoughts add up to."""

    scatter: np.ndarray  # [feature, feature]: of (x - mean)'(x - mean)
    units: np.ndarray  # [2, feature]: of unit vectors, before and after the mean is taken off
    nonzero: np.ndarray  # [2]: vectors that have a direction


class Clouds:
    """The clouds of a path's steps, one at a time, and what they add up to."""

    def __init__(self, thoughts: Thoughts, means: np.ndarray, each: PerExample, sample: np.ndarray, workers: Workers):
        self.thoughts, self.means, self.each, self.workers = thoughts, means, each, workers
        self.present = thoughts.mask[:, thoughts.path]
        self.some = self.present.any(axis=1)
        self.sample = sample  # those whose neighbours are looked for, ascending
        self.scatter = np.zeros(())  # [feature, feature]: sum over steps
        self.distances = np.zeros(())  # [sample, example], squared: sum over steps, in float32

    def statistics(self, steps: list[int], reference: np.ndarray | None) -> dict[tuple[str, str], float]:
        """(statistic, step) -> value, where "all" is the mean over steps that have one. Spectra and neighbours of a
        step are found while the sums of the next are taken."""
        waiting: dict[int, list[Future[dict[str, float]]]] = {}
        for s in range(len(self.means)):
            x = self.thoughts.step(s, self.workers)
            sums, squared = self._sums(s, x)
            self.scatter = sums.scatter if s == 0 else self.scatter + sums.scatter
            self.distances = squared if s == 0 else self.distances + squared
            if s in steps:
                parts = (self._directions, self._neighbours)
                waiting[s] = [self.workers.pool.submit(part, s, x, sums, squared) for part in parts]
            if len(waiting) > self.workers.threads:  # few matrices are held
                wait(list(waiting.values())[-1 - self.workers.threads])
        found: dict[tuple[str, str], float] = {}
        if reference is not None:
            found["gaussian_kl", "all"] = gaussian_kl_shrunk(*self._moments(), reference)
        each = {s: {k: v for part in parts for k, v in part.result().items()} for s, parts in waiting.items()}
        for name in each[steps[0]]:
            found |= {(name, str(s)): values[name] for s, values in each.items()}
            known = [values[name] for values in each.values() if not np.isnan(values[name])]
            found[name, "all"] = float(np.mean(known)) if known else np.nan
        return found

    def _sums(self, s: int, x: np.ndarray) -> tuple[_Sums, np.ndarray]:
        """The sums of a step x [example, feature], and squared distances [sample, example]; sets deviations."""
        width, there = x.shape[1], self.present[:, s]
        squared = np.empty((len(self.sample), len(x)), np.float32)
        seeds = _centred(x[self.sample], there[self.sample], self.means[s])
        sums = _Sums(np.zeros((width, width)), np.zeros((2, width)), np.zeros(2))

        def of_rows(start: int) -> _Sums:
            rows = slice(start, start + ROWS)
            y = _centred(x[rows], there[rows], self.means[s])
            length = _squares(y)
            _squared_distances(seeds, y, length, squared[:, rows])
            self.each.deviation[rows, s] = np.where(there[rows], length / width, 0)
            if not there[rows].all():
                y = y[there[rows]]
            units, nonzero = np.empty((2, width)), np.empty(2)
            for k, lengths in enumerate((self.each.square, self.each.deviation)):
                length = lengths[rows, s][there[rows]] * width
                weight = np.divide(1, np.sqrt(length), out=np.zeros_like(length), where=length > 0)
                units[k] = weight.astype(np.float32) @ y + (0 if k else weight.sum() * self.means[s])
                nonzero[k] = (weight > 0).sum()
            return _Sums(_scatter(y), units, nonzero)

        for part in self.workers.ordered((of_rows, start) for start in range(0, len(x), ROWS)):
            for whole, more in zip(sums, part, strict=True):
                whole += more
        return sums, squared

    def _directions(self, s: int, x: np.ndarray, sums: _Sums, squared: np.ndarray) -> dict[str, float]:
        """The statistics of a step x [example, feature] but for its neighbours."""
        there, square = self.present[:, s], self.each.square[:, s]
        n, width = int(there.sum()), x.shape[1]
        cosine, centred = (np.square(sums.units).sum(axis=1) - sums.nonzero) / max(n * (n - 1), 1)
        if self._still(s):
            nothing = dict.fromkeys(("effective_rank", "participation_ratio", "anisotropy", "centred_cosine"), np.nan)
            return nothing | {"cosine": float(cosine), "active_units": 0.0}
        variances = sums.scatter.diagonal() / n
        return {
            **directions_of(covariance_eigenvalues(x[there]) if n < width else _eigenvalues(sums.scatter, n)),
            "cosine": float(cosine),
            "centred_cosine": float(centred),
            "active_units": float(active_variances(variances, square.sum() / n)),
        }

    def _neighbours(self, s: int, x: np.ndarray, sums: _Sums, squared: np.ndarray) -> dict[str, float]:
        if self._still(s):
            return {"neighbour_ratio": 0.0, "intrinsic_dimension": np.nan}
        return _neighbours(x, self.present[:, s], squared, self.sample)

    def _still(self, s: int) -> bool:
        """Whether the thoughts of a step differ by no more than rounding."""
        return bool(self.each.deviation[:, s].sum() <= STILL * self.each.square[:, s].sum())

    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the path's thoughts, all steps together."""
        count = self.present.sum(axis=0)
        mean = count @ self.means / count.sum()
        apart = (self.means - mean) * np.sqrt(count)[:, None]
        covariance = apart.T @ apart
        covariance += self.scatter
        covariance /= count.sum()
        return mean, covariance

    def verdict(self, steps: list[int], values: dict[tuple[str, str], float], thresholds: Thresholds) -> Verdict:
        """That of `collapse`, of whose questions with the same thoughts a sample is looked at."""
        deviation, square = self.each.deviation.sum(axis=0), self.each.square.sum(axis=0)
        several = self.present.sum(axis=1) >= 2
        rank = values["effective_rank", "all"]
        known = {
            "spread": float(deviation[steps].sum() / self.present[:, steps].sum()),
            "relative_spread": float(deviation[steps].sum() / (square[steps].sum() or 1)),
            "effective_rank": 0.0 if np.isnan(rank) else rank,
            "cosine": values["cosine", "all"],
            "rms": float(np.sqrt(square.sum() / self.present.sum())),
        }
        if several.any():
            known["slot_cosine"] = float(self.each.slot_cosine[several].mean())
        spreads = {s: float(deviation[s] / (square[s] or 1)) for s in steps}
        return judged(known, spreads, *self._same(thresholds.same_distance), thresholds)

    def _same(self, distance: float) -> tuple[int, int]:
        n, count, width = int(self.some.sum()), self.present.sum(axis=0), self.means.shape[1]
        deviation = self.each.deviation.sum(axis=0) * width  # around the means of those that have the step
        variance = float((deviation + np.square(self.means).sum(1) * count * (1 - count / n)).sum()) / n
        if n < 2 or variance <= NOTHING * self.each.square.sum() * width / n:
            return n if n > 1 else 0, n
        limit = 2 * variance * distance**2
        most = max(int((row[self.some] <= limit).sum()) for row in self.distances)
        return most if most > 1 else 0, n


def _centred(x: np.ndarray, there: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """x [row, feature] less the mean in float32, of 0 where it is masked."""
    y = x.astype(np.float32)
    if not there.all():
        y[~there] = 0
    y -= mean.astype(np.float32)
    return y


def _eigenvalues(scatter: np.ndarray, n: int) -> np.ndarray:
    return np.clip(np.linalg.eigvalsh(scatter)[::-1] / n, 0, None)


def _scatter(y: np.ndarray) -> np.ndarray:
    return y.T @ y


def _squares(y: np.ndarray) -> np.ndarray:
    return np.einsum("af,af->a", y, y)


def _squared_distances(a: np.ndarray, b: np.ndarray, squares: np.ndarray, out: np.ndarray) -> None:
    """Into `out`, between the rows of a and of b, whose squares are known, by a matrix product."""
    found = a @ b.T
    found *= -2
    found += _squares(a)[:, None]
    found += squares
    np.maximum(found, 0, out=out)


def _neighbours(x: np.ndarray, there: np.ndarray, squared: np.ndarray, sample: np.ndarray) -> dict[str, float]:
    """Ratio and dimension of the sampled examples that have this step, NaN where none has; squared distances
    [sample, example]."""
    which = np.flatnonzero(there[sample])
    if not len(which):
        return {"neighbour_ratio": np.nan, "intrinsic_dimension": np.nan}
    own = sample[which]
    # of the others: what rounding leaves of the distance to itself is taken off
    total = [
        np.sqrt(squared[k, there]).sum(dtype=np.float64) - np.sqrt(squared[k, i])
        for k, i in zip(which, own, strict=True)
    ]
    near = _nearest(x, squared, which, own, there)
    ratio = float((near[:, 0] * (there.sum() - 1) / np.array(total)).mean())
    if (near[:, 0] == 0).any() or (near[:, 0] == near[:, -1]).any():  # copies count once, in the dimension
        rows = np.flatnonzero(there)
        _, first, place = np.unique(x[rows], axis=0, return_index=True, return_inverse=True)
        there = np.zeros_like(there)
        there[rows[first]] = True
        own, kept = np.unique(rows[first][place.ravel()][np.searchsorted(rows, own)], return_index=True)
        if len(first) < 3:
            return {"neighbour_ratio": ratio, "intrinsic_dimension": np.nan}
        near = _nearest(x, squared, which[kept], own, there)
    dimension = dimension_of(near) if there.sum() > 2 and len(near) > 2 else np.nan
    return {"neighbour_ratio": ratio, "intrinsic_dimension": dimension}


def _nearest(x: np.ndarray, squared: np.ndarray, which: np.ndarray, own: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Exact distances of the rows `own` of x to their two nearest others [own, 2], ascending; the rows `which` of the
    squared distances [sample, row of x] say which those may be, up to rounding."""
    k = min(CANDIDATES, int(among.sum()) - 1)
    places = np.empty((len(own), k), dtype=np.int64)
    for place, row, i in zip(places, which, own, strict=True):
        distances = np.where(among, squared[row], np.inf)
        distances[i] = np.inf
        place[:] = np.argpartition(distances, k - 1)[:k]
    found = np.empty(places.shape)
    centre = x[own].astype(np.float64)
    for j in range(k):
        found[:, j] = np.linalg.norm(x[places[:, j]].astype(np.float64) - centre, axis=1)
    return np.sort(found, axis=1)[:, :2]
