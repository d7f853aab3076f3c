"""Latent loops: the next input is made from the state before it, `x[t+1] = step(state[t])`.

    unroll   free-running: a question is read, then each thought is fed back until a row's rule or the length ends it
    fill     teacher-forced: rows of ids in which `LATENT` marks the places whose input `step` makes

Coconut, Soft Thinking, LT-Tuning and Latent-SFT differ in `step` alone. Both run over one KV cache, a pass per thought,
and nothing is detached: gradients run through the chain of thoughts and through the keys and values of all of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbone import Backbone
from ..backbone.label_losses import is_plain, label_losses
from ..backbone.likelihood import UNLABELLED
from ..backbone.thoughts import Made, State, Step, Stop, Thoughts
from ..backbone.writing import write
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
    """Rows as the backbone read them, padded so that the first thoughts of all rows share a column, the second, ...

    embeds: the inputs, latent places filled. labels: what each position is to predict, `UNLABELLED` where nothing.
    states: behind the final norm, at `columns`, where some row predicts a label; None without labels. own: the model's
    logits there, where they are more than the `head`'s product.
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
        """Negative log-likelihood of the label that each of `columns` predicts, 0 where a row has none; float32."""
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
        return self.labels[:, self.columns]

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

    The first thoughts of all rows are put in one column, the second in another, and so on (rows are padded before and
    between them as far as that takes), so that the backbone is called once more for each thought of the row that has
    most, not for each place where some row has one.
    """
    laid = _lay(rows, labels, positions)
    device, width = backbone.device, laid.ids.shape[1]
    attention = laid.mask.to(device) if reads is None else _own_attention(reads, laid).to(device)
    table, places = backbone.embed(laid.ids.clamp(min=0)), laid.positions.to(device)
    latent, predicts = laid.ids == LATENT, (laid.labels != UNLABELLED).any(0)
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
        before = laid.before(latent[:, end], end) - start if more else at[:0]
        asked = (before if plain else torch.cat([at, before])).unique()
        seen = attention[:, :end] if reads is None else attention[:, :, start:end, :end]
        out = backbone.run(
            piece, seen, positions=places[:, start:end], cache=cache,
            logits_at=asked.to(device) if len(asked) else None, hidden=True, layers=layers if more else (),
        )  # fmt: skip
        assert out.hidden is not None
        cache = out.cache
        states.append(out.hidden[:, at.to(device)])
        if not plain and out.logits is not None:
            logits.append(out.logits[:, torch.searchsorted(asked, at).to(device)])
        if more:
            assert out.logits is not None
            going, last = latent[:, end].nonzero()[:, 0].to(device), before.to(device)
            found = out.logits[going, torch.searchsorted(asked, before).to(device)]
            found = found.to(torch.promote_types(found.dtype, torch.float32))
            others = {index: value[going, last] for index, value in out.layers.items()}
            number = latent[:, :end].sum(1).to(device)[going]
            made = step(State(out.hidden[going, last], found, going, number, layers=others))
    columns = predicts.nonzero()[:, 0].to(device)
    known = torch.cat(states, 1) if len(columns) else None
    own = None if plain or known is None else torch.cat(logits, 1)
    wanted = laid.labels.to(device)
    return Filled(torch.cat(pieces, 1), laid.mask.to(device), latent.to(device), wanted, columns, known, head, own)


@dataclass(frozen=True)
class _Laid:
    """Rows padded to one width; `at` has the column of each of a row's places. On the CPU.

    labels: what each position is to predict, which is the label of the row's next place.
    """

    ids: Int[Tensor, "row position"]
    mask: Bool[Tensor, "row position"]
    labels: Int[Tensor, "row position"]
    positions: Int[Tensor, "row position"]
    at: list[Int[Tensor, "_"]]

    def before(self, rows: Bool[Tensor, "row"], column: int) -> Int[Tensor, "kept"]:
        """The columns of the places before those of some rows that stand in a column."""
        chosen = [self.at[row] for row in rows.nonzero()[:, 0].tolist()]
        return torch.stack([at[torch.searchsorted(at, column) - 1] for at in chosen])


def _lay(rows: Sequence[Tensor], labels: Sequence[Tensor] | None, positions: Sequence[Tensor] | None) -> _Laid:
    """Rows side by side so that their first latent places, where they have any, are in one column, the second, ..."""
    rows = [row.cpu() for row in rows]
    for number, row in enumerate(rows):
        if not len(row) or row[0] == LATENT or (labels is not None and labels[number][0] != UNLABELLED):
            raise ValueError(f"row {number} is empty or begins with a latent or labelled place; put a token first")
    at = _columns([(row == LATENT).nonzero()[:, 0].tolist() for row in rows], [len(row) for row in rows])
    width = max(int(own[-1]) for own in at) + 1

    def laid(parts: Sequence[Tensor], blank: int) -> Tensor:
        out = torch.full((len(rows), width), blank, dtype=torch.long)
        for line, own, part in zip(out, at, parts, strict=True):
            line[own] = part.cpu()
        return out

    mask = laid([torch.ones_like(row) for row in rows], 0).bool()
    places = (mask.long().cumsum(1) - 1).clamp(min=0) if positions is None else laid(positions, 0)
    none = torch.full((1,), UNLABELLED)
    wanted = [torch.full_like(row, UNLABELLED) for row in rows] if labels is None else labels
    following = laid([torch.cat([own.cpu()[1:], none]) for own in wanted], UNLABELLED)
    return _Laid(laid(rows, 0), mask, following, places, at)


def _columns(latents: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Int[Tensor, "_"]]:
    """Of each row the column of each place, where its latent places are these."""
    column = max((own[0] for own in latents if own), default=0)  # of the first thoughts
    starts = [[column - own[0]] if own else [0] for own in latents]  # columns of place 0 of each piece, were it there
    for number in range(max(map(len, latents), default=0)):
        here = [own for own in latents if len(own) > number]
        for own, start in zip(latents, starts, strict=True):
            if len(own) > number:
                start.append(column - own[number])
        column += max((own[number + 1] - own[number] for own in here if len(own) > number + 1), default=0)
    return [
        torch.arange(length) + torch.tensor(start)[torch.bucketize(torch.arange(length), torch.tensor(own), right=True)]
        for own, start, length in zip(latents, starts, lengths, strict=True)
    ]


def _own_attention(reads: Sequence[Bool[Tensor, "_ _"]], laid: _Laid) -> Bool[Tensor, "row 1 query key"]:
    """The rows' own attention, padded; padding reads itself, so that no place reads nothing (which gives NaN)."""
    out = torch.eye(laid.ids.shape[1], dtype=torch.bool).repeat(len(reads), 1, 1)
    for square, at, own in zip(out, laid.at, reads, strict=True):
        square[at[:, None], at] = own
    return out[:, None]
