"""Whose fault a warning is: an error where our own code called what is deprecated, no red suite where others did.

`filterwarnings` in pyproject.toml goes by the frame that a warning names. Of a model's call that is a frame of torch,
which hands calls on: transformers warns of a renamed argument of `forward` there, whoever gave it. So what hands calls
on is passed over here, and the frame behind it is to blame.
"""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

OURS = (str(Path(__file__).parent), str(Path(__file__).parents[1] / "workbench"))
HANDS_ON = ("/torch/nn/modules/module.py", "/torch/utils/_contextlib.py", "/jaxtyping/_decorator.py", "<@beartype")


def ours(frame: FrameType | None, filename: str, line: int) -> bool:
    """Whether our code is to blame for a warning that names this line; `frame`: where it was given."""
    while frame and (frame.f_code.co_filename, frame.f_lineno) != (filename, line):
        frame = frame.f_back
    while frame and any(name in frame.f_code.co_filename for name in HANDS_ON):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_filename.startswith(OURS)


@contextmanager
def raising() -> Iterator[None]:
    """Within, a warning that is our fault is raised where it is given."""
    before = warnings.showwarning

    def show(message: Any, category: type[Warning], filename: str, lineno: int, *where: Any) -> None:
        if ours(sys._getframe(1), filename, lineno):
            raise message
        before(message, category, filename, lineno, *where)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before
