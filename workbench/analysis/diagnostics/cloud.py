"""One cloud of vectors: how far it spreads, in how many directions, how its vectors lie to each other.

Feature axis last, samples before it; all moments divide by n. Rotations change nothing but `feature_variances` and
`active_units`; scales nothing but `spread`, `feature_variances` and eigenvalues.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from .inputs import finite, samples
from .neighbours import nearest_distances, squared_distance_blocks

NOTHING = 1e-20  # of the mean square: less variance than this is rounding, not spread
STILL = 1e-6  # the same of thoughts, which stores keep in float16: rounding alone leaves up to 1e-7

# ------------------------------------------------------------------------------------------------------- how far


def spread(vectors: ArrayLike, *, total: bool = False) -> float:
    """Variance across samples per feature, averaged over features; `total=True` sums (trace of the covariance)."""
    variance = feature_variances(vectors)
    return float(variance.sum() if total else variance.mean())


def feature_variances(vectors: ArrayLike) -> np.ndarray:
    """Variance across samples of each feature [feature], in units squared."""
    return samples(vectors).var(axis=0)


def relative_spread(vectors: ArrayLike) -> float:
    """Spread divided by the mean square: 0 = all samples equal, 1 = mean zero. Scale free; 0 for all-zero vectors."""
    x = samples(vectors)
    square = float(np.square(x).mean())
    return spread(x) / square if square else 0.0


def norm_ratio(vectors: ArrayLike, reference: ArrayLike) -> float:
    """Root mean square norm of the vectors over that of the reference rows."""
    below = np.square(samples(reference, 1, "reference")).sum(-1).mean()
    if below == 0:
        raise ValueError("all reference rows are zero: give a sample of the backbone's token embeddings")
    return float(np.sqrt(np.square(samples(vectors, 1)).sum(-1).mean() / below))


@dataclass(frozen=True)
class Drift:
    """How far vectors moved: means over the vectors."""

    relative: float  # |after - before| / |before|: 0 = nothing moved, 1 = by a vector's own length
    cosine: float  # between before and after: 1 = no turn


def drift(before: ArrayLike, after: ArrayLike) -> Drift:
    """How far the same vectors [..., feature] moved: from initialisation, or from the previous checkpoint.

    Rows correspond (same example, path, step). ValueError where a vector of `before` is zero, which has no relative
    size. A zero vector of `after` has cosine 0.
    """
    relative, cosine = drift_of_each(before, after)
    return Drift(float(relative.mean()), float(cosine.mean()))


def drift_of_each(before: ArrayLike, after: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(relative, cosine) of each vector, both [...]; see `drift`."""
    a, b = finite(before, "before"), finite(after, "after")
    if a.shape != b.shape or a.ndim == 0 or a.size == 0:
        raise ValueError(f"before {a.shape} and after {b.shape}: give the same vectors twice, in the same order")
    old, new = np.linalg.norm(a, axis=-1), np.linalg.norm(b, axis=-1)
    if (old == 0).any():
        raise ValueError(f"{(old == 0).sum()} vectors of before are zero: leave those out, they have no relative drift")
    turn = np.divide((a * b).sum(axis=-1), old * new, out=np.zeros(old.shape), where=new > 0)
    return np.linalg.norm(b - a, axis=-1) / old, turn


# ----------------------------------------------------------------------------------------------- how many directions


def covariance_eigenvalues(vectors: ArrayLike) -> np.ndarray:
    """Eigenvalues of the covariance, descending, the min(n, feature) that can differ from 0.

    From the n x n Gram matrix where n is below the number of features: the nonzero ones are the same.
    """
    x = samples(vectors)
    x = x - x.mean(axis=0)
    matrix = (x @ x.T if x.shape[0] < x.shape[1] else x.T @ x) / x.shape[0]
    return np.clip(np.linalg.eigvalsh(matrix)[::-1], 0, None)


def effective_rank(vectors: ArrayLike, of: Literal["eigenvalues", "singular_values"] = "eigenvalues") -> float:
    """exp of the entropy of the normalised covariance eigenvalues: how many directions share the variance.

    Roy & Vetterli 2007 define it on singular values (here: of the centred samples, the eigenvalues' square roots),
    which gives more. At most min(n - 1, feature); 0 where there is no variance at all. Of next to no variance this is
    the rank of rounding: `describe` has NaN there.
    """
    if of not in ("eigenvalues", "singular_values"):
        raise ValueError(f"effective rank of {of!r}: use 'eigenvalues' or 'singular_values'")
    weights = _real_eigenvalues(samples(vectors))
    return _shared_by(weights if of == "eigenvalues" else np.sqrt(weights))


def participation_ratio(vectors: ArrayLike) -> float:
    """(sum of eigenvalues)^2 / sum of their squares; between 1 and min(n - 1, feature); 0 without variance."""
    return _participation(_real_eigenvalues(samples(vectors)))


def anisotropy(vectors: ArrayLike) -> float:
    """Share of the variance along the top direction: 1 / feature = round, 1 = a line; 0 without variance.

    Source: Razzhigaev et al. 2024 (on centred vectors). What Ethayarajh 2019 calls anisotropy is `mean_cosine`.
    """
    return _largest_share(_real_eigenvalues(samples(vectors)))


def directions(vectors: ArrayLike) -> dict[str, float]:
    """effective_rank, participation_ratio and anisotropy, from one decomposition."""
    return directions_of(_real_eigenvalues(samples(vectors)))


def directions_of(weights: np.ndarray) -> dict[str, float]:
    """The same from covariance eigenvalues, descending."""
    return {
        "effective_rank": _shared_by(weights),
        "participation_ratio": _participation(weights),
        "anisotropy": _largest_share(weights),
    }


def _shared_by(weights: np.ndarray) -> float:
    return float(np.exp(entr(weights / weights.sum()).sum())) if weights.any() else 0.0


def _participation(weights: np.ndarray) -> float:
    return float(weights.sum() ** 2 / np.square(weights).sum()) if weights.any() else 0.0


def _largest_share(weights: np.ndarray) -> float:
    return float(weights[0] / weights.sum()) if weights.any() else 0.0


def active_units(vectors: ArrayLike, threshold: float = 0.01) -> int:
    """Number of features whose variance across samples is above `threshold` x the mean square of all values.

    Burda, Grosse & Salakhutdinov 2016 count variances above 0.01 of units whose prior variance is 1;
    thoughts have no such prior, so the threshold is relative and scales change nothing. Rotations do.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold {threshold}: give a share of the mean square, 0 or more")
    x = samples(vectors)
    return active_variances(x.var(axis=0), float(np.square(x).mean()), threshold)


def active_variances(variances: np.ndarray, square: float, threshold: float = 0.01) -> int:
    """The same from the variances of features and the mean square."""
    return int((variances > max(threshold, NOTHING) * square).sum())


def intrinsic_dimension(vectors: ArrayLike, *, discard: float = 0.1) -> float:
    """TwoNN: the dimension of the surface that samples lie on, from the ratio mu of each one's two nearest distances.

    Where density is constant as far as the second neighbour, log mu is exponential with the dimension as rate. The
    `discard` largest ratios enter as "at least this" only (paper: 10 % are dropped), since there the assumption fails
    first. With r ratios kept of n: (r - 1) / (sum of the kept log mu + (n - r) x the largest kept), unbiased. Copies
    count once. Far too low where the dimension is above about 20. Source: Facco et al. 2017; the estimator for
    ratios of which the largest are censored: Epstein & Sobel 1953.
    """
    if not 0 <= discard < 1:
        raise ValueError(f"discard {discard}: give a share from 0 up to 1, such as 0.1")
    x = samples(vectors, 3)
    near = nearest_distances(x, 2)
    if (near[:, 0] == 0).any():
        x = np.unique(x, axis=0)
        if len(x) < 3:
            raise ValueError(f"{len(x)} different vectors: this statistic needs at least 3, give more examples")
        near = nearest_distances(x, 2)
    return dimension_of(near, discard)


def dimension_of(near: np.ndarray, discard: float = 0.1) -> float:
    """The same from the distances of samples to their two nearest, none of them 0 [sample, 2]."""
    logs = np.sort(np.log(near[:, 1] / near[:, 0]))
    kept = max(2, round(len(logs) * (1 - discard)))
    total = logs[:kept].sum() + (len(logs) - kept) * logs[kept - 1]
    return float((kept - 1) / total) if total > 0 else float("inf")


def principal_components(vectors: ArrayLike, count: int) -> np.ndarray:
    """The centred samples [n, feature] along their `count` directions of largest variance [n, count], in their units.

    For statistics that need more samples than features. `projection.pca` draws them; this is for calculating.
    """
    x = samples(vectors)
    if not 1 <= count <= min(len(x) - 1, x.shape[1]):
        most = min(len(x) - 1, x.shape[1])
        raise ValueError(f"{count} components of {len(x)} samples x {x.shape[1]} features: give 1 to {most}")
    x = x - x.mean(axis=0)
    if len(x) < x.shape[1]:
        left, values, _ = np.linalg.svd(x, full_matrices=False)
        return left[:, :count] * values[:count]
    return x @ np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :count]


def principal_axes(vectors: ArrayLike, count: int) -> np.ndarray:
    """The directions of largest variance of samples [n, feature], each one standard deviation long: [count, feature].

    Fewer than `count` where the samples vary along fewer. The largest loading of each is positive.
    """
    x = samples(vectors)
    _, values, axes = np.linalg.svd(x - x.mean(axis=0), full_matrices=False)
    kept = values[:count] > 1e-6 * max(float(values[0]), 1e-300)
    axes = axes[:count][kept]
    axes = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]
    return axes * (values[:count][kept] / np.sqrt(len(x) - 1))[:, None]


# ------------------------------------------------------------------------------------------ how they lie to each other


def mean_cosine(vectors: ArrayLike, *, centred: bool = False) -> float:
    """Mean cosine over all pairs of different samples, in O(n feature): (|sum u|^2 - n) / (n (n - 1)), u unit vectors.

    `centred=True` subtracts the mean first. A zero vector has cosine 0 with everything.
    """
    x = samples(vectors)
    return float(pair_cosines(x - x.mean(axis=0) if centred else x, np.ones(x.shape[0], dtype=bool)))


def neighbour_ratio(vectors: ArrayLike) -> float:
    """Distance to the nearest other sample / mean distance to the others, mean over samples; 0 to 1.

    0: every sample has a copy; near 1: all distances are alike, as for independent noise in many features. 0 where all
    samples are equal. O(n^2).
    """
    x = samples(vectors)
    if still(x):
        return 0.0
    nearest, total = nearest_distances(x, 1)[:, 0], np.zeros(len(x))
    for rows, squared in squared_distance_blocks(x, x):
        squared[np.arange(len(squared)), np.arange(len(x))[rows]] = 0  # itself, where rounding leaves something
        total[rows] = np.sqrt(squared).sum(axis=1)
    return float((nearest * (len(x) - 1) / total).mean())


def pair_cosines(x: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Mean cosine over pairs of present rows of x [..., row, feature]; NaN with fewer than two."""
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    unit = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0) * present[..., None]
    own = np.square(unit).sum(axis=(-1, -2))  # the pairs of a row with itself; 1 each, but 0 for a zero vector
    count = present.sum(axis=-1).astype(np.float64)
    pairs = count * (count - 1)
    both = np.square(unit.sum(axis=-2)).sum(axis=-1) - own
    return np.divide(both, pairs, out=np.full(np.shape(pairs), np.nan), where=pairs > 0)


# ---------------------------------------------------------------------------------------------------- rounding


def still(x: np.ndarray, share: float = NOTHING) -> bool:
    """Whether all samples are equal: what variance there is, up to this share of the mean square, is rounding."""
    return bool(x.var(axis=0).mean() <= share * np.square(x).mean())


def _real_eigenvalues(x: np.ndarray) -> np.ndarray:
    """Covariance eigenvalues, all 0 where what variance there is is rounding."""
    values = covariance_eigenvalues(x)
    return np.zeros_like(values) if still(x) else values
