"""Soft Thinking (Zhang et al. 2025, arXiv 2505.15778): a model that thinks reads all it might say instead of one word.

    p = softmax(logits / T)                 entropy = -sum p ln p, in nats, of all of p
    q = top k, then top p, then min p of p, renormalised each time
    w = the n largest of q, renormalised, disturbed if asked, the largest first
    next input = sum_j w_j embedding(token_j)

Thinking ends when the heaviest token completes the end mark (`</think>`; for a model without such marks the one that
announces the answer), by cold stop (the entropy stayed below a threshold for so many steps), or at the length cap. The
end mark is then read as text and the answer written as ever. Nothing is trained. It is meant for reasoning models;
published results are poor below some 14 billion parameters.

Without noise the heaviest word decides nearly every step, so that it comes close to greedy decoding ("LLMs are
Single-threaded Reasoners", arXiv 2508.03440, whose Gumbel and Dirichlet noise is here too): the signal `top_weight`,
the weight of the likeliest word, and the remark on a store say how close.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..backbone import Backbone, Completion
from ..config import allowed, bounded
from ..decoding import Decoding, pick
from ..tasks import Example, Task
from ..thoughts import Made, State
from .base import LatentMethod, Prompt, Thoughts, draw_seed
from .loops import unroll
from .mixtures import disturbed, likely, mixed

EXITS = ("", "at the end mark", "by cold stop", "at the length cap", "at the end of text")  # by the signal "exit"
MARK, COLD, CAP, TEXT = 1, 2, 3, 4
ONE_WORD, MOSTLY = 0.99, 0.9  # weight above which a mixture is one word, share of such above which it is like greedy


@dataclass(frozen=True)
class SoftThinkingConfig:
    """As published with defects mended; `reference()` is the published behaviour."""

    components: int = 10
    """Words mixed into a thought (n); 1 is greedy decoding."""
    temperature: float = 0.6
    """Of the probabilities; 0 takes the likeliest word alone (and the entropy at temperature 1)."""
    top_k: int | None = 30
    """Mix this many likeliest words at most; null: no such limit."""
    top_p: float = 0.95
    """Mix the smallest set of words with this share of what top_k leaves."""
    min_p: float = 0.001
    """Mix words at least this many times as likely as the likeliest."""
    feedback: Literal["mixture", "mean", "hidden", "sample", "greedy"] = "mixture"
    """The next input: the mixture; or a control: its words weighted alike, the last state (Coconut untrained), one word
    drawn from them (chain of thought in the same loop), the likeliest word."""
    noise: Literal["none", "gumbel", "dirichlet"] = "none"
    """How weights are disturbed; with noise every path has thoughts of its own."""
    gumbel_temperature: float = 0.5
    """Softness of the Gumbel-softmax; towards 0 it draws one word, towards infinity all weigh the same."""
    dirichlet_alpha: float = 1.0
    """Concentration: disturbed weights are Dirichlet(alpha w); large is no noise."""
    cold_stop_entropy: float = 0.01
    """Entropy in nats below which a step counts as certain; 0 switches the cold stop off."""
    cold_stop_steps: int = 256
    """Certain steps in a row that end thinking."""
    end: str = ""
    """Text that ends thinking; empty takes </think> where the tokenizer has it, else the task's answer mark."""
    end_match: Literal["whole", "last-token"] = "whole"
    """What of an end mark of several tokens must be shown: all of it, or (as published) its last token."""
    end_of_text: Literal["ends-thinking", "stops"] = "ends-thinking"
    """A model that would end its reply within a thought goes on to the answer, or (as published) stops without one."""
    max_thoughts: int = 512
    """Length cap of thinking."""
    seed: int = 0
    """Seed of noise and samples; each question and path draws its own."""

    def __post_init__(self) -> None:
        allowed(self)
        bounded(self, components=(1, 4096), temperature=(0, math.inf), top_k=(1, math.inf), top_p=(1e-9, 1))
        bounded(self, min_p=(0, 1), gumbel_temperature=(1e-9, math.inf), dirichlet_alpha=(1e-9, math.inf))
        bounded(self, cold_stop_entropy=(0, math.inf), cold_stop_steps=(1, math.inf), max_thoughts=(1, math.inf))
        if self.noise != "none" and self.feedback != "mixture":
            raise ValueError(f"noise={self.noise!r} disturbs weights, which feedback={self.feedback!r} does not use")

    @classmethod
    def reference(cls) -> "SoftThinkingConfig":
        """The published behaviour."""
        return cls(end_match="last-token", end_of_text="stops")

    @classmethod
    def gumbel(cls) -> "SoftThinkingConfig":
        """The settings of the published Gumbel runs: five words, no cold stop."""
        return cls(components=5, min_p=0.0, noise="gumbel", cold_stop_entropy=0.0)


class SoftThinking(LatentMethod):
    """Soft Thinking: the next input is the mean of the likely words' embeddings, by probability. Nothing is trained."""

    name = "soft-thinking"
    Config = SoftThinkingConfig
    trained = False
    trials = ({}, {"temperature": 1.0}, {"components": 3})
    presets = {"reference": SoftThinkingConfig.reference(), "gumbel": SoftThinkingConfig.gumbel()}  # noqa: RUF012

    def render(self, example: Example, task: Task) -> Prompt:
        """The reply has been opened and thinking goes on there; behind it stands the end mark."""
        prompt, (begin, end) = super().render(example, task), self.backbone.marks
        if end != "</think>":
            before = torch.cat([prompt.before, prompt.after])  # where a chain of thought would be written
            end = self.config.end or task.mark
            begun = task.mark if end.rstrip().endswith(task.mark) else ""
            return replace(prompt, before=before, after=self.backbone.ids(end), begun=begun)
        text = self.backbone.chat(self.message(example, task, ""), thinking=True)
        opened = text if text.rstrip().endswith(begin) else f"{text}{begin}\n"
        return replace(prompt, before=self.backbone.ids(opened), after=self.backbone.ids(self.config.end or end))

    @torch.no_grad()
    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        drawn = self.config.noise != "none" or self.config.feedback == "sample"
        chains = _Chains(self.backbone, self.config, prompts, paths if drawn else 1)
        own = paths if drawn else 1
        thoughts = unroll(self.backbone, prompts, chains.step, self.config.max_thoughts, chains.stop, paths=own)
        finished = chains.finished(thoughts)
        return finished if drawn else finished.over_paths(paths)

    def answer(
        self, prompts: Sequence[Prompt], thoughts: Thoughts, decoding: Decoding, *, draws: int = 1, seed: int = 0
    ) -> list[list[list[Completion]]]:
        """Answers behind the end mark, which stands before them where it announces an answer.

        A chain that ended at the end of text has none.
        """
        answers = super().answer(prompts, thoughts, decoding, draws=draws, seed=seed)
        last = _last_token(thoughts).tolist()
        for i, prompt in enumerate(prompts):
            mark = self.backbone.tokenizer.decode(prompt.after)
            lead = "" if mark in self.backbone.marks else f"{mark} "
            for path, found in enumerate(answers[i]):
                none = last[i][path] in self.backbone.stops
                answers[i][path] = [
                    Completion("", (), True) if none else replace(one, text=lead + one.text) for one in found
                ]
        return answers

    def remark(self, thoughts: Sequence[Thoughts]) -> str:
        """How soft the thoughts were and how their chains ended."""
        told = [t for t in thoughts if "top_weight" in t.signals]
        weights = torch.cat([t.signals["top_weight"][t.mask] for t in told]) if told else torch.zeros(0)
        if not len(weights):
            return ""
        exits = torch.cat([t.signals["exit"][t.mask] for t in told]).int()
        ended = ", ".join(f"{int((exits == code).sum())} {EXITS[code]}" for code in (MARK, COLD, CAP, TEXT))
        share = float((weights > ONE_WORD).float().mean())
        greedy = "effectively" if share > MOSTLY else "mostly" if share > 0.5 else "not"
        return (
            f"in {100 * share:.1f} % of {len(weights):,} thoughts the likeliest word weighs more than {ONE_WORD}: "
            f"{greedy} greedy decoding; chains ended: {ended}"
        )


class _Chains:
    """The chains of one call: what each row has shown last, for how long it has been certain, and how it ended."""

    def __init__(self, backbone: Backbone, config: SoftThinkingConfig, prompts: Sequence[Prompt], paths: int):
        self.backbone, self.config = backbone, config
        device, count = backbone.device, len(prompts) * paths
        end = prompts[0].after.to(device)
        self.end = end[-1:] if config.end_match == "last-token" else end
        self.stops = torch.tensor(sorted(backbone.stops), device=device)
        self.limits = Decoding(1, config.temperature, config.top_p, config.top_k, config.min_p)
        self.shown = torch.full((count, len(self.end)), -1, device=device)  # the latest tokens of each row
        self.calm, self.exits = (torch.zeros(count, dtype=torch.long, device=device) for _ in range(2))
        self.chance = [
            np.random.default_rng(draw_seed(config.seed, p.example.id, path)) for p in prompts for path in range(paths)
        ]

    def step(self, state: State) -> Made:
        """The next thoughts; a row that shows the end of text reads just that if it is to stop there."""
        config = self.config
        p = (state.logits / (config.temperature or 1.0)).softmax(-1)
        entropy = torch.special.entr(p).sum(-1)
        tokens, weights = self._mixture(state, p)
        certain = entropy < config.cold_stop_entropy
        self.calm[state.rows] = (self.calm[state.rows] + 1) * certain
        self.shown[state.rows] = torch.cat([self.shown[state.rows][:, 1:], tokens[:, :1]], 1)
        alone = torch.isin(tokens[:, :1], self.stops) & (config.end_of_text == "stops")
        first = torch.arange(weights.shape[1], device=weights.device) == 0
        weights = torch.where(alone, first.to(weights.dtype), weights)
        likeliest = tokens == state.logits.argmax(-1, keepdim=True)
        signals = {"entropy": entropy, "top_weight": (weights * likeliest).sum(-1)}
        vector = mixed(self.backbone, tokens, weights)
        if config.feedback == "hidden":
            token = torch.where(alone[:, 0], tokens[:, 0], -1)
            return Made(torch.where(alone, vector, state.hidden), token, signals)
        return Made(vector, torch.where(weights[:, 0] == 1, tokens[:, 0], -1), signals, (tokens, weights))

    def stop(self, state: State, made: Made) -> Bool[Tensor, "row"]:
        """Cold stop comes first, whatever would have been said; then the end mark, then the end of text."""
        rows, published = state.rows, self.config.end_of_text == "stops"
        over = self.exits[rows] == TEXT  # it has been read as the last thought
        text = torch.isin(self.shown[rows, -1], self.stops)
        mark = (self.shown[rows] == self.end).all(1)
        cold = (self.calm[rows] >= self.config.cold_stop_steps) & ~(text & published)
        found = torch.zeros_like(rows)
        for code, which in ((TEXT, text), (MARK, mark), (COLD, cold), (TEXT, over)):
            found = found.masked_fill(which, code)
        self.exits[rows] = found
        return (found > 0) & (over | ~((found == TEXT) & published))

    def finished(self, thoughts: Thoughts) -> Thoughts:
        """Without the thoughts that showed the first tokens of the end mark, and with the signal how chains ended."""
        exits = self.exits.view(thoughts.mask.shape[:2])
        exits = exits.masked_fill(exits == 0, CAP)
        begun = (len(self.end) - 1) * (exits == MARK)  # of the mark, which is read whole behind the thoughts
        left = thoughts.mask.sum(2) - begun
        place = torch.arange(thoughts.mask.shape[2], device=left.device)
        mask = place < left[..., None]
        last = place == left[..., None] - 1
        signals = thoughts.signals | {"exit": (last * exits[..., None]).float()}
        return replace(
            thoughts,
            vectors=thoughts.vectors * mask[..., None],
            mask=mask,
            tokens=None if thoughts.tokens is None else thoughts.tokens.masked_fill(~mask, -1),
            signals={name: value.masked_fill(~mask, torch.nan) for name, value in signals.items()},
        )

    def _mixture(
        self, state: State, p: Float[Tensor, "row vocabulary"]
    ) -> tuple[Int[Tensor, "row component"], Float[Tensor, "row component"]]:
        config = self.config
        if config.temperature == 0 or config.feedback == "greedy":
            token = state.logits.argmax(-1, keepdim=True)
            return token, torch.ones_like(token, dtype=p.dtype)
        if config.feedback == "sample":
            chance = torch.tensor([self.chance[row].random() for row in state.rows.tolist()], dtype=p.dtype)
            token = pick(state.logits, self.limits, chance.to(p.device), state.rows.new_zeros(len(p), 0))[:, None]
            return token, torch.ones_like(token, dtype=p.dtype)
        tokens, weights = likely(p, self.limits, config.components)
        if config.feedback == "mean":
            weights = (weights > 0) / (weights > 0).sum(-1, keepdim=True)
        if config.noise == "none":
            return tokens, weights
        chances = [self.chance[row] for row in state.rows.tolist()]
        amount = config.gumbel_temperature if config.noise == "gumbel" else config.dirichlet_alpha
        weights, order = disturbed(weights, config.noise, amount, chances).sort(dim=-1, descending=True, stable=True)
        return tokens.gather(-1, order), weights


def _last_token(thoughts: Thoughts) -> Int[Tensor, "example path"]:
    """The token that the last thought is, or -1."""
    if thoughts.tokens is None or not thoughts.mask.shape[2]:
        return torch.full(thoughts.mask.shape[:2], -1)
    last = (thoughts.mask.sum(2) - 1).clamp(min=0)
    return thoughts.tokens.gather(2, last[..., None])[..., 0].masked_fill(~thoughts.mask.any(2), -1)
