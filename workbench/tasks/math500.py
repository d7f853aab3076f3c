"""MATH-500 (problems: Hendrycks et al. 2021; these 500: Lightman et al. 2023), in its native JSONL.

`source` is a folder with test.jsonl, that file, or a hub id (default HuggingFaceH4/MATH-500). The 500 are a test set
and all of them are test. To train, put other MATH problems with the same fields as train.jsonl into the folder: dev is
held out of them, and what is among the 500 is left out.

A sentence of the solution is a step (formulas are never cut, drawings are left out, blank lines always end a step).
"""

import re
from pathlib import Path

from ..files import quoted
from . import Example, Split, Task
from .answers import math_answer
from .equality import equal_math
from .records import Native, Record, load, measured

NATIVE = Native(
    "HuggingFaceH4/MATH-500",
    {"train": "train.jsonl", "test": "test.jsonl"},
    ("problem", "solution", "answer", "subject", "level", "unique_id"),
    question="problem",
)
INSTRUCTION = (
    "Solve the problem step by step, one short step per line. "
    "End with a line that reads '#### ' and the answer alone, in LaTeX."
)
DRAWING = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
SENTENCE_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?]\$)|(?<=[.!?]\))|(?<=[.!?]\\\]))\s+(?=[A-Z$\\(])")
FORMULA_MARKS = ((r"\\\[", r"\\\]"), (r"\\\(", r"\\\)"), (r"\\begin\b", r"\\end\b"))


def task(source: str | None = None) -> Task:
    return Task(
        name="math500",
        load=lambda split: _load(split, source),
        parse=math_answer,
        same=equal_math,
        source=source,
        instruction=INSTRUCTION,
        answer_tokens=2048,
    )


def _load(split: Split, source: str | None) -> list[Example]:
    path = Path(source or NATIVE.hub).expanduser()
    if split != "test" and path.name != "train.jsonl" and not (path / "train.jsonl").is_file():
        raise ValueError(
            f"MATH-500 is a test set and has no {split} split; give a folder that holds other MATH problems with the "
            "same fields in train.jsonl, beside test.jsonl"
        )
    return load(NATIVE, split, source, _example)


def _example(record: Record) -> Example:
    question, level = record.text("problem"), record.fields["level"]
    if not isinstance(level, int) or isinstance(level, bool):
        raise record.error(f"'level' must be a whole number, it is {quoted(level)}")
    steps = worked_steps(record.text("solution"))
    labels = measured(question, steps, level=level, subject=record.text("subject"))
    gold = record.gold(" ".join(record.text("answer").split()), math_answer, equal_math)
    return Example(record.text("unique_id"), question, steps, gold, labels)


def worked_steps(solution: str) -> tuple[str, ...]:
    """The sentences of a solution, each on one line."""
    steps: list[str] = []
    for paragraph in re.split(r"\n\s*\n", DRAWING.sub(" ", solution)):
        step = ""
        for piece in SENTENCE_END.split(paragraph):
            step = " ".join(f"{step} {piece}".split())
            if _whole(step):
                steps.append(step)
                step = ""
        steps.append(step)
    return tuple(step for step in steps if step)


def _whole(text: str) -> bool:
    """Whether no formula is open at the end of the text."""
    text = text.replace("\\\\", "  ").replace("\\$", "  ")
    return text.count("$") % 2 == 0 and all(
        len(re.findall(opening, text)) <= len(re.findall(closing, text)) for opening, closing in FORMULA_MARKS
    )
