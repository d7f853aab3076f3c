"""What is asked: examples, and how an answer is read and judged.

A task is five values and three functions; adding one is adding a file here and a line in `load_task`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal, TypeVar, get_args, overload

from ..files import placed
from .prompts import Pack, load_pack

Split = Literal["train", "dev", "test"]
Parsing = Literal["strict", "reference"]
Item = TypeVar("Item")


@dataclass(frozen=True)
class Example:
    """One question with its worked steps. `id` is unique within a task and never changes with the split's size."""

    id: str
    question: str
    steps: tuple[str, ...]
    answer: str
    labels: dict[str, str | int | float] = field(default_factory=dict)


class Made(Sequence[Item]):
    """The first `size` items of a source, each made when it is first asked for: a few of many come at once."""

    def __init__(self, source: Iterable[Item], size: int):
        self._source, self._size = iter(source), size
        self._made: list[Item] = []

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        places = range(self._size)[place] if isinstance(place, slice) else [range(self._size)[place]]
        missing = max(places, default=-1) + 1 - len(self._made)
        self._made.extend(islice(self._source, max(0, missing)))
        found = [self._made[k] for k in places]
        return found if isinstance(place, slice) else found[0]


@dataclass(frozen=True)
class Task:
    """A benchmark.

    `load(split)` gives the examples; `parse(completion)` the canonical answer in a completion or None; `same(a, b)`
    whether two canonical answers are equal, the prediction first. `source` is where it reads, `opening` starts the
    worked steps (text given to the model, not learned), `mark` announces the answer, `parsing` says whose parser it is,
    `answer_tokens` is what a worked answer may take, `prompts` is the user's wording in place of `instruction`.
    `texts`: an example is a text to be modelled, its question, and is answered by writing it again.
    """

    name: str
    load: Callable[[Split], Sequence[Example]]
    parse: Callable[[str], str | None]
    same: Callable[[str, str], bool]
    source: str | None = None
    instruction: str = ""
    opening: str = ""
    mark: str = "####"
    parsing: Parsing = "strict"
    answer_tokens: int = 256
    prompts: Pack | None = None
    texts: bool = False
    given: dict[str, set[str]] = field(default_factory=dict, repr=False, compare=False)  # id -> splits it was given as

    def message(self, question: str, thoughts: str, family: str) -> str:
        """What a backbone of this family is asked; `thoughts` is the text that stands in their place."""
        if self.prompts is not None:
            return self.prompts.message(self.name, family, question, thoughts)
        return "\n".join(filter(None, [self.instruction, question])) + thoughts

    def reading(self, question: str, family: str, count: int) -> str:
        """What a generator of `count` thoughts reads, in the words of a backbone's family: by default the question."""
        if self.prompts is not None:
            return self.prompts.reading(self.name, family, question, count)
        return question

    def read(self, written: str, begun: str = "") -> str | None:
        """The canonical answer in what was written behind `begun`, the text the reply had been begun with.

        Where that is the mark, the answer is there already and ends with its line: what follows is not looked at.
        """
        if not begun.rstrip().endswith(self.mark):
            return self.parse(begun + written)
        lines = written.split(self.mark)[0].strip().splitlines()
        return self.parse(f"{self.mark} {lines[0]}") if lines else None

    def examples(self, split: Split, count: int | None = None) -> list[Example]:
        """The first `count` examples of a split (all of them when None), or one clear error."""
        if split not in get_args(Split):
            raise ValueError(f"task {self.name!r} has no split {split!r}; use one of {', '.join(get_args(Split))}")
        if count is not None and count < 1:
            raise ValueError(f"cannot take {count} examples; give at least 1, or None for the whole split")
        examples = list(self.load(split)[:count])
        if not examples:
            raise ValueError(
                f"split {split!r} of task {self.name!r} is empty; give another split or another data source"
            )
        for example in examples:
            self.given.setdefault(example.id, set()).add(split)
        return examples

    def split_of(self, examples: Sequence[Example]) -> str:
        """The one split that `examples` gave all of these as; "unknown" where there is none such, or more than one."""
        splits = [self.given.get(example.id, set()) for example in examples]
        common = set.intersection(*splits) if splits else set()
        return common.pop() if len(common) == 1 else "unknown"


def load_task(name: str, source: str | None = None, parse: Parsing = "strict", prompts: str | None = None) -> Task:
    """The task called `name`. `source` says where it reads: a local path, a hub id, or a difficulty (arith, prosqa).

    `prompts` is a prompt pack, a YAML file with the task's message in other words (`workbench/tasks/prompts.py`).

    `parse="reference"` reads and compares answers as LTA-Thinker's published evaluation does, mistakes included: signs
    are lost, the article "a" is option A, the last yes or no wins in any sense, LaTeX is compared as a string
    (`workbench/tasks/reference.py` says more). It is for comparison with published numbers only.
    """
    from ..config import choose
    from . import aqua, arith, date_understanding, gsm8k, math500, prosqa, strategyqa, text, toy
    from .reference import READINGS

    tasks: dict[str, Callable[[str | None], Task]] = {
        "arith": arith.base,
        "arith-shift": arith.shift,
        "gsm8k": gsm8k.main,
        "gsm8k-socratic": gsm8k.socratic,
        "math500": math500.task,
        "aqua": aqua.task,
        "prosqa": prosqa.task,
        "strategyqa": strategyqa.task,
        "date_understanding": date_understanding.task,
        "date_understanding-all": date_understanding.whole,
        "toy": toy.task,
        "text": text.task,
    }
    made = {"arith": arith.DIFFICULTIES, "arith-shift": arith.DIFFICULTIES, "prosqa": prosqa.DIFFICULTIES}
    if source is not None and source not in made.get(name, ()) and name not in ("toy", "text"):
        source = placed(source)  # what a run remembers is found from any folder
    task = choose("task", name, tasks)(source)
    if prompts is not None:
        task = replace(task, prompts=load_pack(prompts).about(name))
    if choose("way to parse answers", parse, {known: known for known in get_args(Parsing)}) == "strict":
        return task
    if name not in READINGS:
        raise ValueError(f"task {name!r} has no reference evaluation; use parse='strict'")
    parser, same = READINGS[name]
    return replace(task, parse=parser, same=same, parsing=parse)
