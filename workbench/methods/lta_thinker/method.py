"""The method: questions are read, thoughts written, losses weighed. The formulas stand in the package's docstring."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone import Backbone, pad
from ...tasks import Example, Task
from ..assistant import load_assistant, read, slot_ids
from ..base import LatentMethod, Losses, Prompt, Thoughts
from .config import LTAThinkerConfig
from .generator import ThoughtBlock, at, sinusoids, unit_rms, usual_heads, with_mean
from .losses import (
    DEGENERATE,
    alignment_loss,
    cosine_alignment,
    focus_loss,
    is_degenerate,
    nearest_step,
    positive_step,
    vocabulary_alignment,
)


class LTAThinker(LatentMethod):
    """LTA-Thinker: one small transformer block reads the question's embeddings and writes N thoughts."""

    name = "lta-thinker"
    Config = LTAThinkerConfig
    presets = {"reference": LTAThinkerConfig.reference()}  # noqa: RUF012

    def __init__(self, backbone: Backbone, config: LTAThinkerConfig):
        super().__init__(backbone, config)
        self.assistant = load_assistant(config.assistant, backbone)
        width = self.reader.width
        self.block = None
        if config.generator == "block":
            heads = config.heads or usual_heads(width)
            if width % heads:
                raise ValueError(f"heads is {heads}; give a divisor of the backbone's width {width}")
            shape = backbone.model.config.get_text_config(decoder=True).to_dict()
            hidden = shape.get("intermediate_size") or 4 * width  # GPT-2 leaves it unsaid
            self.block = ThoughtBlock(width, hidden, heads, shape.get("rms_norm_eps", 1e-6))
        self.projection = nn.Linear(width, backbone.width, dtype=getattr(torch, config.projection_dtype))
        if config.slots == "learned":
            self.slots = nn.Parameter(torch.randn(config.thoughts, width))
        else:
            self.slot_ids = slot_ids(self.reader, config.thoughts, config.slot_start)
        self.turn_end = torch.tensor([self.reader.turn_end])
        self.unit = backbone.input_scale.item()
        self.reader_unit = self.unit if self.assistant is None else self.assistant.input_scale.item()
        self.to(backbone.device)

    @property
    def reader(self) -> Backbone:
        """The language model whose tokens and embeddings the generator reads."""
        return self.backbone if self.assistant is None else self.assistant

    def start(self, stage: int, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """Find an example without the label that `positive="oracle"` needs before training, not in the midst of it."""
        if self.config.focus_weight and self.config.positive == "oracle":
            self._positives(prompts)
        return prompts

    def pace(self, name: str) -> float:
        """A step of AdamW moves each weight by as much, so what a matrix makes of a row moves with the row's width: the
        rate of matrices falls with the width (Yang et al. 2022), or the logits of one wide head run away.

        Measured on SmolLM2 (width 576, rate 0.002 as it is): after 12 steps each slot attends to one position, the same
        for all questions, and the relative spread of its thoughts has gone from 3e-3 to 3e-11.
        """
        matrix = name.endswith("weight") and "norm" not in name
        return min(1.0, (self.config.adamw_width or math.inf) / self.reader.width) if matrix else 1.0

    def render(self, example: Example, task: Task) -> Prompt:
        """As ever, but a prompt pack may put its own words before the question that the generator reads."""
        prompt = super().render(example, task)
        if task.prompts is None:
            return prompt
        asked = task.reading(example.question, self.backbone.family, self.config.thoughts)
        return replace(prompt, example=replace(example, question=asked), question=self.backbone.plain_ids(asked))

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
        total = config.likelihood_weight * likelihood
        parts, warnings = {"likelihood": likelihood}, {}
        if config.alignment != "none":
            parts["alignment"] = self._alignment(question, thoughts).mean()
            total = total + config.alignment_weight * parts["alignment"]
        if config.focus_weight and not any(p.steps for p in prompts):
            parts |= {"focus": total.new_zeros(()), "focus_log_steps": total.new_zeros(())}
        elif config.focus_weight:
            to_answer, to_question, there = self._similarities(prompts, question, steps)
            positive = nearest_step(to_answer, there) if config.positive == "answer" else self._positives(prompts)
            present = there.any(1)  # an example without steps has nothing to focus on
            focus = (focus_loss(to_question, positive, there, config.temperature) * present).mean()
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

    def _alignment(
        self, question: Float[Tensor, "example feature"], thoughts: Float[Tensor, "example step feature"]
    ) -> Float[Tensor, "example"]:
        if self.config.alignment == "cosine":
            return cosine_alignment(question, thoughts)
        if self.config.alignment == "vocabulary-kl":
            return vocabulary_alignment(question, thoughts, self.backbone.read_out)
        return alignment_loss(question, thoughts)

    def _positives(self, prompts: Sequence[Prompt]) -> Int[Tensor, "example"]:
        return torch.tensor([positive_step(p, self.config.positive) for p in prompts], device=self.backbone.device)

    def _read(self, prompts: Sequence[Prompt], leaky: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """(question [example, feature], thoughts [example, step, feature], step vectors of a leaky read or None).

        A row is `[question | slots]`, in a leaky read `[question | gold steps, each with its turn end | slots]`. The
        outputs where its parts end and at the slots are all that is needed.
        """
        rows = [[self._question(p), *(self._steps(p, ended=True) if leaky else ())] for p in prompts]
        lengths = [[len(part) for part in row] for row in rows]
        length, most = max(map(sum, lengths)), max(map(len, lengths))
        keep = []
        for parts in lengths:
            ends = [length - sum(parts) + end - 1 for end in accumulate(parts)]  # rows are padded on the left
            ends += ends[:1] * (most - len(parts))  # any position will do where there is no step
            keep.append([*ends, *range(length, length + self.config.thoughts)])
        outputs = self._generate([torch.cat(row) for row in rows], torch.tensor(keep), slots=True)
        question, steps, thoughts = outputs.split([1, most - 1, self.config.thoughts], 1)
        return question[:, 0], thoughts, steps if leaky else None

    def _question(self, prompt: Prompt) -> Int[Tensor, "_"]:
        """The question as the generator reads it; its last position stands for all of it."""
        if self.config.generator == "assistant":
            return self.reader.ids(self.reader.chat(prompt.example.question))
        return torch.cat([prompt.question, self.turn_end])

    def _steps(self, prompt: Prompt, ended: bool = False) -> list[Int[Tensor, "_"]]:
        """The gold steps in the reader's tokens, each behind its turn end if asked."""
        own = prompt.steps
        if self.assistant is not None:
            own = [self.assistant.plain_ids(step + "\n") for step in prompt.example.steps]
        return [torch.cat([step, self.turn_end]) for step in own] if ended else list(own)

    def _generate(
        self, rows: Sequence[Int[Tensor, "_"]], keep: Int[Tensor, "row kept"] | None, slots: bool = False
    ) -> Float[Tensor, "row kept feature"]:
        """Projected outputs of left-padded rows, with the slots behind them if asked, at the positions `keep`."""
        config, count = self.config, self.config.thoughts if slots else 0
        ids, real = pad(rows, "left")
        text, mask = (F.pad(real.to(self.backbone.device), (0, count), value=slot) for slot in (False, True))
        keep = None if keep is None else keep.to(self.backbone.device)
        if config.generator == "assistant":
            states = at(self._states(ids, real, count), keep)
        elif self.block is None:
            states = with_mean(self._inputs(ids, count), text, keep)
        else:
            inputs = self._inputs(ids, count)
            if config.positions:
                scale = 1.0 if config.input_norm == "unit-rms" else self.unit
                inputs = inputs + scale * sinusoids((mask.long().cumsum(1) - 1).clamp(min=0), inputs.shape[2])
            states = self.block(inputs, mask, keep)
        thoughts = self.projection(states.to(self.projection.weight.dtype)).float()
        return thoughts if config.output_scale is None else unit_rms(thoughts) * config.output_scale * self.unit

    def _inputs(self, ids: Int[Tensor, "row text"], count: int) -> Float[Tensor, "row position feature"]:
        """Embeddings, then `count` slots."""
        parts = [self.backbone.embed(ids).float()]
        if count and self.config.slots == "token-ids":
            parts.append(self.backbone.embed(self.slot_ids).float().expand(len(ids), -1, -1))
        if self.config.input_norm == "unit-rms":
            parts = [unit_rms(part) for part in parts]
        if count and self.config.slots == "learned":
            parts.append(self.slots.expand(len(ids), -1, -1))
        return torch.cat(parts, 1)

    def _states(
        self, ids: Int[Tensor, "row text"], real: Bool[Tensor, "row text"], count: int
    ) -> Float[Tensor, "row position feature"]:
        """Last states of the assistant, which reads the text and then `count` slots."""
        reader = self.reader
        if count:  # learned at scale one, read at the scale of words
            tokens = self.config.slots == "token-ids"
            slots = reader.embed(self.slot_ids) if tokens else self.slots * self.reader_unit
            text, behind = read(reader, ids, real, slots[None])
            states = torch.cat([text, behind[:, 0]], 1)
        else:
            states = reader.run(reader.embed(ids), real.to(reader.device)).hidden
            assert states is not None
        return unit_rms(states.float()) if self.config.input_norm == "unit-rms" else states.float()

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
            ours = question.new_zeros(*there.shape, self.backbone.width)
            theirs = torch.zeros_like(ours)
            ours[there] = self._step_vectors(prompts)
            # Step and answer are compared in one space, the frozen embeddings (the published code mixes two).
            theirs[there] = self._mean_embeddings([step for p in prompts for step in p.steps])
        to_answer = F.cosine_similarity(theirs, answer[:, None], dim=-1)
        return to_answer, F.cosine_similarity(ours, question[:, None], dim=-1), there

    def _step_vectors(self, prompts: Sequence[Prompt]) -> Float[Tensor, "total feature"]:
        """Outputs of all examples' steps, each read by itself: at its turn end, or the mean over its tokens."""
        if self.config.step_vectors == "turn-end":
            ended = [step for p in prompts for step in self._steps(p, ended=True)]
            last = torch.full((len(ended), 1), max(map(len, ended)) - 1)
            return self._generate(ended, last)[:, 0]
        rows = [step for p in prompts for step in self._steps(p)]
        mask = pad(rows, "left")[1].to(self.backbone.device)
        return (self._generate(rows, None) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def _mean_embeddings(self, rows: Sequence[Int[Tensor, "_"]]) -> Float[Tensor, "row feature"]:
        ids, mask = pad(rows, "right")
        weights = mask.to(self.backbone.device)[..., None]
        return (self.backbone.embed(ids).float() * weights).sum(1) / weights.sum(1)
