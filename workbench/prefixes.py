"""What stands before the first thought never needs a gradient: read it once, and go on from its keys and values.

    off        each batch reads its prefixes, row by row
    constant   what they all begin with (an instruction) is read once, for one row, and kept; the rest in each batch
    full       each prefix is read once and kept in RAM, until the budget is used up; what does not fit is read again

Keys and values of a prefix need, for every layer, 2 x (key-value heads) x (head size) numbers per token: 144 KiB for
Qwen3-8B in bfloat16. Only for a backbone whose weights do not change; one that is trained always reads.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

Mode = Literal["off", "constant", "full"]
GIB = 2**30


class Reader(Protocol):
    """What of a backbone is needed here."""

    model: Any

    @property
    def trains(self) -> bool: ...

    @property
    def device(self) -> torch.device: ...

    def embed(self, ids: Tensor) -> Tensor: ...

    def run(self, embeds: Tensor, mask: Tensor, *, cache: DynamicCache | None = None) -> Any: ...


class Prefixes:
    """The prefixes a backbone has read. `said` is what the user should know about the budget; mostly empty."""

    def __init__(self, mode: Mode = "constant", budget_gib: float = 4.0):
        self.mode, self.budget, self.said = mode, budget_gib * GIB, ""
        self.common: tuple[int, ...] | None = None  # what all prefixes so far begin with; None before the first
        self.begun: list[tuple[Tensor, Tensor]] = []  # its keys and values, layer by layer, one row
        self.kept: dict[bytes, Tensor] = {}  # ids -> keys and values [layer, 2, head, place, feature], on the CPU
        self.bytes = 0

    def read(
        self, backbone: Reader, prefixes: Sequence[Int[Tensor, "_"]]
    ) -> tuple[DynamicCache, Bool[Tensor, "row position"]]:
        """The cache behind the prefixes, a row each, and which of its positions are real (padding is never last)."""
        if backbone.trains:
            return _read(backbone, prefixes)
        with torch.no_grad():
            if self.mode == "off":
                return _read(backbone, prefixes)
            if self.mode == "constant":
                return self._behind_common(backbone, prefixes)
            return self._from_memory(backbone, prefixes)

    def _behind_common(self, backbone: Reader, prefixes: Sequence[Tensor]) -> tuple[DynamicCache, Tensor]:
        """What is common to all rows ever read comes from one row, the rest is read."""
        rows = [tuple(row.tolist()) for row in prefixes]
        known = [self.common] if self.common is not None else []
        common = _common([*known, *(row[:-1] for row in rows)])  # of each row something is left to read
        if common != self.common:
            self.common = common
            self.begun = _layers(_read(backbone, [torch.tensor(common)])[0]) if common else []
        if not common:
            return _read(backbone, prefixes)
        cache = DynamicCache(config=backbone.model.config)
        for number, (keys, values) in enumerate(self.begun):
            cache.update(keys.expand(len(rows), -1, -1, -1), values.expand(len(rows), -1, -1, -1), number)
        begun = torch.ones(len(rows), len(common), dtype=torch.bool, device=backbone.device)
        return _read(backbone, [row[len(common) :] for row in prefixes], cache, begun)

    def _from_memory(self, backbone: Reader, prefixes: Sequence[Tensor]) -> tuple[DynamicCache, Tensor]:
        """Rows that are kept, and what is new read together."""
        names = [row.numpy().tobytes() for row in prefixes]
        found = {name: self.kept[name] for name in names if name in self.kept}
        new = {name: row for name, row in zip(names, prefixes, strict=True) if name not in found}
        if new:
            cache, _ = _read(backbone, list(new.values()))
            together = torch.stack([torch.stack(layer) for layer in _layers(cache)])  # [layer, 2, row, head, place, .]
            for place, (name, row) in enumerate(new.items()):
                found[name] = together[:, :, place, :, -len(row) :]
                self._keep(name, found[name])
        layers, both, heads, _, size = found[names[0]].shape
        width = max(map(len, prefixes))
        stacked = found[names[0]].new_zeros(layers, both, len(names), heads, width, size)
        for place, name in enumerate(names):
            stacked[:, :, place, :, width - found[name].shape[3] :] = found[name]
        cache = DynamicCache(config=backbone.model.config)
        for number, (keys, values) in enumerate(stacked.to(backbone.device).unbind()):
            cache.update(keys, values, number)
        mask = [torch.ones(len(row), dtype=torch.bool) for row in prefixes]
        return cache, pad_sequence(mask, batch_first=True, padding_side="left").to(backbone.device)

    def _keep(self, name: bytes, found: Tensor) -> None:
        size = found.numel() * found.element_size()
        if self.bytes + size > self.budget:
            self.said = (
                f"the prefix cache holds {len(self.kept):,} prefixes in its {self.budget / GIB:g} GiB and is full; the "
                "others are read again in every epoch. Give more with --training.prefix_cache_gib"
            )
            return
        self.bytes += size
        self.kept[name] = found.to("cpu", copy=True)


def _read(
    backbone: Reader,
    rows: Sequence[Tensor],
    cache: DynamicCache | None = None,
    before: Bool[Tensor, "row position"] | None = None,
) -> tuple[DynamicCache, Bool[Tensor, "row position"]]:
    """Left-padded rows of ids through the backbone, behind a cache if there is one."""
    ids = pad_sequence(list(rows), batch_first=True, padding_side="left")
    ones = [torch.ones(len(row), dtype=torch.bool) for row in rows]
    mask = pad_sequence(ones, batch_first=True, padding_side="left").to(backbone.device)
    mask = mask if before is None else torch.cat([before, mask], 1)
    return backbone.run(backbone.embed(ids), mask, cache=cache).cache, mask


def _common(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all begin with: that of the first and the last in order, since the others are between them."""
    first, last = min(rows), max(rows)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _layers(cache: DynamicCache) -> list[tuple[Tensor, Tensor]]:
    """Keys and values [row, head, place, feature] of each layer."""
    layers: Any = cache.layers
    return [(layer.keys, layer.values) for layer in layers]
