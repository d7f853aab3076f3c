"""Writing with thoughts that stay: keys and values of the latents are made once, of the text the last `window` kept.

The cache of a row is a ring: place p of the text lies in slot p mod window, so that nothing is moved or copied.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from .blocks import Pair, rotation
from .decoder import Decoder


@dataclass
class Cache:
    """What is kept of rows that are being written: [row, head, latent, size] of the latents, [row, slot, head, size] of
    the text, and how long each is."""

    latents: list[Pair] | None
    rings: list[Pair] = field(default_factory=list)
    count: Tensor | None = None

    def batch_repeat_interleave(self, times: int) -> None:
        """Each row `times` times."""
        self._each(lambda value: value.repeat_interleave(times, 0))

    def batch_select_indices(self, rows: Tensor) -> None:
        """These rows alone."""
        self._each(lambda value: value[rows])

    def _each(self, change: Callable[[Tensor], Tensor]) -> None:
        if self.latents is not None:
            self.latents = [(change(keys), change(values)) for keys, values in self.latents]
        self.rings = [(change(keys), change(values)) for keys, values in self.rings]
        self.count = None if self.count is None else change(self.count)


def begun(decoder: Decoder, z: Float[Tensor, "row latent feature"] | None) -> Cache:
    """The cache of rows that nothing is written of yet."""
    return Cache(None if z is None or not decoder.shape.latents else decoder.latent_pairs(z))


def advance(
    decoder: Decoder,
    embeds: Float[Tensor, "row position feature"],
    there: Bool[Tensor, "row position"],
    cache: Cache,
) -> Float[Tensor, "row position feature"]:
    """States at new places: the beginning of rows padded on the left, or one more place of each."""
    if cache.count is None:
        kept: list[Pair] = []
        states = decoder.states(decoder.read(embeds, there, kept=kept), None, pairs=cache.latents, kept=kept)
        cache.count = there.sum(1)
        cache.rings = [
            (_ring(keys, cache.count, decoder), _ring(values, cache.count, decoder)) for keys, values in kept
        ]
        return states
    if embeds.shape[1] != 1:
        raise ValueError(f"{embeds.shape[1]} places at once behind a cache; give one at a time")
    return _one(decoder, embeds, cache)


def _ring(values: Tensor, count: Tensor, decoder: Decoder) -> Tensor:
    """The last places of rows padded on the left, each in its slot."""
    window, length = decoder.shape.window, values.shape[1]
    slots = torch.arange(window, device=values.device)
    last = count[:, None] - 1
    places = last - (last - slots) % window  # the last place of each slot; below 0: none yet
    columns = (places + length - count[:, None]).clamp(min=0)
    return values[torch.arange(len(values), device=values.device)[:, None], columns].contiguous()


def _one(decoder: Decoder, embeds: Tensor, cache: Cache) -> Tensor:
    """One more place of each row."""
    assert cache.count is not None
    window, rows = decoder.shape.window, torch.arange(len(embeds), device=embeds.device)
    slot = cache.count % window
    turn = rotation(cache.count[:, None], decoder.shape.width // decoder.shape.heads, embeds.dtype)
    seen = (torch.arange(window, device=embeds.device) <= cache.count[:, None])[:, None, None]
    x = embeds
    for index, layer in enumerate(list[Any](decoder.layers)):
        queries, keys, values = layer.own(x, turn)
        for ring, new in zip(cache.rings[index], (keys, values), strict=True):
            ring[rows, slot] = new[:, 0]
        parts = (part.transpose(1, 2) for part in (queries, *cache.rings[index]))
        mixed = F.scaled_dot_product_attention(*parts, attn_mask=seen)
        x = x + layer.self.o(mixed.transpose(1, 2).flatten(2))
        if cache.latents is not None:
            x = x + layer.crossed(layer.queries(x, turn), *cache.latents[index])
        x = x + layer.fed(x)
    cache.count = cache.count + 1
    return decoder.norm(x)
