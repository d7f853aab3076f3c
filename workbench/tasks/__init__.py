"""What is asked: examples, and how an answer is read and judged.

A task is five values and three functions; adding one is adding a file here and a line in `TASKS`. One of the
user's own is a file of questions (`jsonl`), or a Python file that is named with `--plugins` (`workbench/plugins.py`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import islice
from typing import Any, Literal, TypeVar, get_args, overload

from ..files import placed
from .jsonl.layout import Layout, laid_out
from .prompts import Pack, load_pack
from .wording import read, shown, worded

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
    `answer_tokens` is what a worked answer may take, `stops` whether a reply ends with the line that announces it.
    `prompts` is the user's wording in place of `instruction`; `wording` names a form of ours and examples, its `shots`.
    `texts`: an example is a text to be modelled, its question, and is answered by writing it again.
    Of a user's own file `layout` is how it is read; `taken` says so, and `refused` what was left out, a sentence each.
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
    stops: bool = False
    prompts: Pack | None = None
    layout: Layout | None = None
    taken: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    wording: str = ""
    shots: tuple[Example, ...] = ()
    texts: bool = False
    given: dict[str, set[str]] = field(default_factory=dict, repr=False, compare=False)  # id -> splits it was given as

    def message(self, question: str, thoughts: str, family: str) -> str:
        """What a backbone of this family is asked; `thoughts` is the text that stands in their place."""
        if self.prompts is not None:
            return self.prompts.message(self.name, family, question, thoughts)
        if self.shots:
            parts = [self.instruction, *shown(self.shots, question, self.mark), f"Question: {question}"]
            return "\n\n".join(filter(None, parts)) + thoughts
        return "\n".join(filter(None, [self.instruction, question])) + thoughts

    @property
    def asked(self) -> str:
        """What `load_task` takes as `prompts` to ask like this again: a pack, a wording, or nothing."""
        return self.prompts.source if self.prompts is not None else self.wording

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
        lines = written.strip().removeprefix(self.mark).split(self.mark)[0].strip().splitlines()  # said twice: once
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


# Name -> the file that has it, and the function of a source that makes it.
TASKS = {
    "arith": ("arith", "base"),
    "arith-shift": ("arith", "shift"),
    "invented-more": ("invented", "more"),
    "invented-sums": ("invented", "sums"),
    "invented-told": ("invented", "told"),
    "gsm8k": ("gsm8k", "main"),
    "gsm8k-socratic": ("gsm8k", "socratic"),
    "math500": ("math500", "task"),
    "aqua": ("aqua", "task"),
    "prosqa": ("prosqa", "task"),
    "strategyqa": ("strategyqa", "task"),
    "date_understanding": ("date_understanding", "task"),
    "date_understanding-all": ("date_understanding", "whole"),
    "jsonl": ("jsonl.task", "task"),
    "toy": ("toy", "task"),
    "text": ("text", "task"),
}
OWN: dict[str, Callable[[str | None], Task]] = {}  # the same of the user's: filled by `workbench/plugins.py`


def load_task(
    name: str,
    source: str | None = None,
    parse: Parsing = "strict",
    prompts: str | None = None,
    layout: Layout | Mapping[str, Any] | None = None,
) -> Task:
    """The task called `name`. `source` says where it reads: a local path, a hub id, or a difficulty (arith, prosqa).

    `prompts` is a prompt pack, a YAML file with the task's message in other words (`workbench/tasks/prompts.py`), or a
    wording such as "plain:4", a plain reply form and four examples (`workbench/tasks/wording.py`).
    `layout` says how the file of task "jsonl" is read (`workbench/tasks/jsonl/layout.py`).

    `parse="reference"` reads and compares answers as LTA-Thinker's published evaluation does, mistakes included: signs
    are lost, the article "a" is option A, the last yes or no wins in any sense, LaTeX is compared as a string
    (`workbench/tasks/reference.py` says more). It is for comparison with published numbers only.
    """
    from ..config import choose
    from .reference import READINGS

    if name not in OWN:
        choose("task", name, TASKS, "one of your own is a file (task jsonl) or in Python (--plugins my.py)")
    how = laid_out(layout)
    if how != Layout() and name != "jsonl":
        raise ValueError(f"task {name!r} knows how its files are laid out: give a layout to task 'jsonl' only")
    home = import_module(f".{TASKS[name][0]}", __name__) if name in TASKS else None
    described = getattr(home, "DESCRIBED", False)  # its source is more than a path, and it looks for that itself
    if source is not None and not described and source not in getattr(home, "DIFFICULTIES", ()):
        source = placed(source)  # what a run remembers is found from any folder
    make: Callable[..., Task] = OWN[name] if home is None else getattr(home, TASKS[name][1])
    task = make(source, how) if name == "jsonl" else make(source)
    if choose("way to parse answers", parse, {known: known for known in get_args(Parsing)}) == "reference":
        if name not in READINGS:
            raise ValueError(f"task {name!r} has no reference evaluation; use parse='strict'")
        parser, same = READINGS[name]
        task = replace(task, parse=parser, same=same, parsing=parse)
    if not prompts:
        return task
    wording = read(prompts)
    return worded(task, wording) if wording else replace(task, prompts=load_pack(prompts).about(name))
