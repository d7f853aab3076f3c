"""What every statistic takes: finite float64 arrays, feature axis last; anything else gets one sentence."""

import numpy as np
from numpy.typing import ArrayLike


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
