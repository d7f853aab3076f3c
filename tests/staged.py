"""A method of two parts that learn one after the other; the second learns from prompts that the first has made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from workbench.backbone import Backbone
from workbench.methods import LatentMethod, Losses, Prompt, Stage, Thoughts


class Staged(LatentMethod):
    """Stage 0 learns `first`; stage 1 `second` at half the rate, on a label that the first part has made; then both.

    In float64. The class has no `name`, so it registers nothing. `calls`: the stages that were started.
    """

    @dataclass(frozen=True)
    class Config:
        pass

    def __init__(self, backbone: Backbone):
        super().__init__(backbone.double(), self.Config())
        self.name = "staged"  # pyright: ignore[reportAttributeAccessIssue]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first, self.second = (nn.Linear(backbone.width, 3, dtype=torch.float64) for _ in range(2))
        self.register_buffer("seen", torch.zeros(3, dtype=torch.float64))
        self.calls: list[int] = []

    def stages(self) -> tuple[Stage, ...]:
        one, two = ("first.*",), ("second.*",)
        return (Stage("one", 0.5, learns=one), Stage("two", 0.5, rate=0.5, learns=two), Stage("both", 0.5, "stage"))

    def saved(self) -> dict[str, Tensor]:
        return {**super().saved(), "seen": self.seen}

    def means(self, prompts: Sequence[Prompt]) -> Tensor:
        return torch.stack([self.backbone.embed(p.question).mean(0) for p in prompts])

    def start(self, stage: int, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        self.calls.append(stage)
        if stage != 1:
            return prompts
        made = self.first(self.means(prompts))
        self.seen += made.mean(0)
        return [
            replace(p, target=p.target[k % 3 :], given={"label": own.cpu()})
            for k, (p, own) in enumerate(zip(prompts, made, strict=True))
        ]

    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        """As many as the question is long, up to three; none where that is a multiple of four."""
        counts = torch.tensor([len(p.question) % 4 for p in prompts])
        steps = torch.arange(3)
        vectors = self.means(prompts)[:, None, None].expand(-1, paths, 3, -1)
        return Thoughts(vectors, (steps < counts[:, None])[:, None].expand(-1, paths, -1))

    def weigh(self, prompts: Sequence[Prompt], stage: int = 0) -> int:
        return sum(len(p.target) for p in prompts)

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        """A mean over target tokens, each of which counts for its example."""
        x, counts = self.means(prompts), torch.tensor([float(len(p.target)) for p in prompts]).double()
        if stage == 0:
            errors = (self.first(x) - 1).square().mean(1)
        else:
            with torch.set_grad_enabled(stage == 2):
                base = self.first(x) if stage == 2 else torch.stack([p.given["label"] for p in prompts])
            errors = (self.second(x) - base).square().mean(1) + (base - 1).square().mean(1)
        total = (errors * counts).sum() / counts.sum()
        return Losses(total, {"error": total})
