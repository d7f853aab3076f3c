"""One file or folder per method. `METHODS` maps names to classes; `build` makes one on a backbone.

    base        `LatentMethod`, and what it takes and gives: the page to read before writing one
    loops       thought behind thought: `unroll`, and `fill` for training
    mixtures    thoughts that are mixtures of words
    trained     a copy of the backbone that is trained, whole or by LoRA
    assistant   a language model beside the backbone that reads the question

Every other file holds methods. All are imported here, so that what stands in one is registered: nothing names them.
Imports config, files, tasks and backbone.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import torch

from ..backbone import Backbone, home
from ..config import choose
from .base import METHODS, LatentMethod, Losses, Prompt, Stage, Thoughts

__all__ = ["METHODS", "LatentMethod", "Losses", "Prompt", "Stage", "Thoughts", "build"]


def build(name: str, backbone: Backbone, config: Any = None, *, seed: int = 0) -> LatentMethod:
    """The method called `name` on a backbone, with `Config()` unless one is given; `seed` is that of its weights.

    A method with a language model of its own needs a backbone without weights only (`Backbone.load(weights=False)`).
    """
    cls = choose("method", name, METHODS)
    device = home() if cls.needs == "tokenizer" else backbone.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cls(backbone, cls.Config() if config is None else config).to(device)


for _name in sorted(found.name for found in iter_modules(__path__)):  # last: they may ask for what stands above
    import_module(f".{_name}", __name__)
