"""A method in float64 for tests of the training loop: what differs beyond 1e-9 is no rounding."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from workbench.backbone import Backbone
from workbench.files import read_jsonl
from workbench.methods import LatentMethod, Prompt, Thoughts
from workbench.tasks import load_task
from workbench.training.loop import TrainConfig, train

SHORT = TrainConfig(examples=40, epochs=2, batch_size=8, probe_every=4, probe_examples=8, save_every=4)
# Four batches in an epoch, the last of one example. AdamW, because Muon orthogonalises in bfloat16: where the gradient
# has a lower rank than the matrix, that makes a visible direction of a rounding difference. Its gradient is the same.
EXACT = {"examples": 25, "epochs": 2, "batch_size": 8, "probe_examples": 4, "optimizer": "adamw"}


class MeanRead(LatentMethod):
    """Two thoughts, a linear map of the question's mean embedding. The class has no `name`, so it registers nothing."""

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, backbone: Backbone, seed: int = 0):
        super().__init__(backbone.double(), self.Config())
        self.name = "mean-read"  # pyright: ignore[reportAttributeAccessIssue]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.read = nn.Linear(backbone.width, 2 * backbone.width, dtype=torch.float64)

    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        means = torch.stack([self.backbone.embed(p.question).mean(0) for p in prompts])
        vectors = self.read(means).view(len(prompts), 1, 2, -1).expand(-1, paths, -1, -1)
        return Thoughts(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool))


def rows(folder: Path, without: tuple[str, ...] = ("seconds",)) -> list[dict]:
    """metrics.jsonl without what a clock says."""
    return [{k: v for k, v in row.items() if k not in without} for row in read_jsonl(folder / "metrics.jsonl")]


def run(backbone: Backbone, folder: Path, **settings) -> dict[str, torch.Tensor]:
    """Train on the shift domain; the weights of the read."""
    method = MeanRead(backbone)
    train(method, load_task("arith-shift"), TrainConfig(**settings), folder)
    return {name: p.detach().clone() for name, p in method.read.named_parameters()}
