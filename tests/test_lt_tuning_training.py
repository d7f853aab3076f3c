"""LT-Tuning in training: the places drawn at the start of a stage are part of the run."""

from dataclasses import replace

import pytest
import torch
from mean_read import rows
from safetensors.torch import load_file
from test_coconut_training import SHORT as SHORTER
from test_lt_tuning import tuned

from workbench.tasks import Task, load_task
from workbench.training import loop
from workbench.training.loop import train

SHORT = replace(SHORTER, examples=16)  # several steps in each stage


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


def test_a_run_stopped_within_the_second_stage_ends_as_if_never_stopped(tiny, task, tmp_path, monkeypatch):
    whole = train(tuned(tiny()), task, SHORT, tmp_path / "whole")
    stages = [row["stage"] for row in rows(whole)]
    inside = [index for index in range(1, len(stages)) if stages[index - 1] == stages[index] == 1]
    assert inside, "no step of the second stage has another of it before"
    stop, step = inside[0], loop._Run.step

    def interrupted(self, batch, planned_step):
        if planned_step.number == stop + 1:
            raise RuntimeError("killed")
        return step(self, batch, planned_step)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "step", interrupted)
        with pytest.raises(RuntimeError, match="killed"):
            train(tuned(tiny()), task, SHORT, tmp_path / "cut")
    assert rows(tmp_path / "cut")[-1]["step"] == stop
    cut = train(tuned(tiny()), task, SHORT, tmp_path / "cut", resume=True)
    assert rows(cut) == rows(whole)
    one, other = (load_file(folder / "weights.safetensors") for folder in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)
