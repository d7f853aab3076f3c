"""GGUF files, as far as language models are read from them: values by name, tensors by name as float32.

magic, version, counts | name, kind, value ... | name, shape, type, offset ... | the tensors' bytes

Layout and block formats are those of the ggml project's specification: numbers are little-endian, shapes are written
with the fastest axis first, and a quantised row is a sequence of blocks of 32 weights with a scale of their own.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..files import shown

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # kind -> struct
TEXT, ARRAY = 8, 9
BLOCK = 32  # weights
# Type of a tensor -> its name, and the layout of a block (of a single number where it is not quantised).
LAYOUTS = {
    0: ("F32", np.dtype("<f4")),
    1: ("F16", np.dtype("<f2")),
    3: ("Q4_1", np.dtype([("scale", "<f2"), ("least", "<f2"), ("pairs", "u1", (BLOCK // 2,))])),
    8: ("Q8_0", np.dtype([("scale", "<f2"), ("weights", "i1", (BLOCK,))])),
}


@dataclass(frozen=True)
class Gguf:
    """A file that was read: `values` by name, and where each tensor lies."""

    path: Path
    values: dict[str, Any]
    places: Mapping[str, tuple[tuple[int, ...], int, int]]  # name -> shape, type, first byte

    def tensor(self, name: str) -> np.ndarray:
        """A tensor in float32, its axes in the usual order (the last is the fastest)."""
        if name not in self.places:
            raise ValueError(f"{shown(self.path)} has no tensor {shown(name)!r}; give a file of that model")
        shape, kind, start = self.places[name]
        if kind not in LAYOUTS:
            known = ", ".join(name for name, _ in LAYOUTS.values())
            raise ValueError(f"{shown(self.path)}: tensor {shown(name)!r} is of type {kind}; read are {known}")
        layout = LAYOUTS[kind][1]
        each = BLOCK if layout.names else 1
        if shape[-1] % each:
            raise ValueError(f"{shown(self.path)}: tensor {shown(name)!r} has rows that are no whole blocks of {BLOCK}")
        with self.path.open("rb") as file:
            file.seek(start)
            read = file.read(math.prod(shape) // each * layout.itemsize)
        if len(read) < math.prod(shape) // each * layout.itemsize:
            raise ValueError(f"{shown(self.path)} ends within tensor {shown(name)!r}; it is cut off: get it again")
        return _weights(np.frombuffer(read, layout)).reshape(shape)


def _weights(blocks: np.ndarray) -> np.ndarray:
    """The float32 weights of blocks, or of plain numbers."""
    if not blocks.dtype.names:
        return blocks.astype(np.float32)
    scale = blocks["scale"].astype(np.float32)[:, None]
    if "weights" in blocks.dtype.names:  # Q8_0: scale * integer
        return scale * blocks["weights"].astype(np.float32)
    pairs = blocks["pairs"]  # Q4_1: scale * (0 to 15) + least; low halves are the first 16 weights
    halves = np.concatenate([pairs & 15, pairs >> 4], 1).astype(np.float32)
    return scale * halves + blocks["least"].astype(np.float32)[:, None]


def read(path: str | Path) -> Gguf:
    """The values of a GGUF file and the places of its tensors. ValueError, one sentence, for any other file."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no file at {shown(path)}; give the path of a GGUF file")
    head = _Head(path.read_bytes())
    try:
        return head.parsed(path)
    except (struct.error, UnicodeDecodeError, KeyError) as error:
        raise ValueError(f"{shown(path)} is no GGUF file that can be read; get it again") from error


class _Head:
    """The bytes of a file and how far they have been read."""

    def __init__(self, content: bytes):
        self.content, self.at = content, 0

    def parsed(self, path: Path) -> Gguf:
        if self.content[:4] != b"GGUF":
            raise ValueError(f"{shown(path)} is no GGUF file: it does not begin with GGUF; give one that does")
        self.at = 4
        version = self.number("I")
        if version not in (2, 3):
            raise ValueError(f"{shown(path)} is GGUF version {version}; read are 2 and 3")
        tensors, count = self.number("Q"), self.number("Q")
        values = {self.text(): self.value(self.number("I")) for _ in range(count)}
        found = {}
        for _ in range(tensors):
            name = self.text()
            shape = tuple(reversed([self.number("Q") for _ in range(self.number("I"))]))
            found[name] = (shape, self.number("I"), self.number("Q"))
        unit = values.get("general.alignment", 32)
        start = -(-self.at // unit) * unit
        return Gguf(path, values, {name: (shape, kind, start + off) for name, (shape, kind, off) in found.items()})

    def number(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.content, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def text(self) -> str:
        size = self.number("Q")
        self.at += size
        if self.at > len(self.content):
            raise struct.error("a text that ends beyond the file")
        return self.content[self.at - size : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            inner, size = self.number("I"), self.number("Q")
            return [self.value(inner) for _ in range(size)]
        return self.number(NUMBERS[kind])
