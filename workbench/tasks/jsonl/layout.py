"""How a user's own file is laid out: which columns hold what, what kind of answer it has, how it is cut into splits.

What is not given is found: columns by their usual names, the kind of answer by what the answers are. A run remembers
what was found, so that its file is read the same way for ever.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from ...config import bounded, choose, configured
from ...files import quoted

Kind = Literal["number", "choice", "yes-no", "text", "latex"]
NONE = "none"  # of a column: there is none, although one has a usual name


@dataclass(frozen=True)
class Layout:
    """How the file of a `jsonl` task is read. A setting that is not given is found in the file."""

    question: str | None = None
    """Column of the question, or several joined by +, such as Body+Question."""
    answer: str | None = None
    """Column of the answer."""
    steps: str | None = None
    """Column of the worked steps: a list, a text with a step per line, or an equation; none for no steps."""
    options: str | None = None
    """Column of a choice's options: a list or an object; or a column each, joined by +, such as A+B+C+D."""
    id: str | None = None
    """Column of each example's id; none numbers them by their place."""
    labels: str | None = None
    """Columns that stores keep as labels, joined by +."""
    kind: Kind | None = None
    """Kind of the answers."""
    instruction: str | None = None
    """What the model is told before the question."""
    dev: float | None = None
    """Share of train that becomes dev where no file is dev's; 0.1 unless given."""
    test: float | None = None
    """Share of train that becomes test where no file is test's; 0.2 unless given."""
    seed: int | None = None
    """Of the hash that decides which question goes where; 0 unless given."""

    def __post_init__(self) -> None:
        if self.kind is not None:
            choose("kind of answers", self.kind, dict.fromkeys(get_args(Kind)))
        bounded(self, dev=(0, 1), test=(0, 1))
        if (self.dev or 0) + (self.test or 0) > 1:
            raise ValueError(
                f"dev is {self.dev:g} and test {self.test:g} of the file; give shares of at most 1 together"
            )


def laid_out(given: Layout | Mapping[str, Any] | None) -> Layout:
    """A layout as it is, or from plain values as a run's config holds them."""
    if isinstance(given, Layout):
        return given
    return configured(Layout, given) if given else Layout()


def over(base: Layout, more: Layout) -> Layout:
    """`base` with what `more` says in place of it."""
    said = {field.name: getattr(more, field.name) for field in fields(Layout)}
    return replace(base, **{name: value for name, value in said.items() if value is not None})


def elsewhere(base: Layout, more: Layout) -> Layout:
    """What `base` says of another file than its own: no columns; its instruction while answers are of its kind."""
    kept = replace(base, **dict.fromkeys((*USUAL, "labels")))
    if more.kind not in (None, base.kind):
        kept = replace(kept, instruction=None)
    return over(kept, more)


# ------------------------------------------------------------------------------------------------------- usual names

# In lower case, without blanks and underscores; the first that a file has is taken. A + needs both.
USUAL = {
    "question": ("body+question", "passage+question", "context+question", "question", "squestion", "problem", "query",
                 "prompt", "input"),
    "answer": ("answer", "finalanswer", "answerkey", "lsolutions", "answers", "correct", "label", "target", "gold",
               "output", "solution"),
    "steps": ("steps", "cot", "rationale", "reasoning", "chainofthought", "solution", "explanation", "equation",
              "equations", "lequations", "formula", "facts"),
    "options": ("options", "choices", "a+b+c+d+e", "a+b+c+d", "a+b+c", "optiona+optionb+optionc+optiond"),
    "id": ("id", "iindex", "qid", "uid", "idx"),
}  # fmt: skip
SELDOM = ("labels",)  # taken only where they are named


def split_names(given: str, columns: Sequence[str]) -> list[str]:
    """The columns that a setting names: one whose name it is, or those joined by +."""
    return [given] if given in columns else [name.strip() for name in given.split("+")]


def resolved(layout: Layout, columns: Sequence[str]) -> Layout:
    """The layout with every column found; ValueError, one sentence, for one that is not there."""
    taken: dict[str, str] = {}
    for part in USUAL:
        given = getattr(layout, part)
        taken[part] = given if given is not None else _usual(USUAL[part], columns)
    for part in (*USUAL, *SELDOM):
        given = taken.get(part) or getattr(layout, part)
        missing = [name for name in split_names(given, columns) if name not in columns] if given else []
        if missing and given != NONE:
            raise ValueError(f"there is no column {quoted(missing[0])} for {part}; there are {', '.join(columns)}")
    for part in ("question", "answer"):
        if taken[part] == NONE:
            raise ValueError(
                f"no column is called as the {part} usually is; give --layout.{part} (layout={{{part!r}: ...}}), one "
                f"of {', '.join(columns)}"
            )
    return replace(layout, **taken)


def _usual(names: Sequence[str], columns: Sequence[str]) -> str:
    plain = {re.sub(r"[\W_]+", "", column).casefold(): column for column in reversed(columns)}
    for name in names:
        parts = name.split("+")
        if all(part in plain for part in parts):
            return "+".join(plain[part] for part in parts)
    return NONE
