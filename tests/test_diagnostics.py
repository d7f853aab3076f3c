"""Diagnostics against closed forms, invariances, brute force, other libraries, and thoughts whose state is planted."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from clouds import CLOUDS, CROSS, cloud, rotation
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity
from stores import synthetic_store, vectors

from workbench import diagnostics as d
from workbench import store as stores_module


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


def test_positive_step():
    nan = np.nan
    found = d.positive_step([[0.1, 0.7, 0.4], [0.2, nan, nan], [nan, nan, nan], [0.5, 0.5, nan], [-1, -0.5, nan]])
    assert found.index.tolist() == [1, 0, -1, 0, 1]
    np.testing.assert_allclose(found.similarity, [0.7, 0.2, nan, 0.5, -0.5])
    np.testing.assert_allclose(found.margin, [0.3, nan, nan, 0, 0.5])
    assert found.candidates.tolist() == [3, 1, 0, 2, 2]
    np.testing.assert_allclose(found.log_candidates, [np.log(3), 0, nan, np.log(2), np.log(2)])
    assert d.positive_step(np.zeros((2, 0))).index.tolist() == [-1, -1]


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_slot_cosines_and_probe_against_brute_force(seed):
    rng = np.random.default_rng(seed)
    x, mask = rng.normal(size=(6, 4, 5)), rng.random((6, 4)) < 0.7
    mask[:2] = True  # every step is there twice
    expected = []
    for i in range(6):
        pairs = [cosine_similarity(x[i, [j]], x[i, [k]])[0, 0] for j, k in combinations(np.flatnonzero(mask[i]), 2)]
        expected.append(np.mean(pairs) if pairs else np.nan)
    np.testing.assert_allclose(d.slot_cosines(x, mask), expected, atol=1e-12)
    found = d.probe(np.where(mask[..., None], x, np.nan), mask)
    clouds = [x[mask[:, s], s] for s in range(4)]
    weights = [len(c) for c in clouds]
    assert found["slot_cosine"] == pytest.approx(np.nanmean(expected))
    assert found["spread"] == pytest.approx(np.average([d.spread(c) for c in clouds], weights=weights))
    assert found["relative_spread"] == pytest.approx(found["spread"] / found["rms"] ** 2)
    assert found["effective_rank"] == pytest.approx(np.mean([d.effective_rank(c) for c in clouds]))
    assert found["cosine"] == pytest.approx(np.mean([d.mean_cosine(c) for c in clouds]))


def test_probe_without_thoughts_or_with_one_step():
    assert d.probe(np.zeros((5, 0, 3))) == {}
    assert "slot_cosine" not in d.probe(np.random.default_rng(0).normal(size=(5, 1, 3)))


@pytest.mark.parametrize(
    ("state", "expected", "evidence"),
    [
        ("healthy", "healthy", r"^relative spread 0\.\d+, slot cosine 0\.\d+$"),
        ("merged", "collapsed", r"^slots merged into one: their mean cosine 0\.99\d+ is above 0\.99$"),
        ("collapsed", "collapsed", r"^thoughts do not depend on the question: .* is below 0\.02; slots merged"),
    ],
)
@pytest.mark.parametrize("scale", [1e-3, 1, 1e3])
def test_planted_states_are_found_at_every_scale(state, expected, evidence, scale):
    verdict = d.collapse(scale * vectors(state, (64, 1, 4, 128))[:, 0])
    assert verdict.state == expected
    assert pd.Series(["; ".join(verdict.evidence)]).str.contains(evidence).all()
    assert verdict.values == d.probe(scale * vectors(state, (64, 1, 4, 128))[:, 0])


def test_effective_rank_alone_would_mislead():
    """A collapsed cloud has a high rank, a useful one a low rank; the verdict is right about both."""
    rng = np.random.default_rng(0)
    sign, direction, slots = rng.choice([-1, 1], (64, 1, 1)), rng.normal(size=128), rng.normal(size=(1, 4, 128))
    useful = slots + sign * direction + 0.05 * rng.normal(size=(64, 4, 128))
    dead = vectors("collapsed", (64, 1, 4, 128))[:, 0]
    assert d.probe(useful)["effective_rank"] < 2 < 30 < d.probe(dead)["effective_rank"]
    assert d.collapse(useful).state == "healthy"
    assert d.collapse(dead).state == "collapsed"


def test_drifting():
    rng = np.random.default_rng(0)
    close = rng.normal(size=(64, 1, 128)) + 0.25 * rng.normal(size=(64, 4, 128))  # cosine 1 / 1.0625 = 0.94
    found = d.collapse(close)
    assert (found.state, found.evidence) == ("drifting", ("slots are merging: their mean cosine 0.941 is above 0.9",))
    assert d.collapse(close, close_cosine=0.95).state == "healthy"
    late = vectors("healthy", (64, 1, 3, 128))[:, 0]
    late[:, 2] = late[:1, 2]
    found = d.collapse(late)
    assert found.state == "drifting"
    assert found.evidence[0] == "steps 2 do not depend on the question: relative spread < 0.02"
    weak = rng.normal(size=(1, 3, 128)) + 0.25 * rng.normal(size=(64, 3, 128))
    assert d.collapse(weak).evidence[0].startswith("thoughts depend little on the question: relative spread 0.058")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.spread(np.zeros((1, 3))), "1 samples in vectors: this statistic needs at least 2"),
        (lambda: d.effective_rank([[1.0, np.nan], [0, 1]]), "vectors holds NaN or infinite values"),
        (lambda: d.mean_cosine([1.0, 2.0]), r"vectors of shape \(2,\): give samples x features"),
        (lambda: d.effective_rank(CROSS, "norms"), "effective rank of 'norms'"),  # pyright: ignore[reportArgumentType]
        (lambda: d.norm_ratio(CROSS, [[0, 0]]), "all reference rows are zero"),
        (lambda: d.positive_step([1.0]), r"similarity of shape \(1,\)"),
        (lambda: d.collapse(np.zeros((5, 0, 3))), "there are no thoughts to judge"),
        (lambda: d.collapse(np.ones((1, 2, 3))), "give at least 2 examples"),
        (lambda: d.collapse(np.full((3, 2, 3), np.nan)), "thoughts holds NaN"),
        (lambda: d.probe(np.ones((3, 2)), np.ones((3, 2))), r"thoughts \(3, 2\) with mask \(3, 2\)"),
        (lambda: d.describe(synthetic_store(), path=1), "path 1 of a store with 1 paths"),
        (lambda: d.describe(synthetic_store(examples=1)), "give at least 2 examples"),
        (lambda: d.positive_steps(synthetic_store(reasoning=0)), "this store holds no 'similarity_answer': collect it"),
        (lambda: d.positive_steps(synthetic_store(), by="gold"), "similarity to 'gold'"),  # pyright: ignore
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def values(table):
    return table.set_index(["statistic", "step"])["value"]


def test_describe_agrees_with_the_functions():
    store = synthetic_store(30, 2, 3, 8, masked=True)
    before = store.copy(deep=True)
    table = d.describe(store, path=1)
    assert store.identical(before)
    assert not table.duplicated(["statistic", "step"]).any()
    assert set(table["statistic"]) == set(d.MEANINGS)
    found = values(table)
    x, mask = store["thought"].values[:, 1].astype(float), store["mask"].values[:, 1]
    for s in range(3):
        step = x[mask[:, s], s]
        assert found["spread", str(s)] == pytest.approx(d.spread(step))
        assert found["relative_spread", str(s)] == pytest.approx(d.relative_spread(step))
        assert found["effective_rank", str(s)] == pytest.approx(d.effective_rank(step))
        assert found["participation_ratio", str(s)] == pytest.approx(d.participation_ratio(step))
        assert found["cosine", str(s)] == pytest.approx(d.mean_cosine(step))
        assert found["norm_ratio", str(s)] == pytest.approx(d.norm_ratio(step, store["reference"].values))
    for name, value in d.probe(x, mask).items():
        assert name == "rms" or found[name, "all"] == pytest.approx(value), name
    assert found["norm_ratio", "all"] == pytest.approx(d.norm_ratio(x[mask], store["reference"].values))
    assert found["gaussian_kl", "all"] == pytest.approx(d.gaussian_kl(x[mask], store["reference"].values))
    kl = [d.feature_softmax_kl(x[i, mask[i]].mean(0), x[i, mask[i]]) for i in range(30)]
    assert found["slot_softmax_kl", "all"] == pytest.approx(np.mean(kl))
    assert found["verdict", "all"] == 0
    bounded = table.dropna(subset="low")
    assert set(bounded["statistic"]) == {"spread", "relative_spread", "slot_cosine", "slot_softmax_kl", "norm_ratio"}
    assert ((bounded["low"] < bounded["value"]) & (bounded["value"] < bounded["high"])).all()


def test_intervals_of_describe_are_those_of_a_mean():
    store = synthetic_store(300, 1, 2, 8)
    cosines = d.slot_cosines(store["thought"].values[:, 0])
    row = d.describe(store).set_index("statistic").loc["slot_cosine"]
    half = 1.96 * cosines.std() / np.sqrt(300)
    assert (row["low"], row["high"]) == pytest.approx((cosines.mean() - half, cosines.mean() + half), abs=0.01)


@pytest.mark.parametrize(("state", "code"), [("healthy", 0), ("merged", 2), ("collapsed", 2)])
def test_describe_says_the_verdict(state, code):
    row = d.describe(synthetic_store(state=state)).set_index("statistic").loc["verdict"]
    assert row["value"] == code
    assert row["meaning"].startswith(("healthy: ", "drifting: ", "collapsed: ")[code])


def test_describe_copes_with_every_kind_of_store():
    assert list(d.describe(synthetic_store(steps=0))) == list(d.describe(synthetic_store()))
    assert d.describe(synthetic_store(steps=0)).empty
    one = d.describe(synthetic_store(steps=1, reference=0))
    assert not {"slot_cosine", "norm_ratio", "gaussian_kl"} & set(one["statistic"])
    constant = synthetic_store(steps=1)  # a soft prompt: the same vector for every question
    constant["thought"] = constant["thought"].isel(example=0).broadcast_like(constant["thought"])
    found = values(d.describe(constant))
    assert (found["relative_spread", "all"], found["gaussian_kl", "all"], found["verdict", "all"]) == (0, np.inf, 2)
    store = synthetic_store(masked=True)
    turned = d.describe(store.transpose(*reversed(stores_module.DIMENSIONS)))
    pd.testing.assert_frame_equal(turned, d.describe(store))


def test_positive_steps_of_a_store():
    store = synthetic_store(20)
    table = d.positive_steps(store)
    assert list(table["example"]) == list(store["example"].values)
    expected = np.nanargmax(store["similarity_answer"].values, axis=1)
    assert table["chosen"].tolist() == expected.tolist()
    assert table["text"].tolist() == [f"{k} + 1 = {k + 1}" for k in expected]
    assert table["agrees"].isna().tolist() == [True] + [False] * 19  # the first has no known critical step
    assert table["agrees"].iloc[1:].all()
    question = d.positive_steps(store.transpose("reasoning", ...), by="question")
    assert question["chosen"].tolist() == np.nanargmax(store["similarity_question"].values, axis=1).tolist()
    assert question["agrees"].mean() < 1
    assert "agrees" not in d.positive_steps(store.drop_vars("label_critical_step"))
