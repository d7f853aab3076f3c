"""Changes of thoughts: each does what its name says, to every question alike, and nothing to what it was given."""

import pytest
import torch

from workbench.evidence.changes import PLAIN, WITH_AMOUNT, change_named, donors
from workbench.methods import Thoughts


def thoughts(count: int = 6, steps: int = 3, ragged: bool = False) -> list[Thoughts]:
    generator = torch.Generator().manual_seed(0)
    made = []
    for k in range(count):
        own = steps - (k % 2 if ragged else 0)
        vectors = torch.randn(1, 2, own, 4, generator=generator) + 3
        made.append(Thoughts(vectors, torch.ones(1, 2, own, dtype=torch.bool)))
    return made


EVERY = [*PLAIN, *(f"{name}:2" for name in WITH_AMOUNT)]


@pytest.mark.parametrize("name", EVERY)
def test_a_change_leaves_what_it_was_given_alone_and_gives_as_many(name):
    given, before = thoughts(ragged=True), thoughts(ragged=True)
    changed = change_named(name)(given)
    assert len(changed) == len(given)
    for now, then in zip(given, before, strict=True):
        assert torch.equal(now.vectors, then.vectors)
    for new in changed:
        assert new.mask.shape == new.vectors.shape[:-1]
        assert bool(new.vectors.isfinite().all())


def test_spread_keeps_each_slots_mean_and_squares_into_its_variance():
    before = torch.cat([t.vectors for t in thoughts()])
    after = torch.cat([t.vectors for t in change_named("spread:0.5")(thoughts())])
    assert torch.allclose(before.mean((0, 1)), after.mean((0, 1)), atol=1e-6)
    assert torch.allclose(0.25 * before.var((0, 1)), after.var((0, 1)), atol=1e-6)


def test_averaged_gives_all_questions_the_mean_of_those_that_have_the_slot():
    changed = change_named("averaged")(thoughts(ragged=True))
    last = torch.stack([t.vectors[0, :, 2] for t in thoughts(ragged=True) if t.vectors.shape[2] == 3])
    for new in changed:
        if new.vectors.shape[2] == 3:
            assert torch.allclose(new.vectors[0, :, 2], last.mean((0, 1)).expand(2, -1), atol=1e-6)
    assert all(torch.allclose(changed[0].vectors[:, :, 0], new.vectors[:, :, 0], atol=1e-6) for new in changed)


def test_noise_has_the_size_asked_for_and_is_the_questions_own():
    many = [Thoughts(torch.ones(1, 1, 4, 5000) * 2, torch.ones(1, 1, 4, dtype=torch.bool)) for _ in range(3)]
    noise = [new.vectors - 2 for new in change_named("noised:0.5")(many)]
    for row in noise:
        assert float(row.std()) == pytest.approx(1.0, rel=0.02)  # half of the root mean square, 2
    assert not torch.equal(noise[0], noise[1])
    again = change_named("noised:0.5")(many[:1])[0].vectors - 2
    assert torch.equal(noise[0], again)  # whoever else is there


def test_dropped_zeroed_truncated_scaled():
    given = thoughts()
    assert all(t.vectors.shape[2] == 0 for t in change_named("dropped")(given))
    assert all(not t.vectors.any() and bool(t.mask.all()) for t in change_named("zeroed")(given))
    for old, new in zip(given, change_named("truncated:2")(given), strict=True):
        assert torch.equal(new.vectors, old.vectors[:, :, :2])
    for old, new in zip(given, change_named("scaled:3")(given), strict=True):
        assert torch.equal(new.vectors, 3 * old.vectors)


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 13, 50, 201])
def test_shuffled_gives_each_question_anothers_thoughts_and_all_of_them_once(count):
    given = thoughts(count)
    changed = change_named("shuffled")(given)
    assert all(new is not own for new, own in zip(changed, given, strict=True))
    assert {id(new) for new in changed} == {id(own) for own in given}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("shufled", r"unknown change of thoughts 'shufled': use one of .*; did you mean 'shuffled'\?"),
        ("shuffled:2", r"'shuffled' takes no amount, 'shuffled:2' has one; leave it out"),
        ("noised", r"'noised' needs an amount, as in noised:2; got 'noised'"),
        ("noised:much", r"'noised' needs an amount"),
        ("scaled:-1", r"the amount of 'scaled:-1' must be a number that is at least 0"),
        ("spread:nan", r"must be a number that is at least 0"),
    ],
)
def test_a_wrong_name_is_one_sentence(name, sentence):
    with pytest.raises(ValueError, match=sentence):
        change_named(name)


def test_half_a_thought_cannot_be_kept():
    with pytest.raises(ValueError, match=r"truncated:1\.5 is no number of thoughts"):
        change_named("truncated:1.5")(thoughts())


def test_random_vectors_are_as_long_and_point_elsewhere():
    given = thoughts(ragged=True)
    for new, old in zip(change_named("random")(given), given, strict=True):
        assert torch.allclose(new.vectors.norm(dim=-1), old.vectors.norm(dim=-1), rtol=1e-5)
        assert not torch.allclose(new.vectors, old.vectors)


def test_one_slot_is_taken_away_or_swapped_and_the_others_stay():
    given = thoughts(ragged=True)
    whole = change_named("shuffled")(given)
    for old, donor, swapped, fewer in zip(
        given, whole, change_named("swapped:2")(given), change_named("without:1")(given), strict=True
    ):
        assert torch.equal(swapped.vectors[:, :, :2], old.vectors[:, :, :2])
        if old.vectors.shape[2] == donor.vectors.shape[2] == 3:
            assert torch.equal(swapped.vectors[:, :, 2], donor.vectors[:, :, 2])
        else:  # not both have it
            assert torch.equal(swapped.vectors, old.vectors)
        kept = [k for k in range(old.vectors.shape[2]) if k != 1]
        assert torch.equal(fewer.vectors, old.vectors[:, :, kept])
        assert fewer.mask.shape == fewer.vectors.shape[:-1]


def test_donors_lie_on_one_cycle():
    once, twice = donors(7), donors(7, 2)
    assert sorted(once) == list(range(7))
    assert all(once[k] != k and twice[k] == once[once[k]] for k in range(7))
    with pytest.raises(ValueError, match="at least three questions"):
        donors(2, 2)


@pytest.mark.parametrize("name", ["without:0.5", "swapped:1.5"])
def test_a_slot_is_a_whole_number(name):
    with pytest.raises(ValueError, match="is no slot; give a whole number, counted from 0"):
        change_named(name)(thoughts())
