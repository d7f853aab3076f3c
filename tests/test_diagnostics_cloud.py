"""Statistics of one cloud against closed forms, invariances, brute force, other libraries and planted dimensions."""

from itertools import combinations

import numpy as np
import pytest
from clouds import CLOUDS, CROSS, cloud, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from workbench import diagnostics as d


def test_closed_forms():
    assert d.spread(CROSS) == 1.25
    assert d.spread(CROSS, total=True) == 2.5
    assert d.relative_spread(CROSS) == 1.0
    assert d.relative_spread(CROSS + np.array([3, 0])) == pytest.approx(1.25 / (1.25 + 4.5))
    assert d.covariance_eigenvalues(CROSS) == pytest.approx([2, 0.5])
    assert d.effective_rank(CROSS) == pytest.approx(0.8**-0.8 * 0.2**-0.2)  # shares 0.8, 0.2: 1.6494
    assert d.effective_rank(CROSS, "singular_values") == pytest.approx((2 / 3) ** (-2 / 3) * 3 ** (1 / 3))
    assert d.participation_ratio(CROSS) == pytest.approx(2.5**2 / 4.25)
    assert d.mean_cosine(CROSS) == pytest.approx(-2 / 6)  # two opposite pairs, four right angles
    assert d.mean_cosine([[1, 0], [1, 1]]) == pytest.approx(1 / np.sqrt(2))
    assert d.mean_cosine([[1.0, 5], [3, 5]], centred=True) == pytest.approx(-1)
    assert d.norm_ratio([[3, 4], [0, 5]], [[1, 0]]) == 5
    assert d.norm_ratio([[3, 4]], [[1, 0], [0, 7]]) == 1


def test_nothing_varies():
    still = np.full((5, 3), 0.1)
    assert d.spread(still) == pytest.approx(0)
    assert (d.effective_rank(still), d.participation_ratio(still)) == (0, 0)
    assert d.relative_spread(np.zeros((5, 3))) == 0
    assert d.mean_cosine(np.zeros((5, 3))) == 0
    assert d.gaussian_kl(still, cloud(9, 3)) == np.inf


@settings(deadline=None)
@given(CLOUDS)
def test_bounds(x):
    n, feature = x.shape
    assert 0 <= d.relative_spread(x) <= 1 + 1e-12
    assert -1 / (n - 1) - 1e-9 <= d.mean_cosine(x) <= 1 + 1e-9
    rank, ratio = d.effective_rank(x), d.participation_ratio(x)
    assert ratio <= rank + 1e-9
    assert rank <= d.effective_rank(x, "singular_values") + 1e-9
    assert rank <= min(n - 1, feature) + 1e-6
    assert rank == 0 or ratio >= 1 - 1e-9


@settings(deadline=None)
@given(CLOUDS)
def test_mean_cosine_against_all_pairs(x):
    pairs = [cosine_similarity(x[[i]], x[[j]])[0, 0] for i, j in combinations(range(len(x)), 2)]
    assert d.mean_cosine(x) == pytest.approx(np.mean(pairs), abs=1e-9)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_eigenvalues_are_those_of_a_pca(shape):
    x = cloud(*shape)
    expected = PCA().fit(x).explained_variance_ * (len(x) - 1) / len(x)
    np.testing.assert_allclose(d.covariance_eigenvalues(x)[:6], expected[:6], atol=1e-12)
    assert d.effective_rank(x) == pytest.approx(np.exp(stats.entropy(expected)))


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_rotation_scale_permutation(shape):
    x, reference = cloud(*shape), cloud(30, shape[1], seed=2)
    turned = (3 * x @ rotation(shape[1]))[np.random.default_rng(0).permutation(len(x))]
    for function in (d.relative_spread, d.effective_rank, d.participation_ratio, d.mean_cosine):
        assert function(turned) == pytest.approx(function(x)), function.__name__
    assert d.spread(turned) == pytest.approx(9 * d.spread(x))
    assert d.norm_ratio(turned, 3 * reference) == pytest.approx(d.norm_ratio(x, reference))
    other = 3 * reference @ rotation(shape[1])
    assert d.gaussian_kl(turned, other) == pytest.approx(d.gaussian_kl(x, reference))


def test_anisotropy_and_variances():
    assert d.anisotropy(CROSS) == pytest.approx(0.8)
    assert d.anisotropy([[1.0, 2], [3, 4]]) == pytest.approx(1)  # a line
    assert d.anisotropy(np.full((5, 3), 0.1)) == 0
    assert d.feature_variances(CROSS).tolist() == [2, 0.5]
    x = cloud()
    assert d.anisotropy(x) == pytest.approx(PCA().fit(x).explained_variance_ratio_[0])
    assert d.spread(x) == pytest.approx(d.feature_variances(x).mean())


def test_active_units():
    x = CROSS @ np.diag([1, 0.1])  # variances 2 and 0.005, mean square 1.0025
    assert d.active_units(x) == 1
    assert d.active_units(x, 0.004) == 2
    assert d.active_units(x, 0) == 2
    assert d.active_units(1e5 * x) == d.active_units(1e-5 * x) == 1
    assert d.active_units(x + np.array([100, 0])) == 0  # nothing varies beside a mean of 100
    assert d.active_units(np.full((5, 3), 0.1), 0) == 0


def test_neighbour_ratio_by_hand():
    # 0, 1, 3: nearest 1, 1, 2; mean distances 2, 1.5, 2.5
    assert d.neighbour_ratio([[0.0], [1], [3]]) == pytest.approx((1 / 2 + 1 / 1.5 + 2 / 2.5) / 3)
    assert d.neighbour_ratio(np.full((5, 3), 0.1)) == 0
    assert d.neighbour_ratio(np.repeat(cloud(), 2, axis=0)) == 0
    assert d.neighbour_ratio(np.eye(7)) == pytest.approx(1)  # all distances are alike


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.sampled_from([1, 3, 20]))
def test_neighbour_ratio_against_all_distances(seed, n, feature):
    x = np.random.default_rng(seed).normal(size=(n, feature)) + 10
    distances = cdist(x, x)
    mean = distances.sum(1) / (n - 1)
    np.fill_diagonal(distances, np.inf)
    found = d.neighbour_ratio(x)
    assert found == pytest.approx((distances.min(1) / mean).mean())
    assert 0 <= found <= 1 + 1e-12


def test_intrinsic_dimension_by_hand():
    x = np.array([[0.0], [1], [3], [7]])
    # nearest two: 1 and 3; 1 and 2; 2 and 3; 4 and 6
    logs = np.sort(np.log([3, 2, 1.5, 1.5]))
    assert d.intrinsic_dimension(x, discard=0) == pytest.approx(3 / logs.sum())
    assert d.intrinsic_dimension(x, discard=0.25) == pytest.approx(2 / (logs[:3].sum() + logs[2]))
    assert d.intrinsic_dimension(np.repeat(x, 3, axis=0), discard=0) == pytest.approx(3 / logs.sum())  # copies


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension_of_planted_surfaces(dimension):
    rng = np.random.default_rng(0)
    flat = rng.uniform(size=(2000, dimension))
    curved = np.concatenate([np.cos(flat), np.sin(flat), flat**2], axis=1) @ rng.normal(size=(3 * dimension, 20))
    assert d.intrinsic_dimension(flat @ rng.normal(size=(dimension, 20))) == pytest.approx(dimension, rel=0.1)
    assert d.intrinsic_dimension(curved) == pytest.approx(dimension, rel=0.12)


def test_intrinsic_dimension_is_unbiased_where_its_model_holds():
    """mu of one sample is Pareto with the dimension as exponent: the estimator's mean over such ratios."""
    rng = np.random.default_rng(0)
    logs = np.sort(rng.exponential(1 / 4, size=(4000, 20)), axis=1)  # dimension 4
    kept = 18
    found = (kept - 1) / (logs[:, :kept].sum(1) + 2 * logs[:, kept - 1])
    assert found.mean() == pytest.approx(4, rel=0.02)
    # the very same on points: pairs far from each other, so that the ratios are the planted ones
    x = np.concatenate([np.array([[0], [1], [1 + np.exp(v)]]) + 1e4 * k for k, v in enumerate(logs[0])])
    near = np.sort(np.abs(x - x.T) + np.diag(np.full(60, np.inf)), axis=1)[:, :2]
    ratios = np.sort(np.log(near[:, 1] / near[:, 0]))
    expected = (54 - 1) / (ratios[:54].sum() + 6 * ratios[53])
    assert d.intrinsic_dimension(x) == pytest.approx(expected)


def test_drift():
    before, after = np.array([[3.0, 4], [0, 2]]), np.array([[3.0, 4], [2, 0]])
    found = d.drift(before, after)
    assert found.relative == pytest.approx((0 + np.sqrt(8) / 2) / 2)
    assert found.cosine == pytest.approx(0.5)
    x = cloud()
    assert d.drift(x, x) == d.Drift(0, pytest.approx(1))
    assert d.drift(x, 2 * x) == d.Drift(pytest.approx(1), pytest.approx(1))
    assert d.drift(x, -x) == d.Drift(pytest.approx(2), pytest.approx(-1))
    assert d.drift(x, 0 * x) == d.Drift(pytest.approx(1), 0)
    y, turn = cloud(seed=1), rotation(6)
    whole = d.drift(x.reshape(5, 8, 6), y.reshape(5, 8, 6))
    assert d.drift(3 * x @ turn, 3 * y @ turn).relative == pytest.approx(whole.relative)
    assert d.drift(3 * x @ turn, 3 * y @ turn).cosine == pytest.approx(whole.cosine)


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_principal_components_are_those_of_a_pca(shape):
    x = cloud(*shape)
    found, expected = d.principal_components(x, 3), PCA(3).fit_transform(x)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-9)
    assert d.spread(d.principal_components(x, 5), total=True) == pytest.approx(d.covariance_eigenvalues(x)[:5].sum())


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_rotation_scale_permutation_of_neighbours(shape):
    x = cloud(*shape)
    turned = (3 * x @ rotation(shape[1]) + 5)[np.random.default_rng(0).permutation(len(x))]
    for function in (d.anisotropy, d.neighbour_ratio, d.intrinsic_dimension):
        assert function(turned) == pytest.approx(function(x)), function.__name__


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.spread(np.zeros((1, 3))), "1 samples in vectors: this statistic needs at least 2"),
        (lambda: d.effective_rank([[1.0, np.nan], [0, 1]]), "vectors holds NaN or infinite values"),
        (lambda: d.mean_cosine([1.0, 2.0]), r"vectors of shape \(2,\): give samples x features"),
        (lambda: d.effective_rank(CROSS, "norms"), "effective rank of 'norms'"),  # pyright: ignore[reportArgumentType]
        (lambda: d.norm_ratio(CROSS, [[0, 0]]), "all reference rows are zero"),
        (lambda: d.active_units(CROSS, -1), "threshold -1: give a share"),
        (lambda: d.intrinsic_dimension(CROSS[:2]), "2 samples in vectors: this statistic needs at least 3"),
        (lambda: d.intrinsic_dimension(np.ones((9, 2))), "1 different vectors: this statistic needs at least 3"),
        (lambda: d.intrinsic_dimension(CROSS, discard=1), "discard 1: give a share from 0 up to 1"),
        (lambda: d.drift(CROSS, CROSS[:2]), r"before \(4, 2\) and after \(2, 2\): give the same vectors twice"),
        (lambda: d.drift(np.zeros((3, 2)), np.ones((3, 2))), "3 vectors of before are zero"),
        (lambda: d.drift([[np.nan]], [[1.0]]), "before holds NaN"),
        (lambda: d.principal_components(CROSS, 3), "3 components of 4 samples x 2 features: give 1 to 2"),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
