"""Read-outs against hand-computed numbers, plain restatements and full sorts."""

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics.pairwise import cosine_similarity

from workbench import diagnostics as d

THOUGHTS = np.array([[0.5, 0.3, 0.2, 0, 0], [0.1, 0.1, 0.2, 0.2, 0.4]])


def distributions(seed, *shape):
    return np.random.default_rng(seed).dirichlet(np.full(shape[-1], 0.5), size=shape[:-1])


def test_entropy_and_top_k_mass():
    assert d.vocabulary_entropy([[0.5, 0.5, 0], [1, 0, 0]]) == pytest.approx([np.log(2), 0])
    assert d.vocabulary_entropy(np.full(7, 1 / 7)) == pytest.approx(np.log(7))
    assert d.top_k_mass(THOUGHTS) == pytest.approx([0.5, 0.4])
    assert d.top_k_mass(THOUGHTS, 2) == pytest.approx([0.8, 0.6])
    assert d.top_k_mass(THOUGHTS, 9) == pytest.approx([1, 1])
    p = distributions(0, 3, 4, 11)
    np.testing.assert_allclose(d.vocabulary_entropy(p), stats.entropy(p, axis=-1))
    np.testing.assert_allclose(d.top_k_mass(p, 3), np.sort(p, axis=-1)[..., -3:].sum(-1))
    shuffled = p[..., np.random.default_rng(1).permutation(11)]
    np.testing.assert_allclose(d.top_k_mass(shuffled, 3), d.top_k_mass(p, 3))
    np.testing.assert_allclose(d.vocabulary_entropy(shuffled), d.vocabulary_entropy(p))


# ----------------------------------------------------------------------------------------------------- nearest tokens


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 7]), st.sampled_from([np.float16, np.float32, np.float64]))
def test_nearest_tokens_against_a_full_sort(seed, k, dtype):
    rng = np.random.default_rng(seed)
    table, x = rng.normal(size=(30, 5)).astype(dtype), rng.normal(size=(2, 4, 5)).astype(dtype)
    ids, cosines = d.nearest_tokens(x, table, k)
    full = cosine_similarity(x.reshape(-1, 5).astype(float), table.astype(float)).reshape(2, 4, 30)
    assert ids.shape == cosines.shape == (2, 4, k)
    np.testing.assert_allclose(cosines, -np.sort(-full, axis=-1)[..., :k], atol=1e-6)
    np.testing.assert_allclose(cosines, np.take_along_axis(full, ids, -1), atol=1e-6)
    if dtype == np.float64:  # float32 may swap what is equal to seven digits
        np.testing.assert_array_equal(ids, np.argsort(-full, axis=-1)[..., :k])
    assert cosines.dtype == (np.float64 if dtype == np.float64 else np.float32)
    np.testing.assert_array_equal(d.nearest_tokens(4 * x, 2 * table, k)[0], ids)  # lengths do not matter


def test_nearest_tokens_in_many_blocks_and_with_equal_rows(monkeypatch):
    rng = np.random.default_rng(0)
    table, x = np.repeat(rng.integers(-1, 2, size=(60, 3)), 4, axis=0).astype(float), rng.normal(size=(50, 3))
    whole = d.nearest_tokens(x, table, 5)
    full = np.round(cosine_similarity(x, table), 12)
    np.testing.assert_array_equal(whole[0], np.argsort(-full, axis=1, kind="stable")[:, :5])  # equals by id
    for block in (1, 700, 7000):
        monkeypatch.setattr("workbench.analysis.diagnostics.readout._BLOCK", block)
        np.testing.assert_array_equal(d.nearest_tokens(x, table, 5)[0], whole[0])
    ids, cosines = d.nearest_tokens(x, table, len(table))
    assert np.sort(ids, axis=1).tolist() == [list(range(240))] * 50
    assert (np.diff(cosines, axis=1) <= 0).all()
    assert d.nearest_tokens(np.zeros(3), table, 2)[0].tolist() == [0, 1]


def test_a_token_is_nearest_to_itself():
    table = np.random.default_rng(0).normal(size=(100, 8))
    ids, cosines = d.nearest_tokens(table, table, 1)
    assert ids[:, 0].tolist() == list(range(100))
    np.testing.assert_allclose(cosines, 1)


# ---------------------------------------------------------------------------------------------------- compression


def test_even_split():
    assert [part.tolist() for part in d.even_split([1, 2, 3, 4, 5], 2)] == [[1, 2], [3, 4, 5]]
    assert [part.tolist() for part in d.even_split([7], 3)] == [[], [], [7]]
    assert [part.tolist() for part in d.even_split([], 2)] == [[], []]


def test_compression_rate_by_hand():
    # thought 0 has tokens 0, 1 in charge, thought 1 tokens 4, 2, 4
    path = [0, 3, 4, 2, 4]
    found = d.compression_rate(THOUGHTS, path, ks=(1, 2, 3, 5))
    # K=1: token 0, and token 4 twice; K=2: and token 2 (as likely as 3, lower id); token 3 has no mass in thought 0
    assert found == {1: 1.5, 2: 2.0, 3: 2.0, 5: 2.0}


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(0, 12))
def test_compression_rate_against_a_restatement(seed, length, n):
    p, path = distributions(seed, length, 9), np.random.default_rng(seed).integers(0, 9, n)
    found = d.compression_rate(p, path, ks=(1, 2, 4, 9))
    for k, rate in found.items():
        hits = 0
        for t in range(length):
            top = set(np.argsort(-p[t], kind="stable")[:k])
            hits += sum(path[j] in top for j in range(t * n // length, (t + 1) * n // length))
        assert rate == pytest.approx(hits / length)
    assert list(found.values()) == sorted(found.values())
    assert found[9] == pytest.approx(n / length)


def test_compression_rate_of_explicit_reasoning_is_one():
    path = np.array([3, 1, 4, 1, 5])
    rates = d.compression_rate(np.eye(9)[path], path)
    assert rates == dict.fromkeys((50, 100, 150, 200, 250, 300), 1.0)


# ---------------------------------------------------------------------------------------------------- parallelism


@pytest.mark.parametrize(
    ("scores", "expected"), [([-1, -1], 2.0), ([-1, -1, -2], 2.7659), ([-1, -3], 1.4410), ([0, -1000], 1.0)]
)
def test_effective_paths(scores, expected):
    assert d.effective_paths(scores) == pytest.approx(expected, abs=1e-4)
    assert d.effective_paths(np.add(scores, 5)) == pytest.approx(expected, abs=1e-4)
    assert d.effective_paths(np.multiply(scores, 3), temperature=3) == pytest.approx(expected, abs=1e-4)


def test_parallelism_by_hand():
    found = d.parallelism(THOUGHTS, [[0, 1, 4], [2, 3, 3]], k=None)
    first = (np.log(0.5) + np.log(0.1 + 0.4)) / 2  # parts [0] and [1, 4]
    second = (np.log(0.2) + np.log(0.2)) / 2  # parts [2] and [3, 3], of which 3 counts once
    assert found.scores == pytest.approx([first, second])
    weights = np.exp([first, second]) / np.exp([first, second]).sum()
    assert found.weights == pytest.approx(weights)
    assert found.n_eff == pytest.approx(np.exp(stats.entropy(weights)))
    assert found.runner_up == pytest.approx(0.2 / 0.5)
    # among the two most likely: thought 1 keeps 4 and 2 (as likely as 3, with the lower id), so 1 and 3 have no mass
    few = d.parallelism(THOUGHTS, [[0, 1, 4], [2, 3, 3]], k=2)
    assert few.scores == pytest.approx([(np.log(0.5) + np.log(0.4)) / 2, np.log(1e-12)])


def test_published_reference_line():
    """Two paths are worth 1.7 at weights 0.777 and 0.223."""
    assert d.effective_paths(np.log([0.777, 0.223])) == pytest.approx(1.7, abs=0.001)


def test_assignments():
    paths = [[0, 1, 4], [2, 3, 3]]
    swapped = d.parallelism(THOUGHTS, paths, k=None, assignments=[[1, 0], [0, 1]])
    assert swapped.scores[0] == pytest.approx((np.log(0.3) + np.log(0.1)) / 2, abs=1e-9)  # [1, 4] to thought 0
    assert swapped.scores[1] == d.parallelism(THOUGHTS, paths, k=None).scores[1]
    short = d.parallelism(THOUGHTS, paths, k=None, assignments=[[0], [-1, 1]])
    assert short.scores == pytest.approx([np.log(0.5), (np.log(1e-12) + np.log(0.2)) / 2])


def test_naive_is_the_mean_over_random_assignments():
    p, rng = distributions(0, 3, 12), np.random.default_rng(5)
    paths = [rng.integers(0, 12, 7) for _ in range(3)]
    orders = np.random.default_rng(9)
    expected = []
    for _ in range(10):
        assigned = [orders.permutation(3) for _ in paths]
        expected.append(d.parallelism(p, paths, k=6, assignments=assigned, trials=1).n_eff)
    found = d.parallelism(p, paths, k=6, trials=10, seed=9)
    assert found.naive == pytest.approx(np.mean(expected))
    assert 1 <= found.n_eff <= 3
    assert d.parallelism(p, paths, k=6, trials=10, seed=9).naive == found.naive


def test_planted_parallel_paths():
    """Thoughts that are mixtures of two paths' tokens cover those two and not the third."""
    rng = np.random.default_rng(0)
    paths = [rng.permutation(30)[:8] + 100 * m for m in range(3)]
    explicit = [np.eye(300)[path] for path in paths]
    mixed = d.parallelism((explicit[0] + explicit[1]) / 2, paths)
    assert mixed.n_eff == pytest.approx(2)
    assert mixed.runner_up == pytest.approx(1)
    single = d.parallelism(explicit[2], paths)
    assert single.n_eff == pytest.approx(1)
    assert single.runner_up == pytest.approx(0, abs=1e-9)
    assert d.parallelism(np.full((8, 300), 1 / 300), paths, k=None).n_eff == pytest.approx(3)  # says nothing: M


def test_match_steps():
    reference = np.array([[1.0, 0], [0, 1], [1, 1]])
    assert d.match_steps([[0.0, 5], [2, 0], [1, 0.1]], reference).tolist() == [1, 0, 2]
    assert d.match_steps([[1.0, 0.1], [1, 0]], reference).tolist() == [0, 2]  # the nearest is taken
    assert d.match_steps(np.ones((5, 2)), reference).tolist() == [2, 0, 1]
    order = np.random.default_rng(0).permutation(6)
    x = np.random.default_rng(1).normal(size=(6, 20))
    assert d.match_steps(x[order], x).tolist() == order.tolist()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.vocabulary_entropy([1.0, 2, -1]), r"probabilities of shape \(3,\): give \[..., token\]"),
        (lambda: d.top_k_mass([0.5, 0.4]), "that add up to 1, a softmax of logits"),
        (lambda: d.top_k_mass(THOUGHTS, 0), "0 given as a count: give at least 1"),
        (lambda: d.compression_rate(THOUGHTS[0], [1]), r"shape \(5,\): give one example's thoughts"),
        (lambda: d.compression_rate(THOUGHTS, [5]), "give a path's ids, from 0 to 4"),
        (lambda: d.compression_rate(THOUGHTS, [0.5]), "float64: give a path's ids"),
        (lambda: d.compression_rate(THOUGHTS, [1], ks=(0,)), "0 given as a count"),
        (lambda: d.parallelism(THOUGHTS, [[1]]), "1 explicit paths: parallelism needs at least 2"),
        (lambda: d.parallelism(THOUGHTS, [[1], [2]], temperature=0), "temperature 0, 64 trials: give both above 0"),
        (lambda: d.parallelism(THOUGHTS, [[1], [2]], assignments=[[0, 2], [0]]), "2 paths and 2 thoughts: give each"),
        (lambda: d.nearest_tokens(np.ones(3), np.ones((4, 2))), r"vectors \(3,\) and table \(4, 2\): give"),
        (lambda: d.nearest_tokens(np.ones(2), np.ones((4, 2))), "k = 5 of 4 tokens: give k from 1 to 4"),
        (lambda: d.nearest_tokens([np.nan, 1], np.ones((4, 2)), 1), "vectors holds NaN"),
        (lambda: d.match_steps(np.ones((2, 3)), np.ones((2, 3)), "best"), "matching 'best': use 'greedy' or"),  # pyright: ignore
        (lambda: d.match_steps(np.ones(3), np.ones((2, 3))), r"thoughts \(3,\) and reference \(2, 3\)"),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_top_tokens_against_a_full_sort():
    p = distributions(0, 3, 4, 11)
    ids, found = d.top_tokens(p, 4)
    np.testing.assert_array_equal(ids, np.argsort(-p, axis=-1, kind="stable")[..., :4])
    np.testing.assert_allclose(found, -np.sort(-p, axis=-1)[..., :4])
    assert d.top_tokens([0.25, 0.25, 0.5, 0], 3)[0].tolist() == [2, 0, 1]
    with pytest.raises(ValueError, match="k = 5 of 4 tokens: give k from 1 to 4"):
        d.top_tokens([0.25] * 4, 5)


@settings(deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_optimal_matching_against_every_assignment(seed, thoughts, parts):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(thoughts, 3)), rng.normal(size=(parts, 3))
    cosines = cosine_similarity(x, y)
    few = min(thoughts, parts)
    best = max(
        sum(cosines[t, s] for t, s in zip(rows, columns, strict=True))
        for rows in combinations(range(thoughts), few)
        for columns in permutations(range(parts), few)
    )
    found = d.match_steps(x, y, "optimal")
    taken = found[found >= 0]
    assert len(taken) == len(set(taken.tolist())) == few
    assert cosines[np.flatnonzero(found >= 0), taken].sum() == pytest.approx(best)
    greedy = d.match_steps(x, y)
    assert cosines[np.arange(len(greedy)), greedy].sum() <= best + 1e-12
