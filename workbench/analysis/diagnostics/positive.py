"""Positive steps: the gold step that is most similar to the answer, and what the focus loss makes of a choice.

weight_k = exp(cos(step_k, question) / T) / sum over the example's steps       focus loss = -log weight_positive
"""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class PositiveStep:
    """Which gold step is most similar, per example. Arrays over examples."""

    index: np.ndarray  # -1 where an example has no steps; the first of equals
    similarity: np.ndarray  # of the chosen step, NaN without steps
    margin: np.ndarray  # to the second best, NaN with fewer than two
    candidates: np.ndarray  # number of steps
    log_candidates: np.ndarray  # nats: the focus loss of a generator that cannot tell steps apart; NaN without steps


def positive_step(similarity: ArrayLike) -> PositiveStep:
    """The most similar step of each row of `similarity` [example, reasoning]; NaN = the example has no such step."""
    s = np.asarray(similarity, dtype=np.float64)
    if s.ndim != 2 or np.isinf(s).any():
        raise ValueError(f"similarity of shape {s.shape}: give [example, reasoning] with finite values or NaN")
    candidates = (~np.isnan(s)).sum(axis=1)
    filled = np.concatenate([np.where(np.isnan(s), -np.inf, s), np.full((len(s), 2), -np.inf)], axis=1)
    ordered = np.sort(filled, axis=1)[:, ::-1]
    best, second = ordered[:, 0], ordered[:, 1]
    return PositiveStep(
        index=np.where(candidates > 0, filled.argmax(axis=1), -1),
        similarity=np.where(candidates > 0, best, np.nan),
        margin=np.subtract(best, second, out=np.full(len(s), np.nan), where=candidates > 1),
        candidates=candidates,
        log_candidates=np.log(candidates, out=np.full(len(s), np.nan), where=candidates > 0),
    )


def focus_weights(to_question: ArrayLike, temperature: float = 0.1) -> np.ndarray:
    """Softmax over each example's own steps of cosines to the question [example, reasoning], divided by `temperature`;
    NaN = no such step, in and out.

    Minus the logarithm of the positive step's weight is the focus loss (arXiv 2509.12875; InfoNCE, arXiv 1807.03748).
    """
    s = np.asarray(to_question, dtype=np.float64)
    if s.ndim != 2 or np.isinf(s).any():
        raise ValueError(f"similarities of shape {s.shape}: give [example, reasoning] with finite values or NaN")
    if not temperature > 0:
        raise ValueError(f"temperature {temperature}: give a number above 0, such as the loss's own 0.1")
    if not s.shape[1]:
        return s
    scaled = np.where(np.isnan(s), -np.inf, s / temperature)
    top = scaled.max(axis=1, keepdims=True)
    parts = np.exp(scaled - np.where(np.isinf(top), 0, top))
    total = parts.sum(axis=1, keepdims=True)
    return np.divide(parts, total, out=np.full(s.shape, np.nan), where=~np.isnan(s))


def random_step(example: str, candidates: int) -> int:
    """The step that the rule "random" takes: drawn from the example's id, so always the same one; -1 of none.

    The loss draws it likewise (`methods.lta_thinker`), where torch is at home.
    """
    drawn = int.from_bytes(blake2b(f"0 {example} 0".encode(), digest_size=7).digest())
    return drawn % candidates if candidates else -1


def choice_stability(choices: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(share of examples whose choice is that of the row before, that of the last row), both [time], of choices
    [time, example] such as `PositiveStep.index` over training; -1 is no choice, and such an example does not count.

    The first row has no row before it, and a row without any example to compare no share: NaN.
    """
    c = np.asarray(choices)
    if c.ndim != 2 or not len(c) or c.dtype.kind not in "iu":
        raise ValueError(f"choices of shape {c.shape}, {c.dtype}: give step numbers [time, example], -1 for none")

    def alike(one: np.ndarray, other: np.ndarray) -> float:
        known = (one >= 0) & (other >= 0)
        return float((one == other)[known].mean()) if known.any() else np.nan

    before = [np.nan, *(alike(one, other) for one, other in zip(c[1:], c[:-1], strict=True))]
    return np.array(before), np.array([alike(row, c[-1]) for row in c])
