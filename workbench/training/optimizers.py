"""What changes the weights: AdamW, or Muon for the matrices of layers and AdamW for the rest."""

import torch
from torch import nn

from .plan import TrainConfig


def make_optimizers(method: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon on the matrices of layers and AdamW on the rest; groups carry their peak rate."""
    tables = {id(p) for module in method.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    named = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and name.endswith("weight") and id(p) not in tables]
    if config.optimizer == "adamw" or not matrices:
        lr = config.lr if config.optimizer == "adamw" else config.adamw_lr
        group = {"params": [p for _, p in named], "peak": lr}
        return [torch.optim.AdamW([group], lr=lr, weight_decay=config.weight_decay)]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    muon = torch.optim.Muon(
        [{"params": matrices, "peak": config.lr}],
        lr=config.lr,
        weight_decay=config.weight_decay,
        adjust_lr_fn="original",
    )
    adamw = torch.optim.AdamW(
        [{"params": rest, "peak": config.adamw_lr}], lr=config.adamw_lr, weight_decay=config.weight_decay
    )
    return [muon, adamw] if rest else [muon]
