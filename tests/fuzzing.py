"""What is tried on every reader: values and bytes made odd, seeded, and how an answer to them is judged."""

import json
import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from workbench.__main__ import main
from workbench.files import quoted

TIMES = int(os.environ.get("WORKBENCH_FUZZ", "1"))
LONGEST = 10.0  # seconds that any input may take
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -0.0, 0.5, 1e308, float("nan"), float("inf"), "", "x",
    "12", "\0", "é\u2028\ud7ff", "x" * 3000, [], {}, [[]], [None], {"x": 1}, {"": {}}, [1, "a", None], "../..",
    "<b>$x$</b>", "%{x}", "nan",
]  # fmt: skip


def kind(value: Any) -> str:
    """Name of a parameter, which itself would be pages long."""
    return type(value).__name__


DEEP = ["[" * 3000, "[" * 100_000 + "]" * 100_000, '{"a":' * 3000 + "1" + "}" * 3000]
RAW = [
    b"",
    b"\0" * 300,
    b"\xff\xfe\x00",
    b"\xef\xbb\xbf",
    b"null",
    b"[]",
    b"{}",
    b"3",
    b'"x"',
    b"1e999",
    b"NaN",
    b"{",
    *(d.encode() for d in DEEP),
]


def changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with one place, at any depth, dropped, doubled or replaced."""
    value = json.loads(json.dumps(value))
    places = [(None, None)]

    def walk(inner: Any) -> None:
        items = inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        for key, part in list(items)[:40]:
            places.append((inner, key))
            walk(part)

    walk(value)
    for _ in range(rng.choice([1, 1, 1, 3])):
        holder, key = rng.choice(places)
        if holder is None:
            if rng.random() < 0.1:
                return rng.choice(ODD)
        elif isinstance(holder, dict):
            how = rng.randrange(3)
            if how == 0:
                holder.pop(key, None)
            elif how == 1:
                holder[rng.choice([str(odd)[:50] for odd in ODD])] = holder.pop(key, None)
            else:
                holder[key] = rng.choice(ODD)
        elif key < len(holder):
            holder[key] = rng.choice(ODD)
    return value


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Bytes cut off, flipped, zeroed, doubled or replaced."""
    how = rng.randrange(7)
    if how == 0:
        return data[: rng.randrange(len(data) + 1)]
    if how == 1:
        found = bytearray(data)
        for _ in range(rng.choice([1, 2, 20])):
            found[rng.randrange(len(found))] ^= 1 << rng.randrange(8)
        return bytes(found)
    start = rng.randrange(len(data) + 1)
    end = min(len(data), start + rng.choice([1, 8, 200]))
    if how == 2:
        return data[:start] + bytes(end - start) + data[end:]
    if how == 3:
        return data[:end] + data[start:]
    if how == 4:
        return (
            data[:start]
            + rng.choice([b"[" * 3000, b"9" * 5000, b"\xff", b"\\ud800", b"1e999", b"&a [*a]", b"\0"])
            + data[end:]
        )
    if how == 5:
        return data[:start] + data[end:]
    return rng.choice(RAW)


def text_of(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except ValueError:  # numbers of more digits than Python writes
        return json.dumps(value, default=str).encode()


def variants(value: Any, count: int, seed: object, write: Callable[[Any], bytes] = text_of):
    """`count` times as many as asked of a value's file: half changed as values, half as bytes."""
    rng = random.Random(f"{seed}")
    good = write(value)
    for k in range(count * TIMES):
        yield write(changed(value, rng)) if k % 2 else damaged(good, rng)


def sound(read: Callable[[], Any], case: object) -> Any:
    """What `read` returns, or None where it raised one short sentence in time; anything else fails."""
    began = time.monotonic()
    try:
        return read()
    except (ValueError, OSError) as error:
        said = str(error)
        assert "\n" not in said, (case, said)
        assert len(said) < 900, (case, said)
        assert "Traceback" not in said
        return None
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} for {str(case)[:2000]}: {str(error)[:300]}") from error
    finally:
        assert time.monotonic() - began < LONGEST, case


def told(argv: list[str], capsys: pytest.CaptureFixture[str], case: object = "") -> int:
    """The exit code of a command, which where it is not 0 has said one short sentence."""
    began = time.monotonic()
    try:
        code = main(argv)
    except SystemExit as left:
        code = left.code
    except Exception as error:
        raise AssertionError(
            f"{type(error).__name__} for {quoted(argv, 2000)} {str(case)[:2000]}: {str(error)[:300]}"
        ) from error
    assert time.monotonic() - began < LONGEST, (argv, case)
    captured = capsys.readouterr()
    if code:
        assert code in (1, 2), (argv, code)
        lines = captured.err.strip().split("\n")
        assert len(lines) == 1, (argv, captured.err)
        assert lines[0].startswith("workbench: "), (argv, captured.err)
        assert len(lines[0]) < 900, (argv, captured.err)
    return int(code or 0)


ROWS = [
    {"step": k + 1, "epoch": 0, "stage": 0, "seconds": 0.5 * k, "loss": 3.0 - k / 9, "loss_focus": 1.0, "lr": 0.1,
     "loss_focus_log_steps": 1.1, "probe_relative_spread": 0.4, "probe_cosine": 0.1, "warnings": ["it is cold"]}
    for k in range(4)
]  # fmt: skip


def lines_of(rows: Any) -> bytes:
    rows = rows if isinstance(rows, list) else [rows]
    return b"".join(text_of(row) + b"\n" for row in rows)
