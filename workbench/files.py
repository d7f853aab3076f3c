"""Files that are whole or absent, written under a temporary name and then renamed; JSON and YAML read with care.

What is read may come from anywhere: whatever is wrong with it is one ValueError, one sentence that names the file and
repeats little of what it holds.
"""

import errno
import glob
import json
import math
import os
import platform
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

MOST = 100  # characters of the input that a sentence repeats
KINDS = {  # type -> what a sentence calls it; float is a finite number, whole or not
    str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object", list: "a list",
    type(None): "null",
}  # fmt: skip
LARGEST_YAML = 1_000_000  # bytes; a configuration has a few hundred, and more would take minutes to read
EXPANDED = 100_000  # values of a YAML file, those that an alias stands for counted each time
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


def shown(text: object, most: int = MOST) -> str:
    """A text as a sentence repeats it: on one printable line, its middle left out beyond `most` characters."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(_cut(str(text), most).split()))


def quoted(value: object, most: int = MOST) -> str:
    """A value as Python writes it, shortened as `shown` does."""
    try:
        return repr(_cut(value, most)) if isinstance(value, str) else shown(repr(value), most)
    except (ValueError, RecursionError):  # numbers of thousands of digits, lists in lists in lists
        return f"a {type(value).__name__} too large to write down"


def _cut(text: str, most: int) -> str:
    end = most // 2  # of a path, that tells more than its beginning
    return text if len(text) <= most else f"{text[: most - end - 3]} … {text[-end:]}"


def checked(row: Any, kinds: Mapping[str, type | tuple[type, ...]], where: str, advice: str = "") -> dict[str, Any]:
    """`row`, if it is an object whose fields are of these kinds; else ValueError, one sentence: where, what, advice.

    A field may be missing where null is one of its kinds. true and false are no numbers, and float is any finite one.
    """
    end = f"; {advice}" if advice else ""
    if not isinstance(row, dict):
        raise ValueError(f"{where} must be an object, it is {quoted(row)}{end}")
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        if name not in row and type(None) not in allowed:
            raise ValueError(f"{where} lacks {name!r}{end}")
        if not any(_is(row.get(name), one) for one in allowed):
            meant = " or ".join(KINDS[one] for one in allowed)
            raise ValueError(f"{where}: {name!r} must be {meant}, it is {quoted(row[name])}{end}")
    return row


def _is(value: Any, kind: type) -> bool:
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def read_text(path: str | Path, what: str) -> str:
    """The text of a file; ValueError where there is none or it is not UTF-8. A byte order mark is no part of it."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file at {shown(path)}; give the path of {what}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)} is not UTF-8 text; save it as UTF-8, or give {what}") from error
    if "\0" in text:  # UTF-16 without a mark; no JSON or YAML text holds one
        raise ValueError(f"{shown(path)} is not UTF-8 text; save it as UTF-8, or give {what}")
    return text


def read_json(path: str | Path, what: str = "a JSON file") -> Any:
    """What a JSON file holds; `what` the file should be, for the sentence of the ValueError where it is not."""
    try:
        return from_json(read_text(path, what))
    except _Unreadable as error:
        raise ValueError(f"{shown(path)} is not JSON ({error}); give {what}") from error


def read_yaml(path: str | Path, what: str = "a YAML file") -> Any:
    """What a YAML file holds (safe types only); `what` as in `read_json`."""
    if Path(path).is_file() and Path(path).stat().st_size > LARGEST_YAML:
        raise ValueError(f"{shown(path)} has over {LARGEST_YAML:,} bytes, more than any settings need; give {what}")
    try:
        return from_yaml(read_text(path, what))
    except _Unreadable as error:
        raise ValueError(f"{shown(path)} is not YAML ({error}); give {what}") from error


class _Unreadable(ValueError):
    """Why a text is not JSON, or not YAML, in a few words."""


def from_json(text: str) -> Any:
    """The value of a JSON text. ValueError, a few words, also where Python would make something else of it.

    That is: a name twice in an object, a number beyond floating point (1e999), half of a surrogate pair in a text.
    NaN and Infinity are read, since `json` writes them.
    """
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_float=_finite)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, " if "\n" in text.strip() else ""
        raise _Unreadable(f"{place}column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise _Unreadable("nested too deep") from error
    except UnicodeEncodeError as error:
        raise _Unreadable("half of a surrogate pair in a text") from error
    except _Unreadable:
        raise
    except ValueError as error:  # of int: thousands of digits
        raise _Unreadable("a number of too many digits") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Unreadable(
            f"{quoted(next(name for name in names if names.count(name) > 1), 40)} stands twice in an object"
        )
    return found


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise _Unreadable(f"the number {shown(digits, 40)} is too large")
    return value


def from_yaml(text: str) -> Any:
    """The value of a YAML text, safe types only. ValueError, a few words, for what `yaml` refuses and for more.

    More is: a key twice in a map, and aliases that stand for themselves or, expanded, for over `EXPANDED` values.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > EXPANDED:
            raise _Unreadable(f"aliases that stand for over {EXPANDED:,} values")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise _Unreadable(place + shown(getattr(error, "problem", None) or str(error))) from error
    except RecursionError as error:
        raise _Unreadable("nested too deep") from error
    except _Unreadable:
        raise
    except (ValueError, OverflowError) as error:  # of int and datetime: thousands of digits, the 99th of May
        raise _Unreadable(f"a number or date that is none: {shown(error)}") from error


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values a node stands for, aliases expanded; `known`: of nodes seen before, 0 while one is counted."""
    if id(node) in known:
        if not known[id(node)]:
            raise _Unreadable("an alias that stands for what it is a part of")
        return known[id(node)]
    known[id(node)] = 0
    size = 1
    if isinstance(node, yaml.MappingNode):
        keys = sorted((key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        if len(set(keys)) < len(keys):
            twice = next(key for key, after in pairwise(keys) if key == after)
            raise _Unreadable(f"{quoted(twice[1], 40)} stands twice in a map")
        size += sum(_size(part, known) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_size(part, known) for part in node.value)
    known[id(node)] = size
    return size


Fields = tuple[str, ...] | Mapping[str, type | tuple[type, ...]]


def read_jsonl(path: str | Path, fields: Fields = ()) -> list[dict[str, Any]]:
    """The objects of a JSONL file; each must have `fields`. A bad line is named by file and number."""
    return [row for _, row in numbered_jsonl(path, fields)]


def numbered_jsonl(path: str | Path, fields: Fields = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file with their line numbers, for callers that check more than `fields`.

    fields: names, or name -> kind as in `checked`.
    """
    return numbered_rows(read_text(path, "a JSONL file"), path, fields)


def numbered_rows(text: str, path: str | Path, fields: Fields = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """The same of the text of a file, `path` being its name in sentences."""
    for number, line in enumerate(text.split("\n"), 1):  # splitlines would also cut at U+2028, which JSON text may hold
        if not line.strip():
            continue
        where = f"{shown(path)}, line {number}"
        try:
            row = from_json(line)
        except _Unreadable as error:
            raise ValueError(f"{where}: not JSON ({error}); each line must be one JSON object") from error
        missing = [field for field in fields if not isinstance(row, dict) or field not in row]
        if not isinstance(row, dict) and not missing:
            raise ValueError(f"{where}: no object; each line must be one JSON object")
        if missing:
            raise ValueError(f"{where}: lacks {', '.join(map(repr, missing))}; each line needs {', '.join(fields)}")
        yield number, row if isinstance(fields, tuple) else checked(row, fields, where)


def visible(folder: str | Path, pattern: str) -> list[Path]:
    """What in a folder fits a pattern, sorted, without hidden files: those are other programs' (macOS `._name`)."""
    return sorted(path for path in Path(folder).glob(pattern) if not path.name.startswith("."))


def logged_jsonl(path: str | Path, fields: Fields = ()) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `numbered_jsonl`, of a file that grows line by line: a last line that is torn is left out.

    It may still be being written, or its process was killed over it, or a lost block has made zeros of it.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file at {shown(path)}; give the path of a JSONL file")
    found = path.read_bytes().rstrip(b"\0 \t\r\n")
    before, _, last = found.rpartition(b"\n")
    try:
        whole = isinstance(from_json(last.decode()), dict)
    except ValueError:  # bytes that are no text are one too
        whole = False
    try:
        text = (found if whole else before).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{shown(path)} is not UTF-8 text; give a JSONL file") from error
    return numbered_rows(text, path, fields)
