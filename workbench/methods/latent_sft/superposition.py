"""A thought as a superposition of words: which and how heavy, with what noise, and how far from what was taught.

u = R h          I = the K largest of u          w = softmax(u_I)          z = sum_I w_v embedding(v)
"""

from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ...backbone.label_losses import PIECE
from ..mixtures import gumbel_softmax

FLOOR = 1e-10  # added to weights before their logarithm, as published
CLIP = (-1.5, 3.0)  # of the noise, as in the published code (the paper has none)


def superposed(
    logits: Float[Tensor, "*_ vocabulary"], components: int | None, forbidden: Bool[Tensor, "vocabulary"] | None = None
) -> tuple[Int[Tensor, "*_ component"], Float[Tensor, "*_ component"]]:
    """The `components` likeliest words (None: all) and their weights, which sum to 1; the heaviest first.

    Softmax is taken over the chosen alone, in float32 at least. Gradients run through the weights, not the choice.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if forbidden is not None:
        wide = wide.masked_fill(forbidden, -torch.inf)
    size = wide.shape[-1]
    chosen, tokens = wide.topk(size if components is None else min(components, size), dim=-1)
    return tokens, chosen.softmax(-1)


def noised(
    weights: Float[Tensor, "slot component"],
    tokens: Int[Tensor, "slot component"] | None,
    gumbel: Float[Tensor, "slot component"],
    scale: float = 1.0,
    temperature: float = 1.0,
    end: int | None = None,
) -> Float[Tensor, "slot component"]:
    """Weights with noise: softmax((ln(w + 1e-10) + clip(scale g)) / temperature), g standard Gumbel draws.

    Of the word `end` the noise is capped so that it never becomes the heaviest (paper, stage 2; the published code
    draws again instead).
    """
    noise = (scale * gumbel).clamp(*CLIP)
    if end is not None and tokens is not None and bool((tokens == end).any()):
        sums = (weights + FLOOR).log() + noise
        other = sums.masked_fill(tokens == end, -torch.inf).amax(-1, keepdim=True)
        over = (sums - other + 1e-3).clamp(min=0).masked_fill(~other.isfinite(), 0)
        noise = noise - over * (tokens == end)
    return gumbel_softmax(weights + FLOOR, noise, temperature)


def divergence(
    logits: Float[Tensor, "slot vocabulary"],
    tokens: Int[Tensor, "slot component"],
    weights: Float[Tensor, "slot component"],
) -> Float[Tensor, "slot"]:
    """KL(w || softmax(logits)) in nats, over the whole vocabulary; weights are made to sum to 1 (paper, stage 2).

    sum w ln w - sum w u + logsumexp(u): no [slot, vocabulary] matrix of log-probabilities is made. Padding: weight 0.
    """
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    w = weights.to(wide) / weights.sum(-1, keepdim=True).to(wide)
    expected = (w * wide.gather(-1, tokens.clamp(min=0))).sum(-1)
    return wide.logsumexp(-1) - expected - torch.special.entr(w).sum(-1)


def divergences(
    states: Float[Tensor, "slot feature"],
    tokens: Int[Tensor, "slot component"],
    weights: Float[Tensor, "slot component"],
    head: nn.Linear,
    piece: int = PIECE,
) -> Float[Tensor, "slot"]:
    """The same from states, a piece of at most `piece` bytes of logits at a time; gradients reach states and head."""

    def one(part: Tensor, words: Tensor, heavy: Tensor) -> Tensor:
        return divergence(F.linear(part.to(head.weight.dtype), head.weight, head.bias), words, heavy)

    size = max(1, piece // (4 * len(head.weight)))
    parts = list(zip(states.split(size), tokens.split(size), weights.split(size), strict=True))
    if len(parts) == 1 or not torch.is_grad_enabled():
        return torch.cat([one(*part) for part in parts])
    again = [checkpoint(one, *part, use_reentrant=False, preserve_rng_state=False) for part in parts]
    return torch.cat([cast(Tensor, found) for found in again])
