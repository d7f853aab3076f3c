"""Whether a cloud is Gaussian: two tests and the distances for a picture.

    mardia          skewness and kurtosis beside a Gaussian's; says how it differs
    henze_zirkler   its characteristic function beside a Gaussian's; sees any difference
    mahalanobis_qq  squared Mahalanobis distances beside chi-square quantiles; shows which samples differ

All use the covariance (divided by n), so each needs more samples than features, and no affine change of the features
matters. With enough samples every real cloud is rejected: look at the statistics, not at p alone.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .inputs import samples
from .neighbours import squared_distance_blocks

_WAY = "project on a few principal components first (diagnostics.principal_components)"


@dataclass(frozen=True)
class Mardia:
    """Multivariate skewness and kurtosis with the p-values of a Gaussian having at least as extreme ones."""

    skewness: float  # b1: 0 for a symmetric cloud, a Gaussian sample's is about d (d + 1) (d + 2) / n
    skewness_p: float  # upper tail
    kurtosis: float  # b2: a Gaussian sample's is about d (d + 2), more with heavy tails
    kurtosis_p: float  # two-sided


def mardia(vectors: ArrayLike) -> Mardia:
    """Mardia's skewness and kurtosis of samples [n, d]: with m_ij = (x_i - mean)' S^-1 (x_j - mean),

    b1 = mean over i, j of m_ij^3 and b2 = mean over i of m_ii^2. p: n b1 / 6, scaled to its exact mean, beside
    chi-square with d (d + 1) (d + 2) / 6 degrees of freedom; b2, standardised by its exact mean and variance, beside a
    normal. The uncorrected versions reject Gaussians with hundreds of features even at 10,000 samples. Source: Mardia
    1970, the exact moments Mardia 1974. O(n^2).
    """
    white = _whitened(vectors)
    n, d = white.shape
    cubes = 0.0
    for start in range(0, n, 512):
        inner = white[start : start + 512] @ white.T
        cubes += float((inner * inner * inner).sum())
    skewness = max(0.0, cubes / n**2)
    kurtosis = float(np.square(np.square(white).sum(axis=1)).mean())
    expected = d * (d + 2) * (n - 1) / (n + 1)
    variance = 8 * d * (d + 2) * (n - 3) / (n + 1) ** 2 * (n - d - 1) / (n + 3) * (n - d + 1) / (n + 5)
    kurtosis_p = 2 * stats.norm.sf(abs(kurtosis - expected) / np.sqrt(variance)) if variance > 0 else 1.0
    expected = d * (d + 2) * ((n + 1) * (d + 1) - 6) / ((n + 1) * (n + 3))
    freedom = d * (d + 1) * (d + 2) / 6
    skewness_p = stats.chi2.sf(freedom * skewness / expected, freedom) if expected > 0 else 1.0
    return Mardia(skewness, float(skewness_p), kurtosis, float(kurtosis_p))


@dataclass(frozen=True)
class HenzeZirkler:
    """The statistic (0 or more, larger is less Gaussian) and the chance that a Gaussian has one as large."""

    statistic: float
    p_value: float


def henze_zirkler(vectors: ArrayLike) -> HenzeZirkler:
    """Henze & Zirkler's test of samples [n, d], consistent against every other distribution.

    n x the squared distance between the characteristic function of the whitened samples and a Gaussian's, weighted by
    a Gaussian of width beta = ((2 d + 1) n / 4)^(1 / (d + 4)) / sqrt(2). p by the log-normal with the statistic's mean
    and variance under a Gaussian. Source: Henze & Zirkler 1990. O(n^2).
    """
    white = _whitened(vectors)
    n, d = white.shape
    b = ((2 * d + 1) * n / 4) ** (2 / (d + 4)) / 2  # beta squared
    pairs = 0.0
    for rows, kernel in squared_distance_blocks(white, white):
        kernel *= -b / 2
        np.exp(kernel, out=kernel)
        kernel[np.arange(len(kernel)), np.arange(n)[rows]] = 0
        pairs += float(kernel.sum())
    singles = np.exp(-b / (2 * (1 + b)) * np.square(white).sum(axis=1)).sum()
    # less the 1 of each sample with itself, which in 100 features is all that rounding leaves of statistic and mean
    excess = pairs / n - 2 * (1 + b) ** (-d / 2) * singles + n * (1 + 2 * b) ** (-d / 2)
    a, w = 1 + 2 * b, (1 + b) * (1 + 3 * b)
    mean_excess = -(a ** (-d / 2)) * (1 + d * b / a + d * (d + 2) * b**2 / (2 * a**2))
    variance = (
        2 * (1 + 4 * b) ** (-d / 2)
        + 2 * a**-d * (1 + 2 * d * b**2 / a**2 + 3 * d * (d + 2) * b**4 / (4 * a**4))
        - 4 * w ** (-d / 2) * (1 + 3 * d * b**2 / (2 * w) + d * (d + 2) * b**4 / (2 * w**2))
    )
    if not variance > 0:
        raise ValueError(f"{n} samples of {d} features are too many features for this test: {_WAY}")
    log_variance = np.log1p(variance / (1 + mean_excess) ** 2)
    z = (np.log1p(max(excess, -1 + 1e-15)) - np.log1p(mean_excess) + log_variance / 2) / np.sqrt(log_variance)
    return HenzeZirkler(1 + float(excess), float(stats.norm.sf(z)))


def mahalanobis_qq(vectors: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(chi-square quantiles, observed squared Mahalanobis distances), both ascending [n]: a Gaussian's lie on y = x.

    Quantiles with d degrees of freedom at (i - 1/2) / n. The distances have mean exactly d, and none exceeds n - 1:
    with few samples per feature the upper end bends down.
    """
    white = _whitened(vectors)
    n, d = white.shape
    return stats.chi2.ppf((np.arange(n) + 0.5) / n, d), np.sort(np.square(white).sum(axis=1))


def _whitened(vectors: ArrayLike) -> np.ndarray:
    """Samples with mean 0 and covariance 1 [n, d]."""
    x = samples(vectors)
    n, d = x.shape
    if n <= d:
        raise ValueError(f"{n} samples of {d} features: a Gaussian needs more samples than features, {_WAY}")
    x = x - x.mean(axis=0)
    scale = np.sqrt(np.square(x).mean(axis=0))
    # features may have very different units: those are no reason to call the covariance singular
    left, values, _ = np.linalg.svd(np.divide(x, scale, out=np.zeros_like(x), where=scale > 0), full_matrices=False)
    if values[-1] <= 1e-10 * values[0]:
        raise ValueError(f"the {n} samples do not fill their {d} dimensions: {_WAY}")
    return left * np.sqrt(n)
