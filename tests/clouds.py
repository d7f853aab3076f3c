"""Small clouds of vectors for the tests of diagnostics."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

CROSS = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])  # covariance diag(2, 0.5), mean 0, mean square 1.25
CLOUDS = arrays(np.float64, st.tuples(st.integers(2, 7), st.integers(1, 6)), elements=st.floats(-9, 9, width=16))


def cloud(n: int = 40, feature: int = 6, seed: int = 0) -> np.ndarray:
    """Gaussian samples whose features differ in mean and scale."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, feature)) * rng.uniform(0.2, 3, feature) + rng.normal(size=feature)


def rotation(feature: int, seed: int = 1) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(feature, feature)))[0]
