"""Coconut (Hao et al. 2024, arXiv 2412.06769): a model's last state is its next input, in place of worked steps.

    x[p_j] = h[p_j - 1]    h: state behind the final norm; p_1 .. p_m: the thoughts' places; p_1 - 1: the begin mark's

    stage k, from 0 to K:   question, begin, c k thoughts, end, steps k + 1 .. n, answer
    last stage:             question, begin, c K thoughts, end, answer

What stands behind the end mark is learned, and no gradient is cut between the thoughts. Stage 0 is plain fine-tuning on
the chain of thought; each stage replaces one more step by c thoughts. At test there are as many thoughts as in the
stage that the weights have reached. The language model itself is trained, in a copy: all its weights, or adapters.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from ..backbone import Backbone
from ..config import allowed, bounded
from ..tasks import Example, Task
from .base import LatentMethod, Losses, Prompt, Stage, Thoughts
from .loops import LATENT, UNLABELLED, Made, State, fill, unroll
from .trained import LIKE, trained_copy


@dataclass(frozen=True)
class CoconutConfig:
    """As published with defects mended; `presets` has the published settings and the paper's controls."""

    thoughts_per_step: int = 1
    """Thoughts that take the place of a step (c)."""
    max_stage: int = 3
    """Steps that are replaced one by one (K); after that come all that are left at once, without more thoughts."""
    first_stage: int = 0
    """Stage to begin with: 0 trains on all worked steps first, 1 suits a model that can write them."""
    curriculum: bool = True
    """Without, the last stage is all there is (a control)."""
    final_share: float = 0.3
    """Share of the epochs for the last stage, which has no step left; the others share the rest equally."""
    feedback: Literal["hidden", "pause", "none"] = "hidden"
    """A thought's input: the state before it; or a control: one learned vector, or no thoughts at all (the curriculum
    stays)."""
    uniform_prob: float = 0.0
    """Share of examples that are given a random stage, from 0 to their number of steps, anew in each epoch, for a model
    that can answer after any number of thoughts."""
    pad_to_max: bool = True
    """Every example gets the same number of thoughts. Without, the last stages give none more than its gold steps,
    which an answer at test must not know."""
    reset_optimizer: Literal["never", "stage", "epoch"] = "stage"
    """When optimisers begin anew: never, at each stage, or (as published) at each epoch."""
    likelihood_mean: Literal["example", "token"] = "example"
    """Average the likelihood per example, or (as published) over all tokens of the micro-batch."""
    state_scale: Literal["own", "embedding"] = "own"
    """States are fed back as they are (as published), or scaled to the root mean square of the input embeddings."""
    marks: bool = True
    """Begin and end marks around the thoughts."""
    test_thoughts: int | None = None
    """Thoughts at test; null: those of the stage the weights have reached."""
    lora_rank: int = 0
    """Rank of adapters on all linear layers, which are trained then instead of the weights; 0: all weights."""
    lora_alpha: float = 32.0
    """Adapters count alpha / rank."""
    seed: int = 0
    """Seed of uniform_prob's draws."""

    def __post_init__(self) -> None:
        allowed(self)
        bounded(self, thoughts_per_step=(1, 64), max_stage=(1, 64), first_stage=(0, self.max_stage))
        bounded(self, final_share=(0.01, 1), uniform_prob=(0, 1), test_thoughts=(0, 4096), lora_rank=(0, 4096))
        bounded(self, lora_alpha=(1e-6, math.inf))

    @classmethod
    def gsm8k(cls) -> "CoconutConfig":
        """The published settings for GSM8K, from a model that writes worked steps: 22 epochs, 13 in the last stage."""
        return cls(thoughts_per_step=2, first_stage=1, final_share=13 / 22)

    @classmethod
    def prosqa(cls) -> "CoconutConfig":
        """The published settings for ProsQA: 50 epochs, 5 for each of seven stages and 15 for the last."""
        return cls(max_stage=6)

    @classmethod
    def reference(cls) -> "CoconutConfig":
        """The published behaviour, with the settings for GSM8K."""
        return replace(cls.gsm8k(), reset_optimizer="epoch", likelihood_mean="token")


class Coconut(LatentMethod):
    """Coconut: the last state is the next input; a curriculum replaces worked steps by such thoughts."""

    name = "coconut"
    Config = CoconutConfig
    presets = {  # noqa: RUF012
        "reference": CoconutConfig.reference(),
        "gsm8k": CoconutConfig.gsm8k(),
        "prosqa": CoconutConfig.prosqa(),
        "pause": CoconutConfig(feedback="pause"),
        "no-thought": CoconutConfig(feedback="none", marks=False),
        "no-curriculum": CoconutConfig(curriculum=False),
    }

    def __init__(self, backbone: Backbone, config: CoconutConfig):
        marks = None if config.marks else ()
        super().__init__(trained_copy(backbone, config.lora_rank, config.lora_alpha, marks), config)
        self.epoch = 0
        self.scale = self.backbone.input_scale
        if config.feedback == "pause":
            row = self.backbone.ids(self.backbone.marks[0] or LIKE)[-1:]
            self.pause = nn.Parameter(self.backbone.embed(row)[0].detach().float().clone())

    def stages(self) -> tuple[Stage, ...]:
        config = self.config
        single = range(config.first_stage, config.max_stage + 1) if config.curriculum else range(0)
        share = (1 - config.final_share) / max(len(single), 1)
        legs = [Stage(f"{stage} replaced", share, config.reset_optimizer) for stage in single]
        last = Stage("all replaced", config.final_share if legs else 1.0, config.reset_optimizer)
        return (*legs, last)

    def begin_epoch(self, stage: int, epoch: int) -> None:
        self.epoch = epoch

    def render(self, example: Example, task: Task) -> Prompt:
        """The thoughts open the reply."""
        message = self.message(example, task, "")
        return self.prompt(example, task, *self.backbone.in_reply(message, task.opening, self.config.marks))

    @torch.no_grad()
    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        """The same thoughts on every path. `entropy`, in nats, is that of the words each would have been."""
        counts = torch.tensor([self._test_thoughts(p) for p in prompts], device=self.backbone.device)

        def stop(state: State, _: Made) -> Tensor:
            return state.number >= counts[state.rows]

        return unroll(self.backbone, prompts, self._next, int(counts.max()), stop).over_paths(paths)

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        """Negative log-likelihood of the steps that are left and the answer."""
        rows, labels = zip(*(self.row(p, *self._planned(p, stage)) for p in prompts), strict=True)
        filled = fill(self.backbone, rows, self._next, labels=labels)
        if self.config.likelihood_mean == "token":
            likelihood = filled.token_losses().sum() / (filled.following != UNLABELLED).sum()
        else:
            likelihood = filled.losses().mean()
        # in a batch without thoughts the learned vector has no gradient, which data-parallel training takes amiss
        total = likelihood + 0 * self.pause.sum() if self.config.feedback == "pause" else likelihood
        return Losses(total, {"likelihood": likelihood})

    def row(self, prompt: Prompt, removed: int, thoughts: int) -> tuple[Tensor, Tensor]:
        """What is read with the first steps removed, ids with `LATENT` where the thoughts are, and its labels."""
        target = prompt.target[sum(len(step) for step in prompt.steps[:removed]) :]
        latent = torch.full((thoughts,), LATENT)
        row = torch.cat([prompt.before, latent, prompt.after, target])
        return row, torch.cat([torch.full((len(row) - len(target),), UNLABELLED), target])

    def _next(self, state: State) -> Made:
        entropy = torch.special.entr(state.logits.detach().softmax(-1)).sum(-1)
        vector = state.hidden
        if self.config.feedback == "pause":
            vector = self.pause.expand_as(vector)
        elif self.config.state_scale == "embedding":
            vector = vector / vector.float().square().mean(-1, keepdim=True).sqrt() * self.scale
        return Made(vector.to(state.hidden.dtype), signals={"entropy": entropy})

    def _planned(self, prompt: Prompt, stage: int) -> tuple[int, int]:
        """Steps to remove and thoughts to give in training: those of the stage, or of one that is drawn."""
        scheduled, steps = self._scheduled(stage), len(prompt.steps)
        chance = random.Random(f"{self.config.seed} {prompt.example.id} {stage} {self.epoch}")
        if chance.random() < self.config.uniform_prob:
            scheduled = chance.randint(0, steps)
        return planned(self.config, scheduled, steps)

    def _scheduled(self, stage: int) -> int:
        """The number of the curriculum's stage that is a leg of training."""
        return self.config.first_stage + stage if self.config.curriculum else self.config.max_stage + 1

    def _test_thoughts(self, prompt: Prompt) -> int:
        config = self.config
        if config.feedback == "none":
            return 0
        if config.test_thoughts is not None:
            return config.test_thoughts
        reached = config.max_stage if self.stage is None else self._scheduled(self.stage)
        most = config.max_stage if config.pad_to_max else min(config.max_stage, len(prompt.steps))
        return config.thoughts_per_step * min(reached, most)


def planned(config: CoconutConfig, stage: int, steps: int) -> tuple[int, int]:
    """Of an example with `steps` steps at a stage: how many are removed, and how many thoughts there are."""
    removed, places = min(stage, steps), stage
    if stage > config.max_stage:
        removed, places = steps, config.max_stage if config.pad_to_max else min(steps, config.max_stage)
    return removed, 0 if config.feedback == "none" else config.thoughts_per_step * places
