"""A method in float64 for tests of the training loop: what differs beyond 1e-9 is no rounding.

Run as a script (by torchrun) it trains for a few steps and writes its weights: `mean_read.py BACKBONE OUT SETTINGS`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from workbench.backbone import Backbone
from workbench.methods import LatentMethod, Prompt, Thoughts
from workbench.tasks import load_task
from workbench.train import TrainConfig, train


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


def run(backbone: Backbone, folder: Path, **settings) -> dict[str, torch.Tensor]:
    """Train on the shift domain; the weights of the read."""
    method = MeanRead(backbone)
    train(method, load_task("arith-shift"), TrainConfig(**settings), folder)
    return {name: p.detach().clone() for name, p in method.read.named_parameters()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(Backbone.load(sys.argv[1]), Path(sys.argv[2]), **json.loads(sys.argv[3]))
    torch.distributed.destroy_process_group()
