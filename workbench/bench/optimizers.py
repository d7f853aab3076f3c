"""Speed of what changes the weights: a step of each optimiser on LTA-Thinker's weights, beside AdamW's.

The gradients are made once, by a real loss; only the optimisers' steps are timed. `auto` is what training takes here.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ..backbone import Backbone
from ..methods import build
from ..training.optimizers import make_optimizers, quick_precision
from ..training.plan import TrainConfig
from .machine import Timer, alternating
from .training import Shape

WAYS: dict[str, dict[str, Any]] = {
    "adamw": {"optimizer": "adamw"},
    "muon bfloat16": {"muon_precision": "bfloat16"},
    "muon float32": {"muon_precision": "float32"},
}


def optimizing(
    backbone: Backbone, shape: Shape, *, repeats: int = 5, seed: int = 0, timer: Timer = "wall"
) -> dict[str, Any]:
    """Seconds of an optimiser step, and how many of AdamW's the chosen Muon takes."""
    method = build("lta-thinker", backbone)
    method.loss(shape.prompts(backbone, 2, seed)).total.backward()
    taken = str(quick_precision(backbone.device)).removeprefix("torch.")
    config = TrainConfig(lr=1e-6, adamw_lr=1e-6)

    def step(optimizers: list[torch.optim.Optimizer]) -> None:
        for one in optimizers:
            one.step()

    made = {name: make_optimizers(method, replace(config, **options)) for name, options in WAYS.items()}
    acts = {name: partial(step, optimizers) for name, optimizers in made.items()}
    rungs = alternating(acts, repeats, backbone.device, timer)
    return {
        "over_adamw": rungs[f"muon {taken}"]["median"] / rungs["adamw"]["median"],
        "taken": taken,
        "weights": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "repeats": repeats,
        "timer": timer,
        "rungs": rungs,
    }
