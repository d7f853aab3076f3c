"""Information with labels, and intervals: closed forms, a second library, planted truths, coverage."""

import numpy as np
import pytest
from scipy import integrate, stats
from scipy.spatial.distance import cdist
from scipy.special import digamma
from sklearn.feature_selection import mutual_info_classif

from workbench import diagnostics as d


def planted(n=600, feature=4, shift=2.0, classes=2, seed=0):
    """Unit Gaussians whose first feature is moved by `shift` times the label."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.normal(size=(n, feature))
    x[:, 0] += shift * y
    return x, y


def truth(shift=2.0):
    """I(x; y) of two unit Gaussians `shift` apart, each half of the time, by quadrature."""

    def integrand(v):
        p, q = stats.norm.pdf(v), stats.norm.pdf(v, shift)
        return 0.5 * (p * np.log(p / ((p + q) / 2)) + q * np.log(q / ((p + q) / 2)))

    return integrate.quad(integrand, -8, 8 + shift)[0]


# ------------------------------------------------------------------------------------------------------- information


def test_both_estimates_come_near_the_truth():
    x, y = planted()
    expected = truth()
    assert expected == pytest.approx(0.337, abs=0.001)
    classifier, neighbours = d.classifier_information(x, y), d.knn_information(x, y)
    assert expected - 0.06 < classifier.nats < expected + 0.03  # a lower bound, up to the samples' chance
    assert neighbours.nats == pytest.approx(expected, abs=0.07)
    for found in (classifier, neighbours):
        assert abs(found.floor) < 0.03
        assert found.entropy == pytest.approx(stats.entropy(np.bincount(y) / 600))
        assert (found.samples, found.classes) == (600, 2)
    assert classifier.p_value == pytest.approx(1 / 6)
    assert neighbours.p_value == pytest.approx(1 / 20)


def test_nothing_is_found_where_there_is_nothing():
    ps = []
    for seed in range(40):
        x, y = planted(80, 3, shift=0, seed=seed)
        ps.append(d.knn_information(x, y).p_value)
    assert stats.kstest(ps, "uniform").pvalue > 0.01
    x, y = planted(300, 40, shift=0)
    found = d.classifier_information(x, y)
    assert found.nats < 0.02
    assert found.nats == pytest.approx(found.floor, abs=0.1)


def test_labels_that_are_told_exactly_have_all_their_entropy():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = 50 * np.eye(3)[y] + rng.normal(size=(300, 3))
    assert d.knn_information(x, y).nats == pytest.approx(stats.entropy(np.bincount(y) / 300), abs=0.01)
    found = d.classifier_information(x, y, strengths=(10.0,))
    assert found.nats == pytest.approx(found.entropy, abs=0.02)


def test_a_classifier_sees_only_linear_information_and_neighbours_any():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2))
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    assert d.classifier_information(x, y).nats < 0.02
    assert d.knn_information(x, y).nats > 0.5


def test_the_classifier_is_the_held_out_cross_entropy_of_a_logistic_regression():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = planted(300, 4, classes=3)
    x = x * [1, 10, 0.1, 1] + 5
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.5))
    split = StratifiedKFold(4, shuffle=True, random_state=0)
    chance = cross_val_predict(model, x, y, cv=split, method="predict_proba")
    expected = stats.entropy(np.bincount(y) / 300) - log_loss(y, chance)
    found = d.classifier_information(x, y, folds=4, strengths=(0.5,))
    assert found.nats == pytest.approx(expected, abs=6e-3)  # it is stopped early
    several = d.classifier_information(x, y, folds=4, strengths=(1e-4, 0.5))
    assert several.nats == pytest.approx(found.nats)  # the better one
    assert several.floor >= found.floor


@pytest.mark.parametrize("k", [1, 3])
def test_neighbours_against_a_restatement_and_scikit_learn(k):
    x, y = planted(120, 3, classes=3)
    distances = cdist(x, x)
    total = 0.0
    for i in range(120):
        same = np.sort(distances[i][(y == y[i]) & (np.arange(120) != i)])
        within = (distances[i] <= same[k - 1]).sum() - 1  # without itself
        total += digamma(120) + digamma(k) - digamma((y == y[i]).sum()) - digamma(within)
    assert d.knn_information(x, y, k=k).nats == pytest.approx(total / 120)
    one = d.knn_information(x[:, :1], y, k=k).nats
    library = mutual_info_classif(x[:, :1], y, n_neighbors=k, discrete_features=False, random_state=0)[0]
    assert one == pytest.approx(library, abs=1e-6)


def test_neighbours_do_not_depend_on_blocks_frame_or_names(monkeypatch):
    x, y = planted(150, 3)
    found = d.knn_information(x, y)
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    assert d.knn_information(5 * x @ turn + 100, np.array(["no", "yes"])[y]).nats == pytest.approx(found.nats)
    monkeypatch.setattr("workbench.analysis.diagnostics.neighbours._BLOCK", 1000)
    blocks = d.knn_information(x, y)
    assert (blocks.nats, blocks.floor) == (pytest.approx(found.nats), pytest.approx(found.floor))


def test_copies_are_neighbours_at_distance_zero():
    x = np.repeat([[0.0], [1]], 20, axis=0)
    y = np.repeat([0, 1], 20)
    assert d.knn_information(x, y).nats == pytest.approx(digamma(40) + digamma(3) - 2 * digamma(20))


def test_rare_labels_are_left_out():
    x, y = planted(100, 2)
    y = np.where(np.arange(100) < 3, 9, y)
    assert d.knn_information(x, y, k=3).samples == 97
    assert d.knn_information(x, y, k=2).samples == 100
    assert d.classifier_information(x, y).classes == 2
    with pytest.raises(ValueError, match="0 labels occur 5 times or more: give labels with at least two frequent"):
        d.classifier_information(x, np.arange(100))
    with pytest.raises(ValueError, match="1 labels occur 4 times or more"):
        d.knn_information(x, np.zeros(100))


# ---------------------------------------------------------------------------------------------------------- intervals


def test_bootstrap_of_a_mean_is_the_textbooks():
    x = np.random.default_rng(0).gamma(2, size=(400, 1))
    found = d.bootstrap(lambda rows: float(rows.mean()), x)
    half = 1.96 * x.std() / 20
    assert found.value == x.mean()
    assert (found.low, found.high) == (
        pytest.approx(x.mean() - half, abs=0.02),
        pytest.approx(x.mean() + half, abs=0.02),
    )
    wide = d.bootstrap(lambda rows: float(rows.mean()), x, level=0.99)
    assert wide.low < found.low < found.high < wide.high
    assert d.bootstrap(lambda rows: float(rows.mean()), x) == found
    assert d.bootstrap(lambda rows: float(rows.mean()), x, seed=1) != found


def test_bootstrap_draws_the_rows_of_all_arrays_together():
    x = np.random.default_rng(0).normal(size=(50, 3))
    found = d.bootstrap(lambda a, b: float(np.abs(a - b).max()), x, x)
    assert found == d.Estimate(0, 0, 0)
    assert d.bootstrap(lambda a, b: float((a * b[::-1]).sum()), x, x) != found  # order matters to this one


def test_jackknife_of_a_mean_is_the_textbooks():
    x = np.random.default_rng(0).gamma(2, size=400)
    found = d.jackknife(lambda rows: float(rows.mean()), x, groups=400)
    half = stats.t.ppf(0.975, 399) * x.std(ddof=1) / 20
    assert (found.low, found.high) == (pytest.approx(x.mean() - half), pytest.approx(x.mean() + half))
    few = d.jackknife(lambda rows: float(rows.mean()), x)
    assert (few.high - few.low) == pytest.approx(2 * half, rel=0.5)


def test_jackknife_of_two_clouds():
    x, y = np.random.default_rng(0).normal(size=(2, 60))
    groups = {"groups": 60}
    together = d.jackknife(lambda a, b: float(a.mean() - b.mean()), x, x, **groups)
    assert together == d.Estimate(0, 0, 0)
    apart = d.jackknife(lambda a, b: float(a.mean() - b.mean()), x, y, paired=False, **groups)
    half = stats.t.ppf(0.975, 59) * np.sqrt(x.var(ddof=1) / 60 + y.var(ddof=1) / 60)
    assert (apart.high - apart.low) / 2 == pytest.approx(half)
    assert np.isfinite(d.jackknife(d.knn_kl, x[:, None], y[:40, None], paired=False).high)


def test_jackknife_of_divergences_has_the_width_of_their_scatter():
    """Against the standard deviation over fresh samples; the bootstrap's interval misses the value itself."""

    def clouds(seed):
        rng = np.random.default_rng(seed)
        return rng.normal(size=(100, 8)), rng.normal(size=(100, 8)) + 0.3

    for function in (d.gaussian_kl, d.knn_kl, d.frechet_distance):
        scatter = np.std([function(*clouds(seed)) for seed in range(60)])
        found = [d.jackknife(function, *clouds(seed), paired=False, groups=10) for seed in range(100, 112)]
        width = np.mean([(f.high - f.low) / 2 / stats.t.ppf(0.975, 9) for f in found])
        assert width == pytest.approx(scatter, rel=0.4), function.__name__
    p, q = np.random.default_rng(0).normal(size=(2, 60, 20))
    assert d.bootstrap(d.gaussian_kl, p, q, resamples=50).low > d.gaussian_kl(p, q)


def test_what_is_infinite_has_no_interval():
    still, x = np.full((20, 2), 0.1), np.random.default_rng(0).normal(size=(20, 2))
    found = d.jackknife(d.gaussian_kl, still, x, groups=5)
    assert found.value == np.inf
    assert np.isnan([found.low, found.high]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.bootstrap(np.mean, np.ones(1)), "1 examples: this interval needs at least 2"),
        (
            lambda: d.bootstrap(np.mean, np.ones(3), np.ones(4)),
            r"arrays of lengths \[3, 4\]: give arrays with",
        ),
        (lambda: d.bootstrap(np.mean), r"arrays of lengths \[\]"),
        (lambda: d.bootstrap(np.mean, np.ones(5), level=95), "level 95: give a confidence level between 0 and 1"),
        (lambda: d.bootstrap(lambda x: np.nan, np.ones(5)), "1000 of 1000 resamples have no value"),
        (lambda: d.jackknife(np.mean, np.ones(9)), "9 examples: this interval needs at least 20"),
        (lambda: d.jackknife(np.mean, np.ones(9), groups=1), "1 groups: give at least 2"),
        (lambda: d.knn_information(np.ones((4, 2)), [0, 1]), r"labels of shape \(2,\) for 4 samples"),
        (lambda: d.knn_information(np.ones((4, 2)), [0, 1, 0, 1], k=0), "k = 0: give at least 1"),
        (lambda: d.knn_information(*planted(20), shuffles=0), "0 shuffles: give at least 1"),
        (lambda: d.classifier_information(*planted(20), folds=1), "1 folds and 2 strengths: give at least 2 folds"),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
