"""Cross-entropy at labelled positions, a piece at a time: no [positions, vocabulary] matrix is ever whole.

    loss_i = logsumexp(W h_i) - (W h_i)[y_i]          d loss_i / d h_i = (softmax(W h_i) - onehot(y_i)) W

With a frozen output head the gradient is known in the forward pass, so that the logits of a piece live no longer than
the piece: the same two matrix products as ever and no third one to compute them again. The gradient of a head that is
trained hangs on how much each label counts, so that the logits of several pieces are computed again, one at a time.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

PIECE = 2**26  # bytes of float32 logits at a time
# What a model does to its logits besides the output head, by the names in its config; then its own logits are taken.
SCALINGS = ("final_logit_softcapping", "logits_scaling", "logit_scale", "lm_head_multiplier", "output_multiplier_scale")


def is_plain(head: nn.Module, config: object) -> bool:
    """Whether logits are the output head's product with the states and nothing else."""
    scaled = any(getattr(config, name, None) not in (None, 1, 1.0) for name in SCALINGS)
    return type(head) is nn.Linear and not scaled


def label_losses(
    states: Float[Tensor, "label feature"], labels: Int[Tensor, "label"], head: nn.Linear, piece: int = PIECE
) -> Float[Tensor, "label"]:
    """Negative log-likelihood of each label in nats, float32; gradients reach states and head. See `is_plain`."""
    if torch.is_grad_enabled() and any(p.requires_grad for p in head.parameters()):
        parts = list(_pieces(states, labels, head, piece))
        if len(parts) == 1:
            return _loss(*parts[0], head.weight, head.bias)
        again: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
        return torch.cat([checkpoint(_loss, part, wanted, head.weight, head.bias, **again) for part, wanted in parts])
    if not torch.is_grad_enabled() or not states.requires_grad:
        return torch.cat([_piece(part, wanted, head)[0] for part, wanted in _pieces(states, labels, head, piece)])
    losses: Tensor = _LabelLosses.apply(states, labels, head, piece)  # pyright: ignore[reportAssignmentType]
    return losses


class _LabelLosses(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states: Tensor, labels: Tensor, head: nn.Linear, piece: int) -> Tensor:  # pyright: ignore
        losses, slopes = [], []
        for part, wanted in _pieces(states, labels, head, piece):
            loss, logits = _piece(part, wanted, head)
            logits = logits.sub_(logits.logsumexp(1, keepdim=True)).exp_()
            logits[torch.arange(len(wanted), device=wanted.device), wanted] -= 1
            losses.append(loss)
            slopes.append(logits.to(head.weight.dtype) @ head.weight)
        ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(losses)

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore
        (slopes,) = ctx.saved_tensors
        return slopes * upstream[:, None].to(slopes.dtype), None, None, None


def _pieces(states: Tensor, labels: Tensor, head: nn.Linear, piece: int):
    count = max(1, piece // (4 * len(head.weight)))
    return zip(states.split(count), labels.split(count), strict=True)


def _loss(states: Tensor, labels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.cross_entropy(F.linear(states.to(weight.dtype), weight, bias).float(), labels, reduction="none")


def _piece(states: Tensor, labels: Tensor, head: nn.Linear) -> tuple[Float[Tensor, "label"], Tensor]:
    """Losses of a piece and its logits in float32."""
    logits = F.linear(states.to(head.weight.dtype), head.weight, head.bias).float()
    return F.cross_entropy(logits, labels, reduction="none"), logits
