"""The rows of a user's own file, whatever it is written as: JSONL, JSON, CSV, TSV, parquet, or lines of text.

A JSON file is one list of objects, an object that holds one such list, or JSONL under another name. A text file has an
example a line, `question||steps #### answer`. ValueError, one sentence, for a file that cannot be read at all.
"""

import csv
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

from ...files import from_json, numbered_jsonl, read_text, shown
from ..records import json_value, numbered_json

Rows = Iterator[tuple[int, dict[str, Any]]]
ADVICE = "a list of objects, one for each question"


def rows(path: Path) -> Rows:
    """The rows of a file with the line each starts at (parquet: its number, from 1), in their order."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{shown(path)} is of a kind that is not read; give {', '.join(READERS)}, or a folder of such files"
        )
    return reader(path)


def _jsonl(path: Path) -> Rows:
    return numbered_jsonl(path)


def _json(path: Path) -> Rows:
    text = read_text(path, "a JSON file").strip()
    if text.startswith("["):
        return numbered_json(path, ())
    first, *others = text.split("\n", 1)
    if others and _is_object(first):
        return numbered_jsonl(path)
    value = json_value(text, path, ADVICE)
    inner = [one for one in value.values() if isinstance(one, list) and one] if isinstance(value, dict) else []
    if len(inner) != 1 or not all(isinstance(row, dict) for row in inner[0]):
        raise ValueError(f"{shown(path)} holds no list of rows, or more than one; give {ADVICE}")
    return enumerate(inner[0], 1)


def _is_object(line: str) -> bool:
    try:
        return isinstance(from_json(line), dict)
    except ValueError:
        return False


def _csv(path: Path, separator: str | None = None) -> Rows:
    """With a header; a semicolon separates where the header has no comma."""
    text = read_text(path, "a CSV file")
    header = text.split("\n", 1)[0]
    separator = separator or (";" if "," not in header and ";" in header else ",")
    reader = csv.reader(StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        names = next(reader, [])
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None or not all(name.strip() for name in names):
            said = f"names {twice!r} twice" if twice else "has an empty name"
            raise ValueError(f"{shown(path)}: the header {said}; give each column a name of its own")
        line = reader.line_num
        for cells in reader:
            start, line = line + 1, reader.line_num
            if len(cells) > len(names):
                raise ValueError(
                    f"{shown(path)}, line {start}: {len(cells)} cells, the header has {len(names)}; quote a cell that "
                    f"holds {separator!r}"
                )
            if cells:
                yield start, dict(zip(names, [*cells, *[""] * (len(names) - len(cells))], strict=True))
    except csv.Error as error:
        raise ValueError(f"{shown(path)}, line {reader.line_num}: no CSV ({error}); mend the line") from error


def _parquet(path: Path) -> Rows:
    from pyarrow import ArrowException, parquet

    try:
        return enumerate(parquet.read_table(path).to_pylist(), 1)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{shown(path)} is no parquet file ({shown(error)}); give another") from error


def _lines(path: Path) -> Rows:
    """`question||steps #### answer`, as GSM8K-Aug is published; a line without || has no question."""
    for number, line in enumerate(read_text(path, "a text file").split("\n"), 1):
        if line.strip():
            question, mark, worked = line.partition("||")
            yield number, {"question": question, "answer": worked} if mark else {"question": "", "answer": line}


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _json, ".csv": _csv, ".tsv": lambda path: _csv(path, "\t"),
    ".parquet": _parquet, ".txt": _lines,
}  # fmt: skip
PARTS = {"train": "train", "training": "train", "dev": "dev", "valid": "dev", "val": "dev", "validation": "dev",
         "test": "test"}  # fmt: skip


def part_of(path: Path) -> str | None:
    """The split that a file's name says it is: svamp_train.json, train-00000-of-00001.parquet, valid.csv; or None."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((PARTS[word] for word in words if word in PARTS), None)
