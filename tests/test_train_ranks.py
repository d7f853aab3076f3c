"""Several processes train as one, whole or sharded, interrupted or not; a launch that is not what was asked fails."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from mean_read import EXACT, SHORT, MeanRead, rows, run
from ranks import marking
from safetensors.torch import load_file
from staged import Staged

from workbench.__main__ import main
from workbench.backbone import Backbone
from workbench.methods import METHODS, build
from workbench.tasks import load_task
from workbench.training import stages
from workbench.training.launch import check_sharding, launched
from workbench.training.loop import train
from workbench.training.plan import TrainConfig

# What `accelerate launch` sets for a config file with these settings.
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP"}
TRAINS = {**EXACT, "micro_batch": 3}  # batches of 8 (4 + 4, in 2 pieces each) and of 1 (1 + 0)


def start(backbone: Path, folder: Path, orders: dict, environment: dict[str, str]) -> subprocess.Popen[str]:
    """ranks.py in two processes."""
    script = [str(Path(__file__).with_name("ranks.py")), str(backbone), str(folder), json.dumps(orders)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *script]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(process: subprocess.Popen[str]) -> str:
    """What the processes printed, once they have ended well."""
    said, complaint = process.communicate(timeout=600)
    assert process.returncode == 0, complaint[-3000:]
    return said


def assert_same_runs(alone: Path, together: Path, within: float = 1e-6) -> None:
    """Weights and rows of two processes are those of one."""
    one, two = (load_file(folder / "weights.safetensors") for folder in (alone, together))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=0, atol=within)
    for row, other in zip(rows(alone), rows(together), strict=True):
        assert row == pytest.approx(other, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, SHARDED], ids=["whole", "sharded"])
def test_two_processes_train_as_one(tiny, tiny_folder, tmp_path, environment):
    """And when one of them is interrupted they stop together, save once and go on."""
    settings = {**TRAINS, "save_every": 3, "probe_every": 3, "snapshot_every": 5}
    run(tiny(), tmp_path / "one", **settings)
    said = finished(start(tiny_folder(), tmp_path / "two", {"settings": settings, "stop": 5}, environment))
    assert_same_runs(tmp_path / "one", tmp_path / "two")
    for step in (0, 5, 8):
        kept = f"snapshots/step{step:06d}.safetensors"
        one, two = (load_file(tmp_path / name / kept) for name in ("one", "two"))
        for name, value in one.items():
            torch.testing.assert_close(two[name], value, rtol=0, atol=1e-6)
    assert json.loads((tmp_path / "two" / "result.json").read_text())["world_size"] == 2
    written = (
        "weights 0, checkpoint 3, weights 5, checkpoint 5, weights 5, checkpoint 6, weights 8, checkpoint 8, weights 8"
    )
    # two processes print at once, so that a line may begin behind another
    assert re.findall(r"(?:weights|checkpoint) of step \d+ by process \d", said) == [
        "{} of step {} by process 0".format(*file.split()) for file in written.split(", ")
    ]
    seeds = [re.findall(rf"noise of step {step}: (\d+)", said) for step in range(1, 9)]
    assert all(len(own) == 2 for own in seeds)
    assert len({seed for own in seeds for seed in own}) == 16  # nobody draws what another or an earlier step has drawn
    assert said.count("stopped after step 5 of 8") == 2
    assert "launched with 2 processes again" in said
    assert "training mean-read on" in said
    assert ", 8 steps, 2 processes (cpu)" in said
    assert (said.count("FSDPQwen3DecoderLayer"), said.count("FSDPMeanRead")) == ((4, 2) if environment else (0, 0))


@pytest.mark.parametrize("environment", [{}, SHARDED], ids=["whole", "sharded"])
def test_stages_of_two_processes_are_those_of_one(tiny, tiny_folder, tmp_path, environment):
    """What rests, prompts that a stage makes, a mean over tokens; stopped in the second stage and gone on."""
    settings = {**TRAINS, "save_every": 100}
    train(Staged(tiny()), load_task("arith-shift"), TrainConfig(**settings), tmp_path / "one")
    orders = {"settings": settings, "method": "staged", "stop": 6}
    said = finished(start(tiny_folder(), tmp_path / "two", orders, environment))
    assert said.count("stopped after step 6 of 12") == 2
    assert_same_runs(tmp_path / "one", tmp_path / "two")
    assert len(rows(tmp_path / "two")) == 12


@pytest.mark.slow
def test_two_processes_draw_the_places_of_marks_that_one_draws(tiny, tiny_folder, tmp_path):
    """LT-Tuning, whose stages are made by the model as it stands; stopped in the second one and gone on."""
    settings = {**TRAINS, "examples": 18, "epochs": 3, "lr": 1e-3, "save_every": 100}
    method = marking(tiny())
    train(method, load_task("arith-shift"), TrainConfig(**settings), tmp_path / "one")
    said = finished(
        start(tiny_folder(), tmp_path / "two", {"settings": settings, "method": "lt-tuning", "stop": 5}, {})
    )
    assert said.count("stopped after step 5 of 9") == 2
    assert_same_runs(tmp_path / "one", tmp_path / "two", within=2e-5)  # probabilities and losses are float32
    prompts = [method.render(e, load_task("arith-shift")) for e in load_task("arith-shift").examples("train", 18)]
    for stage in (1, 2):
        one, two = (stages.read(tmp_path / name, stage, prompts) for name in ("one", "two"))
        rows = [p.target.tolist() for p in stages.unpacked(one, prompts)]
        assert rows == [p.target.tolist() for p in stages.unpacked(two, prompts)]
        assert any(method.mark in row for row in rows)


@pytest.mark.slow
def test_an_interrupted_launcher_saves_once_and_the_run_goes_on(tiny, tiny_folder, tmp_path):
    """Ctrl-C reaches the launcher, which passes it on to every process. Any number of them can go on, here one."""
    orders = {"settings": {**TRAINS, "save_every": 100}, "pause": 0.3}
    run(tiny(), tmp_path / "one", **orders["settings"])
    process = start(tiny_folder(), tmp_path / "two", orders, {})
    metrics = tmp_path / "two" / "metrics.jsonl"
    for _ in range(6000):
        if process.poll() is not None or (metrics.exists() and metrics.read_bytes().count(b"\n") >= 2):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, complaint = process.communicate(timeout=600)
    assert process.returncode != 0
    done = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)["step"]
    assert 2 <= done < 8, complaint[-3000:]
    assert said.count("by process") == 1
    assert f"checkpoint of step {done} by process 0" in said
    assert [row["step"] for row in rows(tmp_path / "two")] == list(range(1, done + 1))
    method, config = MeanRead(Backbone.load(str(tiny_folder()))), TrainConfig(**orders["settings"])
    train(method, load_task("arith-shift"), config, tmp_path / "two", resume=True)
    assert_same_runs(tmp_path / "one", tmp_path / "two")


# ------------------------------------------------------------------------------------------------ not what was asked


def test_other_processes_than_asked_are_refused(tiny, tiny_folder, tmp_path, capsys):
    """`accelerate launch --cpu --num_processes 2` runs one process and says nothing."""
    task, folder = load_task("arith-shift"), tmp_path / "run"
    complaint = r"^2 processes are wanted \(training\.processes\) and 1 running; use `torchrun --nproc_per_node 2"
    with pytest.raises(ValueError, match=complaint):
        train(build("soft-prompt", tiny()), task, replace(SHORT, processes=2), folder)
    asked = ["train", "--backbone", str(tiny_folder()), "--training.processes", "2", "--out", str(folder)]
    assert main(asked) == 2
    assert "2 processes are wanted" in capsys.readouterr().err
    assert not folder.exists()
    config = replace(SHORT, examples=8, epochs=1, processes=1)
    result = train(build("soft-prompt", tiny()), task, config, folder) / "result.json"
    assert json.loads(result.read_text())["world_size"] == 1
    with pytest.raises(ValueError, match=r"^processes=0 in the training settings: it must be at least 1$"):
        TrainConfig(processes=0)


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("ACCELERATE_USE_DEEPSPEED", "true", r"^DeepSpeed takes one optimiser .* shard with FSDP instead"),
        (
            "ACCELERATE_USE_FSDP",
            "true",
            r"^accelerate shards \(FSDP\) on several GPUs only .* launch without use_fsdp$",
        ),
        ("ACCELERATE_MIXED_PRECISION", "bf16", r"^the launcher asks for mixed precision bf16 and .* for no; give --tr"),
    ],
)
def test_a_launcher_that_wants_what_does_not_happen_is_told(tiny, monkeypatch, variable, value, complaint):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match=complaint):
        launched(build("soft-prompt", tiny()), TrainConfig())


@pytest.mark.parametrize(
    ("settings", "preset", "complaint"),
    [
        ({"fsdp_version": 1}, "default", r"set fsdp_version: 2 in accelerate's config$"),
        ({"activation_checkpointing": True}, "default", r"give --training\.gradient_checkpointing true$"),
        ({}, "reference", r"'lta-thinker' trains weights in bfloat16 and float32, and FSDP shards one kind"),
        ({}, "default", None),
    ],
)
def test_what_cannot_be_sharded_is_refused(tiny, settings, preset, complaint):
    cls = METHODS["lta-thinker"]
    method = build("lta-thinker", tiny(), {"default": cls.Config(), **cls.presets}[preset])
    plugin = FullyShardedDataParallelPlugin(**{"fsdp_version": 2, **settings})
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP, state=SimpleNamespace(fsdp_plugin=plugin))
    if complaint is None:
        check_sharding(accelerator, method, TrainConfig())  # pyright: ignore[reportArgumentType]
        return
    with pytest.raises(ValueError, match=complaint):
        check_sharding(accelerator, method, TrainConfig())  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("setting", [{"prefix_cache": "full"}, {"compile": True}])
def test_what_ranks_do_apart_is_not_sharded(tiny, setting):
    """Each keeps the prefixes of its own share, and would wait for the others in passes that they do not make."""
    accelerator = SimpleNamespace(distributed_type=DistributedType.FSDP)
    with pytest.raises(ValueError, match=r"in the training settings does not go with FSDP; train without it, or "):
        check_sharding(accelerator, build("soft-prompt", tiny()), TrainConfig(**setting))  # pyright: ignore
