"""States of a language model's layers, noted while it runs.

Indices are those of transformers' `hidden_states`: 0 is what the first block reads, -2 what the last block reads, and
-1 what it gives, behind the final norm. Only what is asked for is kept.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def noted(model: Any, reader: nn.Module, layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Within, each pass of the model leaves the states [row, position, feature] of these layers in what is given.

    reader: the model without its output head.
    """
    found: dict[int, Tensor] = {}
    hooks = []
    for index in layers:
        if index == -1:

            def note(_: Any, __: Any, out: Any) -> None:
                found[-1] = out.last_hidden_state

            hooks.append(reader.register_forward_hook(note))
            continue

        def note_input(_: Any, given: Any, named: Any, index: int = index) -> None:
            found[index] = given[0] if given else named["hidden_states"]

        hooks.append(_block(model, reader, index).register_forward_pre_hook(note_input, with_kwargs=True))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _block(model: Any, reader: nn.Module, index: int) -> nn.Module:
    """The block that reads the states of this index, or one sentence."""
    count = model.config.num_hidden_layers
    lists = [part for part in reader.children() if isinstance(part, nn.ModuleList) and len(part) == count]
    place = index if index >= 0 else count + 1 + index
    if not lists or not 0 <= place < count:
        raise ValueError(
            f"no states of index {index} in {type(model).__name__} with {count} blocks; give -1 (behind the final "
            f"norm) or {-count - 1} to -2 (what a block reads)"
        )
    return lists[0][place]
