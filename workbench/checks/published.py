"""Published models of Latent-SFT (arXiv 2510.15522), as folders or hub ids of `AutoModelForCausalLM`.

    method = import_latent_sft("DJCheng/LLaMA3.2-1B-Instruct-Latent-SFT-Top10", components=10)

Such a model is the decoder behind its last leg; the encoder was thrown away. How many words it mixes (K) is in no file.
"""

from pathlib import Path
from typing import Literal

from ..backbone import Backbone
from ..methods import build
from ..methods.latent_sft import LatentSFT, LatentSFTConfig


def import_latent_sft(
    folder: str | Path, *, components: int | None = 10, dtype: Literal["auto", "float32", "bfloat16"] = "auto"
) -> LatentSFT:
    """The method around a published model, which thinks in superpositions of `components` words (None: of all).

    Its marks are <think> and </think>; a chat template that opens the thinking itself is not asked twice. ValueError,
    one sentence, for what `Backbone.load` does not read.
    """
    method = build("latent-sft", Backbone.load(str(folder), dtype=dtype), LatentSFTConfig.thinking(components))
    assert isinstance(method, LatentSFT)
    method.training_step = None  # its files do not say
    return method.eval()
