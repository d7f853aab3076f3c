"""LTA-Thinker: one small transformer block reads the question's embeddings and writes N thoughts (arXiv 2509.12875).

    Y = norm(X + attention(X)),  Z = norm(Y + W2 relu(W1 Y)),  U = Wp Z          X = [question, end of turn, slots]
    loss = likelihood + alignment_weight KL(softmax u_question || softmax u_thought)
                      + focus_weight CE(cos(u_question, u_step_i) / 0.1, i*),    i* = argmax_i cos(step_i, answer)

The thoughts are U at the slots. `LTAThinkerConfig()` is the corrected method; `LTAThinkerConfig.reference()` is the
published behaviour, whose three surprises are options here: the generator reads the gold steps in training
(`context="leaky"`), a step is represented by its end-of-turn token, so that all steps are one vector and the focus loss
is the constant log S without a gradient (`step_vectors="turn-end"`), and the slots are ordinary token embeddings.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone import Backbone, pad
from ..config import bounded
from .base import LatentMethod, Losses, Prompt, Thoughts

NOWHERE = -1e9  # the similarity of a step that is not there


@dataclass(frozen=True)
class LTAThinkerConfig:
    """The corrected method by default; `reference()` for the published one."""

    thoughts: int = 4
    """Thoughts per question (the paper's L-N)."""
    likelihood_weight: float = 1.0
    """Weight of the likelihood of the worked steps and the answer."""
    alignment_weight: float = 0.01
    """Weight of the KL between question and thoughts; large weights pull all thoughts to one point."""
    focus_weight: float = 0.01
    """Weight of the contrast between the positive step and the others."""
    temperature: float = 0.1
    """Temperature of the focus loss."""
    context: Literal["question", "leaky"] = "question"
    """What the generator reads in training: the question, or (as published) the gold steps too."""
    step_vectors: Literal["content", "turn-end"] = "content"
    """A step's vector: the mean over its tokens, or (as published) the output at its end-of-turn token."""
    slots: Literal["learned", "token-ids"] = "learned"
    """What stands at the slots: learned vectors, or (as published) rare tokens, here the last of the table."""
    input_norm: Literal["unit-rms", "none"] = "unit-rms"
    """Embeddings scaled to what the generator's weights expect, or (as published) raw and some 30 times smaller."""
    output_scale: float | None = 1.0
    """RMS of a thought in units of the embedding table's RMS; None leaves the projection's own scale (as published)."""
    heads: int = 1
    """Attention heads of the block."""
    projection_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision the projection is trained in; in bfloat16 (as published) small updates are lost."""
    likelihood_mean: Literal["example", "token"] = "example"
    """Average the likelihood per example, or (as published) over all tokens of the micro-batch."""

    def __post_init__(self) -> None:
        weights = dict.fromkeys(("likelihood_weight", "alignment_weight", "focus_weight"), (0.0, math.inf))
        bounded(self, thoughts=(1, 1024), heads=(1, 1024), temperature=(1e-6, math.inf), **weights)
        bounded(self, output_scale=(1e-6, math.inf))

    @classmethod
    def reference(cls, thoughts: int = 4) -> "LTAThinkerConfig":
        """The published behaviour."""
        return cls(
            thoughts=thoughts, likelihood_weight=0.33, alignment_weight=0.33, focus_weight=0.33, context="leaky",
            step_vectors="turn-end", slots="token-ids", input_norm="none", output_scale=None,
            projection_dtype="bfloat16", likelihood_mean="token",
        )  # fmt: skip


class ThoughtBlock(nn.Module):
    """One post-norm transformer layer: single attention without positions or causal mask, ReLU feed-forward, RMSNorm.

    Parameters are named and shaped as in the published `TransformerBlock.bin`.
    """

    def __init__(self, width: int, hidden: int, heads: int = 1, eps: float = 1e-6):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.RMSNorm(width, eps), nn.RMSNorm(width, eps)

    def forward(
        self,
        inputs: Float[Tensor, "row position feature"],
        mask: Bool[Tensor, "row position"],
        keep: slice = slice(None),
    ) -> Float[Tensor, "row kept feature"]:
        """Outputs at the positions `keep` (all read all real positions); the others are never computed."""
        queries = inputs if keep == slice(None) else inputs[:, keep]  # not copied, below not fused: rounds as published
        mixed, _ = self.self_attn(queries, inputs, inputs, key_padding_mask=~mask)
        states = self.norm1(queries + mixed)
        return self.norm2(states + self.linear2(F.relu(self.linear1(states))))


class LTAThinker(LatentMethod):
    name = "lta-thinker"
    Config = LTAThinkerConfig
    presets = {"reference": LTAThinkerConfig.reference()}  # noqa: RUF012

    def __init__(self, backbone: Backbone, config: LTAThinkerConfig):
        super().__init__(backbone, config)
        if backbone.width % config.heads:
            raise ValueError(f"heads is {config.heads}; give a divisor of the backbone's width {backbone.width}")
        shape = backbone.model.config.to_dict()
        hidden = shape.get("intermediate_size") or 4 * backbone.width  # GPT-2 leaves it unsaid
        self.block = ThoughtBlock(backbone.width, hidden, config.heads, shape.get("rms_norm_eps", 1e-6))
        self.projection = nn.Linear(backbone.width, backbone.width, dtype=getattr(torch, config.projection_dtype))
        if config.slots == "learned":
            self.slots = nn.Parameter(torch.randn(config.thoughts, backbone.width))
        self.turn_end = torch.tensor([backbone.tokenizer.eos_token_id])
        self.unit = backbone.table.detach().float().square().mean().sqrt().item()  # RMS of the embedding table
        self.to(backbone.device)

    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        return self._thoughts(self._read(prompts, leaky=False)[1], paths)

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        config = self.config
        question, thoughts, steps = self._read(prompts, leaky=config.context == "leaky")
        nll = self.likelihood(prompts, self._thoughts(thoughts, 1))
        likelihood = nll.mean()
        if config.likelihood_mean == "token":
            counts = torch.tensor([len(p.target) for p in prompts], device=nll.device)
            likelihood = (nll * counts).sum() / counts.sum()
        alignment = alignment_loss(question, thoughts).mean()
        total = config.likelihood_weight * likelihood + config.alignment_weight * alignment
        parts, warnings = {"likelihood": likelihood, "alignment": alignment}, {}
        if config.focus_weight and not any(p.steps for p in prompts):
            parts |= {"focus": total.new_zeros(()), "focus_log_steps": total.new_zeros(())}
        elif config.focus_weight:
            to_answer, to_question, there = self._similarities(prompts, question, steps)
            present = there.any(1)  # an example without steps has nothing to focus on
            focus = (focus_loss(to_question, to_answer, there, config.temperature) * present).mean()
            total = total + config.focus_weight * focus
            parts |= {"focus": focus, "focus_log_steps": there.sum(1).clamp(min=1).log().mean()}
            warnings[DEGENERATE] = is_degenerate(to_question, there)
        return Losses(total, parts, warnings)

    def step_similarities(self, prompts: Sequence[Prompt]) -> dict[str, Float[Tensor, "example reasoning"]]:
        if not any(p.steps for p in prompts):
            return {name: torch.zeros(len(prompts), 0) for name in ("answer", "question")}
        question, _, steps = self._read(prompts, leaky=self.config.context == "leaky")
        to_answer, to_question, there = self._similarities(prompts, question, steps)
        return {
            "answer": to_answer.masked_fill(~there, torch.nan),
            "question": to_question.masked_fill(~there, torch.nan),
        }

    def _thoughts(self, vectors: Float[Tensor, "example step feature"], paths: int) -> Thoughts:
        """The same thoughts on every path: nothing here is sampled."""
        vectors = vectors[:, None].expand(-1, paths, -1, -1)
        return Thoughts(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device))

    def _read(self, prompts: Sequence[Prompt], leaky: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """(question [example, feature], thoughts [example, step, feature], step vectors of a leaky read or None).

        The block has no positions, so a row may be `[question, gold steps | ends of steps | end of question | slots]`
        with everything whose output is needed standing last.
        """
        count, ends, rows = self.config.thoughts, 0, [p.question for p in prompts]
        if leaky:
            ends = max(len(p.steps) for p in prompts)
            rows = [torch.cat([p.question, *p.steps, self.turn_end.repeat(len(p.steps))]) for p in prompts]
        inputs, mask = self._inputs([torch.cat([row, self.turn_end]) for row in rows], slots=True)
        outputs = self._project(self.block(inputs, mask, slice(-(count + 1 + ends), None)))
        steps, question, thoughts = outputs.split([outputs.shape[1] - count - 1, 1, count], 1)
        # left padding puts an example's ends last; they are one token without position, so flipping only aligns them
        return question[:, 0], thoughts, steps.flip(1) if leaky else None

    def _inputs(self, rows: Sequence[Int[Tensor, "_"]], slots: bool = False) -> tuple[Tensor, Tensor]:
        """Left-padded generator inputs and their mask: embeddings of the rows, then the slots."""
        ids, mask = pad(rows, "left")
        inputs, mask = self.backbone.embed(ids).float(), mask.to(self.backbone.device)
        if slots and self.config.slots == "token-ids":
            rare = torch.arange(len(self.backbone.table) - self.config.thoughts, len(self.backbone.table))
            inputs = torch.cat([inputs, self.backbone.embed(rare).float().expand(len(rows), -1, -1)], 1)
        if self.config.input_norm == "unit-rms":
            inputs = unit_rms(inputs)
        if slots and self.config.slots == "learned":
            inputs = torch.cat([inputs, self.slots.expand(len(rows), -1, -1)], 1)
        return inputs, torch.cat([mask, mask.new_ones(len(rows), inputs.shape[1] - mask.shape[1])], 1)

    def _project(self, states: Tensor) -> Tensor:
        thoughts = self.projection(states.to(self.projection.weight.dtype)).float()
        if self.config.output_scale is None:
            return thoughts
        return unit_rms(thoughts) * self.config.output_scale * self.unit

    def _similarities(
        self, prompts: Sequence[Prompt], question: Tensor, steps: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Cosine of each gold step to answer and question, and which steps are there, all [example, reasoning]."""
        answer = self._mean_embeddings([p.answer for p in prompts])
        counts = [len(p.steps) for p in prompts]
        there = torch.arange(max(counts), device=answer.device) < torch.tensor(counts, device=answer.device)[:, None]
        if steps is not None and self.config.step_vectors == "turn-end":
            ours = theirs = steps.masked_fill(~there[..., None], 0)
        else:
            flat = [step for p in prompts for step in p.steps]
            turn_end = self.config.step_vectors == "turn-end"
            inputs, mask = self._inputs([torch.cat([step, self.turn_end]) if turn_end else step for step in flat])
            outputs = self._project(self.block(inputs, mask, slice(-1, None) if turn_end else slice(None)))
            pooled = outputs[:, 0] if turn_end else (outputs * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
            ours = question.new_zeros(*there.shape, self.backbone.width)
            theirs = torch.zeros_like(ours)
            ours[there] = pooled
            # Step and answer are compared in one space, the frozen embeddings (the published code mixes two).
            theirs[there] = self._mean_embeddings(flat)
        to_answer = F.cosine_similarity(theirs, answer[:, None], dim=-1)
        return to_answer, F.cosine_similarity(ours, question[:, None], dim=-1), there

    def _mean_embeddings(self, rows: Sequence[Int[Tensor, "_"]]) -> Float[Tensor, "row feature"]:
        ids, mask = pad(rows, "right")
        weights = mask.to(self.backbone.device)[..., None]
        return (self.backbone.embed(ids).float() * weights).sum(1) / weights.sum(1)


DEGENERATE = "the focus loss is the constant log S with zero gradient: all step vectors of an example are identical"


def unit_rms(vectors: Float[Tensor, "*_ feature"]) -> Float[Tensor, "*_ feature"]:
    """Vectors scaled to a root mean square of one."""
    return vectors * vectors.square().mean(-1, keepdim=True).add(1e-12).rsqrt()


def alignment_loss(
    question: Float[Tensor, "example feature"], thoughts: Float[Tensor, "example step feature"]
) -> Float[Tensor, "example"]:
    """KL(softmax(question) || softmax(thought)) over the features, summed over features, mean over thoughts."""
    log_p, log_r = question.log_softmax(-1)[:, None], thoughts.log_softmax(-1)
    return (log_p.exp() * (log_p - log_r)).sum(-1).mean(-1)


def focus_loss(
    to_question: Float[Tensor, "example reasoning"],
    to_answer: Float[Tensor, "example reasoning"],
    there: Bool[Tensor, "example reasoning"],
    temperature: float = 0.1,
) -> Float[Tensor, "example"]:
    """InfoNCE over an example's own steps: the one nearest the answer is the positive (the first of equals).

    An example without steps scores the constant log(columns), as published; callers leave it out.
    """
    positive = to_answer.masked_fill(~there, NOWHERE).argmax(1)
    return F.cross_entropy(to_question.masked_fill(~there, NOWHERE) / temperature, positive, reduction="none")


def is_degenerate(
    to_question: Float[Tensor, "example reasoning"], there: Bool[Tensor, "example reasoning"]
) -> Bool[Tensor, ""]:
    """Whether some example has several steps and in all such examples they are equally near the question."""
    low = to_question.masked_fill(~there, torch.inf).amin(1)
    high = to_question.masked_fill(~there, -torch.inf).amax(1)
    several = there.sum(1) > 1
    return several.any() & ((high - low)[several] < 1e-5).all()
