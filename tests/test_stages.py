"""Stages: what rests stays, prompts that were made are found again, losses count by what they are means over."""

from dataclasses import replace

import pytest
import torch
from mean_read import EXACT, rows
from moments import power_cut
from safetensors.torch import load_file
from staged import Staged

from workbench.methods import Stage
from workbench.runs import load_method
from workbench.tasks import load_task
from workbench.training import stages
from workbench.training.loop import train
from workbench.training.plan import TrainConfig, make_plan, schedule

TASK = load_task("arith-shift")
SETTINGS = TrainConfig(**{**EXACT, "save_every": 1, "snapshot_every": 1, "lr": 0.1})  # 4 steps in each stage


def weights(folder, step: int | None = None) -> dict[str, torch.Tensor]:
    return load_file(folder / ("weights.safetensors" if step is None else f"snapshots/step{step:06d}.safetensors"))


def test_what_rests_stays_and_what_learns_moves(tiny, tmp_path):
    method = Staged(tiny())
    train(method, TASK, SETTINGS, tmp_path / "run")
    before = [weights(tmp_path / "run", step) for step in (0, 4, 8, 12)]
    for stage, moving in enumerate(({"first"}, {"second"}, {"first", "second"})):
        one, two = before[stage], before[stage + 1]
        moved = {name.split(".")[0] for name in one if not torch.equal(one[name], two[name])}
        assert moved == moving | ({"seen"} if stage == 1 else set())  # a buffer that the method saves
    assert all(p.requires_grad for name, p in method.named_parameters() if not name.startswith("backbone."))
    assert not method.resting
    found = rows(tmp_path / "run")
    assert [row["lr"] for row in found[4:8]] == pytest.approx([0.5 * row["lr"] for row in found[:4]])
    assert found[0]["probe_rms"] > 0  # ragged thoughts, and questions without any, are looked at
    assert torch.equal(weights(tmp_path / "run")["seen"], method.seen)


@pytest.mark.parametrize("step", [5, 7, 9])
def test_a_run_goes_on_in_a_stage_with_the_prompts_that_were_made_for_it(tiny, tmp_path, step):
    """Killed before the first step of the second stage, in its midst, and behind it."""
    train(Staged(tiny()), TASK, SETTINGS, tmp_path / "whole")
    with power_cut(step):
        train(Staged(tiny()), TASK, SETTINGS, tmp_path / "parts")
    method = Staged(tiny())
    train(method, TASK, SETTINGS, tmp_path / "parts", resume=True)
    assert method.calls == {5: [1, 2], 7: [2], 9: [2]}[step]
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_prompts_that_are_gone_damaged_or_anothers_are_one_sentence(tiny, tmp_path):
    folder = tmp_path / "run"
    with power_cut(7):
        train(Staged(tiny()), TASK, SETTINGS, folder)
    path = folder / "stage1.pt"
    content = path.read_bytes()
    path.write_bytes(content[:-100] + b"?" + content[-99:])
    with pytest.raises(ValueError, match=r"stage1\.pt is damaged \(its content does not match its checksum\); put"):
        train(Staged(tiny()), TASK, SETTINGS, folder, resume=True)
    path.unlink()
    with pytest.raises(ValueError, match=r"stage1\.pt with the prompts that this stage was trained on is gone; put it"):
        train(Staged(tiny()), TASK, SETTINGS, folder, resume=True)
    path.write_bytes(content)
    train(Staged(tiny()), TASK, SETTINGS, folder, resume=True)

    class Fewer(Staged):
        def start(self, stage, prompts):
            return prompts[1:]

    with pytest.raises(ValueError, match=r"Fewer\.start gave 24 prompts for 25, or of other examples; give one for"):
        train(Fewer(tiny()), TASK, SETTINGS, tmp_path / "other")


def test_kept_prompts_are_the_same_bit_for_bit(tiny):
    method = Staged(tiny())
    prompts = [method.render(example, TASK) for example in TASK.examples("train", 4)]
    made = [replace(p, given={"label": torch.rand(3).bfloat16()}) for p in prompts]
    found = stages.unpacked(stages.packed(made), prompts)
    for one, other in zip(found, made, strict=True):
        assert one.example is other.example
        for name in ("before", "after", "target", "question", "answer"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert all(torch.equal(a, b) for a, b in zip(one.steps, other.steps, strict=True))
        assert torch.equal(one.given["label"], other.given["label"])


def test_what_a_method_says_is_saved_is_saved_and_loaded(tiny, tiny_folder, tmp_path):
    class Registered(Staged):
        name = "registered"

        def __init__(self, backbone, config=None):
            super().__init__(backbone)
            del self.name  # that of the class

    try:
        method = Registered(tiny())
        train(method, TASK, SETTINGS, tmp_path / "run")
        again = load_method(tmp_path / "run", tiny())
        assert torch.equal(again.seen, method.seen)  # pyright: ignore
        assert method.seen.abs().sum() > 0
    finally:
        from workbench.methods import METHODS

        METHODS.pop("registered", None)


@pytest.mark.parametrize("micro", [1, 3])
def test_a_mean_over_tokens_does_not_depend_on_how_batches_are_cut(tiny, tmp_path, micro):
    whole, pieces = (
        train(Staged(tiny()), TASK, replace(SETTINGS, micro_batch=size), tmp_path / str(size)) for size in (None, micro)
    )
    one, two = weights(whole), weights(pieces)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=1e-9)
    for row, other in zip(rows(whole), rows(pieces), strict=True):
        assert row == pytest.approx(other, abs=1e-6)
    # counted by examples it would be another training
    by_examples = Staged(tiny())
    by_examples.weigh = lambda prompts, stage=0: len(prompts)  # type: ignore[method-assign]
    train(by_examples, TASK, replace(SETTINGS, micro_batch=micro), tmp_path / "examples")
    assert (weights(tmp_path / "examples")["first.weight"] - one["first.weight"]).abs().max() > 1e-4


def test_a_pattern_of_nothing_is_one_sentence(tiny, tmp_path):
    class Lost(Staged):
        def stages(self):
            return (Stage("lost", learns=("third.*",)),)

    with pytest.raises(ValueError, match=r"stage 'lost' of method 'staged': 'third\.\*' learns in it, and no trained"):
        train(Lost(tiny()), TASK, SETTINGS, tmp_path / "run")


def test_stages_may_share_a_schedule_and_shape_it(tiny):
    class Shaped(Staged):
        def stages(self):
            one = Stage("one", 1.0, schedule="cosine", warmup=0.25)
            return (one, Stage("two", 0.5, rate=0.1, joined=True), Stage("three", 0.5, schedule="constant", warmup=0.0))

    plan = make_plan(Shaped(tiny()), TrainConfig(epochs=4, batch_size=8, warmup=0.5), 8)
    curve = [schedule(k, 6, 0.25, "cosine") for k in range(6)]
    rates = [*curve[:4], *(0.1 * rate for rate in curve[4:]), 1.0, 1.0]
    assert [step.rate for step in plan] == pytest.approx(rates)
    assert curve == pytest.approx([0.5, 1.0, 1.0, 0.8535534, 0.5, 0.1464466])
