"""The options of LTA-Thinker. The first value of each choice is the default; what was published is marked."""

import math
from dataclasses import dataclass
from typing import Literal

from ...config import allowed, bounded

Positive = Literal["answer", "middle", "last", "random", "oracle"]


@dataclass(frozen=True)
class LTAThinkerConfig:
    """The corrected method by default; `reference()` for the published one."""

    thoughts: int = 4
    """Thoughts per question (the paper's L-N)."""
    likelihood_weight: float = 1.0
    """Weight of the likelihood of the worked steps and the answer."""
    alignment_weight: float = 0.01
    """Weight of the alignment between question and thoughts; large weights pull all thoughts to one point. The KL over
    features is about half the mean squared difference, for thoughts as large as words the mean square of an embedding's
    feature (0.006 on the shipped model, 0.018 on SmolLM2): at this weight some 1e-4 of the total, as good as off. A
    weight of 1 / that square makes it of order one on any model; alignment=cosine is so by itself."""
    focus_weight: float = 0.01
    """Weight of the contrast between the positive step and the others."""
    temperature: float = 0.1
    """Temperature of the focus loss."""
    context: Literal["question", "leaky"] = "question"
    """What the generator reads in training: the question, or (as published) the gold steps too."""
    step_vectors: Literal["content", "turn-end"] = "content"
    """A step's vector: the mean over its tokens, or (as published) the output at its end-of-turn token."""
    slots: Literal["learned", "token-ids"] = "learned"
    """What stands at the slots: learned vectors, or (as published) the embeddings of tokens from slot_start on."""
    input_norm: Literal["unit-rms", "none"] = "unit-rms"
    """Generator inputs scaled to what its weights expect, or (as published) raw, embeddings some 30 times smaller."""
    output_scale: float | None = 1.0
    """RMS of a thought in units of the input embeddings' RMS; None leaves the projection's own scale (as published)."""
    heads: int | None = None
    """Attention heads of the block. None: as many as leave each 128 features or more, so that training moves attention
    as fast at any width (one on the shipped model, 4 on SmolLM2); 1 is published."""
    projection_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision the projection is trained in; in bfloat16 (as published) small updates are lost."""
    adamw_width: int | None = 128
    """Width up to which AdamW's rate is taken as it is given; for wider generators that of their matrices falls as the
    width grows. None (as published) takes it for all, and the attention of a wide block can be lost in a few steps."""
    likelihood_mean: Literal["example", "token"] = "example"
    """Average the likelihood per example, or (as published) over all tokens of the micro-batch."""
    generator: Literal["block", "linear", "assistant"] = "block"
    """What the projection reads: the block's outputs; without a block, the slot plus the question's mean embedding; or
    without a block, the last states of a frozen language model that reads the question and the slots."""
    assistant: str = ""
    """The language model of generator="assistant": a backbone name, folder or hub id; empty for the backbone itself."""
    positions: bool = False
    """Sinusoidal positions added to the block's inputs; without (as published) it cannot see the order of words."""
    slot_start: int | None = None
    """Id of the first slot's token; None takes the published one (Qwen, Llama 3), else the last rows of the table."""
    alignment: Literal["feature-kl", "cosine", "vocabulary-kl", "none"] = "feature-kl"
    """Distance from question to thoughts: KL between softmaxes over features (as published), 1 - cosine, KL between the
    words the backbone's output head reads in them, or no such loss."""
    positive: Positive = "answer"
    """Step the focus loss pulls to the question: nearest the answer (as published), middle (of S the one at S // 2,
    counted from 0), last, random (fixed per example), or the example's label critical_step."""

    def __post_init__(self) -> None:
        allowed(self)
        weights = dict.fromkeys(("likelihood_weight", "alignment_weight", "focus_weight"), (0.0, math.inf))
        bounded(self, thoughts=(1, 1024), heads=(1, 1024), temperature=(1e-6, math.inf), **weights)
        bounded(self, output_scale=(1e-6, math.inf), slot_start=(0, math.inf), adamw_width=(1, 1e9))
        for name, idle, needed in (
            ("assistant", self.generator != "assistant", "generator='assistant'"),
            ("positions", self.generator != "block", "generator='block'"),
            ("heads", self.generator != "block" and self.heads != 1, "generator='block'"),
            ("slot_start", self.slots != "token-ids", "slots='token-ids'"),
        ):
            value = getattr(self, name)
            if idle and value != getattr(type(self), name):
                raise ValueError(f"{name}={value!r} would change nothing here: it needs {needed}; give both or neither")

    @classmethod
    def reference(cls, thoughts: int = 4) -> "LTAThinkerConfig":
        """The published behaviour."""
        return cls(
            thoughts=thoughts, likelihood_weight=0.33, alignment_weight=0.33, focus_weight=0.33, context="leaky",
            step_vectors="turn-end", slots="token-ids", input_norm="none", output_scale=None,
            projection_dtype="bfloat16", heads=1, adamw_width=None, likelihood_mean="token",
        )  # fmt: skip
