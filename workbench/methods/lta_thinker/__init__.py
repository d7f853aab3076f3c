"""LTA-Thinker: one small transformer block reads the question's embeddings and writes N thoughts (arXiv 2509.12875).

    Y = norm(X + attention(X)),  Z = norm(Y + W2 relu(W1 Y)),  U = Wp Z          X = [question, end of turn, slots]
    loss = likelihood + alignment_weight KL(softmax u_question || softmax u_thought)
                      + focus_weight CE(cos(u_question, u_step_i) / 0.1, i*),    i* = argmax_i cos(step_i, answer)

The thoughts are U at the slots. `LTAThinkerConfig()` is the corrected method; `LTAThinkerConfig.reference()` is the
published behaviour, whose three surprises are options here: the generator reads the gold steps in training
(`context="leaky"`), a step is represented by its end-of-turn token, so that all steps are one vector and the focus loss
is the constant log S without a gradient (`step_vectors="turn-end"`), and the slots are ordinary token embeddings.

Each part has variants: what writes the thoughts (`generator`, `positions`), what holds them to the question
(`alignment`), which step they shall point at (`positive`).
"""

from ..assistant import slot_ids
from .config import LTAThinkerConfig
from .generator import ThoughtBlock, sinusoids, unit_rms, with_mean
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
from .method import LTAThinker

__all__ = [
    "DEGENERATE",
    "LTAThinker",
    "LTAThinkerConfig",
    "ThoughtBlock",
    "alignment_loss",
    "cosine_alignment",
    "focus_loss",
    "is_degenerate",
    "nearest_step",
    "positive_step",
    "sinusoids",
    "slot_ids",
    "unit_rms",
    "vocabulary_alignment",
    "with_mean",
]
