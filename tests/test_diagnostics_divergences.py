"""Divergences of two clouds against closed forms, brute force, other libraries, invariances and planted differences."""

from itertools import combinations, product

import numpy as np
import pytest
from clouds import CROSS, cloud, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, linalg, stats
from scipy.spatial.distance import cdist, jensenshannon, pdist
from scipy.special import log_softmax, softmax

from workbench import diagnostics as d

# ------------------------------------------------------------------------------------------------------------- KL


def test_gaussian_kl_closed_forms():
    kl = d.gaussian_kl_moments
    assert kl([0, 0], np.eye(2), [0, 0], np.eye(2)) == 0
    assert kl([0], [[1]], [2], [[1]]) == pytest.approx(2)  # shift^2 / 2
    assert kl([0], [[1]], [1], [[4]]) == pytest.approx(0.5 * (0.25 + 0.25 - 1 + np.log(4)))
    assert kl([0], [[4]], [1], [[1]]) == pytest.approx(0.5 * (4 + 1 - 1 - np.log(4)))  # the other direction
    assert kl([0, 0], np.diag([1.0, 4]), [2, 1], np.diag([1.0, 1])) == pytest.approx(2 + 0.5 * (4 - np.log(4)))
    assert kl([0, 0], np.diag([1.0, 0]), [0, 0], np.eye(2)) == np.inf
    p, q = stats.norm(0.3, 0.7), stats.norm(-0.5, 1.2)
    area = integrate.quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -8, 8)[0]
    assert kl([0.3], [[0.49]], [-0.5], [[1.44]]) == pytest.approx(area)


def test_gaussian_kl_of_samples_is_that_of_their_moments():
    p, q = cloud(50, 4), cloud(60, 4, seed=1)
    moments = [(x.mean(0), np.cov(x.T, bias=True)) for x in (p, q)]
    assert d.gaussian_kl(p, q, shrinkage=0) == pytest.approx(d.gaussian_kl_moments(*moments[0], *moments[1]))
    assert d.gaussian_kl(p, p) == pytest.approx(0)
    assert d.gaussian_kl(p, q) != pytest.approx(d.gaussian_kl(q, p))


def test_gaussian_kl_with_fewer_samples_than_features_is_exact():
    p, q = cloud(5, 30), cloud(7, 30, seed=1)

    def shrunk(x):
        c = np.cov(x.T, bias=True)
        return x.mean(0), 0.7 * c + 0.3 * np.trace(c) / 30 * np.eye(30)

    expected = d.gaussian_kl_moments(*shrunk(p), *shrunk(q))
    assert d.gaussian_kl(p, q, shrinkage=0.3) == pytest.approx(expected)
    assert d.gaussian_kl(p, p) == pytest.approx(0, abs=1e-9)


def test_feature_softmax_kl():
    p, q = np.log([[0.5, 0.5]]), np.log([[0.9, 0.1]])
    assert d.feature_softmax_kl(p, q) == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1))
    assert d.feature_softmax_kl(p + 3, p) == pytest.approx(0)
    rng = np.random.default_rng(0)
    question, thoughts = rng.normal(size=(4, 1, 9)), rng.normal(size=(4, 3, 9))
    expected = np.mean(
        [stats.entropy(softmax(question[i, 0]), softmax(thoughts[i, j])) for i in range(4) for j in range(3)]
    )
    assert d.feature_softmax_kl(question, thoughts) == pytest.approx(expected)
    assert d.feature_softmax_kl([[1e4, 0]], [[1e4, 0]]) == 0  # no overflow


def test_knn_kl_by_hand():
    p, q = [[0.0], [1], [3]], [[0.5], [5]]
    # rho 1, 1, 2; nu 0.5, 0.5, 2; log(m / (n - 1)) = log(2 / 2)
    assert d.knn_kl(p, q, k=1) == pytest.approx(-2 / 3 * np.log(2))
    # second neighbours: rho 3, 2, 3; nu 5, 4, 2.5
    assert d.knn_kl(p, q, k=2) == pytest.approx((np.log(5 / 3) + np.log(4 / 2) + np.log(2.5 / 3)) / 3)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 6), st.sampled_from([1, 20]))
def test_knn_kl_against_all_distances(seed, n, k, feature):
    """20 features are searched by matrix products, 1 by a tree."""
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(n + k, feature)) + 100, rng.normal(size=(k + 3, feature)) + 100
    rho, nu = np.sort(cdist(p, p))[:, k], np.sort(cdist(p, q))[:, k - 1]
    expected = feature / len(p) * np.log(nu / rho).sum() + np.log(len(q) / (len(p) - 1))
    assert d.knn_kl(p, q, k=k) == pytest.approx(expected, abs=1e-9)


def test_knn_kl_comes_near_the_truth_and_far_clouds_too_near():
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(4000, 2)), rng.normal(size=(4000, 2)) * [1, 1.5] + np.array([0.5, 0])
    moments = [([0, 0], np.eye(2)), ([0.5, 0], np.diag([1.0, 2.25]))]
    truth, other = d.gaussian_kl_moments(*moments[0], *moments[1]), d.gaussian_kl_moments(*moments[1], *moments[0])
    assert truth == pytest.approx(0.253, abs=0.001)
    assert other == pytest.approx(0.345, abs=0.001)
    assert d.knn_kl(p, q) == pytest.approx(truth, abs=0.04)
    assert d.knn_kl(q, p) == pytest.approx(other, abs=0.06)
    assert abs(d.knn_kl(p[:2000], p[2000:])) < 0.06  # one distribution
    assert 2 < d.knn_kl(p[:500], p[500:1000] + np.array([3, 0])) < 0.8 * 4.5


def test_knn_kl_refuses_copies():
    p, q = cloud(30, 3), cloud(30, 3, seed=1)
    copied = np.concatenate([p, p[:2]])
    message = "4 of 32 samples of p occur 2 times or more in p: .* drop the copies"
    with pytest.raises(ValueError, match=message):
        d.knn_kl(copied, q, k=1)
    with pytest.raises(ValueError, match="2 of 30 samples of p occur 1 times or more in q"):
        d.knn_kl(p, np.concatenate([q, p[:2]]), k=1)
    assert np.isfinite(d.knn_kl(copied, q, k=2))  # no sample is there three times
    with pytest.raises(ValueError, match="30 of 30 samples of p"):
        d.knn_kl(np.full((30, 3), 0.1), q)


# ------------------------------------------------------------------------------------------------ symmetric distances


def test_frechet_distance():
    assert d.frechet_distance([[0.0], [2]], [[5.0], [5], [8], [8]]) == pytest.approx(5.5**2 + (1.5 - 1) ** 2)
    assert d.frechet_distance(CROSS, CROSS + 3) == pytest.approx(18)
    for p, q in (
        (cloud(50, 4), cloud(60, 4, seed=1)),
        (cloud(5, 30), cloud(7, 30, seed=1)),
        (cloud(5, 9), cloud(50, 9)),
    ):
        a, b = (np.cov(x.T, bias=True) for x in (p, q))
        root = np.sqrt(np.clip(linalg.eigvals(a @ b).real, 0, None)).sum()  # tr (A B)^(1/2)
        expected = np.square(p.mean(0) - q.mean(0)).sum() + np.trace(a) + np.trace(b) - 2 * root
        assert d.frechet_distance(p, q) == pytest.approx(expected)
        assert d.frechet_distance(q, p) == pytest.approx(expected)
        assert d.frechet_distance(p, p) == pytest.approx(0, abs=1e-9)
    assert d.frechet_distance(np.ones((3, 2)), np.zeros((4, 2))) == 2  # clouds that are points


def test_mmd_by_hand():
    # within each cloud one pair at distance 1; across 0, 1, 1, 0
    kernel = np.exp(-0.5)
    assert d.mmd([[0.0], [1]], [[0.0], [1]], bandwidth=1) == pytest.approx(2 * kernel - 2 * (2 + 2 * kernel) / 4)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 8), st.integers(2, 8))
def test_mmd_against_all_pairs(seed, n, m):
    rng = np.random.default_rng(seed)
    p, q = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 1
    width = np.median(pdist(np.concatenate([p, q])))

    def k(x, y):
        return np.exp(-np.square(x - y).sum() / (2 * width**2))

    expected = (
        np.mean([k(a, b) for a, b in combinations(p, 2)])
        + np.mean([k(a, b) for a, b in combinations(q, 2)])
        - 2 * np.mean([k(a, b) for a, b in product(p, q)])
    )
    assert d.mmd(p, q) == pytest.approx(expected)
    assert d.mmd(q, p) == pytest.approx(expected)


def test_mmd_does_not_depend_on_blocks(monkeypatch):
    p, q = cloud(50, 4), cloud(60, 4, seed=1)
    whole = d.mmd_test(p, q, permutations=20)
    monkeypatch.setattr("workbench.analysis.diagnostics.neighbours._BLOCK", 300)
    assert d.mmd_test(p, q, permutations=20).squared == pytest.approx(whole.squared)
    assert d.mmd_test(p, q, permutations=20).p_value == whole.p_value


def test_mmd_has_mean_zero_and_uniform_p_where_nothing_differs():
    rng = np.random.default_rng(0)
    found = [d.mmd_test(rng.normal(size=(15, 2)), rng.normal(size=(20, 2)), permutations=99) for _ in range(200)]
    values, ps = np.array([f.squared for f in found]), np.array([f.p_value for f in found])
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(200)
    assert (values < 0).any()
    assert stats.kstest(ps, "uniform").pvalue > 0.01
    assert ps.min() >= 0.01


def test_mmd_sees_what_moments_do_not():
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(300, 1)), rng.choice([-1.0, 1], size=(300, 1))  # mean 0, variance 1
    found = d.mmd_test(p, q, permutations=99)
    assert found.p_value == 0.01
    assert found.squared == pytest.approx(d.mmd(p, q))
    assert d.mmd(p, q, bandwidth=found.bandwidth) == pytest.approx(found.squared)
    assert d.frechet_distance(p, q) < 0.02


@pytest.mark.parametrize("shape", [(40, 6), (6, 40)])
def test_rotation_scale_shift_permutation(shape):
    p, q = cloud(*shape), cloud(*shape, seed=2)
    turn, order = rotation(shape[1]), np.random.default_rng(0).permutation(len(p))
    p2, q2 = 3 * p[order] @ turn + 7, 3 * q @ turn + 7
    assert d.knn_kl(p2, q2) == pytest.approx(d.knn_kl(p, q))
    assert d.mmd(p2, q2) == pytest.approx(d.mmd(p, q))
    assert d.frechet_distance(p2, q2) == pytest.approx(9 * d.frechet_distance(p, q))
    assert d.gaussian_kl(p2, q2) == pytest.approx(d.gaussian_kl(p, q))


# -------------------------------------------------------------------------------------------------- distributions


def test_vocabulary_divergences_by_hand():
    p, q = np.log([[0.5, 0.5, 0]], out=np.full((1, 3), -np.inf), where=[[True, True, False]]), np.log([0.25, 0.5, 0.25])
    assert d.vocabulary_kl(p, q) == pytest.approx(0.5 * np.log(2))
    assert d.vocabulary_kl(q, p) == np.inf
    middle = np.array([0.375, 0.5, 0.125])
    expected = (stats.entropy([0.5, 0.5, 0], middle) + stats.entropy([0.25, 0.5, 0.25], middle)) / 2
    assert d.vocabulary_js(p, q) == pytest.approx(expected)
    assert d.vocabulary_js(q, p) == pytest.approx(expected)
    one, other = [[0, -np.inf]], [[-np.inf, 0]]
    assert d.vocabulary_js(one, other) == pytest.approx(np.log(2))
    assert d.vocabulary_kl(one, other) == np.inf


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_vocabulary_divergences_against_scipy(seed):
    rng = np.random.default_rng(seed)
    p, q = 3 * rng.normal(size=(4, 1, 9)), 3 * rng.normal(size=(4, 3, 9))
    pairs = [(softmax(p[i, 0]), softmax(q[i, j])) for i in range(4) for j in range(3)]
    kl, js = d.vocabulary_kl(p, q), d.vocabulary_js(p, q)
    assert kl == pytest.approx(np.mean([stats.entropy(a, b) for a, b in pairs]))
    assert js == pytest.approx(np.mean([jensenshannon(a, b) ** 2 for a, b in pairs]))
    assert 0 <= js <= np.log(2)
    # logits and log-probabilities are the same to it, and the order of tokens does not matter
    order = rng.permutation(9)
    assert d.vocabulary_kl(log_softmax(p, -1)[..., order], q[..., order] + 5) == pytest.approx(kl)
    assert d.vocabulary_js(log_softmax(p, -1)[..., order], q[..., order] + 5) == pytest.approx(js)
    assert d.vocabulary_js(p, p) == pytest.approx(0, abs=1e-12)


# --------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.gaussian_kl(CROSS, cloud(9, 3)), "p has 2 features and q has 3"),
        (lambda: d.gaussian_kl(CROSS, CROSS, shrinkage=2), "shrinkage 2: give a number between 0 and 1"),
        (lambda: d.gaussian_kl(cloud(2, 9), cloud(3, 9), shrinkage=0), "without shrinkage KL does not exist"),
        (lambda: d.gaussian_kl(CROSS, np.ones((4, 2))), "all samples of q are equal"),
        (lambda: d.gaussian_kl_moments([0], [[1]], [0], [[0]]), "q's covariance is singular"),
        (lambda: d.gaussian_kl_moments([0], np.eye(2), [0], [[1]]), "give one dimension to all"),
        (lambda: d.knn_kl(CROSS, cloud(9, 2)), "k = 5 with 4 samples of p and 9 of q: give k from 1 to 3"),
        (lambda: d.knn_kl(CROSS, cloud(9, 2), k=0), "k = 0 with"),
        (lambda: d.frechet_distance(CROSS, [[1.0, np.inf], [0, 0]]), "q holds NaN or infinite"),
        (lambda: d.mmd(CROSS, CROSS, bandwidth=0), "bandwidth 0: give a positive distance"),
        (lambda: d.mmd(np.ones((4, 2)), np.ones((3, 2))), "half of all pairs of samples are equal"),
        (lambda: d.mmd_test(CROSS, CROSS, permutations=0), "0 permutations: give at least 1"),
        (lambda: d.mmd(CROSS[:1], CROSS), "1 samples in p: this statistic needs at least 2"),
        (lambda: d.vocabulary_kl([[0.0, 1]], [[0.0, 1, 2]]), "p has 2 tokens and q has 3"),
        (lambda: d.vocabulary_js([[0.0, 1]], [[0.0, np.nan]]), r"q of shape \(1, 2\): give logits"),
        (lambda: d.vocabulary_kl([[-np.inf, -np.inf]], [[0.0, 1]]), "one above -inf in each row"),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
