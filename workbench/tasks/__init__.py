"""What is asked: examples, and how an answer is read and judged.

A task is five values and three functions; adding one is adding a file here and a line in `TASKS`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, get_args

Split = Literal["train", "dev", "test"]


@dataclass(frozen=True)
class Example:
    """One question with its worked steps. `id` is unique within a task and never changes with the split's size."""

    id: str
    question: str
    steps: tuple[str, ...]
    answer: str
    labels: dict[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A benchmark.

    `load(split)` gives the examples; `parse(completion)` the canonical answer in a completion or None; `same(a, b)`
    whether two canonical answers are equal. `source` is where it reads, `opening` starts the worked steps (text given
    to the model, not learned), `mark` announces the answer.
    """

    name: str
    load: Callable[[Split], list[Example]]
    parse: Callable[[str], str | None]
    same: Callable[[str, str], bool]
    source: str | None = None
    instruction: str = ""
    opening: str = ""
    mark: str = "####"

    def examples(self, split: Split, count: int | None = None) -> list[Example]:
        """The first `count` examples of a split (all of them when None), or one clear error."""
        if split not in get_args(Split):
            raise ValueError(f"task {self.name!r} has no split {split!r}; use one of {', '.join(get_args(Split))}")
        if count is not None and count < 1:
            raise ValueError(f"cannot take {count} examples; give at least 1, or None for the whole split")
        examples = self.load(split)[:count]
        if not examples:
            raise ValueError(
                f"split {split!r} of task {self.name!r} is empty; give another split or another data source"
            )
        return examples


def load_task(name: str, source: str | None = None) -> Task:
    """The task called `name`. `source` says where it reads: a local path, a hub id, or a difficulty (arith)."""
    from ..config import choose
    from . import arith, gsm8k

    tasks: dict[str, Callable[[str | None], Task]] = {
        "arith": arith.base,
        "arith-shift": arith.shift,
        "gsm8k": gsm8k.task,
    }
    return choose("task", name, tasks)(source)
