"""Rows with leaves: short pieces that read a stretch of a row and themselves, and that nobody else reads.

    row    0 1 2 3 4 5      each place reads all before it, as ever
    leaf       a b          a, b read places `first` to `last` of the row and what stands before them in the leaf

Since nobody reads a leaf, a row is what it would be without them: one causal pass over the rows, and beside it a few
keys for each leaf. An attention of [place, place] with the leaves in their places gives the same and costs the square
of all of them. Rows of unequal length lie one behind the other, as in `packing`, then the leaves of all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from .attention import attending

NAME = "rows-with-leaves"  # under which transformers finds `attend`


@dataclass(frozen=True)
class Leafy:
    """A row and its leaves, places in any order: `leaf` has the number of a place's leaf, -1 for the row itself.

    Leaf k reads the row's places from `first[k]` to below `last[k]`, counted in the row alone. Places of the row, and
    of each leaf, come in the order in which they read each other.
    """

    vectors: Float[Tensor, "place feature"]
    positions: Int[Tensor, "place"]
    leaf: Int[Tensor, "place"]
    first: Int[Tensor, "leaf"]
    last: Int[Tensor, "leaf"]


def states(model: Any, rows: Sequence[Leafy]) -> list[Float[Tensor, "place feature"]]:
    """States after the final norm of each row's places, in their order, by one pass over all rows."""
    laid, device = _Laid([row.leaf.cpu() for row in rows], [row.first.cpu() for row in rows],
                         [row.last.cpu() for row in rows], rows[0].vectors.device), rows[0].vectors.device  # fmt: skip
    order = laid.order.to(device)
    with attending(model, NAME, _untraced()):
        out = model.base_model(
            inputs_embeds=torch.cat([row.vectors for row in rows])[order][None],
            position_ids=torch.cat([row.positions.to(device) for row in rows])[order][None],
            use_cache=False,
            packed=laid,
        )
    found = out.last_hidden_state[0][laid.back.to(device)]
    return list(found.split([len(row.leaf) for row in rows]))


@dataclass
class _Laid:
    """Where rows and leaves lie: all rows one behind the other, then the leaves of the first row, of the second, ..."""

    leaf: list[Int[Tensor, "place"]]
    first: list[Int[Tensor, "leaf"]]
    last: list[Int[Tensor, "leaf"]]
    device: torch.device

    @cached_property
    def order(self) -> Int[Tensor, "place"]:
        """Which of the given places lies where."""
        starts = torch.tensor([0, *(len(own) for own in self.leaf)]).cumsum(0).tolist()
        trunks = [(own < 0).nonzero()[:, 0] + start for own, start in zip(self.leaf, starts, strict=False)]
        # stable: a leaf's places stay in their order
        leaves = [
            own.argsort(stable=True)[int((own < 0).sum()) :] + start
            for own, start in zip(self.leaf, starts, strict=False)
        ]
        return torch.cat([*trunks, *leaves])

    @cached_property
    def back(self) -> Int[Tensor, "place"]:
        return self.order.argsort()

    @cached_property
    def lengths(self) -> list[int]:
        """Places of each row without its leaves."""
        return [int((own < 0).sum()) for own in self.leaf]

    @cached_property
    def sizes(self) -> list[int]:
        """Places of each row's leaves together."""
        return [len(own) - length for own, length in zip(self.leaf, self.lengths, strict=True)]

    @cached_property
    def single(self) -> bool:
        """Whether every leaf reads one place of its row."""
        return all(bool((last - first == 1).all()) for first, last in zip(self.first, self.last, strict=True))

    @cached_property
    def blocks(self) -> tuple[Int[Tensor, "leaf key"], Bool[Tensor, "leaf 1 query key"], Bool[Tensor, "leaf query"]]:
        """For leaves that read one place each: where their keys lie (that place first), who reads whom, what is there.

        Of leaves that are shorter than the longest, the end is filled with the place they read.
        """
        counts = torch.cat(
            [own[own >= 0].bincount(minlength=len(at)) for own, at in zip(self.leaf, self.first, strict=True)]
        )
        begins = torch.tensor([0, *self.lengths[:-1]]).cumsum(0)
        anchors = torch.cat([at + begin for at, begin in zip(self.first, begins, strict=True)])
        width = int(counts.max()) if len(counts) else 0
        column = torch.arange(width)
        there = column < counts[:, None]
        own = (sum(self.lengths) + counts.cumsum(0) - counts)[:, None] + column
        keys = torch.cat([anchors[:, None], torch.where(there, own, anchors[:, None])], 1)
        before = torch.ones(width, width, dtype=torch.bool).tril() & there[:, None]
        seen = torch.cat([torch.ones(len(counts), width, 1, dtype=torch.bool), before], 2)
        return keys.to(self.device), seen[:, None].to(self.device), there.to(self.device)

    @cached_property
    def seen(self) -> list[Bool[Tensor, "query key"]]:
        """For leaves that read more: which of its row's places, then of the leaves', each place of a leaf reads."""
        found = []
        for own, first, last, length in zip(self.leaf, self.first, self.last, self.lengths, strict=True):
            number = own[own >= 0].sort().values
            place = torch.arange(length)
            trunk = (place >= first[number, None]) & (place < last[number, None])
            same = (number[:, None] == number) & torch.ones(len(number), len(number), dtype=torch.bool).tril()
            found.append(torch.cat([trunk, same], 1).to(self.device))
        return found


def attend(
    module: Any,
    query: Float[Tensor, "1 head place feature"],
    key: Float[Tensor, "1 shared place feature"],
    value: Float[Tensor, "1 shared place feature"],
    attention_mask: Tensor | None,
    *,
    packed: _Laid,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "1 place head feature"], None]:
    """Attention of rows to themselves, then of leaves to their stretch of the row and to themselves.

    What else transformers hands to an attention (dropout, windows) does not apply here.
    """
    trunk, grouped = sum(packed.lengths), query.shape[1] != key.shape[1]

    def attention(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=seen is None, scale=scaling, enable_gqa=grouped
        )

    rows = list(zip(*(x[:, :, :trunk].split(packed.lengths, 2) for x in (query, key, value)), strict=True))
    found = [attention(q, k, v, None) for q, k, v in rows]
    if packed.single and query.shape[2] > trunk:
        keys, seen, there = packed.blocks
        k, v = (x[0][:, keys].transpose(0, 1) for x in (key, value))  # [leaf, head, key, feature]
        q = query[0][:, keys[:, 1:]].transpose(0, 1)
        read = attention(q, k, v, seen).transpose(1, 2)[there]  # [place, head, feature]
        found.append(read.transpose(0, 1)[None])
    elif query.shape[2] > trunk:
        leaves = zip(*(x[:, :, trunk:].split(packed.sizes, 2) for x in (query, key, value)), strict=True)
        for (q, k, v), (_, k_row, v_row), seen in zip(leaves, rows, packed.seen, strict=True):
            if q.shape[2]:
                found.append(attention(q, torch.cat([k_row, k], 2), torch.cat([v_row, v], 2), seen[None, None]))
    return torch.cat(found, 2).transpose(1, 2), None


@cache
def _untraced() -> Callable[..., Any]:
    """`attend`, through which torch.compile does not look."""
    return torch.compiler.disable(attend)
