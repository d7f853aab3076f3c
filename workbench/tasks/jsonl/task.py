"""A user's own questions: a file, cut into splits by a hash, or a folder with a file for each (kinds: `tables`).

    load_task("jsonl", "svamp.json")                                  # columns and kind of answer as they are found
    load_task("jsonl", "mine", layout={"question": "Body+Question", "kind": "number"})

A file whose name says a split (train, dev or valid, test) is that one; every other is train. A split that no file has
is cut from train, by a hash of the question and the seed: a question stays where it is when others come or go. A
question that stands in two splits is kept in the first of test, dev, train. Rows that cannot be read are left out, and
it is said how many and why; where they are more than half, nothing is read.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ...config import Notice
from ...files import shown, visible
from .. import Example, Split, Task
from ..records import ORDER, measured
from .layout import NONE, Kind, Layout, resolved, split_names
from .rows import (
    NAMED,
    Reading,
    Refused,
    choices,
    chosen,
    counted_from,
    final,
    gold,
    kind_of,
    label,
    plain,
    reading,
    shown_value,
    steps,
    text,
)
from .tables import PARTS, READERS, part_of, rows

DEV, TEST, SEED = 0.1, 0.2, 0  # shares of train, where no file is the split's, and the seed of the hash
NO_ID, SAME_ID = "there is no id", "the id stands before"
LOOKED_AT = 1000  # rows, to tell the kind of the answers


class RowsLeftOut(Notice):
    """Rows of a file could not be read and are left out."""


@dataclass(frozen=True)
class Found:
    """A row of a file: the split that its file is, the file, file and line, its place in the file, what it holds."""

    part: Split
    file: str
    where: str
    place: str
    row: dict[str, Any]


@dataclass
class Account:
    """What was read and what was not: why -> where the first such row is, its value, and how many there are."""

    examples: dict[Split, list[Example]] = field(default_factory=lambda: {"train": [], "dev": [], "test": []})
    refused: dict[str, tuple[str, int]] = field(default_factory=dict)
    files: dict[str, Split] = field(default_factory=dict)

    def refuse(self, found: Found, error: Refused) -> None:
        first, count = self.refused.get(error.why, ("", 0))
        value = "" if error.value is None else f", {shown_value(error.value)}"
        self.refused[error.why] = (first or f"{found.where}{value}", count + 1)

    @property
    def left_out(self) -> int:
        return sum(count for _, count in self.refused.values())

    def said(self) -> tuple[str, ...]:
        """A sentence for each kind of row that was left out, the most frequent first."""
        kinds = sorted(self.refused.items(), key=lambda item: -item[1][1])
        return tuple(f"{why}: {count} row{'s' * (count > 1)} (first {first})" for why, (first, count) in kinds)


def task(source: str | None = None, layout: Layout | None = None) -> Task:
    """The task of a file or folder; ValueError, one sentence, where it holds no questions and answers."""
    if source is None:
        raise ValueError("task 'jsonl' reads a file or folder of your own: say which one with --data (source=...)")
    all_rows, parts = _rows(Path(source).expanduser())
    columns = list(dict.fromkeys(str(name) for found in all_rows for name in found.row))
    try:
        asked = resolved(layout or Layout(), columns)
    except ValueError as error:
        raise ValueError(f"{shown(source)}: {error}") from error
    asked = replace(asked, kind=asked.kind or _kind(asked, all_rows), **_shares(asked))
    assert asked.kind is not None
    letters, first = _options(asked, all_rows)
    how = reading(asked.kind, letters)
    account = _read(all_rows, asked, parts, how, first)
    if account.refused.keys() & {NO_ID, SAME_ID} and (layout is None or layout.id is None):
        asked = replace(asked, id=NONE)  # a column that is called so, but does not tell one example from another
        account = _read(all_rows, asked, parts, how, first)
    worked = any(example.steps for found in account.examples.values() for example in found)
    if asked.instruction is None:
        lead = "Solve the problem step by step, one short step per line." if worked else "Answer the question."
        asked = replace(asked, instruction=f"{lead} End with a line that reads '#### ' and {how.what}.")
    _say(source, account, len(all_rows))
    return Task(
        name="jsonl",
        load=lambda split: _split(account, split, source, parts, asked),
        parse=how.parse,
        same=how.same,
        source=source,
        instruction=asked.instruction or "",
        answer_tokens=512 if worked else 64,
        layout=asked,
        taken=_taken(asked, parts, len(all_rows), account),
        refused=account.said(),
    )


def _say(source: str, account: Account, count: int) -> None:
    """Warn of the rows that are left out; ValueError where they are more than half."""
    why = "; ".join(account.said())
    if account.left_out > count / 2:
        raise ValueError(
            f"{shown(source)}: {account.left_out} of {count} rows cannot be read; {why}; mend them, or give other "
            "columns or another kind (--layout)"
        )
    if account.left_out:
        said = f"{shown(source)}: {account.left_out} of {count} rows are left out; {why}"
        warnings.warn(RowsLeftOut(said), stacklevel=5)


# ----------------------------------------------------------------------------------------------------- rows and columns


def _rows(path: Path) -> tuple[list[Found], set[Split]]:
    """All rows of a file or of a folder's files, and the splits that have a file of their own."""
    if not path.exists():
        raise ValueError(f"no file or folder at {shown(path)}; give one of your own with --data (source=...)")
    files = [path]
    if path.is_dir():
        files = [file for file in visible(path, "*") if file.suffix.lower() in READERS and file.is_file()]
        plainly = {part_of(file) for file in files if file.stem.lower() in PARTS}  # test.csv, not test_other.csv too
        named = [f for f in files if part_of(f) and (f.stem.lower() in PARTS or part_of(f) not in plainly)]
        files = named or files
        if not named and len(files) != 1:
            what = "no such file" if not files else "several"
            raise ValueError(
                f"{shown(path)} has {what}: give a folder with train, dev and test files ({', '.join(READERS)}), or "
                "one file"
            )
    all_rows: list[Found] = []
    parts: set[Split] = set()
    for file in files:
        part: Split = part_of(file) or "train"  # type: ignore[assignment]
        parts.add(part)
        by_row = file.suffix.lower() in (".parquet", ".json")  # a JSON file is often one line
        for count, (line, row) in enumerate(rows(file), 1):
            where = f"{file.name}, {f'row {count}' if by_row else f'line {line}'}"
            all_rows.append(Found(part, file.name, where, f"{file.stem}-{count}", row))
    if not all_rows:
        raise ValueError(f"{shown(path)} is empty; give a file with a question and an answer a row")
    return all_rows, parts


def _kind(layout: Layout, all_rows: Sequence[Found]) -> Kind:
    if layout.options != NONE:
        return "choice"
    answers: list[str] = []
    for found in all_rows[:LOOKED_AT]:
        try:
            answers.append(final(found.row, str(layout.answer)))
        except Refused:
            continue
    return kind_of(answers)


def _shares(layout: Layout) -> dict[str, float | int]:
    """The shares and the seed, those that are not given included."""
    test = layout.test if layout.test is not None else min(TEST, 1 - (layout.dev or 0))
    dev = layout.dev if layout.dev is not None else min(DEV, 1 - test)
    return {"dev": dev, "test": test, "seed": SEED if layout.seed is None else layout.seed}


def _options(layout: Layout, all_rows: Sequence[Found]) -> tuple[str, int | None]:
    """The letters of the longest list of options, and what answers that are places are counted from."""
    if layout.kind != "choice":
        return "", None
    if layout.options == NONE:
        raise ValueError("a choice needs its options: give --layout.options, the column that holds them")
    most, places = 2, []
    for found in all_rows:
        try:
            count = len(choices(found.row, str(layout.options))[1])
            most = max(most, count)
            places.append((plain(found.row.get(str(layout.answer))), count))
        except Refused:
            continue
    return "ABCDEFGHIJ"[:most], counted_from(places)


# ------------------------------------------------------------------------------------------------------------- examples


def _read(all_rows: Sequence[Found], layout: Layout, parts: set[Split], how: Reading, first: int | None) -> Account:
    account = Account()
    part_of_question: dict[str, Split] = {}
    seen: set[tuple[Any, ...]] = set()
    for found in sorted(all_rows, key=lambda one: ORDER.index(one.part)):
        account.files[found.file] = found.part
        try:
            example = _example(found, layout, how, first)
            asked = " ".join(example.question.split()).casefold()
            split = _split_of(asked, layout, parts) if found.part == "train" else found.part
            kept = part_of_question.setdefault(asked, split)
            if kept != split:
                raise Refused(f"the question stands in {kept} too", example.question)
            if (asked, example.answer, example.steps) in seen:
                raise Refused("the same example stands before", example.question)
            if ("id", example.id) in seen:
                raise Refused(SAME_ID, example.id)
        except Refused as error:
            account.refuse(found, error)
            continue
        seen |= {(asked, example.answer, example.steps), ("id", example.id)}
        account.examples[split].append(example)
    return account


def _example(found: Found, layout: Layout, how: Reading, first: int | None) -> Example:
    row, question, column = found.row, text(found.row, str(layout.question)), str(layout.answer)
    if layout.kind == "choice":
        marks, texts = choices(row, str(layout.options))
        answer = chosen(row.get(column), marks, texts, first)
        question = "\n".join(
            [question, *(f"{letter}) {one}" for letter, one in zip("ABCDEFGHIJ", texts, strict=False))]
        )
    else:
        assert layout.kind is not None
        answer = gold(final(row, column), layout.kind, how)
    worked = steps(row, layout, answer)
    named = split_names(layout.labels, list(row)) if layout.labels else []
    labels = measured(question, worked) | {one: label(row, one) for one in named}
    return Example(_id(found, layout), question, worked, answer, labels)


def _id(found: Found, layout: Layout) -> str:
    if layout.id in (None, NONE):
        return found.place
    try:
        return text(found.row, str(layout.id))
    except Refused as error:
        raise Refused(NO_ID, error.value) from error


def _split_of(asked: str, layout: Layout, parts: set[Split]) -> Split:
    """Where a question of train belongs, the same on every machine and for ever."""
    place = int.from_bytes(blake2b(f"{layout.seed} {asked}".encode(), digest_size=6).digest()) / 2**48
    test = 0 if "test" in parts else layout.test or 0
    dev = 0 if "dev" in parts else layout.dev or 0
    return "test" if place < test else "dev" if place < test + dev else "train"


def _split(account: Account, split: Split, source: str, parts: set[Split], layout: Layout) -> list[Example]:
    examples = account.examples[split]
    if not examples:
        have = ", ".join(f"{len(found)} {name}" for name, found in account.examples.items() if found) or "no rows"
        if split in parts or "train" not in parts:
            advice = f"give a folder with a {split} file too (a file is the split that its name says)"
        else:
            advice = f"give more rows, a {split} file in a folder" + (
                "" if split == "train" else f", or a larger --layout.{split}"
            )
        raise ValueError(f"{shown(source)} has no {split} examples ({have}); {advice}")
    return examples


def _taken(layout: Layout, parts: set[Split], count: int, account: Account) -> tuple[str, ...]:
    """How the file was read, a line each."""
    cut = [name for name in ("dev", "test") if name not in parts and "train" in parts]
    lines = [f"rows: {count}, {account.left_out} of them left out"]
    lines += [f"{part}: {getattr(layout, part) or NONE}" for part in ("question", "answer", "steps", "options", "id")]
    lines[2] += f" ({NAMED[layout.kind]})" if layout.kind else ""
    if layout.steps == NONE and any(example.steps for found in account.examples.values() for example in found):
        lines[3] = "steps: what stands before the answer's ####"
    lines.append("files: " + ", ".join(f"{file} as {part}" for file, part in account.files.items()))
    if cut:
        shares = " and ".join(f"{getattr(layout, name):g} as {name}" for name in cut)
        lines.append(f"cut from train by a hash of the question: {shares} (seed {layout.seed})")
    return tuple(lines)
