"""Thoughts of examples and steps: brute force, a regression's sums of squares, and states that are planted."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_similarity
from stores import vectors

from workbench import diagnostics as d


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
        (lambda: d.positive_step([1.0]), r"similarity of shape \(1,\)"),
        (lambda: d.collapse(np.zeros((5, 0, 3))), "there are no thoughts to judge"),
        (lambda: d.collapse(np.ones((1, 2, 3))), "give at least 2 examples"),
        (lambda: d.collapse(np.full((3, 2, 3), np.nan)), "thoughts holds NaN"),
        (lambda: d.probe(np.ones((3, 2)), np.ones((3, 2))), r"thoughts \(3, 2\) with mask \(3, 2\)"),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
