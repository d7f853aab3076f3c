"""The one loop that writes: rows of vectors are read, and `step(state) -> made` says each row's next input.

    input[t + 1] = embedding(word)    or    a thought, any vector        logits, states = model(input[.. t])

Answers are words alone (`generation`), chains of thoughts are thoughts alone (`methods/loops`), and a method may let
words and thoughts follow each other as it likes. A prompt is read once for all its copies (paths or draws), rows that
have ended leave, and what a row makes never depends on what else is in the batch.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from .attention import shareable
from .decoding import Decoding, pick, uniforms
from .flight import Flight, padded
from .thoughts import Kept, Made, State, Step, Written


class Reader(Protocol):
    """What the loop needs of a language model: a `Backbone`, or whatever goes on from what it has read.

    model: transformers' own, whose attention may be replaced by the shared one; None where there is none. stops: words
    that end a row. trains: whether what stands before needs gradients. cache_for: an empty cache for these of the
    prompts that are being written, by number, so that a model which reads more than rows finds what belongs to them; a
    cache knows `batch_repeat_interleave(times)` and `batch_select_indices(rows)`. admit: a word about
    rows that are longer than it was made for. run: as `Backbone.run`.
    """

    @property
    def model(self) -> Any: ...
    @property
    def stops(self) -> frozenset[int]: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def trains(self) -> bool: ...

    def embed(self, ids: Tensor) -> Tensor: ...
    def admit(self, length: int) -> None: ...
    def cache_for(self, prompts: Sequence[int]) -> Any: ...

    def run(
        self,
        embeds: Tensor,
        mask: Tensor,
        *,
        cache: Any = None,
        logits_at: Tensor | None = None,
        hidden: bool = False,
        layers: Sequence[int] = (),
    ) -> Any: ...


def words(decoding: Decoding) -> Step:
    """The step that writes text: each row's next token by its own logits, tokens and random number."""

    def step(state: State) -> Made:
        assert state.written is not None
        return Made(None, words=pick(state.logits, decoding, state.chance, state.written))

    return step


def write(
    reader: Reader,
    prompts: Sequence[Float[Tensor, "_ feature"]],
    step: Step,
    limit: int | Sequence[int],
    *,
    copies: int = 1,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    layers: Sequence[int] = (),
    plain: bool = False,
) -> Written:
    """`copies` rows behind each of the prompts (rows of vectors), of at most `limit` inputs each, words and thoughts
    (one number for all, or one for each prompt).

    A row ends with a word that is one of the reader's stops, where its step says so (`Made.ends`), or at the limit.
    seeds: one for each prompt, so that states have a uniform number of each row and input. layers: states that steps
    want to see besides the last. At most batch_size x copies rows are written at any time; None: all at once. Without
    gradients prompts are shared (`flight`) by models that allow it, unless `plain`; both write the same up to rounding.
    """
    if not prompts or not limit:
        count = len(prompts) * copies
        return Written([[] for _ in range(count)], [False] * count, [])
    size, limits = batch_size or len(prompts), [limit] * len(prompts) if isinstance(limit, int) else limit
    if not (plain or torch.is_grad_enabled() or reader.model is None) and shareable(reader.model):
        # a tenth faster than without gradients alone; several processes may have sharded the weights, which forbids it
        with torch.inference_mode(not torch.distributed.is_initialized()):
            return _admitted(reader, prompts, Flight(reader, prompts, step, limits, copies, seeds, size, layers).run())
    found = [
        _plainly(reader, prompts, range(len(prompts))[k : k + size], step, limits, copies, seeds, layers)
        for k in range(0, len(prompts), size)
    ]
    ids, ended = ([value for one in found for value in getattr(one, name)] for name in ("words", "ended"))
    return _admitted(reader, prompts, Written(ids, ended, [kept for one in found for kept in one.kept]))


def _admitted(reader: Reader, prompts: Sequence[Tensor], written: Written) -> Written:
    """The same, after a word where rows have become longer than the model was made for."""
    copies, thoughts = len(written.words) // len(prompts), torch.zeros(len(written.words), dtype=torch.long)
    for one in written.kept:
        thoughts += one.rows.cpu().bincount(minlength=len(thoughts))
    read = [
        len(prompts[row // copies]) + len(words) + count - (not ended)  # the last input of a row that was cut is unread
        for row, (words, count, ended) in enumerate(zip(written.words, thoughts.tolist(), written.ended, strict=True))
    ]
    reader.admit(max(read))
    return written


def _plainly(
    reader: Reader,
    prompts: Sequence[Tensor],
    chosen: range,
    step: Step,
    limits: Sequence[int],
    copies: int,
    seeds: Sequence[int] | None,
    layers: Sequence[int],
) -> Written:
    """One batch, with gradients where they are wanted: one prefill, a copy of its cache for each row."""
    embeds, mask = padded([prompts[k] for k in chosen])
    last = torch.tensor([embeds.shape[1] - 1], device=reader.device)
    with torch.set_grad_enabled(reader.trains and torch.is_grad_enabled()):
        out = reader.run(
            embeds, mask, cache=reader.cache_for(chosen), logits_at=last, hidden=True, layers=layers
        )  # fmt: skip
    cache, mask = out.cache, mask.repeat_interleave(copies, 0)
    if copies > 1:
        cache.batch_repeat_interleave(copies)
    seen = [value.repeat_interleave(copies, 0) for value in _seen(out, layers)]
    count, device, first = len(mask), reader.device, chosen.start * copies
    most = torch.tensor([limits[k] for k in chosen], device=device).repeat_interleave(copies)
    limit = int(most.max())
    chance = None if seeds is None else uniforms([seeds[k] for k in chosen], copies, limit).to(device)
    stops = torch.tensor(sorted(reader.stops), device=device)
    zero = torch.zeros(1, dtype=torch.long, device=device)
    written = torch.full((count, limit), -1, device=device)
    number, length = torch.zeros(count, dtype=torch.long, device=device), most.clone()
    alive, kept = torch.arange(count, device=device), []  # which rows those of the batch are
    for at in range(limit):
        hidden, logits, *others = seen
        state = State(
            hidden, logits, first + alive, number[alive], torch.full_like(alive, at),
            None if chance is None else chance[alive, at], written[alive, :at],
            dict(zip(layers, others, strict=True)), copies,
        )  # fmt: skip
        made = step(state)
        ends = torch.zeros_like(alive, dtype=torch.bool) if made.ends is None else made.ends
        if made.words is not None:
            ends = ends | torch.isin(made.words, stops)
        if bool(ends.any()):
            going = (~ends).nonzero()[:, 0]
            length[alive[ends]] = at
            alive, mask, made = alive[going], mask[going], made.of(going)
            cache.batch_select_indices(going)
        vector = None if made.words is None else reader.embed(made.words.clamp(min=0))
        if made.vector is not None:
            thought = torch.ones_like(alive, dtype=torch.bool) if made.words is None else made.words < 0
            chosen_rows = thought.nonzero()[:, 0]
            if len(chosen_rows) or not kept:  # the first say which signals there are
                own, so_far = alive[chosen_rows], number[alive[chosen_rows]]
                kept.append(Kept(first + own, so_far, at - so_far, made.of(chosen_rows)))
                number = number.index_add(0, own, torch.ones_like(own))
            thoughts = made.vector.to(embeds.dtype)
            vector = thoughts if vector is None else torch.where(thought[:, None], thoughts, vector)
        if made.words is not None:
            written[alive, at] = made.words
        assert vector is not None, "a step made neither words nor vectors"
        full = most[alive] == at + 1
        if bool(full.any()):
            going = (~full).nonzero()[:, 0]
            alive, mask, vector = alive[going], mask[going], vector[going]
            if len(alive):
                cache.batch_select_indices(going)
        if not len(alive):
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        seen = _seen(
            reader.run(vector[:, None], mask, cache=cache, logits_at=zero, hidden=True, layers=layers), layers
        )  # fmt: skip
    ids = [[w for w in row[:n] if w >= 0] for row, n in zip(written.tolist(), length.tolist(), strict=True)]
    return Written(ids, (length < most).tolist(), kept)


def _seen(out: Any, layers: Sequence[int]) -> list[Tensor]:
    """States and logits at the last position of a pass, then the states of other layers."""
    return [out.hidden[:, -1], out.logits[:, -1].float(), *(out.layers[index][:, -1] for index in layers)]
