"""The slow loop: what the weights learn from thoughts that the fast loop found.

`final`: the likelihood at a sample of the posterior (the paper's algorithm). `trajectory`: its mean over all steps of
the fast loop, which is what drives the released code, whose inner gradients are never cleared.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from .decoder import NONE, Decoder, Reading
from .inference import Draws, Found, Gaussian, Loop, infer


@dataclass(frozen=True)
class Text:
    """Rows of tokens, what is to follow each (NONE: does not count), and which places are real (None: all)."""

    tokens: Int[Tensor, "example position"]
    targets: Int[Tensor, "example position"]
    there: Bool[Tensor, "example position"] | None

    @property
    def counts(self) -> int:
        """Targets that count."""
        return int((self.targets != NONE).sum())

    def read(self, decoder: Decoder, plain: bool = False) -> Reading:
        return decoder.read(decoder.embedding(self.tokens), self.there, chunked=not plain)


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Inside, no weight asks for a gradient, so that none is made."""
    asking = [p for p in module.parameters() if p.requires_grad]
    for p in asking:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in asking:
            p.requires_grad_(True)


def found_for(
    decoder: Decoder,
    text: Text,
    start: Gaussian,
    noise: Draws,
    loop: Loop,
    *,
    plain: bool = False,
    watch: Callable[[int, Gaussian], None] | None = None,
) -> Found:
    """The fast loop on texts: weights rest, and what does not depend on z is read once.

    `plain`: everything is read again in each step, attention over all places, logits whole, weights asking too.
    """
    if plain:
        return infer(lambda z: _plainly(decoder, text, z), start, noise, loop, watch=watch)
    with resting(decoder):
        with torch.no_grad():
            reading = text.read(decoder)
        return infer(lambda z: decoder.nll(decoder.states(reading, z), text.targets), start, noise, loop, watch=watch)


def _plainly(decoder: Decoder, text: Text, z: Tensor) -> Tensor:
    return decoder.nll(decoder.states(text.read(decoder, plain=True), z), text.targets, whole=True)


def gradients_of(
    decoder: Decoder,
    text: Text,
    weights: Sequence[Tensor],
    start: Gaussian,
    noise: Draws,
    loop: Loop,
    watch: Callable[[int, Gaussian], None] | None = None,
    plain: bool = False,
) -> Found:
    """The fast loop with the weights' gradients of the likelihood along it, summed over steps, examples and tokens.

    What does not depend on z is read once; its gradients are added up over the steps and followed to the weights in the
    end. `plain`: as in `found_for`.
    """
    if plain:
        return infer(lambda z: _plainly(decoder, text, z), start, noise, loop, learned=weights, watch=watch)
    with torch.enable_grad():
        read = text.read(decoder)
    outer = [read.hidden] if read.queries is None else [read.hidden, read.queries]
    inner = [value.detach().requires_grad_() for value in outer]
    reading = Reading(inner[0], None if read.queries is None else inner[1], read.turn, read.seen, read.chunked)
    found = infer(
        lambda z: decoder.nll(decoder.states(reading, z), text.targets), start, noise, loop,
        learned=[*inner, *weights], watch=watch,
    )  # fmt: skip
    ends, own = found.gradients[: len(inner)], found.gradients[len(inner) :]
    reached = [(value, end) for value, end in zip(outer, ends, strict=True) if end is not None]
    if reached:
        values, slopes = zip(*reached, strict=True)
        first = torch.autograd.grad(values, list(weights), slopes, allow_unused=True)
        own = [a if b is None else b if a is None else a + b for a, b in zip(own, first, strict=True)]
    found.gradients = own
    return found


class _Known(torch.autograd.Function):
    """A number whose gradients are known already."""

    @staticmethod
    def forward(ctx, value: Tensor, gradients: Sequence[Tensor | None], *weights: Tensor) -> Tensor:  # pyright: ignore
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx, upstream: Tensor):  # pyright: ignore
        own = (None if g is None else upstream * g for g in ctx.gradients)
        return (None, None, *own)


def known(value: Tensor, gradients: Sequence[Tensor | None], weights: Sequence[Tensor]) -> Tensor:
    """`value`, whose backward pass hands these gradients to the weights."""
    found: Tensor = _Known.apply(value, gradients, *weights)  # pyright: ignore[reportAssignmentType]
    return found
