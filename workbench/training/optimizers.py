"""What changes the weights: AdamW, or Muon for the matrices of layers and AdamW for the rest."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..methods import LatentMethod
from .plan import TrainConfig

ROUNDS, COEFFICIENTS = 5, (3.4445, -4.7750, 2.0315)  # of the Newton-Schulz iteration (Jordan et al. 2024)


class Muon(torch.optim.Muon):
    """torch's Muon, whose matrix products are in a precision that the weights' device is fast at.

    torch's own are always in bfloat16, which is many times slower than float32 on a processor without units for it
    (`workbench bench training` says how much).
    """

    def __init__(self, params: Any, lr: float, weight_decay: float, precision: Literal["auto", "bfloat16", "float32"]):
        super().__init__(params, lr=lr, weight_decay=weight_decay, adjust_lr_fn="original")
        self.precision = precision

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        assert closure is None, "nothing here evaluates a loss twice"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state, momentum, lr = self.state[weight], group["momentum"], group["lr"]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                state["momentum_buffer"].lerp_(weight.grad, 1 - momentum)
                update = weight.grad.lerp(state["momentum_buffer"], momentum)
                chosen = quick_precision(weight.device) if self.precision == "auto" else getattr(torch, self.precision)
                rows, columns = weight.shape
                weight.mul_(1 - lr * group["weight_decay"])
                weight.add_(orthogonal(update, chosen), alpha=-lr * max(1, rows / columns) ** 0.5)


def orthogonal(matrix: Tensor, precision: torch.dtype) -> Tensor:
    """A matrix with the same singular vectors and singular values near one (0.7 to 1.2), by Newton-Schulz iteration."""
    a, b, c = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.mT if tall else matrix).to(precision)
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def quick_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has units that multiply in it, else float32: by what it is, never by a stop watch."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    known = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    return torch.bfloat16 if known.get("avx512_bf16") or known.get("amx_bf16") else torch.float32


def make_optimizers(method: LatentMethod, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon on the matrices of layers and AdamW on the rest; groups carry their peak rate.

    Under AdamW each parameter has the method's own pace (`LatentMethod.pace`). Muon needs none: its steps are as long
    in a wide matrix as in a narrow one.
    """
    betas = (0.9, config.adamw_beta2)
    tables = {id(p) for module in method.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    named = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and name.endswith("weight") and id(p) not in tables]
    if config.optimizer == "adamw" or not matrices:
        lr = config.lr if config.optimizer == "adamw" else config.adamw_lr
        paces = {name: method.pace(name) for name, _ in named}
        groups = [
            {"params": [p for name, p in named if paces[name] == one], "lr": lr * one, "peak": lr * one}
            for one in sorted(set(paces.values()) or {1.0}, reverse=True)  # nothing to train is said elsewhere
        ]
        return [torch.optim.AdamW(groups, lr=lr, betas=betas, weight_decay=config.weight_decay)]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    muon = Muon([{"params": matrices, "peak": config.lr}], config.lr, config.weight_decay, config.muon_precision)
    adamw = torch.optim.AdamW(
        [{"params": rest, "peak": config.adamw_lr}], lr=config.adamw_lr, betas=betas, weight_decay=config.weight_decay
    )
    return [muon, adamw] if rest else [muon]
