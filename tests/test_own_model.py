"""A method that brings its own language model: of the backbone it needs the tokenizer, and no weight is loaded."""

from dataclasses import dataclass

import pytest
import torch
from conftest import random_model

import workbench as wb
from workbench.__main__ import main
from workbench.backbone import Backbone
from workbench.methods import METHODS
from workbench.runs import load_method


@pytest.fixture
def own(monkeypatch):
    class Own(wb.LatentMethod):
        """A small model from nothing, trained whole, and a thought before its answers."""

        name = "own"
        needs = "tokenizer"

        @dataclass(frozen=True)
        class Config:
            count: int = 1

        def __init__(self, backbone: Backbone, config: Config):
            model = random_model("llama", len(backbone.tokenizer), backbone.tokenizer.eos_token_id)
            super().__init__(Backbone(model, backbone.tokenizer, backbone.name, backbone.revision), config)
            self.backbone.requires_grad_(True)

        def think(self, prompts, *, paths=1):
            vectors = torch.ones(len(prompts), paths, self.config.count, self.backbone.width)
            return wb.Thoughts(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool))

    asked = []
    load = Backbone.load.__func__

    def told(cls, *given, **named):
        asked.append(named.get("weights", True))
        return load(cls, *given, **named)

    monkeypatch.setattr(Backbone, "load", classmethod(told))
    yield asked
    METHODS.pop("own")


def test_it_is_built_trained_collected_and_loaded_without_a_frozen_model(own, tiny_folder, tmp_path):
    backbone = Backbone.load(str(tiny_folder()), weights=False)
    assert backbone.table.is_meta
    method, task = wb.build("own", backbone, seed=2), wb.load_task("arith")
    assert not any(p.is_meta for p in method.parameters())
    config = wb.TrainConfig(examples=8, epochs=1, batch_size=4, probe_examples=2)
    wb.train(method, task, config, tmp_path / "run")
    again = load_method(tmp_path / "run")
    assert set(own) == {False}
    for name, value in method.saved().items():
        assert torch.equal(value, again.saved()[name])
    store = wb.collect(again, task, task.examples("dev", 2), decoding=wb.Decoding(3))
    assert store.sizes["step"] == 1
    assert store.attrs["backbone"] == str(tiny_folder())


def test_the_command_line_loads_no_weights_for_it(own, tiny_folder, tmp_path):
    given = ["--backbone", str(tiny_folder()), "--task", "arith"]
    training = ["--training.examples", "8", "--training.epochs", "1", "--training.probe_examples", "2"]
    assert main(["train", "--method", "own", *given, *training, "--out", str(tmp_path / "run")]) == 0
    assert own == [False]
