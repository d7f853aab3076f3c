"""Speed of Latent-SFT's legs: each exact shortcut beside the plain way, in one run.

    union leg      masked: rows with leaves in one mask of [place, place], the plain way
                   leaves: the rows alone, and a few keys for each leaf (see workbench/backbone/leaves.py)
    decoder's leg  encoder: the frozen encoder reads every batch again
                   labels: what it said once is kept
    last leg       everywhere: logits of all places
                   supervised: of those that predict a latent or a label alone
    mixing         rows: the words' embeddings side by side, then their weighted sum
                   bag: the sum alone (`embedding_bag`)

Both ways of a pair compute the same loss and gradients, which is checked before anything is timed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..backbone import Backbone
from ..methods import Prompt, build
from ..methods.latent_sft import LatentSFT, LatentSFTConfig, superposed
from ..methods.mixtures import mixed
from .machine import Timer, alternating
from .training import Shape

PAIRS = {  # shortcut: (plain way, way)
    "leaves": ("union masked", "union leaves"),
    "labels": ("decoder encoder", "decoder labels"),
    "supervised": ("last everywhere", "last supervised"),
    "bag": ("mixing rows", "mixing bag"),
}
ANSWER = 4  # tokens of an answer


def training_latents(
    backbone: Backbone, shape: Shape, *, batch_size: int = 8, repeats: int = 5, seed: int = 0, timer: Timer = "wall"
) -> dict[str, Any]:
    """Seconds of a step, forward and backward, of each way (median and quartiles), and what each shortcut gains."""
    method = build("latent-sft", backbone, LatentSFTConfig(lora_rank=0, noise_scale=0.0))
    assert isinstance(method, LatentSFT)
    names = [stage.name for stage in method.stages()]
    prompts = [_with_chain(p) for p in shape.prompts(backbone, batch_size, seed)]
    labelled = list(method.start(names.index("decoder"), prompts))
    tokens, weights, upstream = _mixtures(method, prompts)

    def leg(name: str, rows: Sequence[Prompt], padded: bool = False, full_logits: bool = False) -> Tensor:
        method.zero_grad()
        own = method.backbone
        own.padded, own.full_logits = padded, full_logits
        loss = method.loss(rows, names.index(name)).total
        loss.backward()
        own.padded = own.full_logits = False
        return loss.detach()

    def mix(how: Callable[[Tensor], Tensor]) -> Tensor:
        heavy = weights.clone().requires_grad_()
        (how(heavy) * upstream).sum().backward()
        assert heavy.grad is not None
        return heavy.grad

    table = method.backbone.table.detach()
    acts: dict[str, Callable[[], Tensor]] = {
        "union masked": partial(leg, "encoder and decoder", prompts, padded=True),
        "union leaves": partial(leg, "encoder and decoder", prompts),
        "decoder encoder": partial(leg, "decoder", prompts),
        "decoder labels": partial(leg, "decoder", labelled),
        "last everywhere": partial(leg, "latents", labelled, full_logits=True),
        "last supervised": partial(leg, "latents", labelled),
        "mixing rows": partial(mix, lambda heavy: (heavy[..., None] * table[tokens]).sum(-2)),
        "mixing bag": partial(mix, lambda heavy: mixed(method.backbone, tokens, heavy)),
    }
    difference = max(_difference(acts[plain], acts[way], method) for plain, way in PAIRS.values())
    if not difference < 1e-3:
        raise ValueError(f"the ways differ by {difference:.2g} of their size, at most 0.001 is rounding")
    rungs = alternating(acts, repeats, backbone.device, timer)
    for plain, way in PAIRS.values():
        rungs[way]["speedup"] = rungs[plain]["median"] / rungs[way]["median"]
    return {
        **{f"speedup_{name}": rungs[way]["speedup"] for name, (_, way) in PAIRS.items()},
        "largest_difference": difference,
        "batch_size": batch_size,
        "repeats": repeats,
        "timer": timer,
        "shape": vars(shape),
        "rungs": rungs,
    }


def _with_chain(prompt: Prompt) -> Prompt:
    """The target as a chain, its last tokens as the answer."""
    return replace(prompt, steps=(prompt.target[:-ANSWER],), target=prompt.target[-ANSWER:])


@torch.no_grad()
def _mixtures(method: LatentSFT, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor, Tensor]:
    """As many mixtures of ten words as the prompts have latents, and a gradient of what they give."""
    count = sum(len(own["tokens"]) for own in method.labels(prompts))
    chance = torch.Generator().manual_seed(0)
    logits = torch.randn(count, len(method.backbone.table), generator=chance).to(method.backbone.device)
    tokens, weights = superposed(logits, method.config.components)
    upstream = torch.randn(count, method.backbone.width, generator=chance).to(method.backbone.device)
    return tokens, weights, upstream


def _difference(plain: Callable[[], Tensor], way: Callable[[], Tensor], method: LatentSFT) -> float:
    """The largest relative difference of what two ways give, and of the gradients that they leave."""
    found = []
    for act in (plain, way):
        value = act()
        gradients = [p.grad.flatten().float() for p in method.backbone.parameters() if p.grad is not None]
        found.append(torch.cat([value.flatten().float(), *gradients]))
    return float((found[1] - found[0]).norm() / found[0].norm())
