"""Gradient checkpointing that keeps the KV cache: a layer keeps its input and runs again in the backward pass.

Memory for activations falls from all layers to one, at the price of a second forward pass (Chen et al. 2016,
arXiv 1604.06174). transformers' own (`gradient_checkpointing_enable`) cannot be used here: in training mode its layers
drop the cache, so a row behind a cached prefix would lose the prefix and have other gradients. They must, for
a layer that runs twice would append its keys twice. Here each run of a layer gets a copy of the cache as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import DynamicCache
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import attending


@contextmanager
def checkpointed(model: nn.Module) -> Iterator[None]:
    """Inside, the layers of a Hugging Face language model keep no activations; values and gradients are the same.

    Where no gradient is wanted nothing changes. Random numbers (dropout) are drawn again as they were.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise ValueError(
            f"{type(model).__name__} has no layers that gradient checkpointing knows; "
            "train without training.gradient_checkpointing"
        )
    for index, layer in enumerate(layers):
        # `forward`, not the call: what others hook to the call (FSDP gathers a layer's weights there) runs once
        layer.forward = _recomputed(layer.forward, index, model)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class has it


def _recomputed(forward: Callable[..., Tensor], index: int, model: Any) -> Callable[..., Tensor]:
    """The forward pass of the layer with this index, checkpointed."""

    def run(hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not torch.is_grad_enabled():
            return forward(hidden, *args, **kwargs)
        way = model.config._attn_implementation  # the second run attends as the first did
        caches = [value for value in (*args, *kwargs.values()) if isinstance(value, DynamicCache)]
        if not caches:  # rows that are packed: there is nothing that a second run could change

            def again(hidden: Tensor) -> Tensor:
                with attending(model, way):
                    return forward(hidden, *args, **kwargs)

            return cast(Tensor, checkpoint(again, hidden, use_reentrant=False))
        (cache,) = caches
        before = copy(cache.layers[index])  # its tensors are never written to: growing makes new ones
        # What is kept for the second run must not hold the caller's cache, which grows by all layers' keys and values.
        shell = copy(cache)
        shell.layers = []
        args = tuple(shell if value is cache else value for value in args)
        kwargs = {name: shell if value is cache else value for name, value in kwargs.items()}

        def compute(hidden: Tensor) -> tuple[Tensor, Any]:
            mine = copy(shell)
            mine.layers = [copy(before)] * (index + 1)  # only the last is read
            given = (mine if value is shell else value for value in args)
            named = {name: mine if value is shell else value for name, value in kwargs.items()}
            return forward(hidden, *given, **named), mine.layers[index]

        out, cache.layers[index] = checkpoint(compute, hidden, use_reentrant=False)
        return out

    return run
