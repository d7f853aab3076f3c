"""What a thought is made of: the state before it, the word that would come next, or both."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


def expected_word(
    logits: Float[Tensor, "row vocabulary"],
    table: Float[Tensor, "vocabulary feature"],
    mark: int,
    top_p: float,
    temperature: float = 1.0,
    exclusive: bool = False,
) -> Float[Tensor, "row feature"]:
    """Mean embedding of the next word's nucleus, the mark left out (specification: the paper's section on CPF).

    The nucleus is the shortest beginning of the likeliest words whose mass reaches `top_p`; `exclusive` leaves out the
    word that crosses it, as the released code does. The likeliest always stays. Softmax is taken in float32 at least;
    gradients run through probabilities and embeddings, not through the choice.
    """
    forbidden = torch.arange(logits.shape[-1], device=logits.device) == mark
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    p = (wide / temperature).masked_fill(forbidden, -torch.inf).softmax(-1)
    weights = p * _nucleus(p.detach(), top_p, exclusive)
    return (weights / weights.sum(-1, keepdim=True)).to(table.dtype) @ table


def _nucleus(p: Float[Tensor, "row vocabulary"], top_p: float, exclusive: bool) -> Bool[Tensor, "row vocabulary"]:
    falling, order = p.sort(dim=-1, descending=True, stable=True)
    total = falling.cumsum(-1)
    kept = total <= top_p if exclusive else total - falling < top_p
    kept[:, 0] = True
    return torch.zeros_like(kept).scatter(-1, order, kept)


def fused(
    state: Float[Tensor, "*_ feature"], word: Float[Tensor, "*_ feature"], alpha: float
) -> Float[Tensor, "*_ feature"]:
    """Context-Prediction Fusion: alpha state + (1 - alpha) word."""
    return alpha * state + (1 - alpha) * word


class Adapter(nn.Module):
    """A bottleneck that thoughts pass through: LayerNorm(up(GELU(down(z)))), without a residual path."""

    def __init__(self, width: int, hidden: int, norm: bool = True):
        super().__init__()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm = nn.LayerNorm(width, eps=1e-5) if norm else nn.Identity()

    def forward(self, z: Float[Tensor, "row feature"]) -> Float[Tensor, "row feature"]:
        return self.norm(self.up(F.gelu(self.down(z.to(self.down.weight.dtype))))).to(z.dtype)
