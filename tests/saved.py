"""What a forward pass keeps for the backward pass."""

from collections.abc import Callable

import torch
from torch import nn


def saved_bytes(model: nn.Module, run: Callable[[], torch.Tensor]) -> int:
    """Bytes that `run()` keeps for its backward pass, weights aside; what several operations keep counts once."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, torch.Tensor] = {}  # holds the tensors, so that no address is used twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = run()
    assert out.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())
