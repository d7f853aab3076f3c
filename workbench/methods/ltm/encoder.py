"""An encoder in place of the fast loop: one pass over a text gives the Gaussian of its thoughts (a VAE)."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Attention, Norm, rotation, turned
from .decoder import Shape
from .inference import Gaussian


class Encoder(nn.Module):
    """Full attention over the text and learned vectors behind it, from which means and log-variances are read."""

    def __init__(self, shape: Shape, layers: int, log_var: float):
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.asked = nn.Parameter(0.02 * torch.randn(shape.latents, shape.width))
        self.layers = nn.ModuleList(EncoderLayer(shape) for _ in range(layers))
        self.norm = Norm(shape.width)
        self.mean, self.log_var = nn.Linear(shape.width, shape.width), nn.Linear(shape.width, shape.width)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2 and name != "asked":
                nn.init.normal_(parameter, 0.0, 0.02)
        nn.init.zeros_(self.mean.bias)
        nn.init.constant_(self.log_var.bias, log_var)

    def forward(self, tokens: Int[Tensor, "example position"], there: Bool[Tensor, "example position"]) -> Gaussian:
        """Of each text; padding, where `there` is false, is read by nobody."""
        count, shape = tokens.shape[1], self.shape
        asked = self.asked.expand(len(tokens), -1, -1)
        x = torch.cat([self.embedding(tokens), asked], 1)
        places = torch.cat([torch.arange(count), torch.arange(shape.latents) * shape.length / shape.latents])
        turn = rotation(places[None].to(tokens.device), shape.width // shape.heads, x.dtype)
        seen = F.pad(there, (0, shape.latents), value=True)[:, None, None]
        for layer in self.layers:
            x = layer(x, turn, seen)
        read = self.norm(x[:, count:])
        return Gaussian(self.mean(read), self.log_var(read))


class EncoderLayer(nn.Module):
    """Self-attention over everything, feed-forward."""

    def __init__(self, shape: Shape):
        super().__init__()
        width, inner = shape.width, shape.inner
        self.norm, self.own, self.mlp_norm = Norm(width), Attention(width, shape.heads), Norm(width)
        self.gate, self.up = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, turn: Tensor, seen: Tensor) -> Tensor:
        own, read = self.own, self.norm(x)
        queries, keys = turned(own.split(own.q(read)), turn), turned(own.split(own.k(read)), turn)
        parts = (part.transpose(1, 2) for part in (queries, keys, own.split(own.v(read))))
        x = x + own.o(F.scaled_dot_product_attention(*parts, attn_mask=seen).transpose(1, 2).flatten(2))
        read = self.mlp_norm(x)
        return x + self.down(F.silu(self.gate(read)) * self.up(read))
