"""What stands before the first thought never needs a gradient: read it once, and go on from its keys and values.

    off        each batch reads its prefixes
    constant   what they all begin with (an instruction) is read once, for one row, and kept; the rest in each batch
    full       each prefix is read once and kept in RAM, until the budget is used up; what does not fit is read again

Keys and values of a prefix need, for every layer, 2 x (key-value heads) x (head size) numbers per token: 144 KiB for
Qwen3-8B in bfloat16. Only for a backbone whose weights do not change: one that is trained always reads, with
gradients. So do padded rows (see `likelihood`), and processes that share a model's weights (FSDP): they must meet in
every forward pass, and what each has kept differs.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from .packing import Layers, Read, read_rows

Mode = Literal["off", "constant", "full"]
GIB = 2**30


class Reader(Protocol):
    """What of a backbone is needed here."""

    model: Any

    @property
    def trains(self) -> bool: ...

    @property
    def device(self) -> torch.device: ...

    def embed_each(self, pieces: Sequence[Tensor]) -> tuple[Tensor, ...]: ...


class Prefixes:
    """The prefixes a backbone has read. `said` is what the user should know about the budget; mostly empty."""

    def __init__(self, mode: Mode = "constant", budget_gib: float = 4.0):
        self.mode: Mode = mode
        self.budget, self.said = budget_gib * GIB, ""
        self.common: tuple[int, ...] | None = None  # what all prefixes so far begin with; None before the first
        self.begun: Layers = []  # its keys and values
        self.kept: dict[bytes, Layers] = {}  # by ids, on the CPU
        self.bytes = 0

    def read(self, backbone: Reader, prefixes: Sequence[Int[Tensor, "_"]]) -> list[Read]:
        """What each row has then read, for `packing`."""
        if backbone.trains:
            return [[layers] for layers in _read(backbone, prefixes)]
        with torch.no_grad():
            if self.mode == "off":
                return [[layers] for layers in _read(backbone, prefixes)]
            if self.mode == "constant":
                return self._behind_common(backbone, prefixes)
            return self._from_memory(backbone, prefixes)

    def _behind_common(self, backbone: Reader, prefixes: Sequence[Tensor]) -> list[Read]:
        """What is common to all rows ever read comes from one row, the rest is read."""
        rows = [tuple(row.tolist()) for row in prefixes]
        known = [self.common] if self.common is not None else []
        common = _common([*known, *(row[:-1] for row in rows)])  # of each row something is left to read
        if common != self.common:
            self.common = common
            self.begun = _read(backbone, [torch.tensor(common)])[0] if common else []
        begun: Read = [self.begun] if common else []
        rest = _read(backbone, [row[len(common) :] for row in prefixes], [begun] * len(rows))
        return [[*begun, layers] for layers in rest]

    def _from_memory(self, backbone: Reader, prefixes: Sequence[Tensor]) -> list[Read]:
        """Rows that are kept, and what is new read together."""
        names = [row.numpy().tobytes() for row in prefixes]
        new = {name: row for name, row in zip(names, prefixes, strict=True) if name not in self.kept}
        read = dict(zip(new, _read(backbone, list(new.values())), strict=True)) if new else {}
        for name, layers in read.items():
            self._keep(name, layers)
        for name in set(names) - set(new):
            read[name] = [(keys.to(backbone.device), values.to(backbone.device)) for keys, values in self.kept[name]]
        return [[read[name]] for name in names]

    def _keep(self, name: bytes, layers: Layers) -> None:
        size = sum(states.nbytes for layer in layers for states in layer)
        if self.bytes + size > self.budget:
            self.said = (
                f"the prefix cache is full with {len(self.kept):,} of the prefixes in {self.budget / GIB:g} GiB; the "
                "others are read again in every epoch. Give more with --training.prefix_cache_gib"
            )
            return
        self.bytes += size
        # copies, since what was read together lies in one piece
        self.kept[name] = [(keys.to("cpu", copy=True), values.to("cpu", copy=True)) for keys, values in layers]


def _read(backbone: Reader, rows: Sequence[Tensor], before: Sequence[Read] | None = None) -> Sequence[Layers]:
    """Keys and values of rows of ids, each behind what it has read."""
    return read_rows(backbone.model, backbone.embed_each(rows), before)


def _common(rows: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """What all begin with: that of the first and the last in order, since the others are between them."""
    first, last = min(rows), max(rows)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
