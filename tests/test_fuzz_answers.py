"""Made-up completions: every task reads and compares each without an error and in seconds, and what it reads is stable.

WORKBENCH_FUZZ=60 tries sixty times as many (seeded by their number: a failure's seed is in its message).
"""

import os
import random
import time

import pytest

from workbench.tasks import load_task

TIMES = int(os.environ.get("WORKBENCH_FUZZ", "1"))
TASKS = ("gsm8k", "arith", "math500", "aqua", "date_understanding", "strategyqa", "prosqa")
PIECES = [
    "####", "\n#### ", "answer", "The answer is ", "answer: ", " is the answer. ", "\\boxed{", "\\fbox{", "\\text{",
    "}", "{",
    "$", "$$", "\\(", "\\)", "\\[", "\\]", "(", ")", "[", "]", "**", "_", "`", "#", "\n", " ", "\t", "\u00a0",
    "\u2009", "\u200b",
    "\\frac", "\\frac{1}{2}", "\\sqrt", "\\sqrt(2)", "^", "^{", "_{8}", "\\cdot", "\\times 10", "\\pi", "\\infty",
    "\\left", "\\right",
    "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\", "&", "\\%", "%", "!", "=", "+", "-", "−", "–", "—", "－", "*", "/",
    "<", ">", "±",
    "0", "1", "7", "12", "1,234", "12,34", "1 234", "3.5", ".5", "5.", "1e3", "1e99999991", "9" * 40, "10^",
    "2^{2^{2^{9}}}", "½",
    "²", "³⁹", "٣", "５", "Ａ", "x", "e", "i", "A", "b", "(C)", "D)", "yes", "No", "not ", "or ", "and ", "because ",
    "to ", "dollars",
    "million", "km", "cm^2", "Tom is a wugs.", "Tom", " is a ", "Every daxes is a wugs.", "option ", ",", ".", ";",
    ":", "…", "\ufeff",
    "\x00", "\ud800", "😀", "Step 1: ",
]  # fmt: skip


def made_up(rng: random.Random) -> str:
    """A text of a few pieces, or of one that is repeated very often."""
    shape = rng.random()
    if shape < 0.1:
        return rng.choice(["", "####", "\\boxed{"]) + rng.choice(PIECES) * rng.choice([50, 1000, 5000])
    if shape < 0.15:
        depth = rng.choice([20, 1000, 5000])
        return rng.choice(["\\boxed{", "\\text{", "{", "(", "\\frac{1}{", "\\boxed{2+"]) * depth + "7" + "}" * depth
    start = rng.choice(["", "", "#### ", "\\boxed{", "The answer is "])
    return start + "".join(rng.choices(PIECES, k=rng.randint(1, 12)))


@pytest.mark.parametrize("name", TASKS)
def test_made_up_completions_are_read(name):
    """Whatever is read is read again as the same answer: a prediction can always be a gold answer."""
    task = load_task(name)
    for seed in range(400 * TIMES):
        text = made_up(random.Random(f"{name} {seed}"))
        started = time.process_time()
        read = task.parse(text)
        assert read is None or (read and len(read) <= 1000), (seed, text[:100])
        if read is not None:
            again = task.parse(f"{task.mark} {read}")
            assert again is not None, (seed, text[:100], read)
            assert task.same(again, read), (seed, text[:100], read)
        assert task.read(text, task.mark) is None or "\n" not in str(read), seed
        assert time.process_time() - started < 5, (seed, text[:100])


@pytest.mark.parametrize("name", TASKS)
def test_made_up_answers_are_compared(name):
    """Equal or not, never an error; of what takes long, the helper process is ended."""
    task = load_task(name)
    for seed in range((25 if name == "math500" else 400) * TIMES):
        rng = random.Random(f"pair {name} {seed}")
        one, other = made_up(rng), made_up(rng)
        started = time.monotonic()
        assert task.same(one, other) in (True, False)
        assert task.same(task.parse(f"#### {one}") or "", task.parse(f"#### {other}") or "?") in (True, False)
        assert task.same(one, one) is True, (seed, one[:100])
        assert time.monotonic() - started < 60, (seed, one[:100], other[:100])  # much less, but on a busy machine


@pytest.mark.parametrize("seed", range(3))
def test_a_number_in_any_dress_is_itself_or_none(seed):
    """What stands around a number may make it unreadable; it never makes it another number."""
    rng, task = random.Random(f"dress {seed}"), load_task("gsm8k")
    dresses = [
        "#### {}", "#### ${}", "#### {} dollars", "#### **{}**", "#### \\boxed{{{}}}",
        "so \\boxed{{{}}}. I took 3 steps.",
        "The answer is {}. It took 2 tries.", "#### x = {}", "#### 1 + 1 = {}", "#### {}.", "#### {}%", "#### \\({}\\)",
        "#### {} (step 4)", "answer: {}\nbecause 7 > 3", "#### 3\n#### {}", "{} is the answer. I checked 5 days.",
        "#### {} apples, not 9", "#### \\text{{{} cm}}", "$\\fbox{{\\text{{{}}}}}$ after 8 days",
    ]  # fmt: skip
    for _ in range(150 * TIMES):
        value = rng.choice([rng.randint(0, 99), rng.randint(1000, 10**9)])
        written = rng.choice(
            [str(value), f"{value:,}", f"{value:,}".replace(",", "\u202f"), f"{value}.0", f"{value}.50"]
        )
        half = written.endswith(".50")
        sign = rng.choice(["", "-", "−", "–", "- ", "－"])
        text = rng.choice(dresses).format(sign + written)
        read = task.parse(text)
        expected = f"{'-' if sign else ''}{value}{'.5' if half else ''}"
        assert read is not None, text
        assert task.same(read, expected), (text, read)
