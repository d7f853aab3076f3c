"""Latent loops: the next input is made from the state before it, `x[t+1] = step(state[t])`.

    unroll   free-running: a question is read, then each thought is fed back until a row's rule or the length ends it
    fill     teacher-forced: rows of ids in which `LATENT` marks the places whose input `step` makes

Coconut, Soft Thinking, LT-Tuning and Latent-SFT differ in `step` alone. Both run over one KV cache, a pass per thought,
and nothing is detached: gradients run through the chain of thoughts and through the keys and values of all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone import Backbone
from ..label_losses import is_plain, label_losses
from ..likelihood import UNLABELLED
from ..thoughts import Made, State, Step, Stop, Thoughts
from ..writing import write
from .base import Prompt

LATENT = -1  # stands for an id where the input is made, not looked up


def unroll(
    backbone: Backbone,
    prompts: Sequence[Prompt],
    step: Step,
    length: int,
    stop: Stop | None = None,
    *,
    paths: int = 1,
    layers: Sequence[int] = (),
) -> Thoughts:
    """At most `length` thoughts behind each prompt's `before`, [example, path, step, feature].

    `stop(state, made)` says which rows end here; what was made for these is dropped. Rows that have ended leave the
    batch. The question is read once for all paths, with gradients only if the backbone is trained. `layers`: of what
    other layers the steps see states.
    """

    def one(state: State) -> Made:
        made = step(state)
        return made if stop is None else replace(made, ends=stop(state, made))

    rows = backbone.embed_each([p.before for p in prompts])
    # where positions may run out, each pass is looked at
    close = backbone.bounded and max(map(len, rows), default=0) + length > (backbone.window or 0)
    found = write(backbone, rows, one, length, copies=paths, layers=layers, plain=close)
    return found.thoughts(len(prompts), rows[0])


@dataclass(frozen=True)
class Filled:
    """Rows as the backbone read them, padded on both sides so that first thoughts share a column.

    embeds: the inputs, latent places filled. states: behind the final norm, at `columns`, each just before some row's
    label; None without labels. own: the model's logits there, where they are more than the `head`'s product.
    """

    embeds: Float[Tensor, "row position feature"]
    mask: Bool[Tensor, "row position"]
    latent: Bool[Tensor, "row position"]
    labels: Int[Tensor, "row position"]
    columns: Int[Tensor, "column"]
    states: Float[Tensor, "row column feature"] | None
    head: nn.Module
    own: Float[Tensor, "row column vocabulary"] | None = None

    @property
    def logits(self) -> Float[Tensor, "row column vocabulary"] | None:
        """At `columns`, of all rows; losses need less."""
        return self.own if self.own is not None or self.states is None else self.head(self.states)

    def token_losses(self) -> Float[Tensor, "row column"]:
        """Negative log-likelihood of the label behind each of `columns`, 0 where a row has none there; float32."""
        if self.states is None:
            raise ValueError("these rows were filled without labels; give fill(..., labels=) the ids to predict")
        if self.own is not None:
            return F.cross_entropy(
                self.own.float().transpose(1, 2), self.following, reduction="none", ignore_index=UNLABELLED
            )
        assert isinstance(self.head, nn.Linear)
        there = (self.following != UNLABELLED).nonzero(as_tuple=True)
        found = label_losses(self.states[there], self.following[there], self.head)
        return found.new_zeros(self.following.shape).index_put(there, found)

    @property
    def following(self) -> Int[Tensor, "row column"]:
        """The labels that `states` are about."""
        return self.labels[:, self.columns + 1]

    def losses(self) -> Float[Tensor, "row"]:
        """Negative log-likelihood per label, its mean over each row; 0 for a row without labels."""
        return self.token_losses().sum(1) / (self.following != UNLABELLED).sum(1).clamp(min=1)


def fill(
    backbone: Backbone,
    rows: Sequence[Int[Tensor, "_"]],
    step: Step,
    *,
    labels: Sequence[Int[Tensor, "_"]] | None = None,
    reads: Sequence[Bool[Tensor, "_ _"]] | None = None,
    positions: Sequence[Int[Tensor, "_"]] | None = None,
    layers: Sequence[int] = (),
) -> Filled:
    """Read rows of ids whose `LATENT` places are made by `step` from the position before them.

    labels: per row and place the id to be predicted there, `UNLABELLED` where none is. reads: per row who reads whom
    ([query, key], a place reads itself at least) instead of causal attention, with its own `positions` (0, 1, ...
    unless given). layers: of what other layers the steps see states. ValueError where there is nothing before a latent
    or labelled place.

    The first thoughts of all rows are put in one column (rows are padded on the left as far as that takes, then on the
    right), and the backbone is called once more for every column that holds a thought in any row.
    """
    laid = _lay(rows, labels, positions)
    device, width = backbone.device, laid.ids.shape[1]
    attention = laid.mask.to(device) if reads is None else _own_attention(reads, laid.starts, width).to(device)
    table, places = backbone.embed(laid.ids.clamp(min=0)), laid.positions.to(device)
    latent, predicts = laid.ids == LATENT, (laid.labels[:, 1:] != UNLABELLED).any(0)
    head = backbone.model.get_output_embeddings()
    plain = is_plain(head, backbone.model.config) and not backbone.full_logits
    cuts = [0, *latent.any(0).nonzero()[:, 0].tolist(), width]
    pieces, states, logits, cache, going, made = [], [], [], None, torch.zeros(0, dtype=torch.long), None
    for start, end in pairwise(cuts):
        piece, more = table[:, start:end], end < width
        if made is not None and made.vector is not None:  # out of place: the other rows' inputs keep their gradients
            inputs = piece[:, 0].index_copy(0, going, made.vector.to(piece.dtype))
            piece = torch.cat([inputs[:, None], piece[:, 1:]], 1)
        pieces.append(piece)
        at = predicts[start:end].nonzero()[:, 0]
        if not more and not len(at):
            break  # nothing is asked of what comes behind the last thought
        asked = at[:0] if plain else at
        asked = (torch.cat([asked, torch.tensor([end - start - 1])]) if more else asked).to(device)
        seen = attention[:, :end] if reads is None else attention[:, :, start:end, :end]
        out = backbone.run(
            piece, seen, positions=places[:, start:end], cache=cache, logits_at=asked if len(asked) else None,
            hidden=True, layers=layers if more else (),
        )  # fmt: skip
        assert out.hidden is not None
        cache = out.cache
        states.append(out.hidden[:, at.to(device)])
        if out.logits is not None:
            logits.append(out.logits[:, : 0 if plain else len(at)])
        if more:
            going = latent[:, end].nonzero()[:, 0].to(device)
            hidden, last = _last(out)
            others = {index: value[going, -1] for index, value in out.layers.items()}
            number = latent[:, :end].sum(1).to(device)[going]
            made = step(State(hidden[going], last[going], going, number, layers=others))
    columns = predicts.nonzero()[:, 0].to(device)
    known = torch.cat(states, 1) if len(columns) else None
    own = None if plain or known is None else torch.cat(logits, 1)
    wanted = laid.labels.to(device)
    return Filled(torch.cat(pieces, 1), laid.mask.to(device), latent.to(device), wanted, columns, known, head, own)


@dataclass(frozen=True)
class _Laid:
    """Rows padded to one width, each from its place in `starts` on; on the CPU."""

    ids: Int[Tensor, "row position"]
    mask: Bool[Tensor, "row position"]
    labels: Int[Tensor, "row position"]
    positions: Int[Tensor, "row position"]
    starts: list[int]


def _lay(rows: Sequence[Tensor], labels: Sequence[Tensor] | None, positions: Sequence[Tensor] | None) -> _Laid:
    """Rows side by side so that their first latent places, where they have any, are in one column."""
    rows = [row.cpu() for row in rows]
    for number, row in enumerate(rows):
        if not len(row) or row[0] == LATENT or (labels is not None and labels[number][0] != UNLABELLED):
            raise ValueError(f"row {number} is empty or begins with a latent or labelled place; put a token first")
    first = [next(iter((row == LATENT).nonzero()[:, 0].tolist()), None) for row in rows]
    column = max((place for place in first if place is not None), default=0)
    starts = [0 if place is None else column - place for place in first]
    width = max(start + len(row) for start, row in zip(starts, rows, strict=True))

    def laid(parts: Sequence[Tensor], blank: int) -> Tensor:
        out = torch.full((len(rows), width), blank, dtype=torch.long)
        for line, start, part, row in zip(out, starts, parts, rows, strict=True):
            line[start : start + len(row)] = part
        return out

    mask = laid([torch.ones_like(row) for row in rows], 0).bool()
    places = (mask.long().cumsum(1) - 1).clamp(min=0) if positions is None else laid(positions, 0)
    wanted = [torch.full_like(row, UNLABELLED) for row in rows] if labels is None else labels
    return _Laid(laid(rows, 0), mask, laid(wanted, UNLABELLED), places, starts)


def _last(out: Any) -> tuple[Float[Tensor, "row feature"], Float[Tensor, "row vocabulary"]]:
    """State and logits at the last position of a pass that was asked for both."""
    return out.hidden[:, -1], out.logits[:, -1].float()


def _own_attention(
    reads: Sequence[Bool[Tensor, "_ _"]], starts: Sequence[int], width: int
) -> Bool[Tensor, "row 1 query key"]:
    """The rows' own attention, padded; padding reads itself, so that no place reads nothing (which gives NaN)."""
    out = torch.eye(width, dtype=torch.bool).repeat(len(reads), 1, 1)
    for square, start, own in zip(out, starts, reads, strict=True):
        square[start : start + len(own), start : start + len(own)] = own
    return out[:, None]
