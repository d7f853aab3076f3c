"""What the benchmarks' loaders have in common: native records from a folder, a file or the hub, and fair splits.

source -> records (each knows where it was found) -> examples;  dev = a sixteenth of train, by a hash of the question
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..files import from_json, numbered_jsonl, quoted, read_text, shown
from . import Example, Split

BETWEEN = re.compile(r"[\s,]*")
OWN_FILE = "a file with columns of its own is read by task jsonl"
ORDER: tuple[Split, ...] = ("test", "dev", "train")  # a question in two files stays in the first of these only


@dataclass(frozen=True)
class Record:
    """One native record: the place it was found at, its place in its part ("train-17"), its fields."""

    where: str
    place: str
    fields: dict[str, Any]

    def text(self, name: str) -> str:
        """A field that must be text; its outer blanks are dropped."""
        value = self.fields[name]
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{name!r} must be text, it is {quoted(value)}")
        return value.strip()

    def gold(self, written: str, parse: Callable[[str], str | None], same: Callable[[str, str], bool]) -> str:
        """A gold answer as `parse` reads it, the way a prediction goes; refused where its own copy would be wrong."""
        found = parse(f"#### {written}")
        if found is None or parse(f"#### {found}") is None or not same(parse(f"#### {found}") or "", found):
            raise self.error(
                f"the answer {quoted(written)} cannot be read back; write it plainly, or leave the example out"
            )
        return found

    def error(self, complaint: str) -> ValueError:
        return ValueError(f"{self.where}: {complaint}")


@dataclass(frozen=True)
class Native:
    """How a benchmark lies on disk and on the hub.

    `files` gives each part's file in a folder; `hub_parts` the hub's name for a part where it is another;
    `config` the hub's configuration; `question` the field that tells two records apart.
    """

    hub: str
    files: Mapping[str, str]
    fields: tuple[str, ...]
    question: str = "question"
    config: str | None = None
    hub_parts: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[Path, tuple[str, ...]], Iterator[tuple[int, dict[str, Any]]]] = numbered_jsonl


def load(native: Native, split: Split, source: str | None, example: Callable[[Record], Example]) -> list[Example]:
    """The examples of a split.

    Dev is the benchmark's own dev part, or where it has none a sixteenth of train, chosen by a hash of the question;
    never a piece of test. What a folder holds in two of its files is left out of the one to train on.
    """
    source = source or native.hub
    part = split if split in native.files else "train"
    reserved = _reserved(native, part, source)
    found = records(native, part, source)
    if reserved:
        found = [record for record in found if _question(native, record) not in reserved]
    if split != "test" and "dev" not in native.files:
        found = [record for record in found if (bucket(_question(native, record)) == 0) == (split == "dev")]
    return [example(record) for record in found]


def records(native: Native, part: str, source: str) -> list[Record]:
    """The records of one part, in their order; an error of one sentence names the file and line, or what to give."""
    path, file = Path(source).expanduser(), native.files[part]
    if path.is_file() and len(native.files) > 1 and path.stem != Path(file).stem:
        raise ValueError(
            f"{shown(path)} has no {part} part; give the folder that holds {file}, or a hub id; {OWN_FILE}"
        )
    if path.exists():
        path = path / file if path.is_dir() else path
        rows = [(f"{path}, line {number}", row) for number, row in native.read(path, native.fields)]
    elif source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ValueError(f"no folder or file at {quoted(source)}; give one with {file}, or a hub id like {native.hub}")
    else:
        rows = [(f"{source}, {part} record {i}", row) for i, row in enumerate(_from_hub(native, part, source))]
    found = [Record(where, f"{part}-{i}", row) for i, (where, row) in enumerate(rows)]
    for record in found:
        missing = [name for name in native.fields if name not in record.fields]
        if missing:
            needed = ", ".join(native.fields)
            raise record.error(f"lacks {', '.join(map(repr, missing))}; each record needs {needed}; {OWN_FILE}")
    return found


def numbered_json(path: Path, fields: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON file that is one list, each with the line it starts at."""
    text = read_text(path, "a JSON file")
    rows = json_value(text, path, "a list of objects")
    if not isinstance(rows, list):
        raise ValueError(f"{shown(path)}, line 1: no list; give a list of objects with {', '.join(fields)}")
    yield from numbered(
        text, text.index("[") + 1, len(rows), path, f"an entry must be an object with {', '.join(fields)}"
    )


def json_value(text: str, path: Path, what: str) -> Any:
    """The value of a file's JSON text, or one sentence that names the file and line, and `what` to give."""
    try:
        return from_json(text)
    except ValueError as error:
        cause = error.__cause__
        line = f", line {cause.lineno}" if isinstance(cause, json.JSONDecodeError) else ""
        raise ValueError(f"{shown(path)}{line}: not JSON ({error}); give {what}") from error


def numbered(text: str, start: int, count: int, path: Path, needed: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The `count` objects of a JSON list whose first entry is behind `start`, each with the line it starts at."""
    position, line, counted = start, 1, 0
    for _ in range(count):
        position = BETWEEN.match(text, position).end()  # type: ignore[union-attr]  (it can be empty)
        line, counted = line + text.count("\n", counted, position), position
        row, position = json.JSONDecoder().raw_decode(text, position)
        if not isinstance(row, dict):
            raise ValueError(f"{shown(path)}, line {line}: {needed}")
        yield line, row


def _from_hub(native: Native, part: str, source: str) -> list[dict[str, Any]]:
    file = native.files[part]
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"reading {source!r} from the hub needs the package datasets (pip install 'latent-workbench[hub]'); "
            f"or give a folder with {file}"
        ) from error
    configuration = (native.config,) if native.config else ()
    try:
        rows: Any = datasets.load_dataset(source, *configuration, split=native.hub_parts.get(part, part))
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{quoted(source)} could not be loaded from the hub ({shown(reason)}); give a folder with {file}"
        ) from error
    return [dict(row) for row in rows]


def _question(native: Native, record: Record) -> str:
    """The question as two records are compared by: blanks and capitals aside."""
    return " ".join(record.text(native.question).split()).casefold()


def _reserved(native: Native, part: str, source: str) -> set[str]:
    """The questions a part may not hold: those of the folder's other files that come first in `ORDER`."""
    folder = Path(source).expanduser()
    first = [p for p in ORDER[: ORDER.index(part)] if p in native.files and (folder / native.files[p]).is_file()]
    return {_question(native, record) for p in first for record in records(native, p, source)}


def bucket(text: str) -> int:
    """0..15 by a hash of the text, the same on every machine and for ever."""
    return blake2b(text.encode(), digest_size=2).digest()[0] % 16


def measured(question: str, steps: tuple[str, ...], **more: str | int | float) -> dict[str, str | int | float]:
    """The labels that every benchmark has, number of steps and length of the question in words, and some `more`."""
    return {"steps": len(steps), "question_words": len(question.split())} | more


def with_options(question: str, options: list[str]) -> str:
    """A multiple-choice question as it is asked: the options under it, lettered A) B) ..."""
    return "\n".join([question, *(f"{letter}) {option}" for letter, option in zip("ABCDEF", options, strict=False))])
