"""What a row of a user's own file holds, as text: question, options, answer, steps; or why the row is left out.

A value is taken as it is written where that can be: "9 (apples)" is the number 9, [9.0] is 9, an option's letter, text
or place is its letter, "( 8.0 - 3.0 )" with the answer 5 is the step "8 - 3 = 5". What could mean two is refused.
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from string import ascii_uppercase
from typing import Any

from ...files import quoted
from ..answers import boxed, math_answer, number_answer, option_letter, same_text, same_word, text_answer, yes_or_no
from ..equality import equal_math
from ..gsm8k import worked_line
from ..number import equal_numbers
from .layout import NONE, Kind, Layout, split_names

MOST_OPTIONS = 10
LETTERED = re.compile(r"\(?([A-J])[).:]\s*(.*)", re.DOTALL)
ARITHMETIC = re.compile(r"[\d\s.+*/()%xX^=-]*\d[\d\s.+*/()%xX^=-]*")
NUMBERS = re.compile(r"\d+ +\d+/\d+|\d+(?:[.,/]\d+)*")
Row = dict[str, Any]


class Refused(ValueError):
    """Why a row is left out: a sentence that is the same for all rows of its kind, and the value that is meant."""

    def __init__(self, why: str, value: Any = None):
        super().__init__(why)
        self.why, self.value = why, value


@dataclass(frozen=True)
class Reading:
    """How answers of a kind are read and compared, and what the model is told to end with."""

    parse: Callable[[str], str | None]
    same: Callable[[str, str], bool]
    what: str


def reading(kind: Kind, letters: str) -> Reading:
    """That of a kind; `letters` of the options, where it is a choice."""
    return {
        "number": Reading(number_answer, equal_numbers, "the number"),
        "choice": Reading(partial(option_letter, letters=letters or "A"), same_word, "the letter of the right option"),
        "yes-no": Reading(yes_or_no, same_word, "Yes or No"),
        "text": Reading(text_answer, same_text, "the answer alone"),
        "latex": Reading(math_answer, equal_math, "the answer alone, in LaTeX"),
    }[kind]


# ----------------------------------------------------------------------------------------------------------- one value


def text(row: Row, given: str) -> str:
    """What the columns of a setting hold, joined by a blank. Refused where one holds no text."""
    parts = []
    for name in split_names(given, list(row)):
        value = row.get(name)
        if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value).strip():
            raise Refused(f"{name!r} holds no text", value)
        parts.append(str(value).strip())
    return " ".join(parts)


def plain(value: Any) -> str:
    """One value as text: of a list the only one, a whole number without its .0."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if isinstance(value, list | tuple | dict):
        raise Refused("the answer holds several values", value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    written = "" if value is None or value != value else str(value).strip()
    if not written:
        raise Refused("there is no answer", value)
    return written


def final(row: Row, column: str) -> str:
    """The answer as written: what stands behind #### or in the last box where there is one."""
    written = plain(row.get(column))
    if "####" in written:
        return plain(written.rpartition("####")[2])
    return boxed(written) or written


def gold(written: str, kind: Kind, how: Reading) -> str:
    """The canonical answer, read as a prediction is. Refused where it cannot be, or says more than one."""
    if kind == "number" and re.fullmatch(r"-?[1-9]\d{0,11}|0", written):
        return written  # what most answers are, and reading each three times would take minutes of a large file
    if kind == "number":
        bare = re.sub(r"\([^()\d]*\)", " ", written)
        if len(NUMBERS.findall(bare.replace("\\", ""))) > 1 and "frac" not in bare and "=" not in bare:
            raise Refused("the answer says several numbers", written)
        written = re.sub(r"^(-?\d+)\.0+$", r"\1", written)
    if kind == "yes-no":
        written = {"1": "Yes", "0": "No"}.get(written, written)
    written = " ".join(written.split())
    found = how.parse(f"#### {written}")
    again = None if found is None else how.parse(f"#### {found}")
    if found is None or again is None or not how.same(again, found):
        raise Refused(f"the answer cannot be read as {NAMED[kind]}", written)
    return found


NAMED = {
    "number": "a number", "choice": "an option", "yes-no": "yes or no", "text": "a line of text", "latex": "LaTeX",
}  # fmt: skip


def kind_of(answers: Sequence[str]) -> Kind:
    """What three of four answers are: numbers, yes or no; else LaTeX where it is among them, else text."""
    for kind in ("number", "yes-no"):
        how, right = reading(kind, ""), 0
        for written in answers:
            with contextlib.suppress(Refused):
                right += bool(gold(written, kind, how))
        if right and right >= 0.75 * len(answers):
            return kind
    return "latex" if any(re.search(r"\\[a-zA-Z]+|\$|\^", written) for written in answers) else "text"


# ----------------------------------------------------------------------------------------------------------- a choice


def choices(row: Row, given: str) -> tuple[list[str], list[str]]:
    """A choice's options: how the file marks each (A, B, ... where it does not), and their texts."""
    names = split_names(given, list(row))
    value: Any = [row.get(name) for name in names] if len(names) > 1 else row.get(names[0])
    marks: list[Any] = list(ascii_uppercase)
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        given_marks = value.get("label")
        value, marks = value["text"], given_marks if isinstance(given_marks, list) else marks
    elif isinstance(value, dict):
        marks, value = list(value), list(value.values())
    elif isinstance(value, str):
        value = [line for line in value.splitlines() if line.strip()]
    if not isinstance(value, list):
        raise Refused("the options are no list", value)
    if len(names) > 1:  # of columns that not every question needs
        value = [one for one in value if one not in (None, "") and one == one]
    texts = [str(one).strip() for one in value]
    if not 2 <= len(texts) <= MOST_OPTIONS or not all(texts) or len(marks) < len(texts):
        raise Refused(f"there must be 2 to {MOST_OPTIONS} options, none of them empty", value)
    found = [LETTERED.fullmatch(one) for one in texts]
    if [match and match[1] for match in found] == list(ascii_uppercase[: len(texts)]):
        texts = [match[2].strip() for match in found if match]
    return [str(mark) for mark in marks[: len(texts)]], texts


def chosen(value: Any, marks: Sequence[str], texts: Sequence[str], first: int | None) -> str:
    """The letter of the right option, from its mark, its text or its place; `first`: what places are counted from."""
    written = plain(value)
    if not isinstance(value, int) and written in marks:
        return ascii_uppercase[list(marks).index(written)]
    if texts.count(written) == 1:
        return ascii_uppercase[list(texts).index(written)]
    if re.fullmatch(r"\d{1,2}", written):
        if first is None:
            raise Refused("the answer is a place, and no row says whether the first option is 0 or 1", written)
        if 0 <= int(written) - first < len(texts):
            return ascii_uppercase[int(written) - first]
    letter = re.fullmatch(r"\(?([A-Ja-j])[).:]?", written)
    if letter and letter[1].upper() in marks:
        return ascii_uppercase[list(marks).index(letter[1].upper())]
    raise Refused("the answer is none of the options", written)


def counted_from(places: Sequence[tuple[Any, int]]) -> int | None:
    """0 or 1, if answers (each with its number of options) that are places show it; None where they do not."""
    numbers = [(int(v), count) for v, count in places if re.fullmatch(r"\d{1,2}", str(v)) and not isinstance(v, bool)]
    zero, last = any(value == 0 for value, _ in numbers), any(value == count for value, count in numbers)
    return 0 if zero and not last else 1 if last and not zero else None


# -------------------------------------------------------------------------------------------------------------- steps


def steps(row: Row, layout: Layout, answer: str) -> tuple[str, ...]:
    """The worked steps, a line each, if there are any. Without a column: what stands before the answer's ####."""
    if layout.steps == NONE or layout.steps is None:
        written = row.get(str(layout.answer))
        value = written.rpartition("####")[0] if isinstance(written, str) else None
    else:
        value = row.get(layout.steps)
    lines = value if isinstance(value, list | tuple) else [value]
    lines = [line for line in lines if line is not None and line == line]  # NaN is what a table has where it has none
    if not all(isinstance(line, str) for line in lines):
        raise Refused("the steps are neither text nor a list of texts", value)
    told = [line for whole in lines for line in whole.partition("####")[0].splitlines() if line.strip()]
    found = tuple(step for line in told for step in worked_line(line))
    return (_equation(found[0], answer),) if len(found) == 1 else found


def _equation(step: str, answer: str) -> str:
    """The only step; arithmetic without its result gets the answer: "X=( 8.0 - 3.0 )" -> "8 - 3 = 5"."""
    bare = re.sub(r"^\s*[xX]\s*=|=\s*[xX]\s*$", "", step).strip()
    if not ARITHMETIC.fullmatch(bare) or "=" in bare or not re.search(r"[\d)]\s*[-+*/^]", bare):
        return step
    bare = re.sub(r"(\d)\.0+(?!\d)", r"\1", bare)
    while bare.startswith("(") and bare.endswith(")") and _closes_last(bare):
        bare = bare[1:-1].strip()
    return f"{bare} = {answer}" if " " in bare else f"{bare}={answer}"


def _closes_last(bracketed: str) -> bool:
    """Whether the bracket that opens a text closes at its end."""
    depth = 0
    for place, sign in enumerate(bracketed):
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth == 0:
            return place == len(bracketed) - 1
    return False


def label(row: Row, name: str) -> str | int | float:
    value = row.get(name)
    if isinstance(value, bool) or value is None:
        return str(value)
    if not isinstance(value, str | int | float):
        raise Refused(f"label {name!r} is neither text nor a number", value)
    return value


def shown_value(value: Any) -> str:
    return quoted(value, 60)
