"""Tests of Gaussianity against plain restatements, on Gaussians (p uniform over seeds) and on clouds that are none."""

import numpy as np
import pytest
from clouds import CROSS, cloud, rotation
from scipy import integrate, stats
from sklearn.covariance import EmpiricalCovariance

from workbench import diagnostics as d


def whitened_products(x):
    """m_ij = (x_i - mean)' S^-1 (x_j - mean), S divided by n."""
    x = np.asarray(x, dtype=float) - np.mean(x, axis=0)
    return x @ np.linalg.inv(x.T @ x / len(x)) @ x.T


def test_mardia_by_hand():
    # the cross has m_ii = 2 for all, and -2 or 0 between samples: b1 = 0 by symmetry, b2 = 4
    found = d.mardia(CROSS)
    assert (found.skewness, found.kurtosis) == (pytest.approx(0), pytest.approx(4))
    # one feature: b1 is the squared skewness, b2 the kurtosis
    x = np.random.default_rng(0).gamma(2, size=(50, 1))
    found = d.mardia(x)
    assert found.skewness == pytest.approx(stats.skew(x[:, 0]) ** 2)
    assert found.kurtosis == pytest.approx(stats.kurtosis(x[:, 0], fisher=False))


def test_mardia_against_a_restatement():
    n, feature = 600, 3  # more samples than one block
    x = cloud(n, feature)
    m, found = whitened_products(x), d.mardia(x)
    assert found.skewness == pytest.approx((m**3).mean())
    assert found.kurtosis == pytest.approx((np.diag(m) ** 2).mean())
    # for many samples the exact moments are the textbook's: n b1 / 6 on chi-square, b2 with variance 8 d (d + 2) / n
    x = cloud(5000, 2)
    found = d.mardia(x)
    z = (found.kurtosis - 8) / np.sqrt(8 * 8 / 5000)
    assert found.kurtosis_p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.03)
    assert found.skewness_p == pytest.approx(stats.chi2.sf(5000 * found.skewness / 6, 4), abs=0.01)


def test_mardia_moments_are_those_of_gaussian_samples():
    """Means of b1 and b2 over small samples, where the textbook's limits are far off (b2 24 here, not 19.7)."""
    rng = np.random.default_rng(0)
    n, feature = 12, 4
    found = [d.mardia(rng.normal(size=(n, feature))) for _ in range(2000)]
    b1, b2 = np.array([(f.skewness, f.kurtosis) for f in found]).T
    mean2 = feature * (feature + 2) * (n - 1) / (n + 1)
    variance2 = 8 * feature * (feature + 2) * (n - 3) * (n - feature - 1) * (n - feature + 1)
    variance2 /= (n + 1) ** 2 * (n + 3) * (n + 5)
    assert b2.mean() == pytest.approx(mean2, abs=4 * np.sqrt(variance2 / 2000))
    assert b2.var() == pytest.approx(variance2, rel=0.15)
    k = (feature + 1) * (n + 1) * (n + 3) / (n * ((n + 1) * (feature + 1) - 6))
    freedom = feature * (feature + 1) * (feature + 2) / 6
    assert (n * k * b1 / 6).mean() == pytest.approx(freedom, rel=0.03)
    assert found[0].skewness_p == pytest.approx(stats.chi2.sf(n * k * b1[0] / 6, freedom))
    assert found[0].kurtosis_p == pytest.approx(2 * stats.norm.sf(abs(b2[0] - mean2) / np.sqrt(variance2)))


def test_henze_zirkler_against_a_restatement():
    x = cloud(60, 3)
    n, feature = x.shape
    m = whitened_products(x)
    own = np.diag(m)
    between = own[:, None] + own - 2 * m
    beta = ((2 * feature + 1) / 4) ** (1 / (feature + 4)) * n ** (1 / (feature + 4)) / np.sqrt(2)
    expected = n * (
        np.exp(-(beta**2) / 2 * between).sum() / n**2
        - 2 * (1 + beta**2) ** (-feature / 2) * np.exp(-(beta**2) / (2 * (1 + beta**2)) * own).mean()
        + (1 + 2 * beta**2) ** (-feature / 2)
    )
    assert d.henze_zirkler(x).statistic == pytest.approx(expected)


def test_henze_zirkler_is_an_integral_over_characteristic_functions():
    """In one feature: n times the weighted integral of |empirical - Gaussian|^2, by quadrature."""
    x = np.random.default_rng(0).gamma(2, size=20)
    z = (x - x.mean()) / x.std()
    beta = (3 / 4) ** (1 / 5) * 20 ** (1 / 5) / np.sqrt(2)

    def integrand(t):
        return abs(np.exp(1j * t * z).mean() - np.exp(-(t**2) / 2)) ** 2 * stats.norm.pdf(t, scale=beta)

    assert d.henze_zirkler(x[:, None]).statistic == pytest.approx(20 * integrate.quad(integrand, -15, 15)[0])


def test_henze_zirkler_moments_are_those_of_gaussian_samples():
    rng = np.random.default_rng(0)
    logs = [np.log(d.henze_zirkler(rng.normal(size=(100, 2))).statistic) for _ in range(400)]
    found = d.henze_zirkler(rng.normal(size=(100, 2)))
    z = (np.log(found.statistic) - np.mean(logs)) / np.std(logs)
    assert found.p_value == pytest.approx(stats.norm.sf(z), abs=0.06)


@pytest.mark.parametrize(("n", "feature"), [(200, 2), (150, 30)])
def test_gaussians_pass_and_others_fail(n, feature):
    rng = np.random.default_rng(0)
    passed = {"skewness": [], "kurtosis": [], "henze_zirkler": []}
    for _ in range(150):
        x = rng.normal(size=(n, feature))
        found = d.mardia(x)
        passed["skewness"].append(found.skewness_p)
        passed["kurtosis"].append(found.kurtosis_p)
        passed["henze_zirkler"].append(d.henze_zirkler(x).p_value)
    for name, ps in passed.items():
        assert np.mean(np.array(ps) < 0.05) <= 0.12, name
        assert 0.35 < np.mean(ps) < 0.65, name
    x = rng.normal(size=(n, feature))
    heavy = x / np.sqrt(rng.chisquare(3, size=(n, 1)) / 3)  # Student's t with 3 degrees of freedom
    assert d.mardia(heavy).kurtosis_p < 1e-6
    assert d.henze_zirkler(heavy).p_value < 1e-3
    skew = np.exp(x)
    assert d.mardia(skew).skewness_p < 1e-6
    assert d.henze_zirkler(skew).p_value < 1e-3


def test_henze_zirkler_sees_a_cloud_with_gaussian_skewness_and_kurtosis():
    """Planted: symmetric, kurtosis 3 as a Gaussian's, but with no samples near 0."""
    rng = np.random.default_rng(0)
    x = rng.choice([-1, 1], 2000) * rng.choice([0.5, 1.0, 2.0], 2000, p=[0.5, 0.3, 0.2])
    a = x / np.sqrt((x**4).mean() / 3)
    assert d.henze_zirkler(a[:, None]).p_value < 1e-6


def test_hundreds_of_features():
    """Where the statistic is 1 to thirty digits the p-value still tells a Gaussian from heavy tails."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 150))
    assert d.henze_zirkler(x).p_value > 0.05
    assert d.mardia(x).kurtosis_p > 0.01
    heavy = x / np.sqrt(rng.chisquare(5, size=(400, 1)) / 5)
    assert d.henze_zirkler(heavy).p_value < 1e-3
    assert d.mardia(heavy).kurtosis_p < 1e-6


def test_mahalanobis_qq():
    expected, observed = d.mahalanobis_qq(CROSS)
    assert observed == pytest.approx([2, 2, 2, 2])
    assert expected == pytest.approx(-2 * np.log(1 - np.array([1, 3, 5, 7]) / 8))  # chi-square with 2 degrees
    x = cloud(3000, 4)
    expected, observed = d.mahalanobis_qq(x)
    np.testing.assert_allclose(observed, np.sort(np.diag(whitened_products(x))), rtol=1e-9)
    np.testing.assert_allclose(observed, np.sort(EmpiricalCovariance().fit(x).mahalanobis(x)), rtol=1e-9)
    assert observed.mean() == pytest.approx(4)
    assert np.abs(observed - expected)[:2700].max() < 0.3
    heavy = x / np.sqrt(np.random.default_rng(0).chisquare(3, size=(3000, 1)) / 3)
    expected, observed = d.mahalanobis_qq(heavy)
    assert observed[-1] > 3 * expected[-1]


def test_affine_maps_change_nothing():
    x = cloud(50, 4)
    moved = x[::-1] @ (rotation(4) * [1e-3, 1, 10, 1e3]) + 5
    assert d.mardia(moved).skewness == pytest.approx(d.mardia(x).skewness)
    assert d.mardia(moved).kurtosis == pytest.approx(d.mardia(x).kurtosis)
    assert d.henze_zirkler(moved).p_value == pytest.approx(d.henze_zirkler(x).p_value)
    np.testing.assert_allclose(d.mahalanobis_qq(moved)[1], d.mahalanobis_qq(x)[1], rtol=1e-8)


@pytest.mark.parametrize("function", [d.mardia, d.henze_zirkler, d.mahalanobis_qq])
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (cloud(4, 4), "4 samples of 4 features: a Gaussian needs more samples than features, project on a few"),
        (cloud(9, 2)[:, [0, 1, 1]], "the 9 samples do not fill their 3 dimensions: project on a few"),
        (np.ones((9, 2)), "do not fill their 2 dimensions"),
    ],
)
def test_too_few_samples_are_refused_with_the_way_out(function, x, message):
    with pytest.raises(ValueError, match=message) as error:
        function(x)
    assert "\n" not in str(error.value)
    assert "diagnostics.principal_components" in str(error.value)


def test_the_way_out():
    x = cloud(30, 40)
    found = d.mardia(d.principal_components(x, 3))
    assert 0 < found.skewness_p < 1


def test_so_many_features_that_the_statistic_cannot_vary(monkeypatch):
    x = np.random.default_rng(0).normal(size=(1500, 1400)).astype(np.float32)
    # which takes long
    monkeypatch.setattr("workbench.analysis.diagnostics.gaussianity._whitened", lambda vectors: vectors)
    with pytest.raises(ValueError, match="1500 samples of 1400 features are too many features for this test: project"):
        d.henze_zirkler(x)
