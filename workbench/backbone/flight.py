"""Rows written over shared prompts: each is read once for all its copies, and rows that end make room for the next.

Prompts wait in a queue. Those that enter are read together; then every step makes one input of each row in flight,
wherever it has got to, over keys and values that `attention` keeps. What all prompts begin with (a chat template, an
instruction) is read once, for one row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .attention import NAME, SharedPrompts, attend, attending, cache_name
from .decoding import uniforms
from .states import noted
from .thoughts import Kept, Made, State, Step, Written

BEGUN = 8  # positions that prompts must have in common, or it is no gain to read them apart
SPARE = 4  # rows that have ended stay in the batch until they are one in so many
LOOK = {"cpu": 1}  # steps between looks at which have ended; elsewhere 8, because each look waits for the device


class Flight:
    """The rows being written, and the prompts that wait."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Tensor],
        step: Step,
        limits: Sequence[int],
        copies: int,
        seeds: Sequence[int] | None,
        size: int,
        layers: Sequence[int],
    ):
        self.model, self.prompts, self.step, self.seeds, self.layers = model, prompts, step, seeds, tuple(layers)
        self.limits, self.limit, self.copies, device = limits, max(limits), copies, model.device
        self.most = min(size, len(prompts)) * copies
        self.words: list[list[int]] = [[]] * (len(prompts) * copies)
        self.ended = [False] * (len(prompts) * copies)
        self.kept: list[Kept] = []
        self.queue = iter(range(len(prompts)))
        self.row: list[int] = []  # of each seat, which row is written there,
        self.slot: list[int] = []  # which of the prompts in use it reads,
        self.came: list[int] = []  # and the step at which it came
        self.now, self.look = 0, LOOK.get(device.type, 8)
        self.thinks = False  # whether steps make thoughts; ended rows then leave at once, since steps may count them
        self.stops = torch.tensor(sorted(model.stops), device=device)
        self.cache = SharedPrompts()
        self.common = _common(prompts)
        self.begun: Any = None  # the cache of what is common, of one row; None before it is read
        # by seat: all it has written, its random numbers, its next input, and how far it has got
        self.written = torch.full((self.most, self.limit), -1, device=device)
        self.chance = None if seeds is None else torch.zeros(self.most, self.limit, device=device)
        self.vector = prompts[0].new_zeros(self.most, prompts[0].shape[-1])
        self.number, self.length, self.room = torch.zeros(3, self.most, dtype=torch.long, device=device).unbind()
        self.done = torch.zeros(self.most, dtype=torch.bool, device=device)

    def run(self) -> Written:
        """Write all of them."""
        while self._fill():
            with (
                attending(self.model.model, NAME, attend),
                noted(self.model.model, self.model.reader, (-1, *self.layers)) as states,
            ):
                self._write(states)
        return Written(self.words, self.ended, self.kept)

    def _fill(self) -> bool:
        """Let ended rows go and new ones in if it is time to; whether there is anything to write."""
        while self._due() and self._turn():
            pass
        return bool(self.row)

    def _write(self, states: dict[int, Tensor]) -> None:
        """Inputs until it is time to fill again."""
        while True:
            self._advance(states)
            if self._due():
                return

    def _advance(self, states: dict[int, Tensor]) -> None:
        """One input more of each row; those that have ended go on unheard until they leave."""
        cache, model, seats = self.cache, self.model.model, slice(len(self.row))
        out = model(
            inputs_embeds=self.vector[seats, None],
            position_ids=(self.start + cache.count.minimum(self.room[seats] - 1) - 1)[:, None],  # of ended rows too
            use_cache=True,
            logits_to_keep=1,
            shared=cache,
            **{cache_name(type(model)): cache},
        )
        at = cache.count
        chance = None if self.chance is None else self.chance[seats].gather(1, at[:, None])[:, 0]
        last = {index: value[:, -1] for index, value in states.items()}
        state = State(
            last.pop(-1), out.logits[:, -1].float(), self.rows, self.number[seats], at, chance,
            self.written[seats, : cache.longest], last, self.copies,
        )  # fmt: skip
        self._take(self.step(state), state, seats, self.index, at)
        cache.advance()
        self.now += 1

    def _take(self, made: Made, state: State, seats: slice | list[int], index: Tensor, at: Tensor) -> None:
        """Put what was made, as inputs number `at`, where it belongs; `index` names the seats too."""
        words, done, ends = made.words, self.done[seats], made.ends
        if words is not None:
            self.written[index, at] = words
            stopped = torch.isin(words, self.stops)
            ends = stopped if ends is None else ends | stopped
        if made.vector is None:
            assert words is not None, "a step made neither words nor vectors"
            vector = self.model.embed(words)
        else:
            self.thinks, vector, thought = True, made.vector.to(self.vector.dtype), ~done
            if ends is not None:
                thought = thought & ~ends
            if words is not None:
                vector = torch.where((words >= 0)[:, None], self.model.embed(words.clamp(min=0)), vector)
                thought = thought & (words < 0)
            self._keep(made, state, at, thought)
            self.number[seats] += thought
        self.vector[seats] = vector
        if ends is not None:
            self.length[seats] = torch.where(ends & ~done, at, self.length[seats])
            done = done | ends
        self.done[seats] = done | (at + 1 >= self.room[seats])

    def _keep(self, made: Made, state: State, at: Tensor, thought: Tensor) -> None:
        chosen = thought.nonzero()[:, 0]
        if len(chosen) or not self.kept:  # the first say which signals there are
            number = state.number[chosen]
            self.kept.append(Kept(state.rows[chosen], number, at[chosen] - number, made.of(chosen)))

    def _due(self) -> bool:
        rows = len(self.row)
        if not rows or self.cache.longest == self.limit:
            return True
        if not self.thinks and self.now % self.look:
            return False
        return int(self.done[:rows].sum()) * (rows if self.thinks else SPARE) >= rows

    def _turn(self) -> bool:
        """Ended rows leave, prompts enter in their places, and gaps are closed; whether any entered."""
        rows, ended = len(self.row), self.done[: len(self.row)].nonzero()[:, 0].tolist()
        written, lengths = self.written[ended].tolist(), self.length[ended].tolist()
        for seat, words, length in zip(ended, written, lengths, strict=True):
            self.words[self.row[seat]] = [word for word in words[:length] if word >= 0]
            self.ended[self.row[seat]] = length < self.limits[self.row[seat] // self.copies]
        fresh = list(islice(self.queue, (self.most - rows + len(ended)) // self.copies))
        gone = set(ended)
        read = {slot for seat, slot in enumerate(self.slot) if seat not in gone}
        unread = [slot for slot in range(len(self.cache.widths)) if slot not in read]
        seats, slots = _seats(rows, ended, len(fresh) * self.copies), _seats(len(self.cache.widths), unread, len(fresh))
        self._move(seats)
        self.cache.move(slots.source, slots.target, slots.total)
        moved = dict(zip(slots.source, slots.target, strict=True))
        self.slot = [moved.get(slot, slot) for slot in self.slot]
        if fresh:
            self._enter(fresh, seats.taken, slots.taken)
        if self.row:
            self._start()
        return bool(fresh)

    def _move(self, seats: "_Seats") -> None:
        """Rows move into the gaps, and there are as many as there will be."""
        for values in (self.row, self.slot, self.came):
            for old, new in zip(seats.source, seats.target, strict=True):
                values[new] = values[old]
            del values[seats.total :]
            values += [0] * (seats.total - len(values))
        if seats.source:
            for values in (self.written, self.vector, self.number, self.length, self.room, self.done):
                values[seats.target] = values[seats.source]
            if self.chance is not None:
                self.chance[seats.target] = self.chance[seats.source]
        self.cache.move_own(seats.source, seats.target)

    def _enter(self, fresh: Sequence[int], seats: list[int], slots: Sequence[int]) -> None:
        """Read these prompts together and make the first input of all their copies."""
        embeds, mask = padded([self.prompts[k][self.common :] for k in fresh])
        last, copies = torch.tensor([embeds.shape[1] - 1], device=embeds.device), self.copies
        begun, padding = self._begun(fresh), (~mask).sum(1)
        mask = torch.nn.functional.pad(mask, (self.common, 0), value=True)
        out = self.model.run(embeds, mask, cache=begun, logits_at=last, hidden=True, layers=self.layers)
        if self.common and bool(padding.any()):
            _pad_first(out.cache, padding, self.common)
        self.cache.enter(out.cache, slots, [len(self.prompts[k]) for k in fresh])
        chance = None
        if self.chance is not None and self.seeds is not None:
            chance = uniforms([self.seeds[k] for k in fresh], copies, self.limit).to(embeds.device)
            self.chance[seats], chance = chance, chance[:, 0]
        rows = [prompt * copies + copy for prompt in fresh for copy in range(copies)]
        for number, (seat, row) in enumerate(zip(seats, rows, strict=True)):
            self.row[seat], self.slot[seat], self.came[seat] = row, slots[number // copies], self.now
        self.written[seats], self.number[seats], self.done[seats] = -1, 0, False
        room = torch.tensor([self.limits[prompt] for prompt in fresh], device=embeds.device).repeat_interleave(copies)
        self.room[seats] = self.length[seats] = room
        states = {index: value[:, -1].repeat_interleave(copies, 0) for index, value in out.layers.items()}
        index = torch.tensor(seats, device=embeds.device)
        state = State(
            out.hidden[:, -1].repeat_interleave(copies, 0), out.logits[:, -1].float().repeat_interleave(copies, 0),
            torch.tensor(rows, device=embeds.device), torch.zeros_like(index), torch.zeros_like(index), chance,
            self.written[seats, :0], states, copies,
        )  # fmt: skip
        self._take(self.step(state), state, seats, index, torch.zeros_like(index))

    def _begun(self, fresh: Sequence[int]) -> Any:
        """A cache of these prompts that have all read what is common to them; None where that is nothing."""
        if not self.common:
            return None
        if self.begun is None:
            first = self.prompts[0][None, : self.common]
            self.begun = self.model.run(first, torch.ones_like(first[..., 0], dtype=torch.bool)).cache
        cache, rows = self.model.cache_for(fresh), len(fresh)
        for number, layer in enumerate(self.begun.layers):
            cache.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), number)
        return cache

    def _start(self) -> None:
        """Set out with the rows there are now."""
        self.cache.arrange(self.slot, [1 + self.now - came for came in self.came])
        device = self.written.device
        self.index, self.rows = torch.arange(len(self.row), device=device), torch.tensor(self.row, device=device)
        self.start = torch.tensor([self.cache.lengths[slot] for slot in self.slot], device=device)


def _common(prompts: Sequence[Tensor]) -> int:
    """Vectors that all prompts begin with, of each something being left; 0 where they are fewer than `BEGUN`."""
    most = min(len(prompt) for prompt in prompts) - 1
    if len(prompts) < 2 or most < BEGUN:
        return 0
    first = prompts[0][:most]
    same = torch.ones(most, dtype=torch.bool, device=first.device)
    for prompt in prompts[1:]:
        same &= (prompt[:most] == first).all(1)
    count = int(same.long().cumprod(0).sum())
    return count if count >= BEGUN else 0


def _pad_first(cache: Any, padding: Tensor, common: int) -> None:
    """Put each row's padding, which stands behind what is common, before it: keys have their positions in them."""
    at, pads = torch.arange(cache.get_seq_length(), device=padding.device), padding[:, None]
    source = torch.where(at < pads, at + common, torch.where(at < pads + common, at - pads, at))[:, None, :, None]
    for layer in cache.layers:
        layer.keys, layer.values = (x.gather(2, source.expand_as(x)) for x in (layer.keys, layer.values))


def padded(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Rows of vectors side by side, padded on the left, and which places are real."""
    embeds = pad_sequence(list(rows), batch_first=True, padding_side="left")
    lengths = torch.tensor([len(row) for row in rows], device=embeds.device)
    return embeds, torch.arange(embeds.shape[1], device=embeds.device) >= embeds.shape[1] - lengths[:, None]


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
