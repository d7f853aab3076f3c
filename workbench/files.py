"""Files that are whole or absent, written under a temporary name and then renamed; JSON lines that name a bad line."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path (for a file or folder) that becomes `path` when the block ends well and vanishes otherwise."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_jsonl(path: str | Path, fields: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The objects of a JSONL file; each must have `fields`. A bad line is named by file and number."""
    return [row for _, row in numbered_jsonl(path, fields)]


def numbered_jsonl(path: str | Path, fields: tuple[str, ...] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers, for callers that check more than `fields`."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file at {path}; give the path of a JSONL file")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text; give a JSONL file") from error
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at U+2028, which JSON text may hold
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{path}, line {number}: not JSON ({error.msg}); each line must be one JSON object"
            ) from error
        missing = [field for field in fields if not isinstance(row, dict) or field not in row]
        if missing:
            raise ValueError(
                f"{path}, line {number}: lacks {', '.join(map(repr, missing))}; each line needs {', '.join(fields)}"
            )
        yield number, row


def visible(folder: str | Path, pattern: str) -> list[Path]:
    """What in a folder fits a pattern, sorted, without hidden files: those are other programs' (macOS `._name`)."""
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith("."))
