"""Training that is stopped, or breaks: one result however often it is resumed, and never a broken checkpoint."""

import errno
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from mean_read import SHORT, MeanRead, rows
from moments import at_step, power_cut
from safetensors.torch import load_file

from workbench.files import read_jsonl
from workbench.methods import build
from workbench.methods.base import Losses
from workbench.tasks import Task, load_task
from workbench.training.loop import TrainingFailed, train

BEGUN = {"config.yaml", "metrics.jsonl", "checkpoint.pt", "process.json"}  # what a run has that did not end well


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith-shift")


# ---------------------------------------------------------------------------------------------------- stop and resume


class Noisy(MeanRead):
    """Draws random numbers in training, as dropout does."""

    def loss(self, prompts, stage=0):
        thoughts = self.think(prompts)
        noisy = replace(thoughts, vectors=thoughts.vectors + 0.1 * torch.randn_like(thoughts.vectors))
        likelihood = self.likelihood(prompts, noisy).mean()
        return Losses(likelihood, {"likelihood": likelihood})


@pytest.mark.parametrize("make", [lambda b: build("lta-thinker", b), Noisy], ids=["lta-thinker", "random draws"])
def test_a_stopped_run_ends_as_if_never_stopped(tiny, tmp_path, task, make):
    train(make(tiny()), task, SHORT, tmp_path / "whole")
    handler = signal.getsignal(signal.SIGINT)  # ignored where the tests run in a shell's background
    with pytest.raises(KeyboardInterrupt) as stopped, at_step(6, lambda: signal.raise_signal(signal.SIGINT)):
        train(make(tiny()), task, SHORT, tmp_path / "parts")
    message = str(stopped.value)
    assert "stopped after step 6 of 10" in message
    assert "go on with resume=True" in message
    assert [row["step"] for row in rows(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6]
    assert not (tmp_path / "parts" / "weights.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is handler
    train(make(tiny()), task, SHORT, tmp_path / "parts", resume=True)
    whole, parts = (load_file(tmp_path / name / "weights.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    clock = [row["seconds"] for row in read_jsonl(tmp_path / "parts" / "metrics.jsonl")]
    assert clock == sorted(clock)


def test_resuming_after_a_crash_makes_lost_rows_again(tiny, tmp_path, task):
    """A crash two steps behind the checkpoint: its rows are dropped and made again, none stands twice."""

    train(build("lta-thinker", tiny()), task, SHORT, tmp_path / "whole")
    with power_cut(7):
        train(build("lta-thinker", tiny()), task, SHORT, tmp_path / "parts")
    assert [row["step"] for row in rows(tmp_path / "parts")] == [1, 2, 3, 4, 5, 6]  # the checkpoint is of step 4
    train(build("lta-thinker", tiny()), task, SHORT, tmp_path / "parts", resume=True)
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")


def test_a_second_interrupt_stops_at_once(tiny, tmp_path, task):
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), at_step(1, twice):
        train(build("soft-prompt", tiny()), task, SHORT, tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


@pytest.mark.slow
def test_interrupted_command_says_how_to_go_on_and_does(tiny_folder, tmp_path):
    """The real signal to the real command, then the command it names."""
    from workbench.__main__ import main

    options = [
        *["--backbone", str(tiny_folder()), "--training.examples", "64", "--training.batch_size", "8"],
        *["--training.epochs", "3", "--training.probe_examples", "4"],
    ]
    command = [sys.executable, "-c", SLOW, "train", *options, "--out", str(tmp_path / "parts")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    metrics = tmp_path / "parts" / "metrics.jsonl"
    for _ in range(6000):
        if process.poll() is not None or (metrics.exists() and metrics.read_bytes().count(b"\n") >= 3):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, complaint = process.communicate(timeout=600)
    assert process.returncode == 130, complaint
    assert "Traceback" not in complaint
    command = re.search(r"`workbench (train .*)`", complaint.strip().splitlines()[-1])
    assert command, complaint
    assert main(command[1].split()) == 0
    assert main(["train", *options, "--out", str(tmp_path / "whole")]) == 0
    # bit for bit within one process (above); two processes may round differently
    parts, whole = (rows(tmp_path / name) for name in ("parts", "whole"))
    assert [row["step"] for row in parts] == list(range(1, 25))
    assert [row["loss"] for row in parts] == pytest.approx([row["loss"] for row in whole], rel=1e-3)


# The command line with a pause in each step: a test that must interrupt it in the middle needs a middle.
SLOW = """
import sys, time, torch
torch.set_num_threads(1)
from workbench.training import loop
run = loop._Run
step = run.step
run.step = lambda self, *given: (time.sleep(0.1), step(self, *given))[1]
from workbench.__main__ import main
sys.exit(main())
"""


def test_resume_with_other_settings_is_refused(tiny, tmp_path, task):
    train(build("soft-prompt", tiny()), task, SHORT, tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match="belongs to other settings"):
        train(build("soft-prompt", tiny()), task, replace(SHORT, lr=0.5), tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="belongs to other settings"):
        train(build("lta-thinker", tiny()), task, SHORT, tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match=r"nothing to resume: no checkpoint at .*none/checkpoint\.pt"):
        train(build("soft-prompt", tiny()), task, SHORT, tmp_path / "none", resume=True)
    with pytest.raises(ValueError, match="holds a run already; resume it, or give another folder"):
        train(build("soft-prompt", tiny()), task, SHORT, tmp_path / "run")
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert not (tmp_path / "none").exists()


def test_nothing_to_train_is_said(tiny, tmp_path, task):
    with pytest.raises(ValueError, match="method 'cot' has nothing to train"):
        train(build("cot", tiny()), task, SHORT, tmp_path / "run")
    assert not (tmp_path / "run").exists()


# ----------------------------------------------------------------------------------------------------- when it breaks


class Breaks(MeanRead):
    """Its loss is NaN from the step `at` on."""

    at = 7

    def loss(self, prompts, stage=0):
        self.calls = getattr(self, "calls", 0) + 1
        losses = super().loss(prompts, stage)
        return losses if self.calls < self.at else replace(losses, total=losses.total * math.nan)


@pytest.mark.parametrize(("log_every", "noticed"), [(1, 7), (5, 8)])  # at the latest before the next checkpoint
def test_nan_stops_before_a_checkpoint_holds_it(tiny, tmp_path, task, log_every, noticed):
    with pytest.raises(TrainingFailed) as failed:
        train(Breaks(tiny()), task, replace(SHORT, log_every=log_every), tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    assert f"loss is nan at step {noticed}; the last good checkpoint is {checkpoint}" in str(failed.value)
    assert {path.name for path in (tmp_path / "run").iterdir()} == BEGUN
    saved = torch.load(checkpoint, weights_only=True)
    assert saved["step"] == 4
    assert all(value.isfinite().all() for value in saved["weights"].values())
    assert all(math.isfinite(row["loss"]) and row["step"] < 7 for row in rows(tmp_path / "run"))


def test_nan_before_any_checkpoint(tiny, tmp_path, task):
    method = Breaks(tiny())
    method.at = 2
    with pytest.raises(TrainingFailed, match="loss is nan at step 2; there is no checkpoint yet; lower the learning"):
        train(method, task, SHORT, tmp_path / "run")


def test_an_update_that_breaks_the_weights_is_noticed_by_a_checkpoint(tiny, tmp_path, task):
    """The loss of a step is that of the weights before it: here it never is NaN before the save."""

    class Overflows(MeanRead):
        def loss(self, prompts, stage=0):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 8:
                self.read.bias.register_hook(self.overflow)
            return super().loss(prompts, stage)

        def overflow(self, _):
            self.read.weight.data.fill_(math.inf)

    config = replace(SHORT, probe_every=100)
    with pytest.raises(TrainingFailed, match=r"weight read\.weight is no longer finite at step 8; the last good"):
        train(Overflows(tiny()), task, config, tmp_path / "run")
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 4
    config = replace(SHORT, save_every=100, probe_every=8)
    with pytest.raises(TrainingFailed, match="thoughts of the probe set are no longer finite at step 8; there is no"):
        train(Overflows(tiny()), task, config, tmp_path / "other")


def test_an_interrupted_save_keeps_the_last_checkpoint(tiny, tmp_path, task, monkeypatch):
    save = torch.save

    def dies(content, file):
        if content["step"] == 8:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "disk full")
        save(content, file)

    monkeypatch.setattr(torch, "save", dies)
    with pytest.raises(TrainingFailed, match=r"checkpoint\.pt could not be written \(disk full\); .* last good ch"):
        train(build("soft-prompt", tiny()), task, SHORT, tmp_path / "run")
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 4
    assert {path.name for path in (tmp_path / "run").iterdir()} == BEGUN
