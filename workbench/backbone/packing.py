"""Rows of unequal length one behind the other, as one long row: nothing is computed for padding.

    states [1, sum of lengths, feature]
    attention(row) = softmax(q [K_read; K_own]' + bias) [V_read; V_own], of each row by itself

Matrix products and norms take the long row, attention takes each row's part of it and what was read before it. So a
batch costs what its tokens cost, and no answer depends on what else is in the batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from .attention import attending

NAME = "packed-rows"  # under which transformers finds `attend`

Layers = list[tuple[Tensor, Tensor]]  # keys and values [1, head, position, feature] of every layer
Read = list[Layers]  # what a row has read, piece behind piece


@dataclass
class Packed:
    """Where rows lie, what each has read, and what it may look at; `kept` gets all keys and values, by layer."""

    lengths: list[int]
    read: Sequence[Read]
    bias: list[Float[Tensor, "position key"]]  # of each row: 0 where a position looks at another, else -inf
    keep: bool = False
    kept: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


def read_rows(
    model: Any, rows: Sequence[Float[Tensor, "_ feature"]], read: Sequence[Read] | None = None
) -> Sequence[Layers]:
    """Keys and values of each row behind what it has read before."""
    there = [torch.ones(len(row), dtype=torch.bool, device=row.device) for row in rows]
    packed, _ = _run(model, rows, there, read or [[] for _ in rows], keep=True)
    split = [[states.split(packed.lengths, 2) for states in layer] for layer in packed.kept.values()]
    return [[(keys[k], values[k]) for keys, values in split] for k in range(len(rows))]


def states(
    model: Any,
    rows: Sequence[Float[Tensor, "_ feature"]],
    there: Sequence[Bool[Tensor, "_"]] | Sequence[Bool[Tensor, "_ _"]],
    read: Sequence[Read],
    positions: Sequence[Int[Tensor, "_"]] | None = None,
) -> Float[Tensor, "position feature"]:
    """States after the final norm of all rows, one behind the other.

    there: per row which of its places are looked at by later ones, or who looks at whom [looking, looked at]; a place
    looks at itself in any case, and at all that the row has read. positions: of a row's own places, counted on from
    what it has read unless given.
    """
    return _run(model, rows, there, read, keep=False, positions=positions)[1]


@contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Within, packed rows go through layers that torch.compile has fused: norms, rotations, activations.

    Lengths are dynamic, and attention, whose shapes change with every batch, is left as it is: one compilation of about
    half a minute serves all batches. What is not packed (answers that are written) goes through the layers as they are.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer  # not above: it takes a second to load

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.forward = _fused(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class has it


def _fused(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    fused: Callable[..., Tensor] = torch.compile(forward, dynamic=True)

    def run(*args: Any, packed: Packed | None = None, **kwargs: Any) -> Tensor:
        return forward(*args, **kwargs) if packed is None else fused(*args, packed=packed, **kwargs)

    return run


def _run(
    model: Any,
    rows: Sequence[Tensor],
    there: Sequence[Tensor],
    read: Sequence[Read],
    keep: bool,
    positions: Sequence[Tensor] | None = None,
) -> tuple[Packed, Tensor]:
    known = [sum(layers[0][0].shape[2] for layers in pieces) for pieces in read]
    bias = [_bias(own, before, rows[0].dtype) for own, before in zip(there, known, strict=True)]
    packed = Packed([len(row) for row in rows], read, bias, keep)
    if positions is None:
        positions = [_positions(own, before) for own, before in zip(there, known, strict=True)]
    with attending(model, NAME, _untraced()):
        out = model.base_model(
            inputs_embeds=torch.cat(list(rows))[None],
            position_ids=torch.cat(list(positions))[None],
            use_cache=False,
            packed=packed,
        )
    return packed, out.last_hidden_state[0]


def _positions(there: Tensor, before: int) -> Int[Tensor, "position"]:
    if there.ndim == 2:
        return torch.arange(len(there), device=there.device) + before
    return (there.cumsum(0) - 1).clamp(min=0) + before


def _bias(there: Tensor, known: int, dtype: torch.dtype) -> Float[Tensor, "position key"]:
    """What has been read is seen by all, a row's own positions by later ones or as said, and by themselves anyway."""
    length, itself = len(there), torch.eye(len(there), dtype=torch.bool, device=there.device)
    own = there | itself if there.ndim == 2 else (there | itself).tril()
    bias = torch.zeros(length, known + length, dtype=dtype, device=there.device)
    bias[:, known:].masked_fill_(~own, -torch.inf)
    return bias


def attend(
    module: Any,
    query: Float[Tensor, "1 head position feature"],
    key: Float[Tensor, "1 shared position feature"],
    value: Float[Tensor, "1 shared position feature"],
    attention_mask: Tensor | None,
    *,
    packed: Packed,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "1 position head feature"], None]:
    """Attention of each row's positions to what the row has read and to its own, as transformers calls it.

    What else transformers hands to an attention (dropout, windows) does not apply here.
    """
    layer = module.layer_idx
    if packed.keep:
        packed.kept[layer] = key, value
    found = []
    rows = zip(*(states.split(packed.lengths, 2) for states in (query, key, value)), strict=True)
    for (q, k, v), pieces, bias in zip(rows, packed.read, packed.bias, strict=True):
        if pieces:
            k = torch.cat([*(layers[layer][0].to(k.dtype) for layers in pieces), k], 2)
            v = torch.cat([*(layers[layer][1].to(v.dtype) for layers in pieces), v], 2)
        row = F.scaled_dot_product_attention(
            q, k, v, attn_mask=bias.to(q.dtype), scale=scaling, enable_gqa=q.shape[1] != k.shape[1]
        )
        found.append(row.transpose(1, 2))
    return torch.cat(found, 1), None


@cache
def _untraced() -> Callable[..., Any]:
    """`attend`, through which torch.compile does not look."""
    return torch.compiler.disable(attend)
