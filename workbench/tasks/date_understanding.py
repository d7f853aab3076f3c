"""Date Understanding (BIG-bench, Srivastava et al. 2022): which of five or six dates a short story leads to.

`source` is BIG-bench's task.json, the folder that holds it, or a hub id (default tasksource/bigbench). Two things in
the source mislead, and are mended here:

* the right option comes first in 364 of 369 problems: options are shuffled, by a seed made of the example's id alone;
* there is one part only, and nine questions are asked about each of its 41 stories: the splits are made of whole
  stories, by a hash, so that no question and no story is in two. For use without training on it (numbers comparable
  with others', transfer from another task), `date_understanding-all` has all 369 as test and nothing to train on.

There are no worked steps.
"""

import random
import re
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..files import quoted, read_text, shown
from . import Example, Split, Task
from .answers import option_letter, same_word
from .records import Native, Record, bucket, json_value, measured, numbered, records, with_options

LETTERS = "ABCDEF"
EXAMPLES = re.compile(r'"examples"\s*:\s*\[')
LAST_SENTENCE = re.compile(r"[^.?!]*\?\s*$")
INSTRUCTION = (
    "Answer the multiple-choice question about dates. End with a line that reads '#### ' and the letter of the right "
    "option."
)


def task(source: str | None = None) -> Task:
    """Train, dev and test of whole stories."""
    return _task("date_understanding", source, lambda split: [e for s, e in _examples(source) if s == split])


def whole(source: str | None = None) -> Task:
    """All of it as test."""

    def load(split: Split) -> list[Example]:
        if split != "test":
            raise ValueError(
                f"date_understanding-all has no {split} split; use date_understanding, which is split by its stories"
            )
        return [example for _, example in _examples(source)]

    return _task("date_understanding-all", source, load)


def _task(name: str, source: str | None, load: Any) -> Task:
    return Task(
        name=name,
        load=load,
        parse=partial(option_letter, letters=LETTERS),
        same=same_word,
        source=source,
        instruction=INSTRUCTION,
        answer_tokens=256,
    )


def _examples(source: str | None) -> list[tuple[Split, Example]]:
    """Every example with its split."""
    return [_example(record) for record in records(NATIVE, "all", source or NATIVE.hub)]


def _example(record: Record) -> tuple[Split, Example]:
    asked, scores = _native(record)
    values = list(scores.values())
    if not 2 <= len(scores) <= len(LETTERS) or values.count(1) != 1 or values.count(0) != len(values) - 1:
        raise record.error(
            f"there must be 2 to 6 options, one of them with score 1 and the others 0, not {quoted(scores)}"
        )
    name = blake2b(asked.encode(), digest_size=6).hexdigest()
    options = sorted(scores)  # so that the order in the source has no say
    random.Random(f"date_understanding {name}").shuffle(options)
    right = next(letter for letter, option in zip(LETTERS, options, strict=False) if scores[option] == 1)
    story = LAST_SENTENCE.sub("", asked).strip()
    question = with_options(asked, options)
    labels = measured(question, (), options=len(options), story=blake2b(story.encode(), digest_size=3).hexdigest())
    return _split(story), Example(f"date-{name}", question, (), right, labels)


def _split(story: str) -> Split:
    """The split of all questions about a story: about 2 of 16 dev, 5 of 16 test."""
    return "dev" if bucket(story) < 2 else "test" if bucket(story) < 7 else "train"


def _native(record: Record) -> tuple[str, dict[str, Any]]:
    """Question and scored options, in BIG-bench's own fields or in the hub's."""
    if "target_scores" in record.fields:
        field, scores = "input", record.fields["target_scores"]
    else:
        field, names = "inputs", ("inputs", "multiple_choice_targets", "multiple_choice_scores")
        missing = [name for name in names if name not in record.fields]
        if missing:
            raise record.error(f"lacks {', '.join(map(repr, missing))}; each record needs input, target_scores")
        options, values = (record.fields[name] for name in names[1:])
        if not isinstance(options, list) or not isinstance(values, list) or len(options) != len(values):
            raise record.error(f"{names[1]!r} and {names[2]!r} must be lists of one length")
        scores = dict(zip(options, values, strict=True))
    if field not in record.fields or not isinstance(scores, dict):
        raise record.error("'input' must be text and 'target_scores' a map from each option to its score")
    return re.sub(r"^Q:\s*|\s*A:$", "", record.text(field)), scores


def _read(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The examples of a BIG-bench task file, each with the line it starts at."""
    text = read_text(path, "BIG-bench's task.json of Date Understanding")
    task = json_value(text, path, "a BIG-bench task file")
    start = EXAMPLES.search(text)
    if not isinstance(task, dict) or not isinstance(task.get("examples"), list) or not start:
        raise ValueError(f"{shown(path)}, line 1: no list 'examples'; give a BIG-bench task file")
    needed = "an example must be an object with input, target_scores"
    yield from numbered(text, start.end(), len(task["examples"]), path, needed)


NATIVE = Native(
    "tasksource/bigbench",
    {"all": "task.json"},
    (),
    config="date_understanding",
    hub_parts={"all": "train+validation"},
    read=_read,
)
