"""One file per method. `METHODS` maps names to classes; `build` makes one on a backbone."""

from typing import Any

import torch

from ..backbone import Backbone, home
from ..config import choose
from . import baselines, coconut, lt_tuning, lta_thinker, soft_thinking, softcot, softcot_pp
from .base import METHODS, LatentMethod, Losses, Prompt, Stage, Thoughts

__all__ = [
    "METHODS",
    "LatentMethod",
    "Losses",
    "Prompt",
    "Stage",
    "Thoughts",
    "baselines",
    "build",
    "coconut",
    "lt_tuning",
    "lta_thinker",
    "soft_thinking",
    "softcot",
    "softcot_pp",
]


def build(name: str, backbone: Backbone, config: Any = None, *, seed: int = 0) -> LatentMethod:
    """The method called `name` on a backbone, with `Config()` unless one is given; `seed` is that of its weights.

    A method with a language model of its own needs a backbone without weights only (`Backbone.load(weights=False)`).
    """
    cls = choose("method", name, METHODS)
    device = home() if cls.needs == "tokenizer" else backbone.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(backbone, cls.Config() if config is None else config).to(device)
