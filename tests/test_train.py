"""The training loop: its plan, one gradient however a batch is cut, what a run leaves, and a golden trajectory."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mean_read import EXACT, SHORT, MeanRead, rows, run
from safetensors.torch import load_file, save_file
from torch import nn

from workbench import runs
from workbench import train as train_function
from workbench.backbone import Backbone
from workbench.evidence.collect import collect
from workbench.files import read_jsonl
from workbench.methods import METHODS, build
from workbench.methods.base import Prompt, Stage
from workbench.tasks import Example, Task, load_task
from workbench.training import loop
from workbench.training.loop import TrainConfig, make_optimizers, train
from workbench.training.plan import batches, cut, make_plan, schedule

GOLDEN = Path(__file__).parent / "golden" / "lta_thinker.json"


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith-shift")


def prompts_of_lengths(*lengths: int) -> list[Prompt]:
    ids, none = torch.zeros(max(lengths), dtype=torch.long), torch.zeros(0, dtype=torch.long)
    return [Prompt(Example(str(n), "", (), ""), ids[:n], none, none, none, (), none) for n in lengths]


# ------------------------------------------------------------------------------------------- batches, pieces, schedule


@pytest.mark.parametrize(("count", "size"), [(40, 8), (41, 8), (7, 8), (300, 16), (1, 1)])
def test_an_epoch_holds_every_example_once(count, size):
    prompts = prompts_of_lengths(*[(7 * k) % 31 for k in range(count)])
    found = batches(prompts, TrainConfig(batch_size=size), "0 0")
    assert sorted(i for batch in found for i in batch) == list(range(count))
    assert len(found) == math.ceil(count / size)
    assert max(map(len, found)) <= size


def test_batches_depend_on_seed_and_epoch_only():
    prompts = prompts_of_lengths(*[(7 * k) % 31 for k in range(100)])
    config = TrainConfig(batch_size=8)
    assert batches(prompts, config, "0 1") == batches(prompts, replace(config, lr=1.0, micro_batch=2), "0 1")
    assert batches(prompts, config, "0 1") != batches(prompts, config, "0 2")
    assert batches(prompts, config, "0 1") != batches(prompts, replace(config, seed=1), "0 1")


def test_batches_hold_like_lengths():
    lengths = [(37 * k) % 101 for k in range(64)]
    for batch in batches(prompts_of_lengths(*lengths), TrainConfig(batch_size=8), "0 0"):
        sizes = sorted(lengths[i] for i in batch)  # 64 lengths in 8 groups: each covers an eighth of the range
        assert sizes[-1] - sizes[0] < 30


@pytest.mark.parametrize(("world", "micro"), [(1, None), (1, 3), (2, None), (2, 1), (3, 3), (3, 100)])
@pytest.mark.parametrize("size", [1, 2, 7, 32])
def test_cut_gives_each_example_to_one_piece(size, world, micro):
    batch = prompts_of_lengths(*range(size))
    shares = [cut(batch, rank, world, micro) for rank in range(world)]
    assert [p for share in shares for piece in share for p in piece] == batch
    sizes = [len(piece) for share in shares for piece in share]
    assert all(share for share in shares)  # every process runs the model: they have to meet
    assert max(sizes) <= (micro or size)
    counts = [sum(map(len, share)) for share in shares]
    assert max(counts) - min(counts) <= 1
    for share in shares:
        assert max(map(len, share)) - min(map(len, share)) <= 1


def test_schedule_rises_then_falls():
    rates = [schedule(step, 20, 0.25) for step in range(20)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5:] == pytest.approx([(20 - step) / 15 for step in range(5, 20)])
    assert [schedule(step, 4, 0.0) for step in range(4)] == pytest.approx([1.0, 1.0, 2 / 3, 1 / 3])
    assert 0 < schedule(0, 1, 0.1) <= 1


def test_plan_goes_through_stages_and_epochs(tiny):
    class Two(MeanRead):
        def stages(self):
            return (Stage("first"), Stage("second", share=0.5))

    plan = make_plan(Two(tiny()), TrainConfig(epochs=2, batch_size=4), 10)  # 3 batches in an epoch
    assert [step.number for step in plan] == list(range(1, 10))
    assert [(step.stage, step.epoch, step.place) for step in plan] == [
        *[(0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 1, 2)],
        *[(1, 0, 0), (1, 0, 1), (1, 0, 2)],
    ]
    assert plan[6].rate == schedule(0, 3, 0.1)  # a schedule of its own for each stage


@pytest.mark.parametrize("name", ["epochs", "batch_size", "micro_batch", "examples", "save_every"])
def test_a_setting_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name}( is 0; give a number from 1|=0 .*: it must be at least 1$)"):
        TrainConfig(**{name: 0})


# ---------------------------------------------------------------------------------------------------------- optimisers


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_trainable_parameter_is_in_one_group(tiny, name, optimizer):
    method = build(name, tiny())
    if not method.stages():  # nothing to train
        assert not any(p.requires_grad for p in method.parameters())
        return
    found = [
        id(parameter)
        for optimizer in make_optimizers(method, TrainConfig(optimizer=optimizer))
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert len(found) == len(set(found))
    assert set(found) == {id(p) for p in method.parameters() if p.requires_grad}


def test_muon_takes_the_matrices_of_layers_only():
    class Toy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.table = nn.Linear(3, 4), nn.Embedding(5, 3)
            self.slots, self.frozen = nn.Parameter(torch.zeros(2, 3)), nn.Linear(3, 3).requires_grad_(False)

    toy = Toy()
    muon, adamw = make_optimizers(toy, TrainConfig(lr=0.3, adamw_lr=0.1))
    assert [p is toy.layer.weight for g in muon.param_groups for p in g["params"]] == [True]
    rest = {id(toy.layer.bias), id(toy.table.weight), id(toy.slots)}
    assert {id(p) for g in adamw.param_groups for p in g["params"]} == rest
    assert (muon.param_groups[0]["peak"], adamw.param_groups[0]["peak"]) == (0.3, 0.1)


# ------------------------------------------------------------------------------------- one gradient however it is cut


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_change_nothing(tiny, tmp_path, micro):
    whole = run(tiny(), tmp_path / "whole", **EXACT)
    pieces = run(tiny(), tmp_path / "pieces", **EXACT, micro_batch=micro)
    start = {name: p.detach() for name, p in MeanRead(tiny()).read.named_parameters()}
    for name, value in whole.items():
        assert (value - start[name]).abs().max() > 1e-3  # it moved: there is something to agree on
        torch.testing.assert_close(pieces[name], value, rtol=0, atol=1e-6)
    for one, other in zip(rows(tmp_path / "whole"), rows(tmp_path / "pieces"), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_gradient_of_a_cut_batch_is_that_of_the_whole(tiny, tmp_path, task, monkeypatch):
    """Plain gradient descent: the change of the weights is the gradient."""

    def descent(method, _):
        return [torch.optim.SGD([{"params": list(method.read.parameters()), "peak": 1.0}], lr=1)]

    monkeypatch.setattr(loop, "make_optimizers", descent)
    settings = {"examples": 8, "epochs": 1, "batch_size": 8, "warmup": 0.0, "probe_examples": 2, "clip": 1e9}
    method = MeanRead(tiny())
    loss = method.loss([method.render(e, task) for e in task.examples("train", 8)]).total
    loss.backward()
    expected = {name: p.detach() - p.grad for name, p in method.read.named_parameters()}
    for micro in (None, 1, 3, 5):
        found = run(tiny(), tmp_path / str(micro), **settings, micro_batch=micro)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-7)
        assert rows(tmp_path / str(micro))[0]["loss"] == pytest.approx(loss.item(), abs=1e-6)


def test_the_gradient_is_cut_to_its_largest_norm_before_the_step(tiny, tmp_path, monkeypatch):
    """Plain gradient descent at a rate of one: a step is as long as the gradient that is left."""

    def descent(method, _):
        return [torch.optim.SGD([{"params": list(method.read.parameters()), "peak": 1.0}], lr=1)]

    monkeypatch.setattr(loop, "make_optimizers", descent)
    start = {name: p.detach() for name, p in MeanRead(tiny()).read.named_parameters()}
    settings = {"examples": 8, "epochs": 1, "batch_size": 8, "warmup": 0.0, "probe_examples": 2}
    found = run(tiny(), tmp_path / "cut", **settings, clip=1e-3)
    assert rows(tmp_path / "cut")[0]["gradient_norm"] > 1e-2  # the norm before: there was something to cut
    moved = torch.cat([(found[name] - value).flatten() for name, value in start.items()])
    assert float(moved.norm()) == pytest.approx(1e-3, rel=1e-3)


# --------------------------------------------------------------------------------------------------- what a run leaves


def test_rows_and_result_say_everything(tiny, tmp_path, task):
    folder = train(build("lta-thinker", tiny()), task, SHORT, tmp_path / "run")
    found = read_jsonl(folder / "metrics.jsonl")
    assert [row["step"] for row in found] == list(range(1, 11))
    losses = {"loss", "loss_likelihood", "loss_alignment", "loss_focus"}
    assert all({"epoch", "stage", "seconds", "lr", "gradient_norm", *losses} <= set(row) for row in found)
    probed = [row["step"] for row in found if "probe_relative_spread" in row]
    assert probed == [1, 4, 8]
    assert {"probe_spread", "probe_effective_rank"} <= set(found[0])
    for row in found:
        parts = row["loss_likelihood"] + 0.01 * row["loss_alignment"] + 0.01 * row["loss_focus"]
        assert row["loss"] == pytest.approx(parts, rel=1e-5)
    assert [row["lr"] for row in found] == pytest.approx([0.02 * schedule(k, 10, 0.1) for k in range(10)])
    table = runs.read_metrics(folder)
    assert len(table) == 10
    assert table["probe_spread"].notna().sum() == 3
    result = json.loads((folder / "result.json").read_text())
    expected = {"method": "lta-thinker", "task": "arith-shift", "steps": 10, "world_size": 1, "device": "cpu"}
    assert expected.items() <= result.items()
    assert {"command", "commit", "created", "versions", "seconds", "trainable_parameters", "final"} <= set(result)
    assert result["training"] == {
        **{"examples": 40, "epochs": 2, "batch_size": 8},
        **{"probe_every": 4, "probe_examples": 8, "save_every": 4},
    }


def test_accuracy_while_training_is_that_of_the_store_and_changes_no_number(tiny, tmp_path):
    # an untrained model answers nothing rightly: here an answer of even length is right
    task = replace(load_task("arith-shift"), parse=lambda text: str(len(text) % 2), same=lambda read, gold: read == "0")
    config = replace(SHORT, probe_every=5)  # the last of ten steps, too
    train(build("lta-thinker", tiny()), task, config, tmp_path / "silent")
    method = build("lta-thinker", tiny())
    train(method, task, replace(config, probe_answers=7), tmp_path / "asked")
    found = [row.get("probe_accuracy") for row in rows(tmp_path / "asked")]
    store = collect(method, task, task.examples("dev", 7), split="dev")
    assert found[-1] == pytest.approx(float(store["correct"].mean()))
    assert 0 < found[-1] < 1
    assert [value is not None for value in found] == [k in (1, 5, 10) for k in range(1, 11)]
    for silent, asked in zip(rows(tmp_path / "silent"), rows(tmp_path / "asked"), strict=True):
        assert silent | {"seconds": 0} == {k: v for k, v in asked.items() if k != "probe_accuracy"} | {"seconds": 0}
    with pytest.raises(ValueError, match="probe_answers is 9; give a number from 0 to 8"):
        replace(SHORT, probe_answers=9)


def test_the_warning_of_the_reference_is_in_the_metrics(tiny, tmp_path, task):
    method = build("lta-thinker", tiny(), METHODS["lta-thinker"].presets["reference"])
    folder = train(method, task, replace(SHORT, examples=8, epochs=1), tmp_path / "run")
    assert "constant log S with zero gradient" in rows(folder)[0]["warnings"][0]
    healthy = train(build("lta-thinker", tiny()), task, replace(SHORT, examples=8, epochs=1), tmp_path / "healthy")
    assert "warnings" not in rows(healthy)[0]


@pytest.mark.parametrize("name", ["lta-thinker", "soft-prompt"])
def test_loaded_weights_think_the_same(tiny, tmp_path, task, name):
    config = METHODS[name].Config(thoughts=3)
    method = build(name, tiny(), config, seed=5)
    folder = train(method, task, replace(SHORT, examples=16, epochs=1), tmp_path / "run")
    loaded = runs.load_method(folder)
    assert loaded.config == config
    prompts = [method.render(example, task) for example in task.examples("dev", 5)]
    with torch.no_grad():
        assert torch.equal(method.eval().think(prompts).vectors, loaded.think(prompts).vectors)


def test_loading_what_is_no_run_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no trained weights at .*; give the folder of a finished run"):
        runs.load_method(tmp_path)
    with pytest.raises(ValueError, match=r"no run at .* config\.yaml"):
        runs.read_config(tmp_path)
    save_file(nn.Linear(2, 2).state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="was not written by this workbench"):
        runs.load_method(tmp_path)


def test_loading_on_a_backbone_of_another_width_is_one_sentence(tiny, tmp_path):
    path = runs.save_weights(build("soft-prompt", tiny()), tmp_path)
    other = Backbone.load("nano")
    with pytest.raises(ValueError, match=r"does not fit soft-prompt on 'nano': vectors \(4, \d+\) differs"):
        runs.load_method(path, other)


def test_precision_can_change_within_a_process(tiny, tmp_path, task):
    for precision in ("no", "bf16", "no"):
        config = replace(SHORT, examples=8, epochs=1, mixed_precision=precision)
        folder = train(
            build("lta-thinker", tiny()), task, config, tmp_path / precision / str(len(os.listdir(tmp_path)))
        )
        assert {value.dtype for value in load_file(folder / "weights.safetensors").values()} == {torch.float32}


def test_train_is_the_function_and_its_file_stays_reachable():
    assert train_function is train


# ------------------------------------------------------------------------------------------------------------- golden


OPTIMIZERS = {"muon": {"lr": 0.05, "adamw_lr": 0.01}, "adamw": {"lr": 0.01}}
TOLERANCE = {"muon": 2e-3, "adamw": 1e-4}  # weights changed by a millionth move the curves by 2e-4 and 2e-7


def golden_losses(backbone: Backbone, folder: Path, optimizer: str) -> list[float]:
    """The loss curve of a small fixed run; `python -m tests.golden` records it."""
    config = TrainConfig(examples=32, epochs=10, batch_size=16, probe_examples=4, **OPTIMIZERS[optimizer])
    train(build("lta-thinker", backbone), load_task("arith"), replace(config, optimizer=optimizer), folder)
    return [row["loss"] for row in rows(folder)]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_golden_trajectory(tiny, tmp_path, optimizer):
    """Training still does what it did when the curve was recorded (see tests/golden/__main__.py)."""
    recorded = json.loads(GOLDEN.read_text())[optimizer]
    assert recorded[-1] < recorded[0] - 0.3  # it learns
    assert golden_losses(tiny(), tmp_path / "run", optimizer) == pytest.approx(recorded, rel=TOLERANCE[optimizer])


def test_training_leaves_the_backbone_as_it_was(tiny, tmp_path):
    """Shortcuts are the run's own: what is built on the same backbone afterwards has those it had before."""
    backbone = tiny()
    before = backbone.prefixes, backbone.padded, backbone.full_logits
    method, task = build("soft-prompt", backbone), load_task("arith")
    config = TrainConfig(examples=4, epochs=1, probe_examples=2, padded=True, full_logits=True)
    train(method, task, config, tmp_path / "run")
    assert (backbone.prefixes, backbone.padded, backbone.full_logits) == before
