"""Thoughts of examples and steps: brute force, a regression's sums of squares, and states that are planted."""

from collections import Counter
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
    assert verdict.values == d.probe(scale * vectors(state, (64, 1, 4, 128))[:, 0]) | {"same": 0}


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
    assert (found.state, found.evidence) == ("drifting", ("slots are merging: their mean cosine 0.941 is above 0.7",))
    assert d.collapse(close, thresholds=d.Thresholds(close_cosine=0.95)).state == "healthy"
    assert d.collapse(close, thresholds=d.Thresholds(merged_cosine=0.94)).state == "collapsed"
    late = vectors("healthy", (64, 1, 3, 128))[:, 0]
    late[:, 2] = late[:1, 2]
    found = d.collapse(late)
    assert found.state == "drifting"
    assert found.evidence[0].startswith("idle slots 2 (of 3) do not depend on the question: relative spread ")
    weak = rng.normal(size=(1, 3, 128)) + 0.25 * rng.normal(size=(64, 3, 128))
    assert d.collapse(weak).evidence[0].startswith("thoughts depend little on the question: relative spread 0.058")


@pytest.mark.parametrize("idle", [(0,), (3,), (1, 2)])
@pytest.mark.parametrize("noise", [0, 0.05])
def test_idle_slots_are_named(idle, noise):
    x = vectors("healthy", (64, 1, 4, 128))[:, 0]
    for s in idle:
        x[:, s] = x[:1, s] + noise * np.random.default_rng(s).normal(size=(64, 128))
    found = d.collapse(x)
    assert (found.state, found.idle) == ("drifting", idle)
    spreads = ", ".join(f"{d.relative_spread(x[:, s]):.2g}" for s in idle)
    steps = ", ".join(map(str, idle))
    assert found.evidence == (
        f"idle slots {steps} (of 4) do not depend on the question: relative spread {spreads}, below 0.02",
    )


def test_all_slots_idle_is_a_collapse():
    found = d.collapse(vectors("collapsed", (64, 1, 4, 128))[:, 0])
    assert (found.state, found.idle) == ("collapsed", (0, 1, 2, 3))
    assert d.collapse(vectors("healthy", (64, 1, 4, 128))[:, 0]).idle == ()
    # slots that are four different vectors, the same for every question: a soft prompt
    found = d.collapse(np.repeat(np.random.default_rng(0).normal(size=(1, 4, 128)), 64, axis=0))
    assert (found.state, found.values["same"]) == ("collapsed", 1)
    assert len(found.evidence) == 1


@pytest.mark.parametrize("noise", [0, 1e-3])
@pytest.mark.parametrize(
    ("equal", "state"), [(8, "healthy"), (16, "drifting"), (32, "drifting"), (47, "drifting"), (48, "collapsed")]
)
def test_some_questions_with_one_thought(equal, state, noise):
    x = vectors("healthy", (64, 1, 4, 128))[:, 0]
    x[-equal:] = x[-1] + noise * np.random.default_rng(0).normal(size=(equal, 4, 128))
    x = x[np.random.default_rng(1).permutation(64)]
    found = d.collapse(x)
    assert (found.state, found.values["same"]) == (state, equal / 64)
    expected = f"{equal} of 64 questions have the same thoughts, up to 0.01 of the distance between questions"
    assert (found.evidence == (expected,)) == (state != "healthy")
    assert d.collapse(x, thresholds=d.Thresholds(many_same=0.8, most_same=0.8)).state == "healthy"


@pytest.mark.parametrize("questions", [30, 100, 300])
def test_thoughts_of_a_few_kinds_are_no_collapse_however_many_are_asked(questions):
    """What a task asks for can be one of a few things: with enough questions each then has the thoughts of another."""
    rng = np.random.default_rng(0)
    kinds = rng.normal(size=(12, 4, 128))
    found = d.collapse(kinds[np.arange(questions) % 12])
    assert found.state == "healthy"
    assert found.values["same"] == pytest.approx(1 / 12, abs=0.02)


def test_questions_that_share_single_slots_do_not_have_the_same_thoughts():
    """Each slot says one of a few things: slots coincide between questions, whole thoughts do not."""
    rng = np.random.default_rng(0)
    words = rng.normal(size=(4, 8, 128))
    x = words[np.arange(4), rng.integers(0, 8, (64, 4))]
    most = max(Counter(tuple(row) for row in x.reshape(64, -1)).values())
    found = d.collapse(x)
    assert found.values["same"] == (most / 64 if most > 1 else 0)
    assert found.state == "healthy"


def test_verdict_of_masked_thoughts():
    x, mask = vectors("healthy", (20, 1, 3, 16))[:, 0], np.ones((20, 3), dtype=bool)
    mask[:5] = False  # without thoughts
    mask[5:10, 2] = False
    found = d.collapse(np.where(mask[..., None], x, np.nan), mask)
    assert (found.state, found.values["same"]) == ("healthy", 0)


# ------------------------------------------------------------------------------------------------------ variance parts


def test_variance_parts_by_hand():
    # two questions, one path, two slots; question moves both slots by 2, slot 1 is 1 more, one cell deviates
    x = np.array([[0.0, 1], [2, 3]]).reshape(2, 1, 2, 1)
    parts = d.variance_parts(x)
    assert {name: part.value for name, part in parts.items()} == {
        "slot": 0.25, "question": 1, "question_slot": 0, "path": 0, "residual": 0, "total": 1.25
    }  # fmt: skip
    assert parts["question"].share == 0.8
    assert [part.freedom for part in parts.values()] == [1, 1, 1, 0, 0, 3]
    assert parts["question"].chance == pytest.approx(1 / 3)
    crossed = d.variance_parts(np.array([[1.0, -1], [-1, 1]]).reshape(2, 1, 2, 1))
    assert crossed["question_slot"].share == 1


def test_variance_parts_are_the_plain_sums_of_squares():
    x = np.random.default_rng(0).normal(size=(5, 3, 4, 6)) + np.random.default_rng(1).normal(size=(5, 1, 1, 6))
    grand = x.mean((0, 1, 2))
    question, slot, cell = x.mean((1, 2), keepdims=True), x.mean((0, 1), keepdims=True), x.mean(1, keepdims=True)
    path = x.mean(2, keepdims=True)
    expected = {
        "slot": slot - grand,
        "question": question - grand,
        "question_slot": cell - question - slot + grand,
        "path": path - question,
        "residual": x - cell - path + question,
        "total": x - grand,
    }
    found = d.variance_parts(x)
    for name, deviation in expected.items():
        value = np.square(np.broadcast_to(deviation, x.shape)).mean()
        assert found[name].value == pytest.approx(value), name
        assert found[name].share == pytest.approx(value / found["total"].value), name
    assert sum(part.value for name, part in found.items() if name != "total") == pytest.approx(found["total"].value)
    assert found["total"].value == pytest.approx(d.spread(x))


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_variance_parts_under_a_mask_are_a_sequence_of_regressions(seed):
    rng = np.random.default_rng(seed)
    shape = (*rng.integers(1, [6, 4, 5]), 2)
    x, mask = rng.normal(size=shape) + rng.normal(size=(shape[0], 1, 1, 2)), rng.random(shape[:3]) < 0.7
    mask.ravel()[:2] = True
    if mask.sum() < 2:
        return
    e, p, s = np.nonzero(mask)
    y = x[mask]

    def fit(*labels):
        dummies = [np.equal.outer(label, np.unique(label)) for label in labels]
        design = np.concatenate([np.ones((len(y), 1)), *dummies], axis=1)
        left = y - design @ np.linalg.lstsq(design, y, rcond=1e-10)[0]
        return np.square(left).sum(), np.linalg.matrix_rank(design)

    cell, path = e * 9 + s, e * 9 + p
    fits = [fit(), fit(s), fit(s, e), fit(cell), fit(cell, path), (0, len(y))]
    found = d.variance_parts(np.where(mask[..., None], x, np.nan), mask)
    names = ("slot", "question", "question_slot", "path", "residual")
    for name, (before, rank), (after, more) in zip(names, fits, fits[1:], strict=False):
        assert found[name].value * y.size == pytest.approx(before - after, abs=1e-9), name
        assert found[name].freedom == more - rank, name
    assert sum(found[name].value for name in names) == pytest.approx(found["total"].value)


def test_variance_parts_find_what_was_planted():
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=(40, 3, 4, 16))
    planted = {
        "slot": rng.normal(size=(1, 1, 4, 16)),
        "question": rng.normal(size=(40, 1, 1, 16)),
        "question_slot": rng.normal(size=(40, 1, 4, 16)),
        "path": rng.normal(size=(40, 3, 1, 16)),
    }
    for name, effect in planted.items():
        found = d.variance_parts(effect + noise)
        assert max(planted, key=lambda part: found[part].share - found[part].chance) == name
        assert found["residual"].share < found["residual"].chance
    pure = d.variance_parts(noise)
    for name in (*planted, "residual"):
        assert pure[name].share == pytest.approx(pure[name].chance, rel=0.25), name


def test_variance_parts_do_not_depend_on_the_frame():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 2, 3, 5))
    turn = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    found, turned = d.variance_parts(x), d.variance_parts(3 * x[rng.permutation(6)][:, ::-1] @ turn + 9)
    for name, part in found.items():
        assert turned[name].value == pytest.approx(9 * part.value), name
        assert turned[name].share == pytest.approx(part.share), name
    still = d.variance_parts(np.full((6, 2, 3, 5), 0.1))
    assert {part.value for part in still.values()} == {part.share for part in still.values()} == {0}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.positive_step([1.0]), r"similarity of shape \(1,\)"),
        (lambda: d.collapse(np.zeros((5, 0, 3))), "there are no thoughts to judge"),
        (lambda: d.collapse(np.ones((1, 2, 3))), "give at least 2 examples"),
        (lambda: d.collapse(np.full((3, 2, 3), np.nan)), "thoughts holds NaN"),
        (lambda: d.probe(np.ones((3, 2)), np.ones((3, 2))), r"thoughts \(3, 2\) with mask \(3, 2\)"),
        (
            lambda: d.variance_parts(np.ones((3, 2, 4))),
            r"thoughts \(3, 2, 4\) with mask .*: give \[example, path",
        ),
        (lambda: d.variance_parts(np.ones((1, 1, 1, 4))), "1 thoughts of 4 features: variance needs at least 2"),
        (lambda: d.variance_parts(np.full((2, 1, 1, 4), np.inf)), "thoughts holds NaN or infinite"),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
