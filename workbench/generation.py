"""Answers, token by token: every prompt is read once for all its draws, and answers that end make room for the next.

Rows of vectors wait in a queue. Those that enter are read together; then every step writes one token of each answer in
flight, wherever it has got to, over keys and values that `attention` keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .attention import NAME, SharedPrompts, attend, attending, cache_name, shareable
from .decoding import Decoding, pick, uniforms

SPARE = 4  # answers that have ended stay in the batch until they are one in so many
LOOK = {"cpu": 1}  # steps between looks at which have ended; elsewhere 8, because each look waits for the device


@dataclass(frozen=True)
class Completion:
    """One answer: its text, its token ids without the stop token, and whether it stopped by itself."""

    text: str
    tokens: tuple[int, ...]
    finished: bool


class Writer(Protocol):
    """What writing needs of a backbone."""

    model: Any
    tokenizer: Any

    @property
    def stops(self) -> frozenset[int]: ...

    @property
    def device(self) -> torch.device: ...

    def admit(self, length: int) -> None: ...

    def room(self, length: int, wanted: int) -> int: ...

    def embed(self, ids: Tensor) -> Tensor: ...

    def run(self, embeds: Tensor, mask: Tensor, *, cache: Any = None, logits_at: Tensor | None = None) -> Any: ...


def generate(
    backbone: Writer,
    rows: Sequence[Float[Tensor, "_ feature"]],
    decoding: Decoding,
    *,
    draws: int = 1,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    plain: bool = False,
) -> list[list[Completion]]:
    """`draws` answers for each row of vectors; the next row enters as soon as others have left enough room.

    An answer that reaches the end of a bounded window (`Backbone.bounded`) ends there, unfinished.

    At most batch_size x draws answers are being written at any time; None: all at once. Sampling takes one uniform
    number per token from a generator seeded by (seeds[row], draw): what else is in the batch never changes an answer.

    `plain` writes one batch after the other, with a copy of the prompt for every draw and with transformers' own cache
    and attention; so do models whose attention is of another kind (`shareable`). Both write the same up to rounding.
    """
    limit, sampled = decoding.max_new_tokens, decoding.temperature > 0
    if limit is None:
        raise ValueError("max_new_tokens is not given; give the most tokens of an answer, such as the task's own")
    if sampled and (seeds is None or len(seeds) != len(rows)):
        raise ValueError(f"sampling needs one seed per row ({len(rows)}); give seeds=[...] or temperature 0")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: it must be at least 1")
    if not rows:
        return []
    size, seeds = batch_size or len(rows), seeds if sampled else None
    limits = [backbone.room(len(row), limit) for row in rows]
    if plain or not shareable(backbone.model):
        ids = []
        for k in range(0, len(rows), size):
            some = None if seeds is None else seeds[k : k + size]
            ids += _plainly(backbone, rows[k : k + size], decoding, limits[k : k + size], draws, some)
    else:
        # a tenth faster than without gradients alone; several processes may have sharded the weights, which forbids it
        with torch.no_grad(), torch.inference_mode(not torch.distributed.is_initialized()):
            flight = _Flight(backbone, rows, decoding, limits, draws, seeds, size)
            while flight.fill():
                with attending(backbone.model, NAME, attend):
                    flight.write()
        ids = flight.answers
    texts = backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)
    most = [own for own in limits for _ in range(draws)]
    flat = [Completion(t, tuple(i), len(i) < own) for t, i, own in zip(texts, ids, most, strict=True)]
    read = [len(rows[k // draws]) + len(one.tokens) - (not one.finished) for k, one in enumerate(flat)]
    backbone.admit(max(read))  # the last token of an answer that was cut is not read
    return [flat[k : k + draws] for k in range(0, len(flat), draws)]


@torch.no_grad()
def _plainly(
    backbone: Writer,
    rows: Sequence[Tensor],
    decoding: Decoding,
    limits: Sequence[int],
    draws: int,
    seeds: Sequence[int] | None,
) -> list[list[int]]:
    """The tokens of each row's draws: one prefill, a copy of its cache per draw, rows that have ended leave."""
    embeds, mask = _padded(rows)
    out = backbone.run(embeds, mask, logits_at=torch.tensor([embeds.shape[1] - 1], device=backbone.device))
    cache, logits = out.cache, out.logits[:, -1].float().repeat_interleave(draws, 0)
    if draws > 1:
        cache.batch_repeat_interleave(draws)
        mask = mask.repeat_interleave(draws, 0)
    count, device, limit = len(logits), backbone.device, max(limits)
    most = torch.tensor(limits, device=device).repeat_interleave(draws)
    chance = None if seeds is None else uniforms(seeds, draws, limit).to(device)
    stops = torch.tensor(sorted(backbone.stops), device=device)
    written = torch.zeros(count, limit, dtype=torch.long, device=device)
    length = most.clone()
    alive = torch.arange(count, device=device)  # which answers the rows of the batch belong to
    zero = torch.zeros(1, dtype=torch.long, device=device)
    for step in range(limit):
        token = pick(logits, decoding, None if chance is None else chance[alive, step], written[alive, :step])
        ends = torch.isin(token, stops)
        written[alive, step] = token
        length[alive[ends]] = step
        ends |= most[alive] == step + 1
        if ends.any():
            going = (~ends).nonzero()[:, 0]
            if not len(going):
                break
            alive, token, mask = alive[going], token[going], mask[going]
            cache.batch_select_indices(going)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        logits = backbone.run(backbone.embed(token)[:, None], mask, cache=cache, logits_at=zero).logits[:, -1].float()
    return [row[:n].tolist() for row, n in zip(written, length.tolist(), strict=True)]


def _padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of vectors side by side, padded on the left, and which places are real."""
    embeds = pad_sequence(list(rows), batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows], device=embeds.device)
    return embeds, torch.arange(embeds.shape[1], device=embeds.device) >= embeds.shape[1] - lengths[:, None]


class _Flight:
    """The answers being written, and the questions that wait."""

    def __init__(
        self,
        backbone: Writer,
        prompts: Sequence[Tensor],
        decoding: Decoding,
        limits: Sequence[int],
        draws: int,
        seeds: Sequence[int] | None,
        size: int,
    ):
        self.backbone, self.prompts, self.decoding, self.seeds = backbone, prompts, decoding, seeds
        self.limits, self.limit, self.draws, device = limits, max(limits), draws, backbone.device
        self.most = min(size, len(prompts)) * draws
        self.answers: list[list[int]] = [[]] * (len(prompts) * draws)
        self.queue = iter(range(len(prompts)))
        self.answer: list[int] = []  # of each row, which answer it writes,
        self.slot: list[int] = []  # which of the prompts in use it reads,
        self.came: list[int] = []  # and the step at which it came
        self.now, self.look = 0, LOOK.get(device.type, 8)
        self.stops = torch.tensor(sorted(backbone.stops), device=device)
        self.cache = SharedPrompts()
        # behind its end a row of `written` repeats its first token, which no rule about repetition minds
        self.written = torch.zeros(self.most, self.limit, dtype=torch.long, device=device)
        self.chance = None if seeds is None else torch.zeros(self.most, self.limit, device=device)
        self.token, self.length = (torch.zeros(0, dtype=torch.long, device=device) for _ in range(2))
        self.done = torch.zeros(0, dtype=torch.bool, device=device)

    def fill(self) -> bool:
        """Let ended answers go and new ones in if it is time to; whether there is anything to write."""
        while self._due() and self._turn():
            pass
        return bool(self.answer)

    def write(self) -> None:
        """Tokens until it is time to fill again."""
        while True:
            self._step()
            if self._due():
                return

    def _step(self) -> None:
        """One token more of each answer; those that have ended go on unheard until they leave."""
        cache, backbone = self.cache, self.backbone
        out = backbone.model(
            inputs_embeds=backbone.embed(self.token)[:, None],
            position_ids=(self.start + cache.count.minimum(self.ends - 1) - 1)[:, None],
            use_cache=True,
            logits_to_keep=1,
            shared=cache,
            **{cache_name(type(backbone.model)): cache},
        )
        rows, at = self.rows, cache.count
        chance = None if self.chance is None else self.chance[rows, at]
        self.token = pick(out.logits[:, -1].float(), self.decoding, chance, self.written[: len(rows), : cache.longest])
        self.written[rows, at] = self.token
        cache.advance()
        self.now += 1
        ends = torch.isin(self.token, self.stops) & ~self.done
        self.length = torch.where(ends, at, self.length)
        self.done = self.done | ends | (cache.count >= self.ends)

    def _due(self) -> bool:
        rows = len(self.answer)
        if not rows or self.cache.longest == self.limit:
            return True
        if self.now % self.look:
            return False
        return int(self.done.sum()) * SPARE >= rows

    def _turn(self) -> bool:
        """Ended answers leave, questions enter in their places, and gaps are closed; whether any entered."""
        rows, ended = len(self.answer), self.done.nonzero()[:, 0].tolist()
        written, lengths = self.written[ended].tolist(), self.length[ended].tolist()
        for row, tokens, length in zip(ended, written, lengths, strict=True):
            self.answers[self.answer[row]] = tokens[:length]
        fresh = list(islice(self.queue, (self.most - rows + len(ended)) // self.draws))
        gone = set(ended)
        read = {slot for row, slot in enumerate(self.slot) if row not in gone}
        unread = [slot for slot in range(len(self.cache.widths)) if slot not in read]
        seats, slots = _seats(rows, ended, len(fresh) * self.draws), _seats(len(self.cache.widths), unread, len(fresh))
        self._move(seats)
        self.cache.move(slots.source, slots.target, slots.total)
        moved = dict(zip(slots.source, slots.target, strict=True))
        self.slot = [moved.get(slot, slot) for slot in self.slot]
        if fresh:
            self._enter(fresh, seats.taken, slots.taken)
        if self.answer:
            self._start()
        return bool(fresh)

    def _move(self, seats: "_Seats") -> None:
        """Rows move into the gaps, and there are as many as there will be."""
        for values in (self.answer, self.slot, self.came):
            for old, new in zip(seats.source, seats.target, strict=True):
                values[new] = values[old]
            del values[seats.total :]
            values += [0] * (seats.total - len(values))
        self.written[seats.target] = self.written[seats.source]
        if self.chance is not None:
            self.chance[seats.target] = self.chance[seats.source]
        self.cache.move_own(seats.source, seats.target)

    def _enter(self, fresh: Sequence[int], rows: Sequence[int], slots: Sequence[int]) -> None:
        """Read these questions together and write the first token of all their draws."""
        embeds, mask = _padded([self.prompts[k] for k in fresh])
        out = self.backbone.run(embeds, mask, logits_at=torch.tensor([embeds.shape[1] - 1], device=embeds.device))
        self.cache.enter(out.cache, slots, [len(self.prompts[k]) for k in fresh])
        chance = None
        if self.chance is not None and self.seeds is not None:
            chance = uniforms([self.seeds[k] for k in fresh], self.draws, self.limit).to(embeds.device)
            self.chance[rows], chance = chance, chance[:, 0]
        logits = out.logits[:, -1].float().repeat_interleave(self.draws, 0)
        self.written[rows] = pick(logits, self.decoding, chance, self.written[rows, :0])[:, None]
        for number, row in enumerate(rows):
            which, draw = divmod(number, self.draws)
            self.answer[row], self.slot[row], self.came[row] = fresh[which] * self.draws + draw, slots[which], self.now

    def _start(self) -> None:
        """Set out with the rows there are now, none of which had ended before."""
        self.cache.arrange(self.slot, [1 + self.now - came for came in self.came])
        device, count = self.written.device, self.cache.count
        self.rows = torch.arange(len(self.answer), device=device)
        self.start = torch.tensor([self.cache.lengths[slot] for slot in self.slot], device=device)
        self.ends = torch.tensor([self.limits[answer // self.draws] for answer in self.answer], device=device)
        self.token = self.written[self.rows, count - 1]
        ends = torch.isin(self.token, self.stops)
        self.length = torch.where(ends, count - 1, self.ends)
        self.done = ends | (count >= self.ends)


@dataclass(frozen=True)
class _Seats:
    """Places for those who come: `taken`; which of the others move, `source` to `target`; how many there are then."""

    taken: list[int]
    source: list[int]
    target: list[int]
    total: int


def _seats(count: int, free: Sequence[int], coming: int) -> _Seats:
    """Seat some at `count` places of which `free` (rising) are free, so that no gap is left."""
    total, left = count - len(free) + coming, free[coming:]
    taken = [*free, *range(count, count + coming)][:coming]
    gaps = set(left)
    return _Seats(taken, [k for k in range(total, count) if k not in gaps], [k for k in left if k < total], total)
