"""Scores against brute force, closed forms and scipy."""

from collections import Counter
from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from stores import synthetic_store

from workbench import scores


def test_wilson_by_hand():
    low, high = scores.wilson(8, 10)  # z = 1.959964: centre 0.716740, half 0.226581
    assert (low, high) == (pytest.approx(0.490159, abs=1e-5), pytest.approx(0.943321, abs=1e-5))


@settings(deadline=None)
@given(st.integers(1, 500), st.floats(0, 1), st.sampled_from([0.8, 0.95, 0.99]))
def test_wilson_equals_scipy(n, share, level):
    k = round(share * n)
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert scores.wilson(k, n, level) == (pytest.approx(expected.low, abs=1e-12), pytest.approx(expected.high))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((3, 2), "3 successes of 2"), ((0, 0), "0 successes of 0"), ((1, 2, 95), "level 95")],
)
def test_wilson_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        scores.wilson(*arguments)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_with_one_answer_the_interval_is_wilson(values):
    found = scores.mean_interval(values)
    low, high = scores.wilson(sum(values), len(values))
    assert (found.mean, found.n) == (pytest.approx(sum(values) / len(values)), len(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_examples_are_the_unit():
    """Draws that repeat each other add nothing; independent draws count fully; in between it is the bootstrap's."""
    right = np.arange(40) % 2 == 0
    repeated = scores.mean_interval(right.astype(float), answers=16)
    assert (repeated.low, repeated.high) == pytest.approx(scores.wilson(20, 40))
    independent = scores.mean_interval(np.full(40, 0.5), answers=16)
    assert (independent.low, independent.high) == pytest.approx(scores.wilson(320, 640))
    certain = scores.mean_interval(np.ones(40), answers=16)
    assert (certain.low, certain.high) == pytest.approx(scores.wilson(40, 40))
    rng = np.random.default_rng(0)
    values = rng.binomial(8, rng.beta(2, 2, 400)) / 8
    found = scores.mean_interval(values, answers=8)
    other = stats.bootstrap((values,), np.mean, method="percentile", rng=rng, n_resamples=4000).confidence_interval
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.005)


def test_mean_interval_covers():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = scores.mean_interval(rng.binomial(4, rng.beta(4, 1, 60)) / 4, answers=4)
        hits += found.low <= 0.8 <= found.high
    assert 0.92 <= hits / 400 <= 0.98


@pytest.mark.parametrize(
    ("values", "message"),
    [([], "at least one"), ([[1.0]], "one value per example"), ([2.0], "shares between 0 and 1"), ([np.nan], "NaN")],
)
def test_mean_interval_refuses(values, message):
    with pytest.raises(ValueError, match=message):
        scores.mean_interval(values)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["", "1", "2", "3"]), max_size=9))
def test_majority_vote_against_brute_force(predictions):
    votes = [p for p in predictions if p]
    counts = Counter(votes)
    best = [p for p in votes if counts[p] == max(counts.values())]  # in order of appearance
    assert scores.majority_vote(predictions) == (best[0] if best else "")


def test_majority_vote_by_hand():
    assert scores.majority_vote(["7", "5", "5", "7"]) == "7"
    assert scores.majority_vote(["", "", "", "5"]) == "5"
    assert scores.majority_vote(["2", "1.0", "1", "2", "1.00"]) == "2"
    equal = lambda a, b: float(a) == float(b)  # noqa: E731
    assert scores.majority_vote(["2", "1.0", "1", "2", "1.00"], equal) == "1.0"


@settings(deadline=None)
@given(st.integers(1, 8), st.data())
def test_pass_at_k_against_all_subsets(n, data):
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = [i < c for i in range(n)]
    subsets = [any(draws[i] for i in chosen) for chosen in combinations(range(n), k)]
    assert scores.pass_at_k(c, n, k) == pytest.approx(np.mean(subsets))


def test_pass_at_k_is_stable_where_binomials_overflow():
    found = scores.pass_at_k([0, 1, 50, 4950, 5000], 5000, 1000)
    exact = [float(1 - comb(5000 - c, 1000) / comb(5000, 1000)) if c < 4000 else 1.0 for c in (0, 1, 50, 4950, 5000)]
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    assert scores.pass_at_k(np.full((2, 3), 3), 10, 1).tolist() == [[pytest.approx(0.3)] * 3] * 2


def test_pass_at_k_refuses():
    with pytest.raises(ValueError, match="pass@3 of 2 draws"):
        scores.pass_at_k([1], 2, 3)
    with pytest.raises(ValueError, match="give counts up to n"):
        scores.pass_at_k([3], 2, 1)


def test_mcnemar_by_hand():
    first, second = [1] * 6 + [0] + [1] * 3, [0] * 6 + [1] + [1] * 3  # 6 gained, 1 lost
    assert scores.mcnemar(first, second) == pytest.approx(2 * (1 + 7) / 2**7)
    assert scores.mcnemar([1, 0], [1, 0]) == 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12))
def test_sign_flip_is_mcnemar_on_right_and_wrong(pairs):
    first, second = zip(*pairs, strict=True)
    assert scores.sign_flip(first, second) == pytest.approx(scores.mcnemar(first, second))


def test_sign_flip_on_shares():
    first, second = np.array([0.75, 0.5, 1.0, 0.25]), np.array([0.25, 0.25, 0.25, 0.0])
    assert scores.sign_flip(first, second) == pytest.approx(2 / 16)  # all four differences have one sign


def test_paired_difference():
    rng = np.random.default_rng(0)
    first, second = rng.random(300) < 0.7, rng.random(300) < 0.4
    found = scores.paired_difference(first, second)
    assert found == scores.paired_difference(first, second)
    difference = first.astype(float) - second
    half = 1.96 * difference.std() / np.sqrt(300)
    assert found.mean == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx((found.mean - half, found.mean + half), abs=0.01)
    same = scores.paired_difference([1, 0, 1], [1, 0, 1])
    assert (same.mean, same.low, same.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("function", "first", "second", "message"),
    [
        (scores.paired_difference, [1], [0], "needs at least 2"),
        (scores.paired_difference, [1, 0], [0], "one per example, in the same order"),
        (scores.mcnemar, [0.5, 1], [0, 1], "use `sign_flip`"),
        (scores.sign_flip, [np.nan, 1], [0, 1], "first holds NaN"),
    ],
)
def test_paired_functions_refuse(function, first, second, message):
    with pytest.raises(ValueError, match=message):
        function(first, second)


def test_votes_of_a_store_against_brute_force():
    store = synthetic_store(30, 2, 1, 2, 3, accuracy=0.5, seed=1)
    expected = []
    for i in range(30):
        answers = store.isel(example=i)
        flat = [str(p) for p in answers["prediction"].values.ravel()]
        expected.append(scores.majority_vote(flat) == str(answers["gold"].values))
    np.testing.assert_array_equal(scores.per_example(store, "vote"), expected)
    turned = store.transpose("draw", "path", ...)
    np.testing.assert_array_equal(scores.per_example(turned, "vote"), expected)
    np.testing.assert_array_equal(scores.per_example(turned), store["correct"].mean(("path", "draw")))
    with pytest.raises(ValueError, match="unknown measure 'best': use one of mean, vote"):
        scores.per_example(store, "best")  # pyright: ignore[reportArgumentType]


def test_accuracy():
    store = synthetic_store(50, steps=0, accuracy=0.7)
    found = scores.accuracy(store)
    right = int(store["correct"].sum())
    assert (found.mean, found.n) == (pytest.approx(right / 50), 50)
    assert (found.low, found.high) == pytest.approx(scores.wilson(right, 50))


def test_accuracy_table():
    stores = {"many": synthetic_store(20, 2, 1, 2, 3), "one": synthetic_store(20, 1, 1, 2, 1, seed=1)}
    table = scores.accuracy_table(stores)
    many = table[table["store"] == "many"].set_index("measure")
    assert list(many.index) == ["mean", "vote", "pass@2", "pass@4", "pass@6"]
    assert many["mean"]["mean"] == scores.accuracy(stores["many"]).mean
    assert many["mean"]["pass@6"] == stores["many"]["correct"].any(("path", "draw")).mean()
    assert many["mean"][["mean", "pass@2", "pass@4", "pass@6"]].is_monotonic_increasing
    assert ((table["low"] <= table["mean"]) & (table["mean"] <= table["high"])).all()
    assert list(table[table["store"] == "one"]["measure"]) == ["mean"]
    assert many["unread"]["mean"] == (stores["many"]["prediction"] == "").mean()
    assert many["unfinished"]["mean"] == pytest.approx(1 - float(stores["many"]["finished"].mean()))


def test_compare_matches_examples_by_id():
    a = synthetic_store(40, seed=2, accuracy=0.9, method="a")
    b = a.assign(correct=a["correct"] & (np.arange(40) % 2 == 0)[:, None, None]).assign_attrs(method="b")
    shuffled = b.isel(example=np.random.default_rng(0).permutation(40)).isel(example=slice(30))
    row = scores.compare(a, shuffled).iloc[0]
    shared = a.sel(example=shuffled["example"].values)
    expected = (shared["correct"].astype(float) - shuffled["correct"]).mean()
    assert (row["first"], row["second"], row["n"], row["test"]) == ("a", "b", 30, "mcnemar")
    assert row["difference"] == pytest.approx(float(expected))
    assert row["difference"] == pytest.approx(row["mean_first"] - row["mean_second"])
    assert (row["worse"], row["p"]) == (0, pytest.approx(2 * 0.5 ** row["better"]))
    assert row["low"] <= row["difference"] <= row["high"]
    back = scores.compare(shuffled, a).iloc[0]
    assert (back["difference"], back["p"], back["better"]) == (pytest.approx(-row["difference"]), row["p"], 0)


def test_compare_with_several_answers():
    a, b = synthetic_store(20, 2, 1, 2, 2, accuracy=0.9), synthetic_store(20, 2, 1, 2, 2, accuracy=0.2)
    row = scores.compare(a, b).iloc[0]
    assert row["test"] == "sign_flip"
    assert row["p"] < 0.01
    assert scores.compare(a, b, "vote").iloc[0]["test"] == "mcnemar"


def test_compare_refuses():
    a = synthetic_store(4)
    with pytest.raises(ValueError, match="share no example"):
        scores.compare(a, synthetic_store(4, start=10))
    with pytest.raises(ValueError, match="'0000' is another question in each store"):
        scores.compare(a, a.assign_coords(question=("example", ["?"] * 4)))


def test_crossed_interval_by_hand():
    """Two runs, three examples: variance of run means / 2 + variance of example means / 3, Satterthwaite's t."""
    values = np.array([[1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    runs = np.var([2 / 3, 1.0], ddof=1) / 2
    examples = np.var([1.0, 0.5, 1.0], ddof=1) / 3
    freedom = (runs + examples) ** 2 / (runs**2 / 1 + examples**2 / 2)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(runs + examples)
    found = scores.crossed_interval(values)
    assert found.n == 3
    assert (found.low, found.mean, found.high) == pytest.approx((5 / 6 - half, 5 / 6, 5 / 6 + half))


def test_crossed_interval_with_one_run_or_one_example_is_students():
    values = np.random.default_rng(0).random(20)
    wanted = stats.ttest_1samp(values, 0).confidence_interval()
    for shape in ((1, 20), (20, 1)):
        found = scores.crossed_interval(values.reshape(shape))
        assert (found.low, found.high, found.n) == pytest.approx((wanted.low, wanted.high, 20))
    alone = scores.crossed_interval([[0.5]])
    assert (alone.mean, alone.n) == (0.5, 1)
    assert np.isnan(alone.low)
    assert scores.crossed_interval(np.ones((3, 4))).low == 1.0


def test_crossed_intervals_hold_the_truth_about_as_often_as_they_say():
    """Crossed effects of runs and examples, 3 runs as in the experiments: coverage of 95 % intervals."""
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(600):
        values = rng.normal(0, 0.05, (3, 1)) + rng.normal(0, 0.3, (1, 100)) + rng.normal(0, 0.3, (3, 100))
        found = scores.crossed_interval(values)
        hits.append(found.low <= 0 <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.995


def test_vote_at_is_the_mean_over_subsets():
    made = synthetic_store(examples=12, draws=5, seed=3)

    def right(row: list[str], grades: np.ndarray, picked: tuple[int, ...]) -> bool:
        winner = scores.majority_vote([row[i] for i in picked])
        return bool(winner) and bool(next(grades[i] for i in picked if row[i] == winner))

    everything = [  # ties go to the first seen, so the order of a subset counts
        np.mean([right(row, grades, picked) for picked in permutations(range(5), 3)])
        for row, grades in zip(made["prediction"].values[:, 0].tolist(), made["correct"].values[:, 0], strict=True)
    ]
    assert np.abs(scores.vote_at(made, 3, subsets=600) - everything).max() < 0.1
    assert np.array_equal(scores.vote_at(made, 1), scores.per_example(made))
    assert np.array_equal(scores.vote_at(made, 5), scores.per_example(made, "vote"))
    with pytest.raises(ValueError, match="a vote of 6 among 5 answers"):
        scores.vote_at(made, 6)
