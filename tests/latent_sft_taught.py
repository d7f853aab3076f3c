"""Latent-SFT on a small model, and prompts for it."""

from typing import Any

from workbench.backbone import Backbone
from workbench.methods import Prompt, build
from workbench.methods.latent_sft import LatentSFT, LatentSFTConfig
from workbench.tasks import Task


def taught(backbone: Backbone, **options: Any) -> LatentSFT:
    own: dict[str, Any] = {"lora_rank": 0, "max_latents": 6} | options
    method = build("latent-sft", backbone, LatentSFTConfig(**own), seed=1).eval()
    assert isinstance(method, LatentSFT)
    return method


def prompts(method: LatentSFT, task: Task, count: int = 4) -> list[Prompt]:
    return [method.render(example, task) for example in task.examples("train", count)]
