"""Answers: text behind rows of vectors, written by `writing` and read back as words.

An answer may hold thoughts between its words, where a method's step makes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from .decoding import Decoding
from .thoughts import Step, Thoughts
from .writing import Reader, words, write


@dataclass(frozen=True)
class Completion:
    """One answer: its text, its token ids without the stop token, and whether it stopped by itself.

    `thoughts` [1, 1, step, ...] are those made while it was written, each at its place; None where there could be none.
    They are not compared by `==`.
    """

    text: str
    tokens: tuple[int, ...]
    finished: bool
    thoughts: Thoughts | None = field(default=None, compare=False)


class Writer(Reader, Protocol):
    """What answers need of a language model besides."""

    @property
    def tokenizer(self) -> Any: ...
    def room(self, length: int, wanted: int) -> int: ...


@torch.no_grad()
def generate(
    backbone: Writer,
    rows: Sequence[Float[Tensor, "_ feature"]],
    decoding: Decoding,
    *,
    draws: int = 1,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    plain: bool = False,
    step: Step | None = None,
    layers: Sequence[int] = (),
) -> list[list[Completion]]:
    """`draws` answers for each row of vectors; the next row enters as soon as others have left enough room.

    An answer that reaches the end of a bounded window (`Backbone.bounded`) ends there, unfinished.

    At most batch_size x draws answers are being written at any time; None: all at once. Sampling takes one uniform
    number per token from a generator seeded by (seeds[row], draw): what else is in the batch never changes an answer.

    `step` (with the states of `layers`) makes the inputs, None: words by `decoding`; thoughts count as tokens of
    `max_new_tokens`, and have random numbers too.

    `plain` writes one batch after the other, with a copy of the prompt for every draw and with transformers' own cache
    and attention; so do models whose attention is of another kind (`shareable`). Both write the same up to rounding.
    """
    limit, sampled = decoding.max_new_tokens, decoding.temperature > 0
    if limit is None:
        raise ValueError("max_new_tokens is not given; give the most tokens of an answer, such as the task's own")
    if sampled and (seeds is None or len(seeds) != len(rows)):
        raise ValueError(f"sampling needs one seed per row ({len(rows)}); give seeds=[...] or temperature 0")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: it must be at least 1")
    if not rows:
        return []
    limits = [backbone.room(len(row), limit) for row in rows]
    written = write(
        backbone, rows, step or words(decoding), limits, copies=draws, seeds=seeds if sampled else None,
        batch_size=batch_size, layers=layers, plain=plain,
    )  # fmt: skip
    texts = backbone.tokenizer.batch_decode(written.words, skip_special_tokens=True)
    parts = zip(texts, written.words, written.ended, written.each_thoughts(), strict=True)
    flat = [Completion(text, tuple(ids), ended, thoughts) for text, ids, ended, thoughts in parts]
    return [flat[k : k + draws] for k in range(0, len(flat), draws)]
