"""The losses of LTA-Thinker on vectors: how far thoughts are from the question, and which step the question is near."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..base import Prompt, draw_seed
from .config import Positive

NOWHERE = -1e9  # the similarity of a step that is not there
DEGENERATE = "the focus loss is the constant log S with zero gradient: all step vectors of an example are identical"


def alignment_loss(
    question: Float[Tensor, "example feature"], thoughts: Float[Tensor, "example step feature"]
) -> Float[Tensor, "example"]:
    """KL(softmax(question) || softmax(thought)) over the features, summed over features, mean over thoughts."""
    log_p, log_r = question.log_softmax(-1)[:, None], thoughts.log_softmax(-1)
    return (log_p.exp() * (log_p - log_r)).sum(-1).mean(-1)


def cosine_alignment(
    question: Float[Tensor, "example feature"], thoughts: Float[Tensor, "example step feature"]
) -> Float[Tensor, "example"]:
    """1 - cos(question, thought), from 0 to 2, mean over thoughts."""
    return 1 - F.cosine_similarity(thoughts, question[:, None], dim=-1).mean(-1)


def vocabulary_alignment(
    question: Float[Tensor, "example feature"],
    thoughts: Float[Tensor, "example step feature"],
    read_out: Callable[[Tensor], Tensor],
) -> Float[Tensor, "example"]:
    """KL(softmax(read_out(question)) || softmax(read_out(thought))) over words in nats, mean over thoughts.

    `read_out` turns [example, feature] into logits [example, vocabulary]. A vocabulary is wide: one thought's logits
    exist at a time, in the backward pass too, where they are computed again.
    """
    log_p = read_out(question).log_softmax(-1)

    def divergence(log_p: Tensor, thought: Tensor) -> Tensor:
        return (log_p.exp() * (log_p - read_out(thought).log_softmax(-1))).sum(-1)

    each = [
        checkpoint(divergence, log_p, thought, use_reentrant=False, preserve_rng_state=False)  # nothing is drawn
        for thought in thoughts.unbind(1)
    ]
    return torch.stack(each, 1).mean(1)


def focus_loss(
    to_question: Float[Tensor, "example reasoning"],
    positive: Int[Tensor, "example"],
    there: Bool[Tensor, "example reasoning"],
    temperature: float = 0.1,
) -> Float[Tensor, "example"]:
    """InfoNCE over an example's own steps, of cosines to the question, for the step `positive`.

    An example without steps scores the constant log(columns), as published; callers leave it out.
    """
    return F.cross_entropy(to_question.masked_fill(~there, NOWHERE) / temperature, positive, reduction="none")


def nearest_step(
    to_answer: Float[Tensor, "example reasoning"], there: Bool[Tensor, "example reasoning"]
) -> Int[Tensor, "example"]:
    """The published positive: the step most similar to the answer, the first of equals (0 without steps)."""
    return to_answer.masked_fill(~there, NOWHERE).argmax(1)


def positive_step(prompt: Prompt, rule: Positive) -> int:
    """The positive step that an example's own data name, counted from 0; 0 without steps.

    middle: of S steps number S // 2, the later of two. random: drawn from the example's id, so always the same one.
    oracle: the label `critical_step`; ValueError where the example has no such step.
    """
    count = len(prompt.steps)
    if not count:
        return 0
    if rule == "middle":
        return count // 2
    if rule == "last":
        return count - 1
    if rule == "random":
        return draw_seed(0, prompt.example.id, 0) % count
    assert rule == "oracle", rule  # "answer" is decided by vectors: see nearest_step
    critical = prompt.example.labels.get("critical_step")
    if not isinstance(critical, int) or not 0 <= critical < count:
        found = "no label 'critical_step'" if critical is None else f"label 'critical_step' {critical!r}"
        raise ValueError(
            f"positive='oracle' takes the step that the label 'critical_step' names, but example {prompt.example.id!r} "
            f"of {count} steps has {found}; use a task that labels it, like arith-shift, or another positive"
        )
    return critical


def is_degenerate(
    to_question: Float[Tensor, "example reasoning"], there: Bool[Tensor, "example reasoning"]
) -> Bool[Tensor, ""]:
    """Whether some example has several steps and in all such examples they are equally near the question."""
    low = to_question.masked_fill(~there, torch.inf).amin(1)
    high = to_question.masked_fill(~there, -torch.inf).amax(1)
    several = there.sum(1) > 1
    return several.any() & ((high - low)[several] < 1e-5).all()
