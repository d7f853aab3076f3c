"""LT-Tuning: where marks are put, by which rule, and that nothing else of a row changes."""

import random
from dataclasses import replace

import pytest
import torch
from test_lt_tuning import LAST, prompts, tuned

from workbench.methods.lt_tuning import LTTuningConfig, inserted
from workbench.methods.lt_tuning.places import candidates, drawn, label_probabilities
from workbench.tasks import Task, load_task


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


def test_probabilities_and_candidates():
    generator = torch.Generator().manual_seed(0)
    logits, ids = 3 * torch.randn(12, 9, generator=generator), torch.randint(9, (12,), generator=generator)
    found = label_probabilities(logits, ids, 4)
    expected = torch.stack([logits[t - 1].softmax(-1)[ids[t]] for t in range(4, 12)])
    torch.testing.assert_close(found, expected)
    places = candidates(found, 0.2, 4).tolist()
    assert places == [t for t in range(4, 12) if logits[t - 1].softmax(-1)[ids[t]] < 0.2]
    assert 0 < len(places) < 8


def test_marks_stand_before_their_places_and_nothing_else_changes():
    ids = torch.arange(10, 20)
    assert inserted(ids, [0, 3, 9], [1, 2, 0], 99).tolist() == [99, 10, 11, 12, 99, 99, 13, 14, 15, 16, 17, 18, 19]
    assert inserted(ids, [], [], 99).tolist() == ids.tolist()


@pytest.mark.parametrize(("cap", "most"), [(4, 4), (0.5, 10), (100, 20)])
def test_places_are_drawn_up_to_the_cap_and_each_by_its_chance(cap, most):
    config = LTTuningConfig(cap=cap, insert=0.8, again=0.25, most=3)
    counts, used = [], torch.zeros(20)
    for seed in range(2000):
        chosen, own = drawn(range(20), config, random.Random(seed))
        assert len(chosen) == len(set(chosen)) == most
        assert chosen == sorted(chosen)
        used[chosen] += 1
        counts += own
    assert drawn(range(20), config, random.Random(7)) == drawn(range(20), config, random.Random(7))
    share = torch.tensor(counts).bincount(minlength=4) / len(counts)
    torch.testing.assert_close(
        share, torch.tensor([0.2, 0.8 * 0.75, 0.8 * 0.25 * 0.75, 0.8 * 0.0625]), atol=0.02, rtol=0
    )
    torch.testing.assert_close(used / 2000, torch.full((20,), most / 20), atol=0.06, rtol=0)


def test_a_stage_marks_what_the_model_as_it_stands_finds_unlikely(tiny, task):
    method = tuned(tiny(), threshold=0.02, insert=1.0, again=0.0, cap=1000)
    given = prompts(method, task, 10)
    assert method.start(0, given) == given
    found = method.start(1, given)
    for prompt, new in zip(given, found, strict=True):
        assert new.target[new.target != method.mark].tolist() == prompt.target.tolist()
        assert torch.equal(new.before, prompt.before)
        row = torch.cat([prompt.before, prompt.target])
        logits = method.backbone.model(input_ids=row[None], use_cache=False).logits[0]
        wanted = candidates(label_probabilities(logits, row, len(prompt.before)), 0.02).tolist()
        marks = (new.target == method.mark).nonzero()[:, 0]
        assert (marks - torch.arange(len(marks))).tolist() == wanted
    assert any((new.target == method.mark).any() for new in found)
    assert [p.target.tolist() for p in method.start(1, given[::-1])][::-1] == [p.target.tolist() for p in found]
    with torch.no_grad():
        method.backbone.table.mul_(0.1)  # the model now in training decides, not the one that was loaded
    assert [p.target.tolist() for p in method.start(1, given)] != [p.target.tolist() for p in found]


def test_each_example_draws_its_own_places_and_each_stage_anew(tiny, task):
    method = tuned(tiny(), threshold=1.0, cap=3, insert=0.5)
    same = [replace(p, example=replace(p.example, id=f"{k}")) for k, p in enumerate(prompts(method, task, 1) * 12)]
    drawn_places = [tuple((p.target == method.mark).nonzero()[:, 0].tolist()) for p in method.start(1, same)]
    assert len(set(drawn_places)) > 6
    again = [tuple((p.target == method.mark).nonzero()[:, 0].tolist()) for p in method.start(1, same)]
    assert again == drawn_places
    other = [tuple((p.target == method.mark).nonzero()[:, 0].tolist()) for p in method.start(2, same)]
    assert other != drawn_places


def test_other_placements(tiny, task):
    decode = tiny().tokenizer.decode
    for placement in ("arithmetic", "random", "fixed"):
        method = tuned(
            tiny(), placement=placement, cap_fusion=1000, insert_fusion=1.0, again_fusion=0.0, fixed_thoughts=3
        )
        given = prompts(method, task, 6)
        found = method.start(LAST, given)
        for prompt, new in zip(given, found, strict=True):
            marks = (new.target == method.mark).nonzero()[:, 0]
            places = (marks - torch.arange(len(marks))).tolist()
            if placement == "fixed":
                assert marks.tolist() == [0, 1, 2]
            elif placement == "random":
                assert places == list(range(len(prompt.target)))
            else:
                steps = sum(len(step) for step in prompt.steps)
                assert places
                assert max(places) < steps  # never in the answer
                for place, token in enumerate(prompt.target[:steps].tolist()):
                    assert (place in places) == any(c in "0123456789+-*/=<>" for c in decode([token]))
