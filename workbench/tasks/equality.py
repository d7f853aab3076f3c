"""Whether two pieces of LaTeX are the same answer: math-verify, in a helper process that is ended when it hangs.

math-verify guards itself with signals, which work in a process's main thread only and do not reach into a long
computation inside C (9^{9^{9}}). A helper process has its own main thread and can be ended from outside, whatever it
does; it starts with the first comparison that needs it and ends with this process.
"""

import atexit
import importlib.util
import json
import os
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from .answers import NUMBER, equal_numbers

PATIENCE = 10.0  # seconds for one comparison; math-verify's own alarms ring long before
START = 120.0  # seconds for the helper to import sympy on a busy machine


def equal_math(prediction: str, gold: str) -> bool:
    """Whether a prediction equals the gold answer; any failure, and a comparison that takes too long, is not equal.

    Not symmetric: the prediction "x = 5" equals the gold answer "5".
    """
    prediction, gold = prediction.strip(), gold.strip()
    if prediction == gold:
        return True
    if NUMBER.fullmatch(prediction) and NUMBER.fullmatch(gold) and equal_numbers(prediction, gold):
        return True
    if importlib.util.find_spec("math_verify") is None:
        raise ValueError(
            "comparing LaTeX answers needs the package math-verify; pip install 'latent-workbench[hub]' and run again"
        )
    return _judged(prediction, gold)


@lru_cache(maxsize=100_000)
def _judged(prediction: str, gold: str) -> bool:
    return _helper().ask(prediction, gold)


class Helper:
    """One helper process; a lock lets one thread ask at a time."""

    def __init__(self) -> None:
        self.pid, self.lock = os.getpid(), threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self.replies: Queue[str] = Queue()

    def ask(self, prediction: str, gold: str) -> bool:
        with self.lock:
            if self.process is None:
                self._start()
            assert self.process is not None
            assert self.process.stdin is not None
            reply = ""
            try:
                self.process.stdin.write(json.dumps([prediction, gold]) + "\n")
                self.process.stdin.flush()
                reply = self.replies.get(timeout=PATIENCE)
            except (Empty, OSError):
                pass
            finally:  # it hangs, has died, or we are interrupted: the next question must not get this one's reply
                if not reply:
                    self.stop()
            return reply.strip() == "true"

    def _start(self) -> None:
        # -P: the folder of the script, full of our own modules, stays off the helper's path
        command = [sys.executable, "-P", str(Path(__file__).with_name("equality_helper.py"))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        self.replies = Queue()
        self.reader = threading.Thread(target=_pump, args=(self.process.stdout, self.replies), daemon=True)
        self.reader.start()
        ready = ""
        try:
            ready = self.replies.get(timeout=START)
        except Empty:
            pass
        finally:
            if not ready:
                self.stop()
        if not ready:
            raise RuntimeError(
                f"the helper that compares LaTeX did not start; run {' '.join(command)} to see why, "
                "and check that math-verify can be imported"
            )

    def stop(self) -> None:
        """End the helper, if there is one, and wait until it is gone."""
        process, self.process = self.process, None
        if process is None:
            return
        process.kill()
        process.wait()
        self.reader.join()  # it ends with the helper's words
        for stream in (process.stdin, process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # words it will not read any more
                pass


def _pump(stream: Any, replies: Queue[str]) -> None:
    """Pass on what the helper says, and an empty line when it has ended."""
    for line in stream:
        replies.put(line)
    replies.put("")


HELPERS: list[Helper] = []  # the last one is this process's; a fork adds its own and leaves its parent's alone


def _helper() -> Helper:
    if not HELPERS or HELPERS[-1].pid != os.getpid():
        HELPERS.append(Helper())
    return HELPERS[-1]


@atexit.register
def _stop_helper() -> None:
    if HELPERS and HELPERS[-1].pid == os.getpid():
        HELPERS[-1].stop()
