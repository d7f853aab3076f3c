"""Thoughts as weighted means of embeddings: which words, how heavy, with what noise.

z = sum_j w_j embedding(token_j),   w >= 0,   sum_j w_j = 1
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone import Backbone
from ..backbone.decoding import Decoding, likeliest, nucleus


def likely(
    p: Float[Tensor, "row vocabulary"], limits: Decoding, components: int
) -> tuple[Int[Tensor, "row component"], Float[Tensor, "row component"]]:
    """The `components` likeliest tokens within the limits and their weights, which sum to 1; the heaviest first.

    Limits hold one after the other, each on what the one before leaves.
    """
    falling, tokens = likeliest(p, limits)
    count = min(components, falling.shape[-1])
    kept = torch.arange(count, device=p.device) < nucleus(falling, limits)
    weights = falling[:, :count] * kept
    return tokens[:, :count], weights / weights.sum(-1, keepdim=True)


def disturbed(
    weights: Float[Tensor, "row component"],
    noise: Literal["gumbel", "dirichlet"],
    amount: float,
    chances: Sequence[np.random.Generator],
) -> Float[Tensor, "row component"]:
    """Weights with noise; what weighs nothing stays so, and each row has its own random numbers.

    amount: the temperature of a Gumbel-softmax, or the concentration a of Dirichlet(a w), whose mean is w.
    """
    w = weights.double().cpu().numpy()
    if noise == "gumbel":
        drawn = np.stack([chance.gumbel(size=len(row)) for row, chance in zip(w, chances, strict=True)])
        return gumbel_softmax(weights, torch.from_numpy(drawn).to(weights), amount)
    # ln Gamma(a) = ln Gamma(a + 1) + ln(U) / a; drawn itself, all of a small concentration would round to 0
    logs = np.full_like(w, -np.inf)
    for line, row, chance in zip(logs, np.where(w > 0, amount * w, 1.0), chances, strict=True):
        line[:] = np.log(chance.standard_gamma(row + 1)) - chance.standard_exponential(len(row)) / row
    return torch.from_numpy(np.where(w > 0, logs, -np.inf)).softmax(-1).to(weights)


def gumbel_softmax(
    weights: Float[Tensor, "row component"], noise: Float[Tensor, "row component"], temperature: float
) -> Float[Tensor, "row component"]:
    """softmax((ln w + g) / temperature), for g of the Gumbel distribution (Jang et al. 2017, Maddison et al. 2017)."""
    return ((weights.log() + noise) / temperature).softmax(-1)


def mixed(
    backbone: Backbone, tokens: Int[Tensor, "*rows component"], weights: Float[Tensor, "*rows component"]
) -> Float[Tensor, "*rows feature"]:
    """The weighted mean of the tokens' embeddings, summed in float32 at least, in the table's precision.

    Of a plain table in such precision the rows are never laid side by side (`mean_rows`). Embeddings get no gradient.
    """
    reader, wide = backbone.model.get_input_embeddings(), torch.promote_types(backbone.table.dtype, torch.float32)
    tokens, weights = tokens.to(backbone.device).clamp(min=0), weights.to(backbone.device, wide)
    if type(reader) is nn.Embedding and reader.weight.dtype == wide and tokens.shape[-1]:
        return mean_rows(reader.weight.detach(), tokens, weights)
    embeds = backbone.embed(tokens).detach()
    return (weights[..., None] * embeds.to(wide)).sum(-2).to(embeds.dtype)


def mean_rows(
    table: Float[Tensor, "vocabulary feature"],
    tokens: Int[Tensor, "*rows component"],
    weights: Float[Tensor, "*rows component"],
) -> Float[Tensor, "*rows feature"]:
    """The weighted sum of rows of a table; gradients reach the weights."""
    count = tokens.shape[-1]
    rows = F.embedding_bag(tokens.reshape(-1, count), table, per_sample_weights=weights.reshape(-1, count), mode="sum")
    return rows.view(*tokens.shape[:-1], table.shape[1])
