"""What the decoder is built of: norms, turns of places, attention over a window, a layer."""

from typing import Any

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn
from torch.nn import functional as F

EPS = 1e-5  # of the norms
BASE = 10_000.0  # of RoPE
Pair = tuple[Tensor, Tensor]  # keys and values


class Attention(nn.Module):
    """The four maps of an attention."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.heads = heads

    def split(self, x: Float[Tensor, "*_ feature"]) -> Float[Tensor, "*_ head size"]:
        return x.unflatten(-1, (self.heads, -1))


class Norm(nn.Module):
    """x / rms(x) * weight, in float32 at least."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*_ feature"]) -> Float[Tensor, "*_ feature"]:
        found: Any = _Normed.apply(x, self.weight)
        return found


class _Normed(torch.autograd.Function):
    """Its gradient by hand: on a CPU torch makes a dozen small steps of it."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        size = (wide.square().mean(-1, keepdim=True) + EPS).rsqrt()
        unit = wide * size
        ctx.save_for_backward(unit, size, weight)
        return (unit * weight).to(x.dtype)

    @staticmethod
    def backward(ctx, slope: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore
        unit, size, weight = ctx.saved_tensors
        own = (slope * unit).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        slope = slope * weight
        return (size * (slope - unit * (slope * unit).mean(-1, keepdim=True))).to(slope.dtype), own


class Layer(nn.Module):
    """Self-attention, cross-attention (where there are latents), feed-forward."""

    def __init__(self, width: int, inner: int, heads: int, crossed: bool):
        super().__init__()
        self.self_norm, self.self = Norm(width), Attention(width, heads)
        if crossed:
            self.cross_norm, self.cross = Norm(width), Attention(width, heads)
        self.mlp_norm = Norm(width)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def own(self, x: Tensor, turn: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of self-attention, [row, position, head, size]."""
        own, x = self.self, self.self_norm(x)
        return turned(own.split(own.q(x)), turn), turned(own.split(own.k(x)), turn), own.split(own.v(x))

    def queries(self, x: Tensor, turn: Tensor) -> Tensor:
        """Queries of cross-attention."""
        return turned(self.cross.split(self.cross.q(self.cross_norm(x))), turn)

    def latent_pairs(self, z: Tensor, turn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Keys and values of this layer's latent vectors, [row, head, latent, size]."""
        keys, values = self.cross.split(self.cross.k(z)), self.cross.split(self.cross.v(z))
        return (keys if turn is None else turned(keys, turn)).transpose(1, 2), values.transpose(1, 2)

    def crossed(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """What cross-attention adds."""
        mixed = F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values)
        return self.cross.o(mixed.transpose(1, 2).flatten(2))

    def fed(self, x: Tensor) -> Tensor:
        """What the feed-forward layer adds."""
        x = self.mlp_norm(x)
        return self.down(F.silu(self.gate(x)) * self.up(x))


def rotation(positions: Tensor, size: int, dtype: torch.dtype) -> Complex[Tensor, "*_ half"]:
    """RoPE's turns at these positions, as numbers of length 1, for vectors of this precision (float32 at least)."""
    wide = torch.promote_types(dtype, torch.float32)
    rates = BASE ** (-torch.arange(0, size, 2, device=positions.device, dtype=wide) / size)
    angles = positions[..., None].to(wide) * rates
    return torch.polar(torch.ones_like(angles), angles)


def turned(x: Float[Tensor, "row position head size"], turn: Complex[Tensor, "_ position half"]) -> Tensor:
    """Neighbouring pairs of features turned together."""
    pairs = torch.view_as_complex(x.to(turn.real.dtype).unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn[:, :, None]).flatten(-2).to(x.dtype)


def masked(count: int, window: int, there: Tensor | None, like: Tensor) -> Bool[Tensor, "_ 1 query key"]:
    """Who reads whom: the last `window` places, itself included; of padding only itself, so that no row is empty."""
    places = torch.arange(count, device=like.device)
    apart = places[:, None] - places
    near = ((apart >= 0) & (apart < window))[None]
    if there is not None:
        near = near & there[:, None] | (apart == 0)
    return near[:, None]


def seen_in_chunks(
    count: int, window: int, there: Tensor | None, device: torch.device
) -> Bool[Tensor, "example_or_1 chunk query key"]:
    """The same, chunk by chunk: keys are those of the chunk before, then its own."""
    number = -(-count // window)
    query, key = torch.arange(window, device=device)[:, None], torch.arange(2 * window, device=device)
    own = key == query + window
    near = (key <= query + window) & (key > query)
    known = torch.ones(1, count, dtype=torch.bool, device=device) if there is None else there
    known = F.pad(known, (window, number * window - count))
    pairs = torch.cat(
        [known[:, :-window].unflatten(1, (number, window)), known[:, window:].unflatten(1, (number, -1))], 2
    )
    return near & pairs[:, :, None] | own


def chunks(x: Tensor, window: int) -> Tensor:
    """[row, position, head, size] -> [row x chunk, window, head, size]."""
    more = -x.shape[1] % window
    return F.pad(x, (0, 0, 0, 0, 0, more)).unflatten(1, (-1, window)).flatten(0, 1)


def with_before(x: Tensor, window: int) -> Tensor:
    """Each chunk behind the one before it, [row x chunk, 2 window, head, size]."""
    padded = F.pad(x, (0, 0, 0, 0, window, -x.shape[1] % window))
    before, own = (part.unflatten(1, (-1, window)) for part in (padded[:, :-window], padded[:, window:]))
    return torch.cat([before, own], 2).flatten(0, 1)
