"""What makes generator outputs from generator inputs: the block, and what stands in for it and its inputs."""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

HEAD = 128  # features: the shipped model's width, at which one head is right


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
        keep: Int[Tensor, "row kept"] | None = None,
    ) -> Float[Tensor, "row kept feature"]:
        """Outputs at the positions `keep` (all read all real positions); the others are never computed."""
        queries = at(inputs, keep)
        mixed, _ = self.self_attn(queries, inputs, inputs, key_padding_mask=~mask)
        states = self.norm1(queries + mixed)
        return self.norm2(states + self.linear2(F.relu(self.linear1(states))))


def usual_heads(width: int) -> int:
    """The most heads that leave each at least `HEAD` features; one for a narrower model.

    An optimiser's step moves queries and keys by as much per feature at any width, all in one direction, and their
    product by the square root of a head's features as much. So one wide head is decided, for the same position whatever
    the question, while a narrow one still looks around.
    """
    return next(count for count in range(max(1, width // HEAD), 0, -1) if width % count == 0)


def at(
    vectors: Float[Tensor, "row position feature"], keep: Int[Tensor, "row kept"] | None
) -> Float[Tensor, "row kept feature"]:
    """The vectors at the positions `keep` of each row; the very same tensor when None."""
    return vectors if keep is None else vectors[torch.arange(len(vectors), device=vectors.device)[:, None], keep]


def with_mean(
    inputs: Float[Tensor, "row position feature"],
    text: Bool[Tensor, "row position"],
    keep: Int[Tensor, "row kept"] | None = None,
) -> Float[Tensor, "row kept feature"]:
    """Inputs at `keep` plus the mean input over `text`: all that a generator without attention sees of a question.

    A linear map of the slots alone would give every question the same thoughts.
    """
    weights = text[..., None]
    return at(inputs, keep) + (inputs * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


def sinusoids(positions: Int[Tensor, "row position"], width: int) -> Float[Tensor, "row position feature"]:
    """Fixed positions, RMS sqrt(1/2): sines, then cosines, of wave lengths 2 pi to 20000 pi (Vaswani et al. 2017)."""
    half = (width + 1) // 2
    rates = torch.exp(torch.arange(half, device=positions.device) * (-math.log(10000) / half))
    angles = positions[..., None] * rates
    return torch.cat([angles.sin(), angles.cos()], -1)[..., :width]


def unit_rms(vectors: Float[Tensor, "*_ feature"]) -> Float[Tensor, "*_ feature"]:
    """Vectors scaled to a root mean square of one."""
    return vectors * vectors.square().mean(-1, keepdim=True).add(1e-12).rsqrt()
