"""Files that are whole or absent, written under a temporary name and then renamed; JSON lines that name a bad line."""

import errno
import glob
import itertools
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A temporary path (for a file or folder) that becomes `path` when the block ends well and vanishes otherwise.

    OSError, one sentence, where it cannot be written. What a process that was killed has left of the same file goes.
    """
    path = Path(path)
    with written(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, path.name)
        temporary = path.with_name(f".{path.name}.{_machine()}.{os.getpid()}.tmp")
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            temporary.unlink(missing_ok=True)


@contextmanager
def lasting(path: str | Path) -> Iterator[Path]:
    """As `whole`, for a file whose loss costs hours: on the disk before its name is, and then the name as well."""
    path = Path(path)
    with whole(path) as temporary:
        yield temporary
        _sync(temporary)
    _sync(path.parent)


@contextmanager
def written(path: str | Path) -> Iterator[None]:
    """An OSError of the block, that of a full disk, say, becomes one that says in a sentence what was not written."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence already
            raise
        advice = "make room" if error.errno in FULL else "mend that"
        raise OSError(f"{path} could not be written ({error.strerror}); {advice}, or give another place") from error


def sweep(folder: str | Path, name: str = "") -> None:
    """Remove what killed processes of this machine have left of files they wrote; `name`: of this one only."""
    for left in Path(folder).glob(f".{glob.escape(name) or '*'}.{_machine()}.*.tmp"):
        with suppress(FileNotFoundError):
            if _left(left):
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _left(temporary: Path) -> bool:
    """Whether the process that made it has ended: there is none with its number, or one that began later."""
    number = temporary.name.split(".")[-2]
    try:
        return number.isdecimal() and psutil.Process(int(number)).create_time() > temporary.stat().st_mtime + 1
    except psutil.NoSuchProcess:
        return True


@cache
def _machine() -> str:
    """What tells this machine's processes from those of others that write to the same disk."""
    return sha256(platform.node().encode()).hexdigest()[:8]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(parts: Iterable[str | bytes | memoryview]) -> str:
    """A checksum of texts and bytes, in order: 32 hexadecimal digits of SHA-256. Where one ends matters, too."""
    found = sha256()
    for part in parts:
        view = memoryview(part.encode() if isinstance(part, str) else part)
        found.update(f"{view.nbytes} ".encode())
        found.update(view)
    return found.hexdigest()[:32]


def placed(path: str) -> str:
    """A path to something that is there, so that it is found from any folder; whatever else it is, as it is."""
    return os.path.abspath(os.path.expanduser(path)) if path and Path(path).expanduser().exists() else path


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


def logged_jsonl(path: str | Path, fields: tuple[str, ...] = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `numbered_jsonl`, of a file that grows line by line: a last line that is torn is left out.

    It may still be being written, or its process was killed over it, or a lost block has made zeros of it.
    """
    rows = numbered_jsonl(path, fields)
    for count in itertools.count(1):
        try:
            yield next(rows)
        except StopIteration:
            return
        except ValueError:
            if _torn(Path(path), count):
                return
            raise


def _torn(path: Path, count: int) -> bool:
    """Whether the line with this number, of those that are not blank, is the last one and no JSON."""
    lines: list[str] = []
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        json.loads(lines[-1])
    except (OSError, UnicodeDecodeError, IndexError):
        return False
    except ValueError:
        return len(lines) == count
    return False
