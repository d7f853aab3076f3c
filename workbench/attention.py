"""Attention in which the answers to one prompt share its keys and values, for writing token by token.

    attention(q) = softmax([q K_prompt', q K_own']) [V_prompt; V_own]

Each answer has keys and values of its own for what it has written. A step reads a prompt once, not once per answer
(bifurcated attention, Athiwaratkun et al. 2024), and own keys lie in buffers that grow in blocks, so that a new token
does not make the old ones move.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer

NAME = "shared-prompts"  # under which transformers finds `attend`
BLOCK = 64  # positions by which buffers grow
_TRIED: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # models, and what `_hands_on` said of them


@cache
def cache_name(model: type) -> str:
    """What models of this class call the keys and values they go on from; transformers renamed it in 5.24."""
    return "cache" if "cache" in signature(model.forward).parameters else "past_key_values"  # pyright: ignore


def shareable(model: Any) -> bool:
    """Whether the model attends in the usual way, to all that stands before, and lets its attention be replaced."""
    config = model.config
    layers = DynamicCache(config=config).layers
    usual = config._attn_implementation == "sdpa" and config.get_text_config(decoder=True) is config
    return usual and bool(layers) and all(type(layer) is DynamicLayer for layer in layers) and _hands_on(model)


def slides(model: Any) -> bool:
    """Whether some layer attends to a window that slides, and keeps no more than that."""
    return any(isinstance(layer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=model.config).layers)


def _hands_on(model: Any) -> bool:
    """Whether every layer hands on to an attention of ours what the model was given for it: tried once, on a token."""
    if model not in _TRIED:
        seen: list[int] = []

        def attention(module: Any, query: Tensor, key: Tensor, value: Tensor, *_: Any, **given: Any) -> Any:
            seen.append(given["shared"])
            return torch.zeros_like(query).transpose(1, 2)[..., : value.shape[-1]], None

        weight = model.get_input_embeddings().weight
        token = torch.zeros(1, 1, weight.shape[1], dtype=weight.dtype, device=weight.device)
        try:
            with torch.no_grad(), attending(model, "tried", attention):
                model.base_model(inputs_embeds=token, use_cache=False, shared=1)
        except Exception:  # whatever a model of another kind stumbles over, transformers' own way is left
            seen.clear()
        _TRIED[model] = len(seen) == len(DynamicCache(config=model.config).layers)
    return _TRIED[model]


def forgo(model: Any) -> None:
    """Let the model be taken for one whose attention cannot be replaced."""
    _TRIED[model] = False


@contextmanager
def attending(model: Any, name: str, function: Callable[..., Any] | None = None) -> Iterator[None]:
    """Within, the model attends by this function, which transformers then knows by this name, or knew already."""
    # not above: it loads for two seconds what a help page never needs
    from transformers import AttentionInterface

    if function is not None:
        AttentionInterface.register(name, function)
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


class SharedPrompts(Cache):
    """Keys and values of the answers being written: of each prompt once, and of what each answer has written itself.

    The first places of a buffer are in use; what lies behind them is finite and has no weight.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.prompts: list[list[Tensor]] = []  # of each layer keys and values, [prompt, head, position, feature]
        self.read: list[tuple[Tensor, Tensor]] = []  # of each layer those in use: keys [.., feature, position], values
        self.own: list[list[Tensor]] = []  # of each layer keys and values, [answer, head, token, feature]
        self.widths: list[int] = []  # of each prompt in use: positions, those of its padding on the left included
        self.lengths: list[int] = []  # without them
        self.side = 1  # answers that stand side by side at each prompt
        self.place: Tensor | None = None  # of each answer in the grid [prompt, side]; None: they fill it in order
        self.padding: Tensor | None = None  # 0 where a prompt's position is real, else -inf; None: all are
        self.count = torch.zeros(0, dtype=torch.long)  # tokens of each answer
        self.longest, self.even = 0, True  # the highest count, and whether all are equal
        self.ragged: Tensor | None = None  # 0 where an answer's own token is there, else -inf; None: all are

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Keep each answer's newest token; keys and values of all its tokens, [answer, head, token, feature].

        Named as transformers calls it, which has more to say (`args`, `kwargs`) to caches of other kinds.
        """
        rows, new = len(key_states), (key_states, value_states)
        if layer_idx == len(self.own):
            self.own.append([states[:0, :, :0] for states in new])
        buffers = self.own[layer_idx] = [_room(buffer, rows, self.longest) for buffer in self.own[layer_idx]]
        for buffer, states in zip(buffers, new, strict=True):
            if self.even:
                buffer[:rows, :, self.longest - 1] = states[:, :, 0]
            else:
                buffer[torch.arange(rows, device=buffer.device), :, self.count - 1] = states[:, :, 0]
        keys, values = (buffer[:rows, :, : self.longest] for buffer in buffers)
        return keys, values

    def enter(self, read: Cache, slots: Sequence[int], lengths: Sequence[int]) -> None:
        """Put prompts that have been read, and are this long without padding, into these places."""
        width, rows = read.get_seq_length(), max(max(slots) + 1, len(self.widths))
        for values in (self.widths, self.lengths):
            values += [0] * (rows - len(values))
        for slot, length in zip(slots, lengths, strict=True):
            self.widths[slot], self.lengths[slot] = width, length
        layers: Any = read.layers
        for number, layer in enumerate(layers):
            new = [layer.keys, layer.values]
            if number == len(self.prompts):
                self.prompts.append(new)  # as they are: the first to enter take the first places
                continue
            buffers = self.prompts[number] = [_room(buffer, rows, width) for buffer in self.prompts[number]]
            for buffer, states in zip(buffers, new, strict=True):
                buffer[list(slots), :, :width] = states

    def move(self, source: Sequence[int], target: Sequence[int], left: int) -> None:
        """Let prompts at `source` move to the places `target`; only the first `left` places remain in use."""
        for values in (self.widths, self.lengths):
            for old, new in zip(source, target, strict=True):
                values[new] = values[old]
            del values[left:]
        _move(self.prompts, source, target, max(self.widths, default=0))

    def move_own(self, source: Sequence[int], target: Sequence[int]) -> None:
        """Let answers at `source` move to the places `target`."""
        _move(self.own, source, target, self.longest)

    def arrange(self, slots: Sequence[int], counts: Sequence[int]) -> None:
        """Say of each answer which prompt it reads and how many tokens it has."""
        device = self.prompts[0][0].device
        seen, places = Counter[int](), []
        for slot in slots:
            places.append((slot, seen[slot]))
            seen[slot] += 1
        self.side = max(seen.values())
        flat = [slot * self.side + number for slot, number in places]
        full = flat == list(range(len(self.widths) * self.side))
        self.place = None if full else torch.tensor(flat, device=device)
        width = max(self.widths)
        used = [[buffer[: len(self.widths), :, :width] for buffer in layer] for layer in self.prompts]
        self.read = [(keys.transpose(2, 3), values) for keys, values in used]
        at, ends = torch.arange(width, device=device), torch.tensor(self.widths, device=device)[:, None]
        real = (at < ends) & (at >= ends - torch.tensor(self.lengths, device=device)[:, None])
        self.padding = None if min(self.lengths) == width else _bias(real)
        self.count, self.longest = torch.tensor(counts, device=device), max(counts)
        self.even = min(counts) == self.longest
        self._masked()

    def advance(self) -> None:
        """Every answer has one token more."""
        self.count, self.longest = self.count + 1, self.longest + 1
        self._masked()

    def _masked(self) -> None:
        at = torch.arange(self.longest, device=self.count.device)
        self.ragged = None if self.even else _bias(at < self.count[:, None])

    def gathered(self, x: Float[Tensor, "answer head group feature"]) -> Float[Tensor, "prompt head sharing feature"]:
        """What belongs to the answers, side by side at the prompts they read."""
        _, heads, group, size = x.shape
        if self.place is not None:
            x = x.new_zeros(len(self.widths) * self.side, heads, group, size).index_copy(0, self.place, x)
        if self.side > 1:
            x = x.view(-1, self.side, heads, group, size).transpose(1, 2)
        return x.reshape(len(self.widths), heads, self.side * group, size)

    def spread(self, x: Float[Tensor, "prompt head sharing feature"]) -> Float[Tensor, "answer head group feature"]:
        """The way back from `gathered`."""
        prompts, heads, sharing, size = x.shape
        if self.side > 1:
            x = x.view(prompts, heads, self.side, sharing // self.side, size).transpose(1, 2)
            x = x.reshape(prompts * self.side, heads, sharing // self.side, size)
        return x if self.place is None else x[self.place]


def attend(
    module: Any,
    query: Float[Tensor, "answer head 1 feature"],
    key: Float[Tensor, "answer shared token feature"],
    value: Float[Tensor, "answer shared token feature"],
    attention_mask: Tensor | None,
    *,
    shared: SharedPrompts,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Float[Tensor, "answer 1 head feature"], None]:
    """Attention of each answer's newest token to its prompt and to its own tokens, as transformers calls it.

    Query heads that read the same key head stand side by side, and so do the answers to one prompt. `shared` knows
    what is masked; what else transformers hands to an attention (dropout, windows) does not apply here.
    """
    rows, heads, size = query.shape[0], query.shape[1], query.shape[3]
    q = query * (size**-0.5 if scaling is None else scaling)
    q = q.reshape(rows, key.shape[1], heads // key.shape[1], size)
    prompt_keys, prompt_values = shared.read[module.layer_idx]
    far, near = shared.gathered(q) @ prompt_keys, q @ key.transpose(2, 3)
    if shared.padding is not None:
        far += shared.padding
    if shared.ragged is not None:
        near += shared.ragged
    scores = torch.cat([shared.spread(far), near], -1)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
    on_prompt, on_own = weights[..., : far.shape[-1]], weights[..., far.shape[-1] :]
    read = shared.spread(shared.gathered(on_prompt) @ prompt_values) + on_own @ value
    return read.reshape(rows, 1, heads, size), None


def _bias(there: Bool[Tensor, "row position"]) -> Float[Tensor, "row 1 1 position"]:
    """0 where there is something, else -inf."""
    return torch.zeros(there.shape, device=there.device).masked_fill(~there, -torch.inf)[:, None, None]


def _room(buffer: Tensor, rows: int, places: int) -> Tensor:
    """The buffer, or its contents in a larger one of zeros, with room for so many rows and places."""
    have_rows, heads, have, size = buffer.shape
    if have_rows >= rows and have >= places:
        return buffer
    if have < places:
        places = -(-places // BLOCK) * BLOCK
    larger = buffer.new_zeros(max(rows, have_rows), heads, max(places, have), size)
    larger[:have_rows, :, :have] = buffer
    return larger


def _move(buffers: list[list[Tensor]], source: Sequence[int], target: Sequence[int], places: int) -> None:
    """Copy rows of all buffers, as far as they are in use."""
    if source:
        for buffer in (one for layer in buffers for one in layer):
            buffer[list(target), :, :places] = buffer[list(source), :, :places]
