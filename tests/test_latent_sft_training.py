"""Latent-SFT's legs: what learns in each, stops and other runs to go on from; files of labels; published models."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import latent_sft_taught
import pytest
import torch
from latent_sft_taught import prompts
from safetensors import safe_open
from safetensors.torch import save_file

from workbench import runs
from workbench.backbone import Backbone
from workbench.checks.published import import_latent_sft
from workbench.evidence.collect import collect
from workbench.methods import Prompt, build
from workbench.methods.latent_sft import LatentSFT, LatentSFTConfig, labels, read_labels, write_labels
from workbench.tasks import Task, load_task
from workbench.training.loop import TrainConfig, train

NO_ENCODER: dict[str, Any] = {"encoder": False, "encoder_share": 0.0, "union_share": 0.0, "decoder_share": 0.0}
BUDGET = TrainConfig(examples=8, epochs=4, batch_size=4, optimizer="adamw", lr=1e-2, probe_examples=2, probe_every=99)
taught = partial(latent_sft_taught.taught, max_latents=4)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return runs.read_weights(folder)[1]


@pytest.mark.slow
def test_each_leg_moves_its_own_parts(tiny, task, tmp_path):
    """Snapshots behind each leg; the encoder starts as the decoder that was fine-tuned on the chains."""
    method = taught(tiny(), cot_share=0.25, encoder_share=0.25, decoder_share=0.25, union_share=0.25, latent_share=0.25)
    names = [stage.name for stage in method.stages()]
    assert len(names) == 5
    config = dataclasses.replace(BUDGET, epochs=5, snapshot_every=2)
    folder = train(method, task, config, tmp_path / "run")
    behind = [runs.load_method(folder, tiny(), step=2 * k).saved() for k in range(6)]

    def moved(leg: int, part: str) -> bool:
        before, after = behind[leg], behind[leg + 1]
        return any(not torch.equal(before[n], after[n]) for n in before if n.startswith(part))

    found = [(moved(leg, "backbone"), moved(leg, "encoder"), moved(leg, "compress")) for leg in range(5)]
    yes, no = True, False
    assert found == [(yes, no, no), (no, yes, yes), (yes, no, no), (yes, yes, yes), (yes, no, no)]
    # AdamW moves each number by about the rate in a step: two steps away from the decoder's, not from the base's
    name = next(n for n in behind[1] if n.startswith("backbone") and n.endswith("down_proj.weight"))
    own = name.replace("backbone.", "encoder.", 1)
    assert (behind[2][own] - behind[1][name]).abs().max() < 2.5e-2
    assert not torch.equal(behind[1][name], behind[0][name])


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 6])
def test_a_run_that_was_stopped_in_a_leg_ends_as_if_it_had_not(tiny, task, tmp_path, step, monkeypatch):
    whole = train(taught(tiny()), task, BUDGET, tmp_path / "whole")
    config = dataclasses.replace(BUDGET, save_every=1)
    method, loss = taught(tiny()), LatentSFT.loss
    calls = []

    def stopping(self, batch, stage=0):
        calls.append(stage)
        if len(calls) == step + 1:
            raise RuntimeError("stopped")
        return loss(self, batch, stage)

    monkeypatch.setattr(LatentSFT, "loss", stopping)
    with pytest.raises(RuntimeError, match="stopped"):
        train(method, task, config, tmp_path / "cut")
    monkeypatch.setattr(LatentSFT, "loss", loss)
    again = train(taught(tiny()), task, config, tmp_path / "cut", resume=True)
    first, second = weights(whole), weights(again)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_leg_begins_with_the_run_of_the_leg_before(tiny, task, tmp_path):
    """From chains to an encoder, to labels in a file, to latents without any encoder in memory."""
    one = dataclasses.replace(BUDGET, epochs=1)
    cot = dataclasses.replace(LatentSFTConfig.cot(), lora_rank=0)
    first = train(build("latent-sft", tiny(), cot), task, one, tmp_path / "cot")
    second = {"decoder_share": 0.0, "latent_share": 0.0}
    begun = taught(tiny(), **second)
    train(begun, task, dataclasses.replace(one, begin=str(first), lr=0.0), tmp_path / "union")
    name = next(n for n in weights(first) if n.endswith("down_proj.weight"))
    assert torch.equal(weights(first)[name], weights(tmp_path / "union")[name])
    assert torch.equal(weights(first)[name], weights(tmp_path / "union")[name.replace("backbone", "encoder", 1)])
    path = write_labels(begun, prompts(begun, task, 8), tmp_path / "labels.safetensors")
    last = taught(tiny(), labels=str(path), **NO_ENCODER)
    assert last.encoder is None
    found = last.start(0, prompts(last, task, 8))
    wanted = begun.labels(prompts(begun, task, 8))
    for prompt, own in zip(found, wanted, strict=True):
        assert torch.equal(prompt.given["tokens"], own["tokens"])
        assert torch.equal(prompt.given["weights"], own["weights"])
    train(last, task, dataclasses.replace(one, begin=str(tmp_path / "union")), tmp_path / "latents")
    assert not torch.equal(weights(tmp_path / "latents")[name], weights(first)[name])
    store = collect(runs.load_method(tmp_path / "latents", tiny()), task, task.examples("dev", 3))
    assert "mixture_token" in store
    other = train(build("soft-prompt", tiny()), task, one, tmp_path / "other")
    with pytest.raises(ValueError, match="can be begun with by latent-sft"):
        train(taught(tiny()), task, dataclasses.replace(one, begin=str(other)), tmp_path / "never")


# ---------------------------------------------------------------------------------------------------- files of labels


def test_labels_are_written_once_and_gone_on_from(tiny, task, tmp_path, monkeypatch):
    method, path = taught(tiny()), tmp_path / "labels.safetensors"
    batch = prompts(method, task, 8)
    monkeypatch.setattr(labels, "BATCH", 3)
    made, make = [], method.labels

    def counted(own):
        made.append(len(own))
        if len(made) == 3:
            raise KeyboardInterrupt
        return make(own)

    monkeypatch.setattr(method, "labels", counted)
    with pytest.raises(KeyboardInterrupt):
        write_labels(method, batch, path)
    assert not path.exists()
    part = sorted((tmp_path / "labels.safetensors.parts").iterdir())[0]
    part.write_bytes(part.read_bytes()[:-7])  # torn: made again
    write_labels(method, batch, path)
    assert made == [3, 3, 2, 3, 2]
    assert not (tmp_path / "labels.safetensors.parts").exists()
    write_labels(method, batch, path)  # it is there: nothing is done
    assert len(made) == 5
    kept = read_labels(method, path, batch[::-1])
    for own, wanted in zip(kept, make(batch[::-1]), strict=True):
        assert torch.equal(own["tokens"], wanted["tokens"])
        assert torch.equal(own["weights"], wanted["weights"])


def test_wrong_labels_are_refused_with_one_sentence(tiny, task, tmp_path):
    method, path = taught(tiny()), tmp_path / "labels.safetensors"
    batch = prompts(method, task, 8)
    write_labels(method, batch, path)

    def refused(sentence: str, own: LatentSFT = method, which: list[Prompt] = batch) -> None:
        with pytest.raises(ValueError, match=sentence) as error:
            read_labels(own, path, which)
        assert len(str(error.value).splitlines()) == 1

    refused("not of this method: their ratio is 2, here it is 3", taught(tiny(), ratio=3))
    refused("their components is 10, here it is 5", taught(tiny(), components=5))
    more = [method.render(example, task) for example in task.examples("train", 9)]
    refused("lack example", which=more)
    longer = dataclasses.replace(batch[0], steps=(*batch[0].steps, batch[0].answer))
    refused("are of another question or chain", which=[longer])
    with torch.no_grad():
        method.compress.add_(1)
    with pytest.raises(ValueError, match="are not of this encoder: their encoder is"):
        write_labels(method, batch, path)
    content = path.read_bytes()
    for at in (len(content) - 5, len(content) // 2):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        refused("is damaged")
    path.write_bytes(content[: len(content) // 3])
    refused("is damaged or no file of labels")
    save_file({"x": torch.zeros(1)}, path)
    refused("is no file of labels")
    path.unlink()
    refused("no labels at")


def test_a_chain_with_too_few_labels_is_refused(tiny, task, tmp_path):
    """With a checksum that is right."""
    method, path = taught(tiny()), tmp_path / "labels.safetensors"
    batch = prompts(method, task, 2)
    found = [(own["tokens"].int()[1:], own["weights"][1:]) for own in method.labels(batch)]
    labels._write(path, labels.manifest(method), batch, found)
    with pytest.raises(ValueError, match="and a chain of 14 tokens at ratio 2 has 7"):
        read_labels(method, path, batch)


def test_without_encoder_or_file_the_last_leg_says_what_it_needs(tiny, task):
    method = taught(tiny(), **NO_ENCODER)
    with pytest.raises(ValueError, match="neither an encoder nor a file of them"):
        method.start(0, prompts(method, task, 8))


def test_full_vocabulary_labels_hold_every_word(tiny, task):
    method = taught(tiny(), components=None)
    own = method.labels(prompts(method, task, 1))[0]
    assert own["tokens"].shape[1] == len(method.backbone.table)
    torch.testing.assert_close(own["weights"].sum(1), torch.ones(len(own["weights"])))


# -------------------------------------------------------------------------------------------------------- end to end


@pytest.mark.slow
def test_labels_hold_the_answer_and_chains_end_by_themselves(tmp_path):
    """On the shipped model and easy problems: the encoder's latents answer where none do not, and thinking stops."""
    easy, backbone = load_task("arith", "easy"), Backbone.load("nano")
    shares = {"encoder_share": 0.1, "decoder_share": 0.1, "union_share": 0.4, "latent_share": 0.4}
    method = build("latent-sft", backbone, LatentSFTConfig(
        lora_rank=0, max_latents=16, temperature=6.0, noise_scale=0.0, latent_rate=2.0, **shares
    ))  # fmt: skip
    budget = TrainConfig(examples=320, epochs=8, batch_size=16, optimizer="adamw", lr=1e-3, probe_every=999)
    train(method, easy, budget, tmp_path / "run")
    questions = easy.examples("dev", 60)
    stores = {name: collect(method, easy, questions, change=name) for name in (None, "oracle", "dropped")}
    right = {name: float(store["correct"].mean()) for name, store in stores.items()}
    assert right["oracle"] > right["dropped"] + 0.25
    own = stores[None]["mask"].sum("step").values
    assert (own < 16).mean() > 0.95
    assert own.mean() > 2


# ---------------------------------------------------------------------------------------------------- published models


def test_a_published_model_is_one_call(tiny_folder, tiny, task, tmp_path):
    """A folder of a causal language model and its K: no encoder, nothing else to load."""
    method = import_latent_sft(tiny_folder("llama"), components=4)
    assert (method.encoder, method.config.components, method.marks) == (None, 4, ("<think>", "</think>"))
    again = taught(tiny("llama"), components=4, marks="published", words="all", max_latents=5, **NO_ENCODER)
    object.__setattr__(method.config, "max_latents", 5)
    batch = prompts(again, task, 3)
    assert torch.equal(batch[0].before, method.render(task.examples("train", 1)[0], task).before)
    one, other = method.think(batch), again.think(batch)
    assert torch.equal(one.vectors, other.vectors)
    assert one.mixture is not None
    assert one.mixture.tokens.shape[-1] == 4


def test_a_prompt_that_opens_the_thinking_itself_is_not_opened_twice(tiny, task):
    backbone = tiny("qwen3", True)
    backbone.tokenizer.chat_template = backbone.tokenizer.chat_template.replace("assistant\n", "assistant\n<think>\n")
    method = taught(backbone, marks="published", **NO_ENCODER)
    before = method.render(task.examples("train", 1)[0], task).before
    begin = method.backbone.ids("<think>").tolist()
    row = before.tolist()
    assert sum(row[k : k + len(begin)] == begin for k in range(len(row))) == 1


def test_the_weights_file_holds_all_legs(tiny, task, tmp_path):
    one = dataclasses.replace(BUDGET, epochs=1)
    method = taught(tiny(), lora_rank=2)
    folder = train(method, task, one, tmp_path / "run")
    with safe_open(folder / "weights.safetensors", "pt") as file:
        names = list(file.keys())
        about = json.loads(file.metadata()["workbench"])
    assert about["method"] == "latent-sft"
    assert {name.split(".")[0] for name in names} == {"backbone", "encoder", "compress"}
    assert all("lora" in name or name == "compress" for name in names)
