"""Our numbers beside those from elsewhere: `workbench check KIND FILE`.

A kind is a method's public code; its file holds inputs and what that code makes of them.

    lta_parity   LTA-Thinker's generator, losses and gradients
    lt_tuning    LT-Tuning's fusion, places of marks, loss and answers
    ltm          LTM's bound, inner loop, slow gradient and answers
    latent_sft   Latent-SFT's rows, masks, mixtures, losses and latents
    parts        files of several parts and cases, and how differences are judged
    models       small language models with the weights of a file
    official     LTA-Thinker's published checkpoints, read and written
    published    Latent-SFT's published models, read

Imports config, files, tasks, backbone and methods.
"""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ..config import choose
from .parts import Parity

__all__ = ["KINDS", "Parity", "check"]


class Kind(NamedTuple):
    """What is compared, and the function of a path that does it."""

    about: str
    module: str
    function: str


KINDS = {
    "lta-parity": Kind("LTA-Thinker's generator, losses and gradients", ".lta_parity", "lta_parity_file"),
    "lt-tuning": Kind("LT-Tuning's fusion, places of marks, loss and answers", ".lt_tuning", "lt_tuning"),
    "ltm": Kind("LTM's bound, inner loop, slow gradient and answers", ".ltm", "ltm"),
    "latent-sft": Kind("Latent-SFT's rows, masks, mixtures, losses and latents", ".latent_sft", "latent_sft"),
}


def check(kind: str, path: str | Path) -> Parity:
    """Every expected tensor of the file beside ours; ValueError, one sentence, for a file that is not of this kind."""
    found = choose("kind", kind, KINDS)
    return getattr(import_module(found.module, __name__), found.function)(path)
