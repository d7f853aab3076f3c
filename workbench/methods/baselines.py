"""What thoughts are measured against: answering at once, writing the steps, and vectors that ignore the question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from ..backbone import Backbone, Completion, Decoding
from ..config import bounded
from ..tasks import Example, Task
from .base import LatentMethod, Prompt, Thoughts

ANSWER_TOKENS = 64  # the most of an answer without steps: a formula or a sentence


class CoT(LatentMethod):
    """Explicit chain of thought: the slot stays empty, the steps are written as text. Nothing is trained."""

    name = "cot"
    trained = False

    @dataclass(frozen=True)
    class Config:
        pass

    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        vectors = torch.zeros(len(prompts), paths, 0, self.backbone.width, device=self.backbone.device)
        return Thoughts(vectors, torch.zeros(vectors.shape[:-1], dtype=torch.bool, device=self.backbone.device))


class Direct(CoT):
    """The answer at once: the slot stays empty and the reply starts at the answer's mark. Nothing is trained.

    The reply ends with the line it starts on, in writing already: whatever a model would write on is no part of it.
    """

    name = "direct"

    def render(self, example: Example, task: Task) -> Prompt:
        prompt = super().render(example, task)
        _, after = self.backbone.around(self.message(example, task), task.mark)
        return replace(prompt, after=after, target=prompt.target[-len(prompt.answer) - 1 :], begun=task.mark, ends="")

    def answer(
        self, prompts: Sequence[Prompt], thoughts: Thoughts, decoding: Decoding, *, draws: int = 1, seed: int = 0
    ) -> list[list[list[Completion]]]:
        limit = ANSWER_TOKENS if decoding.max_new_tokens is None else min(decoding.max_new_tokens, ANSWER_TOKENS)
        written = super().answer(prompts, thoughts, replace(decoding, max_new_tokens=limit), draws=draws, seed=seed)
        return [[[self._first_line(reply) for reply in path] for path in example] for example in written]

    def _first_line(self, reply: Completion) -> Completion:
        """A reply up to the end of its first line that holds anything."""
        for count in range(1, len(reply.tokens) + 1):
            text = self.backbone.tokenizer.decode(reply.tokens[:count], skip_special_tokens=True)
            line, ended, _ = text.lstrip().partition("\n")
            if ended:
                return Completion(text[: len(text) - len(text.lstrip())] + line, reply.tokens[:count], True)
        return reply


class SoftPrompt(LatentMethod):
    """The same learned vectors for every question: what a method gains beyond tuning a prompt (Lester et al. 2021)."""

    name = "soft-prompt"

    @dataclass(frozen=True)
    class Config:
        thoughts: int = 4
        """Learned vectors per question."""

        def __post_init__(self) -> None:
            bounded(self, thoughts=(1, 1024))

    def __init__(self, backbone: Backbone, config: Config):
        super().__init__(backbone, config)
        rows = torch.randint(len(backbone.table), (config.thoughts,))
        self.vectors = nn.Parameter(backbone.embed(rows).detach().float().clone())  # starts as words

    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        vectors = self.vectors.expand(len(prompts), paths, -1, -1)
        return Thoughts(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device))
