"""How a task is asked beside its own words: a plain reply form, and solved examples before the question.

    plain        the reply ends in "Answer: 18" in place of "#### 18", and with that line
    plain:4      the same, with four examples of the train split before the question
    own:4        the task's own words, with four examples
    plain:4:7    another choice of them (seed 7; without one, 0)

Small models that chat seldom keep to a form they have only been told of; they keep to one that they have seen.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import Example, Task

FORMS = ("plain", "own")
MARK = "Answer:"
PLAIN = "Work it out, one short step per line. End with a line that reads '#### ' and the answer."
ANNOUNCED = re.compile(r"^\W*answer\s*:", re.IGNORECASE | re.MULTILINE)
MOST = 64  # examples


@dataclass(frozen=True)
class Wording:
    """A form, how many examples, and the seed that chooses them."""

    form: str
    shots: int = 0
    seed: int = 0

    def __str__(self) -> str:
        """As `read` takes it."""
        return self.form + (f":{self.shots}" if self.shots else "") + (f":{self.seed}" if self.seed else "")


def read(text: str) -> Wording | None:
    """The wording of that name; None where it is none. ValueError for a wording with other numbers."""
    form, *numbers = text.split(":")
    if form not in FORMS:
        return None
    if len(numbers) > 2 or not all(number.isdecimal() and len(number) < 10 for number in numbers):
        raise ValueError(f"no wording {text!r}; give plain, plain:4 (examples), own:4 or plain:4:7 (their seed)")
    found = Wording(form, *map(int, numbers))
    if found.shots > MOST or (found.form == "own" and not found.shots) or (found.seed and not found.shots):
        raise ValueError(f"wording {text!r} asks for {found.shots} examples; give 1 to {MOST}")
    return found


def worded(task: "Task", wording: Wording) -> "Task":
    """The task, asked that way. ValueError where its source has no train split to take examples from."""
    if wording.form == "plain":
        instruction = (task.instruction or PLAIN).replace("####", MARK)
        task = replace(
            task, instruction=instruction, opening="", mark=MARK, stops=True, parse=partial(_announced, task.parse)
        )
    return replace(task, wording=str(wording), shots=chosen(task, wording) if wording.shots else ())


def chosen(task: "Task", wording: Wording) -> "tuple[Example, ...]":
    """The examples and one to spare, which takes the place of one that is asked itself."""
    train = task.load("train")
    if len(train) <= wording.shots:
        raise ValueError(
            f"task {task.name!r} has {len(train)} train examples, too few to show {wording.shots}; ask for fewer"
        )
    drawn = random.Random(f"shots {wording.seed}").sample(range(len(train)), wording.shots + 1)
    return tuple(train[place] for place in drawn)


def shown(shots: "Sequence[Example]", question: str, mark: str) -> list[str]:
    """The examples as the model reads them, without the one that is asked."""
    kept = [one for one in shots if one.question != question][: len(shots) - 1]
    return ["\n".join([f"Question: {one.question}", *one.steps, f"{mark} {one.answer}"]) for one in kept]


def _announced(parse: Callable[[str], str | None], completion: str) -> str | None:
    """What a task's own parser reads, where the answer is announced by `Answer:` at a line's start."""
    return parse(ANNOUNCED.sub("####", completion))
