"""LT-Tuning in training: the places drawn at the start of a stage are part of the run; every preset trains."""

import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mean_read import rows
from safetensors.torch import load_file
from test_coconut_training import SHORT as SHORTER
from test_lt_tuning import tuned

from workbench import store
from workbench.backbone import Backbone, Decoding
from workbench.evidence.collect import collect
from workbench.methods import build
from workbench.methods.lt_tuning import LTTuning
from workbench.methods.lt_tuning.config import PRESETS
from workbench.runs import load_method
from workbench.tasks import Task, load_task
from workbench.training.loop import train
from workbench.training.plan import TrainConfig

SHORT = replace(SHORTER, examples=16)  # several steps in each stage


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


KILLED = """
import os, signal, sys

sys.path.insert(0, sys.argv[1])
import torch
from moments import at_step
from test_lt_tuning_training import SHORT, train, tuned

from workbench.backbone import Backbone
from workbench.tasks import load_task

torch.set_num_threads(1)
with at_step(int(sys.argv[4]), lambda: os.kill(os.getpid(), signal.SIGKILL)):
    train(tuned(Backbone.load(sys.argv[2])), load_task("arith"), SHORT, sys.argv[3])
"""


def test_a_run_killed_within_the_second_stage_ends_as_if_never_killed(tiny_folder, task, tmp_path):
    folder = str(tiny_folder())
    whole = train(tuned(Backbone.load(folder)), task, SHORT, tmp_path / "whole")
    stages = [row["stage"] for row in rows(whole)]
    inside = [index for index in range(1, len(stages)) if stages[index - 1] == stages[index] == 1]
    assert inside, "no step of the second stage has another of it before"
    stop = inside[0]
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent), folder, str(tmp_path / "cut"), str(stop + 1)]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    assert rows(tmp_path / "cut")[-1]["step"] == stop
    cut = train(tuned(Backbone.load(folder)), task, SHORT, tmp_path / "cut", resume=True)
    assert rows(cut) == rows(whole)
    one, other = (load_file(folder / "weights.safetensors") for folder in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_and_answers(tiny, task, tmp_path, preset):
    """One step of each stage, then answers by the rules of the preset."""
    config = replace(PRESETS[preset], adapter=min(PRESETS[preset].adapter, 8), cap=3, cap_fusion=3)
    method = build("lt-tuning", tiny(), config, seed=1)
    before = method.backbone.table.detach().clone()
    quick = TrainConfig(examples=4, epochs=1, batch_size=4, optimizer="adamw", lr=1e-3, probe_examples=2)
    train(method, task, quick, tmp_path / "run")
    assert len(rows(tmp_path / "run")) == len(method.stages())
    assert all(math.isfinite(row["loss"]) for row in rows(tmp_path / "run"))
    assert not torch.equal(before, method.backbone.table)
    found = collect(method, task, task.examples("dev", 2), decoding=Decoding(6))
    store.check(found)
    again = load_method(tmp_path / "run", tiny())
    assert isinstance(again, LTTuning)
    assert again.config == config
    same = collect(again, task, task.examples("dev", 2), decoding=Decoding(6))
    assert (found["text"].values == same["text"].values).all()


def test_plain_fine_tuning_sees_no_mark(tiny, task):
    method = build("lt-tuning", tiny(), PRESETS["plain"], seed=1)
    given = [method.render(example, task) for example in task.examples("train", 6)]
    for stage in range(len(method.stages())):
        assert not any((p.target == method.mark).any() for p in method.start(stage, given))
