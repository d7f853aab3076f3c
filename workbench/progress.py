"""Progress of what takes over two seconds, with its total: a bar where somebody watches, lines in a file or a pipe.

with progress("train lta-thinker", 378) as bar:
    bar.update()

train lta-thinker: 120 of 378, 35 s, 75 s to go, loss=0.031
"""

import os
import sys
import time
from typing import IO, Any, Self

from tqdm import tqdm

DELAY = 2.0  # seconds; what is done by then needs no progress
EVERY = 15.0  # seconds between two lines


class Lines:
    """The part of tqdm's bar that is used here, as lines of text: the first after two seconds, then one every 15 s."""

    def __init__(self, desc: str, total: int, initial: int = 0, file: IO[str] | None = None):
        self.desc, self.total, self.done, self.begun = desc, total, initial, initial
        self.file = sys.stderr if file is None else file
        self.started = time.monotonic()
        self.last: float | None = None  # when the last line was written
        self.about = ""

    def update(self, n: int = 1) -> None:
        self.done += n
        now = time.monotonic()
        due = now - self.started >= DELAY if self.last is None else now - self.last >= EVERY
        if due and self.done < self.total:
            self._say(now)

    def set_postfix(self, **values: str) -> None:
        self.about = "".join(f", {name}={value}" for name, value in values.items())

    def write(self, text: str) -> None:
        print(text, file=self.file, flush=True)

    def close(self) -> None:
        """A last line, where there was a first one or there is something to say of the time."""
        now = time.monotonic()
        if self.last is not None or now - self.started >= DELAY:
            self._say(now)

    def _say(self, now: float) -> None:
        spent, made = now - self.started, self.done - self.begun
        left = f", {spent / made * (self.total - self.done):.0f} s to go" if made > 0 and self.done < self.total else ""
        self.last = now
        self.write(f"{self.desc}: {self.done} of {self.total}, {spent:.0f} s{left}{self.about}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def progress(desc: str, total: int, *, initial: int = 0, main: bool = True) -> "tqdm | Lines":
    """A bar of `total` things, `initial` of them done. main False: another process shows it, this one nothing.

    TQDM_DISABLE=1 switches both kinds off.
    """
    watched = sys.stderr.isatty() or "ipykernel" in sys.modules  # a notebook's page draws bars, too
    off = not main or os.environ.get("TQDM_DISABLE", "0") not in ("", "0")
    if watched or off:
        # in a notebook standard error is red, and what is done needs no room
        place: dict[str, Any] = {"file": sys.stdout, "leave": False} if "ipykernel" in sys.modules else {}
        return tqdm(desc=desc, total=total, initial=initial, delay=DELAY, disable=off, **place)
    return Lines(desc, total, initial)
