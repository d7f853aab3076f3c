r"""Whether two pieces of LaTeX are the same answer: math-verify, in a helper process that is ended when it hangs.

A number is compared exactly, words as words, and what math-verify would leave out before it compares is settled here:
a base (2516_8), a unit (one may lack it, two must agree), dots that stand for more. It reads each formula whole or not
at all, and what it finds equal must be so to the last digit (`equality_helper`).

math-verify guards itself with signals, which work in a process's main thread only and do not reach into a long
computation inside C (9^{9^{9}}). A helper process has its own main thread and can be ended from outside, whatever it
does; it starts with the first comparison that needs it and ends with this process.
"""

import atexit
import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path
from queue import Empty, Queue
from typing import Any

from .number import LONGEST, equal_numbers, number_said

PATIENCE = 10.0  # seconds for one comparison; the helper ends itself after one of computing
START = 120.0  # seconds for the helper to import sympy on a busy machine

BASED = re.compile(r"\(?([0-9A-Za-z]+)\)?\s*_\s*(?:\{\s*)?(?:\\text\s*\{\s*)?(\w+)[\s}]*")
SUBSCRIPT = re.compile(r"\d[)}\s]*_")  # a base inside a formula
MORE = re.compile(
    r"\\(?:[lc]?dots|vdots|overline|overset|underset|widehat|hat|vec|bar|not|forall|exists|prime|[bp]?mod)\b|\.{2,}|…|'"
)
NUMBER = re.compile(r"(?:\\\$|[-+\s])*(?:[\d,.{}\s]|\\!)*\d(?:[\d,.{}\s]|\\!)*(?:/\s*\d+)?")
PLURAL = re.compile(r"(?:(?<=[cs]h)es|(?<=x)es|(?<=[^s])s)$")
UNIT = re.compile(
    r"(?<=[\d})\s$])\s*(?:\\(?:text|mbox|mathrm|textrm)\s*\{([^{}]*)\}|(?<![A-Za-z\\])([A-Za-z]{2,}(?: [A-Za-z]{2,})*))"
    r"\s*(\^\s*\{?\d\}?)?[\s.]*$"
)
TEXT = re.compile(r"\\(?:text\w*|mbox|math(?:rm|bf|it|sf))\s*\{([^{}]*)\}")
CONNECTED = re.compile(r"\s*,?\s*\\(?:text|mbox)\s*\{\s*(?:and|or)\s*\}\s*|\s*,?\s+(?:and|or)\s+")
WORDS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{4,}")
NAMES = re.compile(
    r"(?<![\\A-Za-z])(sqrt|sinh?|cosh?|tanh?|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp|pi)(?![A-Za-z])"
)


def equal_math(prediction: str, gold: str) -> bool:
    """Whether a prediction equals the gold answer; any failure, and a comparison that takes too long, is not equal.

    Not symmetric: the prediction "x = 5" equals the gold answer "5".
    """
    prediction, gold = (" ".join(text.split()) for text in (prediction, gold))
    if prediction == gold:
        return True
    if not prediction or not gold or max(len(prediction), len(gold)) > LONGEST:
        return False
    bases = [BASED.fullmatch(text) for text in (prediction, gold)]
    if any(base and base[1][0].isdigit() for base in bases):
        first, second = bases
        return bool(first and second) and first.groups() == second.groups()  # type: ignore[union-attr]
    (prediction, unit), (gold, other) = _measured(prediction), _measured(gold)
    if unit != other and (unit or "%" in prediction) and (other or "%" in gold):
        return False
    prediction, gold = CONNECTED.sub(", ", prediction), CONNECTED.sub(", ", gold)
    if _word(prediction) == _word(gold) != "":
        return True
    if all(NUMBER.fullmatch(text) and number_said(text) is not None for text in (prediction, gold)):
        return equal_numbers(prediction, gold)
    if any(_unreadable(text) for text in (prediction, gold)):
        return False
    if importlib.util.find_spec("math_verify") is None:
        raise ValueError(
            "comparing LaTeX answers needs the package math-verify; pip install 'latent-workbench[hub]' and run again"
        )
    return _judged(_formula(prediction), _formula(gold))


def _measured(text: str) -> tuple[str, str]:
    """A quantity without its unit, and the unit: "5\\text{ cm}^2" -> "5", "cm^2"; of anything else no unit."""
    found = UNIT.search(text)
    if found is None or not re.search(r"\d", text[: found.start()]) or TEXT.search(text[: found.start()]):
        return text, ""
    if WORDS.search(text[: found.start()]) or NAMES.fullmatch(found[2] or ""):
        return text, ""
    word = PLURAL.sub("", re.sub(r"[^\w%°/]", "", found[1] or found[2]).casefold()).replace("feet", "foot")
    power = re.sub(r"\D", "", found[3] or "")
    return (text[: found.start()].strip(), f"{word}^{power}" if power else word) if word else (text, "")


def _word(text: str) -> str:
    """A text that is words and no formula, without what dresses it: "\\text{(B)}" -> "b"; empty for a formula."""
    plain = TEXT.sub(r" \1 ", text).strip(' ().$"')
    return " ".join(plain.casefold().split()) if re.fullmatch(r"[A-Za-z][A-Za-z' ,-]*", plain) else ""


def _unreadable(text: str) -> bool:
    """Whether math-verify would leave out a part of a text, or take its words for products of letters."""
    text = re.sub(r"\\(?:begin|end)\s*\{\w+\}", " ", text)
    words = any(len(word.strip()) > 1 for word in TEXT.findall(text))
    return words or bool(MORE.search(text) or SUBSCRIPT.search(text) or WORDS.search(NAMES.sub("", text)))


def _formula(text: str) -> str:
    """A formula in the spelling that math-verify reads rightly."""
    text = NAMES.sub(r"\\\1", TEXT.sub(r" \1 ", text))
    return re.sub(r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}", text)


@lru_cache(maxsize=100_000)
def _judged(prediction: str, gold: str) -> bool:
    return _helper().ask(prediction, gold)


class Helper:
    """One helper process; a lock lets one thread ask at a time."""

    def __init__(self) -> None:
        self.pid, self.lock = os.getpid(), threading.Lock()
        self.process: subprocess.Popen[str] | None = None
        self.ready = False  # whether it has said so
        self.replies: Queue[str] = Queue()

    def ask(self, prediction: str, gold: str) -> bool:
        with self.lock:
            if self.process is None:
                self._spawn()
            if not self.ready:
                self._await()
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
                if not reply.strip():
                    self.stop()
                    self._spawn()  # so that the next question waits the less
            return reply.strip() == "true"

    def _spawn(self) -> None:
        # -P: the folder of the script, full of our own modules, stays off the helper's path
        self.command = [sys.executable, "-P", str(Path(__file__).with_name("equality_helper.py"))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        self.replies = Queue()
        self.reader = threading.Thread(target=_pump, args=(self.process.stdout, self.replies), daemon=True)
        self.reader.start()

    def _await(self) -> None:
        try:
            self.ready = bool(self.replies.get(timeout=START).strip())
        except Empty:
            pass
        finally:
            if not self.ready:
                self.stop()
        if not self.ready:
            raise RuntimeError(
                f"the helper that compares LaTeX did not start; run {' '.join(self.command)} to see why, "
                "and check that math-verify can be imported"
            )

    def stop(self) -> None:
        """End the helper, if there is one, and wait until it is gone."""
        process, self.process, self.ready = self.process, None, False
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
