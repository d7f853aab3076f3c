"""Weights kept during training: the right ones, whole, loadable by step, and nothing else changes."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mean_read import SHORT, rows
from moments import power_cut
from safetensors.torch import load_file
from torch import Tensor

from workbench.__main__ import main
from workbench.backbone import Decoding
from workbench.checks.official import export_official, import_official
from workbench.evidence.collect import collect
from workbench.methods import METHODS, LatentMethod, build
from workbench.methods.lta_thinker import LTAThinker
from workbench.runs import load_method, save_weights, snapshot_steps
from workbench.store import concat, load
from workbench.tasks import Task, load_task
from workbench.training import loop
from workbench.training.loop import TrainConfig, TrainingFailed, train

KEPT = replace(SHORT, snapshot_every=4)  # of ten steps


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith-shift")


def trained_weights(method: LatentMethod) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in method.named_parameters() if p.requires_grad}


def kept_weights(folder: Path) -> Iterator[tuple[int, dict[str, Tensor]]]:
    for step in snapshot_steps(folder):
        yield step, load_file(folder / "snapshots" / f"step{step:06d}.safetensors")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def run(tiny, task, tmp_path_factory) -> tuple[Path, LatentMethod, dict[int, dict[str, Tensor]]]:
    """A run with snapshots, its trained method, and the weights after each of its steps, taken from the live method."""
    folder, method = tmp_path_factory.mktemp("snapshots") / "run", build("lta-thinker", tiny(), seed=3)
    after, whole_step = {0: trained_weights(method)}, loop._Run.step

    def step(self, batch, planned):
        values = whole_step(self, batch, planned)
        after[planned.number] = trained_weights(method)
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop._Run, "step", step)
        train(method, task, KEPT, folder)
    return folder, method, after


def test_snapshots_are_the_weights_after_their_steps(run):
    folder, method, after = run
    kept = dict(kept_weights(folder))
    assert list(kept) == [0, 4, 8, 10]
    for step, weights in kept.items():
        assert same(weights, after[step]), step
    assert not same(kept[4], kept[8])
    assert same(kept[10], load_file(folder / "weights.safetensors"))
    assert {path.name for path in (folder / "snapshots").iterdir()} == {f"step{step:06d}.safetensors" for step in kept}
    assert method.training_step == 10


@pytest.mark.slow
def test_by_default_none_is_kept_and_nothing_changes(run, tiny, tmp_path, task):
    folder, _, _ = run
    assert TrainConfig().snapshot_every is None
    other = train(build("lta-thinker", tiny(), seed=3), task, SHORT, tmp_path / "run")
    assert snapshot_steps(other) == []
    assert not (other / "snapshots").exists()
    assert same(*(load_file(path / "weights.safetensors") for path in (folder, other)))
    assert rows(folder) == rows(other)


def test_a_snapshot_thinks_as_the_method_did(run, tiny, task):
    folder, method, after = run
    prompts = [method.render(example, task) for example in task.examples("dev", 5)]
    for step in (0, 4, 10):
        live = build("lta-thinker", tiny(), seed=3)
        live.load_state_dict(after[step], strict=False)
        loaded = load_method(folder, step=step)
        with torch.no_grad():
            assert torch.equal(live.eval().think(prompts).vectors, loaded.think(prompts).vectors)
        assert loaded.training_step == step
    assert load_method(folder).training_step == 10


def test_an_unknown_step_is_one_sentence(run, tiny, tmp_path):
    folder, _, _ = run
    for step in (3, -1):
        with pytest.raises(ValueError, match=rf"has no snapshot of step {step}; it has those of steps 0, 4, 8, 10$"):
            load_method(folder, step=step)
    save_weights(build("soft-prompt", tiny()), tmp_path)
    with pytest.raises(ValueError, match=r"has no snapshot of step 4; train with snapshot_every to have some$"):
        load_method(tmp_path, step=4)
    for call in (lambda: load_method(tmp_path / "none", step=4), lambda: snapshot_steps(tmp_path / "none")):
        with pytest.raises(ValueError, match=r"no run at .*none; give the folder that `workbench train` made$"):
            call()
    with pytest.raises(ValueError, match=r"^snapshot_every=0 in the training settings: it must be at least 1$"):
        replace(SHORT, snapshot_every=0)


def test_stores_say_which_step_their_thoughts_are_of(run, tiny, task, tmp_path, capsys):
    folder, method, _ = run
    questions, short = task.examples("dev", 4), Decoding(max_new_tokens=2)
    early, late = (
        collect(made, task, questions, split="dev", decoding=short) for made in (load_method(folder, step=4), method)
    )
    assert (early.attrs["training_step"], late.attrs["training_step"]) == (4, 10)
    other = late.assign_coords(example=[f"{name}-again" for name in late["example"].values])
    with pytest.raises(ValueError, match=r"stores differ in training_step \(4 and 10\)"):
        concat([early, other])
    command = ["collect", "--run", str(folder), "--split", "dev", "--count", "4", "--decoding.max_new_tokens", "2"]
    out = tmp_path / "step.nc"
    assert main([*command, "--step", "4", "--out", str(out)]) == 0
    found = load(out)
    assert found.attrs["training_step"] == 4
    assert (abs(found["thought"] - early["thought"]) <= 1e-3 * abs(early["thought"]).max()).all()  # stored as float16
    assert main([*command, "--step", "5", "--out", str(out)]) == 2
    assert "no snapshot of step 5; it has those of steps 0, 4, 8, 10" in capsys.readouterr().err
    assert main(["collect", "--step", "4", "--out", str(out)]) == 2
    assert "--step names a snapshot of a trained run: give --run too" in capsys.readouterr().err


def test_an_untrained_method_is_at_step_0_and_an_old_file_at_none(tiny, tmp_path, task):
    from safetensors import safe_open
    from safetensors.torch import save_file

    method = build("soft-prompt", tiny())
    store = collect(method, task, task.examples("dev", 2), decoding=Decoding(max_new_tokens=1))
    assert store.attrs["training_step"] == 0
    path = save_weights(method, tmp_path)
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["workbench"])
    del about["training_step"], about["stage"], about["digest"]  # as older versions wrote it
    save_file(load_file(path), path, metadata={"workbench": json.dumps(about)})
    loaded = load_method(path)
    assert loaded.training_step is None
    store = collect(loaded, task, task.examples("dev", 2), decoding=Decoding(max_new_tokens=1))
    assert "training_step" not in store.attrs
    published = build("lta-thinker", tiny(), METHODS["lta-thinker"].presets["reference"])
    assert isinstance(published, LTAThinker)
    assert import_official(export_official(published, tmp_path / "published"), tiny()).training_step is None


@pytest.mark.slow
@pytest.mark.parametrize("crash", [3, 7])  # before and after the first checkpoint, which is of step 4
def test_a_resumed_run_has_the_snapshots_of_one_that_never_stopped(run, tiny, tmp_path, task, crash):
    folder, _, _ = run

    with power_cut(crash):
        train(build("lta-thinker", tiny(), seed=3), task, KEPT, tmp_path / "run")
    assert snapshot_steps(tmp_path / "run") == [0, 4][: 1 + (crash > 4)]
    assert load_method(tmp_path / "run", step=0).training_step == 0  # of a run that has not ended
    train(build("lta-thinker", tiny(), seed=3), task, KEPT, tmp_path / "run", resume=True)
    for (step, weights), (other, expected) in zip(kept_weights(tmp_path / "run"), kept_weights(folder), strict=True):
        assert step == other
        assert same(weights, expected), step


@pytest.mark.slow
def test_broken_weights_are_not_kept(tiny, tmp_path, task, monkeypatch):
    def breaks(self, batch, planned, step=loop._Run.step):
        values = step(self, batch, planned)
        if planned.number == 6:
            self.method.vectors.data.fill_(float("nan"))
        return values

    monkeypatch.setattr(loop._Run, "step", breaks)
    config = replace(SHORT, snapshot_every=3, save_every=100, probe_every=100)
    with pytest.raises(TrainingFailed, match="weight vectors is no longer finite at step 6; there is no checkpoint"):
        train(build("soft-prompt", tiny()), task, config, tmp_path / "run")
    assert snapshot_steps(tmp_path / "run") == [0, 3]
