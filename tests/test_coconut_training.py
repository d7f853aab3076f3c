"""Coconut in training: what is trained and what is left as it was, optimisers that begin anew, resuming."""

import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch
from families import family
from mean_read import rows
from moments import power_cut
from safetensors.torch import load_file
from test_coconut import coconut, gradients, plain_losses, prompts
from torch import Tensor

from workbench.backbone import Backbone, Decoding
from workbench.methods.base import Stage
from workbench.methods.coconut import CoconutConfig
from workbench.methods.trained import trained_copy
from workbench.runs import load_method
from workbench.tasks import Task, load_task
from workbench.training.loop import train
from workbench.training.plan import Step, TrainConfig, forgets


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


# ----------------------------------------------------------------------------------------------------- what is trained


def weights(backbone: Backbone) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in backbone.model.named_parameters()}


@pytest.mark.parametrize("rank", [0, 2])
def test_a_copy_is_trained_and_the_given_backbone_stays_as_it_is(tiny, task, tmp_path, rank):
    given = tiny()
    before = weights(given)
    method = coconut(given, lora_rank=rank, max_stage=1)
    config = TrainConfig(examples=8, epochs=1, batch_size=4, probe_examples=2, optimizer="adamw", lr=0.01)
    folder = train(method, task, config, tmp_path / "run")
    assert all(torch.equal(p, before[name]) for name, p in given.model.named_parameters())
    assert not given.trains
    assert [type(m) for m in given.model.modules()] == [type(m) for m in tiny().model.modules()]
    saved = load_file(folder / "weights.safetensors")
    assert saved.keys() == {name for name, p in method.named_parameters() if p.requires_grad}
    assert all("lora" in name for name in saved) == bool(rank)
    again = load_method(folder, given)
    batch = prompts(method, task)
    assert torch.equal(again.think(batch).vectors, method.think(batch).vectors)
    assert not torch.allclose(coconut(tiny()).think(batch).vectors[:, :, :1], method.think(batch).vectors[:, :, :1])


def test_adapters_share_the_frozen_weights_and_begin_as_nothing(tiny, task):
    given = tiny("gpt2")
    method = coconut(given, lora_rank=3)
    shared = {p.data_ptr() for p in given.model.parameters()}
    frozen = [p for p in method.backbone.model.parameters() if not p.requires_grad]
    assert {p.data_ptr() for p in frozen} == shared
    batch = prompts(method, task)
    torch.testing.assert_close(method.loss(batch, 1).total, coconut(given).loss(batch, 1).total)


def test_adapters_have_the_gradients_of_plain_passes(tiny, task):
    method = coconut(tiny(), lora_rank=3)
    for name, p in method.named_parameters():
        if "lora_B" in name:  # which begins as zero, so that the other half has no gradient at first
            torch.nn.init.normal_(p, std=0.2, generator=torch.Generator().manual_seed(len(name)))
    batch = prompts(method, task, 2)
    ours = gradients(method, method.loss(batch, 2).total)
    theirs = gradients(method, plain_losses(method, batch, [(min(2, len(p.steps)), 2) for p in batch]).mean())
    assert len(ours) == 2 * 2 * 7  # A and B on seven linear layers in each of two
    for name, gradient in ours.items():
        assert gradient.abs().max() > 1e-4
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize(("rank", "alpha"), [(2, 8.0), (4, 1.0)])
def test_an_adapter_counts_alpha_over_rank(tiny, rank, alpha):
    """y = W x + alpha / rank B A x, of every layer that has one."""
    model = trained_copy(tiny(), rank, alpha).model
    adapted = [module for module in model.modules() if hasattr(module, "lora_A")]
    assert len(adapted) == 2 * 7
    for layer in adapted:
        a, b = layer.lora_A["default"], layer.lora_B["default"]
        torch.nn.init.normal_(b.weight, generator=torch.Generator().manual_seed(0))
        x = torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(1))
        expected = layer.base_layer(x) + alpha / rank * (x @ a.weight.T @ b.weight.T)
        torch.testing.assert_close(layer(x), expected)


def test_half_precision_is_trained_in_float32(tiny):
    half = Backbone(tiny().model.bfloat16(), tiny().tokenizer, "half")
    assert {p.dtype for p in coconut(half).parameters()} == {torch.float32}
    adapted = coconut(half, lora_rank=2)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}
    assert half.table.dtype == adapted.backbone.table.dtype == torch.bfloat16


@pytest.mark.parametrize("rank", [0, 2])
def test_a_tokenizer_without_marks_is_given_some(task, rank):
    """Their rows start as that of the calculator's bracket, here several tokens; a table's spare rows are kept."""
    given = family("plain")
    size, spare = len(given.table), 7
    given.model.resize_token_embeddings(size + spare, mean_resizing=False)
    own = trained_copy(given, rank)
    begin, end = own.tokenizer.convert_tokens_to_ids(["<|start-latent|>", "<|end-latent|>"])
    assert (begin, end) == (len(given.tokenizer), len(given.tokenizer) + 1)
    assert len(own.table) == size + spare
    pieces = given.ids("<<")
    for table in (own.table, own.model.get_output_embeddings().weight):
        assert table.shape[0] == size + spare
    torch.testing.assert_close(own.table[begin], given.table[pieces].mean(0))
    torch.testing.assert_close(own.table[end], given.table[pieces].mean(0))
    assert "<|start-latent|>" not in given.tokenizer.get_vocab()
    method = coconut(given, lora_rank=rank)
    prompt = method.render(task.examples("train", 1)[0], task)
    assert prompt.before[-1] == begin
    assert prompt.after[0] == end
    method.loss([prompt], 2).total.backward()
    assert all(p.grad is not None for p in method.parameters() if p.requires_grad)
    assert trained_copy(given, marks=()).marks == ("", "")


def test_without_peft_adapters_are_a_sentence(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ValueError, match=r"adapters \(lora_rank\) need the package peft; pip install"):
        coconut(tiny(), lora_rank=2)


@pytest.mark.parametrize("name", ["qwen3", "qwen2.5", "llama-3.1", "sentences"])
def test_it_thinks_in_its_reply_on_every_family(task, name):
    backbone = family(name)
    method = coconut(backbone, max_stage=1)
    batch = [method.render(example, task) for example in task.examples("train", 2)]
    decode, (begin, end) = method.backbone.tokenizer.decode, method.backbone.marks
    text = decode(torch.cat([batch[0].before, batch[0].after]))
    assert text.count(begin) == text.count(end) == 1
    assert text.index(batch[0].example.question) < text.index(begin) < text.index(end)
    assert method.loss(batch, 1).total.isfinite()
    assert method.answer(batch, method.think(batch), Decoding(3))[1][0][0].tokens is not None


# ----------------------------------------------------------------------------------------------------------- training

SHORT = TrainConfig(
    examples=8, epochs=3, batch_size=4, probe_examples=2, probe_every=100, save_every=1, optimizer="adamw", lr=0.01
)


def test_optimisers_begin_anew_when_asked():
    def starts(fresh: str) -> list[int]:
        steps = [
            Step(1 + 4 * stage + 2 * epoch + place, stage, epoch, place, 1.0)
            for stage in (0, 1)
            for epoch in (0, 1)
            for place in (0, 1)
        ]
        return [step.number for step in steps if forgets(Stage("any", 1.0, fresh), step)]  # type: ignore[arg-type]

    assert starts("never") == []
    assert starts("stage") == [1, 5]
    assert starts("epoch") == [1, 3, 5, 7]


@pytest.mark.parametrize("reset", ["never", "stage"])
def test_optimiser_states_are_as_old_as_asked(tiny, task, tmp_path, reset):
    method = coconut(tiny(), max_stage=1, reset_optimizer=reset)
    folder = train(method, task, SHORT, tmp_path / "run")
    states = torch.load(folder / "checkpoint.pt", weights_only=True)["optimizers"][0]["state"]
    counts = Counter(row["stage"] for row in rows(folder))
    assert list(counts) == [0, 1, 2]
    assert states[0]["step"] == (counts[2] if reset == "stage" else counts.total())


@pytest.mark.parametrize("stop", [2, 3], ids=["before a stage", "within a stage"])
def test_a_run_stopped_anywhere_ends_as_if_never_stopped(tiny, task, tmp_path, stop):
    options = {"max_stage": 1, "uniform_prob": 0.5}
    whole = train(coconut(tiny(), **options), task, SHORT, tmp_path / "whole")
    with power_cut(stop + 1):
        train(coconut(tiny(), **options), task, SHORT, tmp_path / "cut")
    assert rows(tmp_path / "cut")[-1]["step"] == stop
    assert {2: (0, 1), 3: (1, 1)}[stop] == tuple(row["stage"] for row in rows(whole)[stop - 1 : stop + 1])
    cut = train(coconut(tiny(), **options), task, SHORT, tmp_path / "cut", resume=True)
    assert rows(cut) == rows(whole)
    one, other = (load_file(folder / "weights.safetensors") for folder in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_kept_weights_know_their_stage(tiny, task, tmp_path):
    method = coconut(tiny(), max_stage=2)
    folder = train(method, task, replace(SHORT, snapshot_every=1), tmp_path / "run")
    reached = {row["step"]: row["stage"] for row in rows(folder)}
    batch = prompts(method, task, 2)
    for step in (1, max(step for step in reached if reached[step] == 1), max(reached)):
        kept = load_method(folder, tiny(), step=step)
        assert kept.think(batch).vectors.shape[2] == min(reached[step], 2)
    assert load_method(folder, tiny()).think(batch).vectors.shape[2] == 2


def test_the_loss_falls_in_every_stage(tiny, task, tmp_path):
    config = replace(SHORT, epochs=45, save_every=1000, lr=0.005)
    folder = train(coconut(tiny(), max_stage=1), task, config, tmp_path / "run")
    for stage in (0, 1, 2):
        losses = [row["loss"] for row in rows(folder) if row["stage"] == stage]
        assert sum(losses[-4:]) < 0.8 * sum(losses[:4])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"first_stage": 4}, "first_stage is 4; give a number from 0 to 3"),
        ({"uniform_prob": 1.5}, "uniform_prob is 1.5; give a number from 0 to 1"),
        ({"thoughts_per_step": 0}, "thoughts_per_step is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        CoconutConfig(**options)
