"""AQuA (Ling et al. 2017): algebra word problems with five options and a written rationale, in their native JSONL.

`source` is a folder with train.jsonl (about 97,000 problems), dev.jsonl and test.jsonl, one of those files, or a hub id
(default deepmind/aqua_rat). Its own dev part is dev. A line of the rationale is a step; lines that only announce
the letter or what follows ("ANSWER:C", "The answer is B.", "Explanation:") are no step and are dropped.
"""

import re
from functools import partial

from ..files import quoted
from . import Example, Task
from .answers import option_letter, same_word
from .records import Native, Record, load, measured, with_options

LETTERS = "ABCDE"
OPTION = re.compile(r"\s*([A-E])\s*\)\s*(.*\S)\s*", re.DOTALL)
_NAMED = r"(?:the\s+)?(?:(?:correct|right|final)\s+)*(?:ans(?:wer)?|option|choice)s?\b"
_LETTER = r"\W*(?:(?:option|choice)\W*)?\b[A-E]\b"
ANNOUNCEMENT = re.compile(
    rf"\W*(?:(?:so|hence|thus|therefore|and)\W+)?"
    rf"(?:explanation|solution|{_NAMED}\s*(?:is|will\s+be)?{_LETTER}|{_LETTER}(?:\W+is\s+(?:{_NAMED}|correct))?)\W*",
    re.IGNORECASE,
)
NATIVE = Native(
    "deepmind/aqua_rat",
    {part: f"{part}.jsonl" for part in ("train", "dev", "test")},
    ("question", "options", "rationale", "correct"),
    config="raw",
    hub_parts={"dev": "validation"},
)
INSTRUCTION = (
    "Answer the multiple-choice question step by step, one short step per line. "
    "End with a line that reads '#### ' and the letter of the right option, A to E."
)


def task(source: str | None = None) -> Task:
    return Task(
        name="aqua",
        load=lambda split: load(NATIVE, split, source, _example),
        parse=partial(option_letter, letters=LETTERS),
        same=same_word,
        source=source,
        instruction=INSTRUCTION,
        answer_tokens=512,
    )


def _example(record: Record) -> Example:
    options, correct = record.fields["options"], record.fields["correct"]
    found = [OPTION.fullmatch(o) if isinstance(o, str) else None for o in options] if isinstance(options, list) else []
    if [match and match[1] for match in found] != list(LETTERS):
        raise record.error(f"'options' must be five texts that start with A) to E), it is {quoted(options)}")
    if correct not in tuple(LETTERS):
        raise record.error(f"'correct' must be a letter A to E, it is {quoted(correct)}")
    question = with_options(record.text("question"), [match[2] for match in found if match])
    lines = [" ".join(line.split()) for line in record.text("rationale").splitlines()]
    steps = tuple(line for line in lines if line and not ANNOUNCEMENT.fullmatch(line))
    return Example(record.place, question, steps, correct, measured(question, steps))
