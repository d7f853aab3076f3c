"""A frozen language model reads for another one: text, and then slots whose last states are what it has to say.

    [ text | slots ] -> states behind the final norm at the slots

It reads in its own tokens and by its own chat template. Slots never change what stands before them, so text is read
once, without a gradient, however many kinds of slots are tried behind it.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..backbone import Backbone

QWEN_SLOTS = 150001  # the published first slot of Qwen vocabularies, a rare word piece
LLAMA_SLOTS = "<|reserved_special_token_3|>"  # of Llama 3: id 128011


def load_assistant(name: str, backbone: Backbone) -> Backbone | None:
    """The language model called `name`, without weights where the backbone has none; None where that reads itself."""
    return Backbone.load(name, weights=not backbone.table.is_meta) if name else None


def read(
    assistant: Backbone,
    ids: Int[Tensor, "row text"],
    real: Bool[Tensor, "row text"],
    slots: Float[Tensor, "path slot feature"],
) -> tuple[Float[Tensor, "row text feature"], Float[Tensor, "row path slot feature"]]:
    """Last states at left-padded text (`real` marks its tokens) and, path by path, at the slots behind it."""
    paths, count, _ = slots.shape
    text = assistant.run(assistant.embed(ids), real.to(assistant.device))
    if paths > 1:
        text.cache.batch_repeat_interleave(paths)
    mask = F.pad(real.to(assistant.device).repeat_interleave(paths, 0), (0, count), value=True)
    behind = assistant.run(slots.to(assistant.table.dtype).repeat(len(ids), 1, 1), mask, cache=text.cache)
    assert text.hidden is not None
    assert behind.hidden is not None
    return text.hidden, behind.hidden.unflatten(0, (len(ids), paths))


def slot_ids(backbone: Backbone, count: int, start: int | None = None) -> Int[Tensor, "slot"]:
    """Ids of the tokens at `count` slots: from `start` on, or where the published code takes them, else the last ones.

    Published are 150001 on for Qwen and 128011 on for Llama 3, known here by their vocabularies.
    """
    size, vocabulary = len(backbone.table), backbone.tokenizer.get_vocab()
    if start is None and "<|im_start|>" in vocabulary and size > QWEN_SLOTS:
        start = QWEN_SLOTS
    elif start is None:
        start = int(vocabulary.get(LLAMA_SLOTS, size - count))
    if not 0 <= start <= size - count:
        raise ValueError(
            f"{count} slots from id {start} on do not fit into the {size} tokens of {backbone.name!r}; give a "
            f"slot_start from 0 to {size - count}, or fewer thoughts"
        )
    return torch.arange(start, start + count)
