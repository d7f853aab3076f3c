"""The dry run: what it says is what training does and takes."""

import json
from dataclasses import astuple, replace

import pytest
import torch
from mean_read import SHORT, MeanRead, rows
from saved import saved_bytes
from transformers import Qwen3Config

from workbench.__main__ import main
from workbench.backbone import Backbone
from workbench.backbone.checkpointing import checkpointed
from workbench.backbone.prefixes import Prefixes
from workbench.methods import METHODS, build
from workbench.methods.base import Stage
from workbench.methods.softcot_pp import SoftCoTPPConfig
from workbench.tasks import Task, load_task
from workbench.training.dry_run import Kept, Piece, dry_run, largest_piece, measured, memory_kept, memory_passing
from workbench.training.loop import make_optimizers, train
from workbench.training.plan import TrainConfig, batches, cut, make_plan


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith-shift")


# -------------------------------------------------------------------------------------------------------------- steps


@pytest.mark.parametrize("settings", [{}, {"log_every": 3}, {"save_every": 100, "probe_every": 100, "examples": 9}])
def test_training_stops_where_the_dry_run_says(tiny, tmp_path, task, monkeypatch, settings):
    class Two(MeanRead):
        def stages(self):
            return (Stage("first"), Stage("second", share=0.5))

    config, saved, save = replace(SHORT, **settings), [], torch.save
    monkeypatch.setattr(torch, "save", lambda content, path: (saved.append(content["step"]), save(content, path)))
    course = dry_run(Two(tiny()), task, config).course
    assert course is not None
    folder = train(Two(tiny()), task, config, tmp_path / "run")
    found = rows(folder)
    assert list(course.checkpoints) == saved
    assert list(course.probes) == [row["step"] for row in found if "probe_spread" in row]
    assert len(course.plan) == json.loads((folder / "result.json").read_text())["steps"] == found[-1]["step"]
    report = str(dry_run(Two(tiny()), task, config))
    ends = [max(step.number for step in course.plan if step.stage == stage) for stage in (0, 1)]
    assert f"stage       first: steps 1 to {ends[0]}\n" in report
    assert f"stage       second: steps {ends[0] + 1} to {ends[1]}\n" in report


def test_lengths_are_those_of_the_rows(tiny, task):
    method = MeanRead(tiny())
    course = dry_run(method, task, SHORT).course
    assert course is not None
    prompts = [method.render(example, task) for example in task.examples("train", SHORT.examples)]
    prompt = [len(p.before) + len(p.after) for p in prompts]
    target = [len(p.target) for p in prompts]
    assert course.examples == 40
    assert course.prompt == (pytest.approx(sum(prompt) / 40), max(prompt))
    assert course.target == (pytest.approx(sum(target) / 40), max(target))


@pytest.mark.parametrize(("processes", "micro"), [(1, None), (2, None), (3, 2)])
def test_the_largest_piece_is_one_that_training_sends_through_the_backbone(tiny, task, processes, micro):
    method, config = MeanRead(tiny()), replace(SHORT, micro_batch=micro)
    prompts = [method.render(example, task) for example in task.examples("train", 40)]
    plan = make_plan(method, config, 40)
    found = largest_piece(method, prompts, plan, config, processes)
    pieces = set()
    for epoch in range(2):
        for batch in batches(prompts, config, f"0 {epoch}"):
            for rank in range(processes):
                shares = cut([prompts[i] for i in batch], rank, processes, micro)
                pieces |= {measured(method, piece) for piece in shares}
    needs = {piece: sum(astuple(memory_passing(method.backbone, piece, False))) for piece in pieces}
    assert needs[found] == max(needs.values())
    assert found.rows == -(-8 // processes) if micro is None else micro


def test_a_piece_has_the_columns_of_the_likelihood(tiny, task, monkeypatch):
    """Prompt and suffix as the backbone gets them, without the two thoughts."""
    method, seen = MeanRead(tiny()), []
    prompts = [method.render(example, task) for example in task.examples("train", 6)]
    run = Backbone.run

    def told(self, embeds, mask, **given):
        seen.append((embeds.shape[:2], given.get("logits_at")))
        return run(self, embeds, mask, **given)

    monkeypatch.setattr(Backbone, "run", told)
    method.backbone.prefixes, method.backbone.full_logits = Prefixes("off"), True
    method.loss(prompts)
    (prefix, _), (suffix, logits) = seen
    piece = measured(method, prompts)
    assert (piece.rows, piece.prefix) == tuple(prefix)
    assert (piece.rows, piece.columns + 2) == tuple(suffix)
    assert piece.logits == len(logits)


# -------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("preset", ["default", "reference"])
def test_what_is_kept_is_what_training_holds(tiny, task, optimizer, preset):
    """Real weights, gradients and optimiser states after a step, byte for byte; the reference has bfloat16 in it."""
    cls, config = METHODS["lta-thinker"], TrainConfig(optimizer=optimizer)
    method = build("lta-thinker", tiny(), {"default": cls.Config(), **cls.presets}[preset])
    optimizers = make_optimizers(method, config)
    method.loss([method.render(example, task) for example in task.examples("train", 4)]).total.backward()
    for one in optimizers:
        one.step()
    trained = [p for p in method.parameters() if p.requires_grad]
    states = [value for one in optimizers for state in one.state.values() for value in state.values()]
    frozen = [p for p in method.parameters() if not p.requires_grad]
    tensors = ([*frozen, *method.buffers()], trained, [p.grad for p in trained], states)
    assert memory_kept(method, config) == Kept(*(sum(t.nbytes for t in some) for some in tensors))
    alone = memory_kept(method, config)
    assert memory_kept(method, config, processes=2) == replace(alone, gradients=2 * alone.gradients)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("family", "within"), [("qwen3", 0.1), ("llama", 0.1), ("gpt2", 0.3)])
def test_what_passes_is_about_what_a_pass_keeps(tiny_folder, family, within, dtype):
    """The cache exactly; what the backward pass needs nearly, with and without gradient checkpointing."""
    backbone = Backbone.load(str(tiny_folder(family)), dtype=dtype)
    piece = Piece(rows=3, prefix=20, columns=50, logits=40)
    with torch.no_grad():
        mask = torch.ones(3, 70, dtype=torch.bool)
        cache = backbone.run(torch.zeros(3, 20, backbone.width, dtype=backbone.table.dtype), mask[:, :20]).cache
    embeds = torch.zeros(3, 50, backbone.width, dtype=backbone.table.dtype, requires_grad=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    mask[0, :3] = False

    def run() -> torch.Tensor:
        hidden = backbone.run(embeds, mask, cache=cache).hidden
        assert hidden is not None
        return hidden

    found = saved_bytes(backbone.model, run)
    cache.crop(-50)
    with checkpointed(backbone.model):
        less = saved_bytes(backbone.model, run)
    plain, recomputed = (memory_passing(backbone, piece, choice) for choice in (False, True))
    layers, inputs = 2, 2 * embeds.nbytes
    assert plain.cache == held
    assert plain.activations == pytest.approx(found, rel=within)
    assert recomputed.activations == inputs + plain.activations / layers
    assert inputs <= less < inputs + plain.activations / layers
    whole = memory_passing(backbone, piece, False, full_logits=True).logits
    assert whole == 3 * 40 * len(backbone.table) * (8 + {"float32": 4, "bfloat16": 2}[dtype])
    assert plain.logits == 2 * 3 * 40 * len(backbone.table) * 4  # all of it is less than one piece may be


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_prefixes_in_ram_take_what_it_says(tiny, tmp_path, task, family, monkeypatch):
    method, config = MeanRead(tiny(family)), replace(SHORT, prefix_cache="full")
    found = dry_run(method, task, config)
    assert found.course is not None
    seen: list[Prefixes] = []
    monkeypatch.setattr(
        Prefixes, "read", lambda self, *given, read=Prefixes.read: (seen.append(self), read(self, *given))[1]
    )
    train(method, task, config, tmp_path)
    kept = seen[-1]  # the backbone is given its own back
    assert kept.bytes == found.course.prefixes * method.backbone.bytes_per_token > 0
    assert f"{kept.bytes / 2**20:.2f} MiB  all prefixes, kept in RAM as far as 4 GiB go" in str(found)
    assert "all prefixes" not in str(dry_run(method, task, SHORT))


def test_paths_and_a_trained_backbone_count(tiny, task):
    """A row for each path; a backbone that is trained keeps what it read of the prompt too; its head makes pieces."""
    alone, several = (build("softcot-pp", tiny(), SoftCoTPPConfig(paths=paths)) for paths in (1, 3))
    prompts = [alone.render(example, task) for example in task.examples("train", 4)]
    one, other = measured(alone, prompts), measured(several, prompts)
    assert other == replace(one, rows=3 * one.rows)
    coconut = build("coconut", tiny())
    prompts = [coconut.render(example, task) for example in task.examples("train", 4)]
    piece, before = measured(coconut, prompts), max(len(p.before) for p in prompts)
    assert (piece.prefix, piece.columns > before) == (0, True)
    logits = piece.rows * piece.logits * len(coconut.backbone.table)
    assert memory_passing(coconut.backbone, piece, False).logits == logits * 8
    assert memory_passing(coconut.backbone, piece, False, full_logits=True).logits == logits * 12


# -------------------------------------------------------------------------------------------------- without any weight


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_backbone_without_weights_says_the_same(tiny, tiny_folder, task, name):
    empty = build(name, Backbone.load(str(tiny_folder()), weights=False))
    if not empty.stages():
        with pytest.raises(ValueError, match="has nothing to train"):
            dry_run(empty, task, SHORT)
        return
    own = METHODS[name].needs == "tokenizer"  # it brings its language model, whose weights are there
    assert own or all(p.device.type == "meta" for p in empty.parameters())
    real = build(name, Backbone.load(str(tiny_folder())))
    assert str(dry_run(empty, task, SHORT)) == str(dry_run(real, task, SHORT))
    assert dry_run(empty, task, SHORT).kept == dry_run(real, task, SHORT).kept


def test_eight_billion_parameters_need_no_weights(tmp_path, tiny, task):
    """The configuration of Qwen3-8B and any tokenizer; there is no file of weights."""
    Qwen3Config(
        hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, vocab_size=151936, tie_word_embeddings=False, dtype="bfloat16",
    ).save_pretrained(tmp_path)  # fmt: skip
    tiny().tokenizer.save_pretrained(tmp_path)
    method = build("soft-prompt", Backbone.load(str(tmp_path), weights=False))
    found = dry_run(method, task, replace(SHORT, processes=4, gradient_checkpointing=True))
    assert found.kept.frozen == pytest.approx(2 * 8_190_735_360, rel=1e-6)  # rotary frequencies come on top
    report = str(found)
    assert "8,190,735,360 parameters in bfloat16, 36 layers of width 4096" in report
    assert "soft-prompt: 16,384 trainable parameters" in report
    assert " 15.26 GiB  frozen weights" in report
    assert "in each of 4 processes, about (" in report
    assert report.endswith("without gradient checkpointing)")


# ------------------------------------------------------------------------------------------------------ command line


def test_the_command_says_it_and_does_nothing(tiny_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ["--backbone", str(tiny_folder()), "--training.examples", "40", "--training.batch_size", "8"]
    assert main(["train", *options, "--dry-run", "true"]) == 0
    said = capsys.readouterr().out
    assert "steps       30, 5 per epoch\n" in said
    assert "checkpoints 1, after step 30\n" in said
    assert "lta-thinker: 9,664 trainable parameters" in said
    assert list(tmp_path.iterdir()) == []


def test_examples_that_cannot_be_loaded_are_a_sentence(tiny_folder, tmp_path, capsys):
    options = ["--backbone", str(tiny_folder()), "--task", "gsm8k", "--data", str(tmp_path)]
    assert main(["train", *options, "--dry-run", "true"]) == 2
    said, complaint = capsys.readouterr()
    assert "trainable parameters" in said
    assert "in one process, before any example" in said
    assert "steps" not in said
    assert complaint.startswith("workbench: the examples could not be loaded: ")
    assert complaint.count("\n") == 1


def test_a_method_that_is_not_trained_is_refused(tiny_folder, capsys):
    assert main(["train", "--backbone", str(tiny_folder()), "--method", "cot", "--dry-run", "true"]) == 2
    assert "method 'cot' has nothing to train" in capsys.readouterr().err
