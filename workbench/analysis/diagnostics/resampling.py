"""How sure one can be of a statistic: examples are the unit, and are drawn again or left out whole.

bootstrap   draws examples with replacement; for means, spreads, ranks, cosines
jackknife   leaves groups of examples out; for statistics that copies of an example would upset
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .inputs import ratio

FLOATING = 2**25  # numbers of resamples that are held in floating point
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A statistic of all examples, with an interval for its value on other examples of the same kind, as many."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Seeded percentile interval of `statistic(*arrays)`; the first axis of each array is examples, drawn together.

    Drawn examples occur several times: not for what rests on nearest distances (`knn_kl`, `neighbour_ratio`,
    `intrinsic_dimension`, `knn_information`), nor for divergences and ranks, which grow or shrink when examples are
    few (300 x 40 Gaussians: gaussian_kl 7.5, its interval 9.8 to 12); use `jackknife` there. ValueError where a
    resample has no value. Source: Efron & Tibshirani 1993.
    """
    clouds, n = _examples(arrays, level, 2)
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [statistic(*(c[rows] for c in clouds)) for rows in rng.integers(0, n, (resamples, n))], dtype=float
    )
    if np.isnan(drawn).any():
        raise ValueError(f"{np.isnan(drawn).sum()} of {resamples} resamples have no value (NaN): give more examples")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(statistic(*clouds)), float(low), float(high))


def jackknife(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    level: float = 0.95,
    groups: int = 20,
    paired: bool = True,
    seed: int = 0,
) -> Estimate:
    """value ± t s of `statistic(*arrays)`, where s^2 = (g - 1) / g x the sum of squares of the g values that leave one
    random group of examples out, around their mean.

    The first axis of each array is examples. `paired`: row i of each is the same example, so that a group leaves all;
    otherwise they are independent, may differ in length, and their s^2 add up. t is Student's with g - 1 degrees of
    freedom. NaN where a value is infinite. Not for medians and other statistics with jumps, nor for an `mmd` of equal
    clouds. Source: Efron & Tibshirani 1993, chapter 11; groups: Kott 2001.
    """
    if groups < 2:
        raise ValueError(f"{groups} groups: give at least 2, such as 20")
    clouds, _ = _examples(arrays, level, groups, paired)
    value = float(statistic(*clouds))
    if not np.isfinite(value):
        return Estimate(value, np.nan, np.nan)
    rng = np.random.default_rng(seed)
    variance = 0.0
    for which in [range(len(clouds))] if paired else [[k] for k in range(len(clouds))]:
        group = rng.permutation(len(clouds[which[0]])) % groups
        left = np.array(
            [
                statistic(*(cloud[group != g] if k in which else cloud for k, cloud in enumerate(clouds)))
                for g in range(groups)
            ]
        )
        variance += (groups - 1) * float(left.var()) if np.isfinite(left).all() else np.nan
    half = float(stats.t.ppf((1 + level) / 2, groups - 1) * np.sqrt(variance))
    return Estimate(value, value - half, value + half)


def jackknife_all(
    statistics: Callable[[np.ndarray], Mapping[K, float]],
    n: int,
    *,
    level: float = 0.95,
    groups: int = 10,
    seed: int = 0,
) -> dict[K, Estimate]:
    """`jackknife` of several statistics at once: `statistics(rows)` has their values, by name, for some of n examples.

    No interval (NaN) where a value is missing or not finite, with all examples or without a group, nor anywhere with
    fewer than two examples per group.
    """
    whole = statistics(np.arange(n))
    if n < 2 * groups:
        return left_out(whole, [], level)
    group = jackknife_groups(n, seed, groups)
    return left_out(whole, [statistics(np.flatnonzero(group != g)) for g in range(groups)], level)


def jackknife_groups(n: int, seed: int, groups: int = 10) -> np.ndarray:
    """The random group of each of n examples [n], of groups of one size."""
    return np.random.default_rng(seed).permutation(n) % groups


def left_out(whole: Mapping[K, float], left: Sequence[Mapping[K, float]], level: float | None) -> dict[K, Estimate]:
    """`jackknife_all` from the values of all examples, and those without each group; no intervals without groups."""
    if not left or level is None:
        return {name: Estimate(value, np.nan, np.nan) for name, value in whole.items()}
    groups, found = len(left), {}
    for name, value in whole.items():
        values = np.array([value, *(part.get(name, np.nan) for part in left)])
        variance = (groups - 1) * values[1:].var() if np.isfinite(values).all() else np.nan
        half = float(stats.t.ppf((1 + level) / 2, groups - 1) * np.sqrt(variance))
        found[name] = Estimate(value, value - half, value + half)
    return found


def resamples(n: int, seed: int, count: int = 1000) -> np.ndarray:
    """How often each of `count` resamples holds each of n examples [count, n], in floating point: for products. In 16
    bits (few are drawn ten times) where that would take more than `FLOATING` numbers: products are then slower."""
    drawn = np.empty((count, n), np.float64 if count * n <= FLOATING else np.uint16)
    rng = np.random.default_rng(seed)
    for row in drawn:
        row[:] = rng.multinomial(n, np.full(n, 1 / n))
    return drawn


def ratio_bootstrap(top: np.ndarray, below: np.ndarray, draws: np.ndarray | None, level: float | None) -> Estimate:
    """`bootstrap` of sum(top) / sum(below) over examples, both [example], with the resamples `draws`; those without any
    such example are left out. 0 of nothing. No interval (NaN) without `draws` or `level`."""
    below = np.asarray(below, dtype=np.float64)
    if draws is None or level is None or not below.any():
        return Estimate(ratio(top, below), np.nan, np.nan)
    both = np.stack([top, below], axis=1)
    rows = max(1, 2**20 // len(both))  # of resamples that are held in floating point at once
    tops, belows = np.concatenate([draws[k : k + rows] @ both for k in range(0, len(draws), rows)]).T
    low, high = np.quantile(tops[belows > 0] / belows[belows > 0], [(1 - level) / 2, (1 + level) / 2])
    return Estimate(ratio(top, below), float(low), float(high))


def _examples(
    arrays: Sequence[ArrayLike], level: float, need: int, paired: bool = True
) -> tuple[list[np.ndarray], int]:
    if not 0 < level < 1:
        raise ValueError(f"level {level}: give a confidence level between 0 and 1, such as 0.95")
    clouds = [np.asarray(array) for array in arrays]
    lengths = [len(cloud) if cloud.ndim else 0 for cloud in clouds]
    if not lengths or (paired and len(set(lengths)) > 1):
        raise ValueError(f"arrays of lengths {lengths}: give arrays with the same examples along their first axis")
    if min(lengths) < need:
        raise ValueError(f"{min(lengths)} examples: this interval needs at least {need}, give more examples")
    return clouds, min(lengths)
