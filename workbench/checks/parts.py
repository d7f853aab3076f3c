"""Files of numbers that a method's public code gives, part by part, and how ours are compared with them.

Tensors of a safetensors file are named PART.CASE.NAME (CASE: 0, 1, ...), or NAME where all cases share them. What is to
be computed is PART.CASE.expected.NAME; everything else is given. The metadata says `kind`, the method, and `config`, a
JSON object for `AutoConfig.for_model`.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch
from torch import Tensor

TOLERANCE = 2e-5
GROWING = {"inner": 10.0}  # parts in which rounding grows, and how many times the tolerance they are given


@dataclass(frozen=True)
class Parity:
    """The largest absolute difference of each expected tensor, by its name in the file, and what else is to be said.

    None stands for another shape. A difference is right up to `tolerance`, times what `scales` has for the tensor.
    """

    max_abs: dict[str, float | None]
    notes: tuple[str, ...] = ()
    tolerance: float = TOLERANCE
    scales: dict[str, float] = field(default_factory=dict)

    @property
    def wrong(self) -> dict[str, float | None]:
        """What differs by more than it may, is not a number, or has another shape."""
        return {
            name: value
            for name, value in self.max_abs.items()
            if value is None or not value <= self.tolerance * self.scales.get(name, 1.0)
        }

    def to_dict(self) -> dict[str, Any]:
        """What `--json` prints: {"passed": bool, "tolerance": float, "max_abs": {name: float | null}, "notes": [str]}.

        A difference that is not a number is null too: JSON has no word for it.
        """
        finite = {
            k: v if v is not None and v == v and abs(v) != float("inf") else None for k, v in self.max_abs.items()
        }
        return {"passed": not self.wrong, "tolerance": self.tolerance, "max_abs": finite, "notes": list(self.notes)}

    def __str__(self) -> str:
        """A line `max_abs.NAME value` per tensor, then the notes."""
        width = max(map(len, self.max_abs), default=0) + len("max_abs.")
        shown = {name: "other shape" if value is None else f"{value:.1e}" for name, value in self.max_abs.items()}
        lines = [f"{'max_abs.' + name:{width}}  {value}" for name, value in shown.items()]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    @property
    def complaint(self) -> str | None:
        """What is wrong, in one sentence."""
        if not self.wrong:
            return None
        name, value = max(self.wrong.items(), key=lambda item: (item[1] is None, item[1] != item[1], item[1] or 0.0))
        how = "has another shape" if value is None else f"is off by {value:.1e}"
        size = " of their size" if self.scales else ""
        return (
            f"{len(self.wrong)} of {len(self.max_abs)} tensors differ by more than {self.tolerance:g}{size}, most of "
            f"all {name[:100]}, which {how}; see whether the file's inputs are those of its expectations"
        )


class Parts:
    """A file that was read, and the differences found so far."""

    def __init__(self, path: str | Path, kind: str, parts: tuple[str, ...]):
        """ValueError, one sentence, for a file that is none, is for another method, or has parts that are not known."""
        from safetensors import SafetensorError, safe_open

        self.path, self.kind = Path(path), kind
        if not self.path.is_file():
            raise ValueError(f"no file at {path}; give a .safetensors file")
        try:
            with safe_open(self.path, "pt") as file:
                about, self.tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file ({str(error)[:100]}); give one of numbers") from error
        if about.get("kind") != kind:
            raise ValueError(f"{path} is of kind {str(about.get('kind'))[:40]!r}; give one of kind {kind!r}")
        self.config = self._config(about)
        self.known, self.scales = {}, {}
        self.max_abs: dict[str, float | None] = {}
        found = [match for name in self.tensors if (match := re.match(r"([^.]+)\.(\d+)\.", name))]
        strange = sorted({match[1] for match in found} - set(parts))
        # a shared tensor may be numbered too ("layers.0.q"): only what expects something is a part
        strange = [
            one for one in strange if any(re.match(rf"{re.escape(one)}\.\d+\.expected\.", n) for n in self.tensors)
        ]
        if strange:
            raise ValueError(f"{path} has the part {strange[0][:40]!r}; known are {', '.join(parts)}")
        self.numbers = {(match[1], int(match[2])) for match in found if match[1] in parts}
        if not any(".expected." in name for name in self.tensors):
            raise ValueError(f"{path} expects nothing; give tensors named PART.CASE.expected.NAME")

    def _config(self, about: Mapping[str, str]) -> dict[str, Any]:
        try:
            config = json.loads(about.get("config", "{}"))
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(
                f"the config in {self.path} is not JSON; give an object for AutoConfig.for_model"
            ) from error
        if not isinstance(config, dict):
            raise ValueError(f"the config in {self.path} is no JSON object; give one for AutoConfig.for_model")
        return config

    def cases(self, part: str) -> Iterator["Case"]:
        """The cases of a part, in order."""
        for name, number in sorted(self.numbers):
            if name == part:
                yield Case(self, f"{name}.{number}.")

    def shared(self) -> "Case":
        """What all cases share."""
        return Case(self, "")

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose names begin so, without that: finite float32 numbers."""
        shared = self.shared()
        found = {n.removeprefix(prefix): shared.numbers(n, ...) for n in self.tensors if n.startswith(prefix)}
        if not found:
            raise ValueError(f"{self.path} lacks the tensors {prefix}*; a file of kind {self.kind!r} needs them")
        return found

    def take(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise ValueError(f"{self.path} lacks the tensor {name!r}; a file of kind {self.kind!r} needs it")
        return self.tensors[name]

    def parity(self, notes: tuple[str, ...] = ()) -> Parity:
        """What was found; ValueError where the file expects something that nothing was compared with."""
        left = sorted(name for name in self.tensors if ".expected." in name and name not in self.max_abs)
        if left:
            raise ValueError(f"{self.path} expects {left[0][:100]!r}, which is not known here; leave it out")
        return Parity(dict(sorted(self.max_abs.items())), notes, TOLERANCE, self.scales)


class Case:
    """The tensors of a case (or the shared ones), checked as they are taken."""

    def __init__(self, file: Parts, prefix: str):
        self.file, self.prefix = file, prefix
        self.sizes: dict[str, int] = {}

    def has(self, name: str) -> bool:
        return self.prefix + name in self.file.tensors

    def numbers(self, name: str, *shape: str | int | EllipsisType) -> Tensor:
        """Finite float32 numbers of a shape, in which a letter stands for a size that is fixed where first seen.

        `...`: of whatever shape.
        """
        tensor = self._shaped(name, shape)
        if tensor.dtype != torch.float32:
            raise ValueError(f"tensor {self.prefix + name!r} is {tensor.dtype}; give torch.float32")
        return self._finite(name, tensor)

    def ids(self, name: str, *shape: str | int, low: int = 0, high: int | None = None) -> Tensor:
        """Whole numbers of a shape, from `low` to below `high`."""
        tensor = self._shaped(name, shape)
        if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
            raise ValueError(f"tensor {self.prefix + name!r} is {tensor.dtype}; give whole numbers (torch.int64)")
        wrong = tensor[(tensor < low) | (tensor >= (2**62 if high is None else high))]
        if wrong.numel():
            end = "" if high is None else f" to {high - 1}"
            raise ValueError(f"tensor {self.prefix + name!r} holds {wrong[0].item()}; give numbers from {low}{end}")
        return tensor.long()

    def whole(self, name: str, low: int = 0, high: int | None = None) -> int:
        """One whole number."""
        return int(self.ids(name, low=low, high=high))

    def flag(self, name: str) -> bool:
        """0 or 1."""
        return bool(self.whole(name, 0, 2))

    def number(self, name: str) -> float:
        """One finite number."""
        tensor = self._shaped(name, ())
        if tensor.dtype not in (torch.float64, torch.int64):
            raise ValueError(f"tensor {self.prefix + name!r} is {tensor.dtype}; give one torch.float64")
        return float(self._finite(name, tensor.double()))

    def compare(self, name: str, ours: Tensor | None) -> None:
        """The largest difference from what is expected under this name; None: there is nothing to compare."""
        full = f"{self.prefix}expected.{name}"
        expected = self.file.take(full)
        if not expected.double().isfinite().all():
            raise ValueError(f"tensor {full!r} holds numbers that are not finite; give what is expected")
        real = ours is not None and ours.is_floating_point()
        if ours is not None and (expected.dtype == torch.float32 if real else expected.is_floating_point()) != real:
            wanted = "torch.float32" if real else "whole numbers (torch.int64)"
            raise ValueError(f"tensor {full!r} is {expected.dtype}; give {wanted}")
        part = self.prefix.partition(".")[0]
        size = float(expected.double().abs().max()) if expected.numel() else 0.0
        self.file.scales[full] = max(1.0, size) * GROWING.get(part, 1.0)
        if ours is None or ours.shape != expected.shape:
            self.file.max_abs[full] = None
            return
        difference = (ours.detach().double() - expected.double()).abs()
        self.file.max_abs[full] = float(difference.max()) if difference.numel() else 0.0

    def compare_gradients(self, gradients: Mapping[str, Tensor | None], prefix: str = "grad.") -> None:
        """Those of the gradients that the file expects, by name; a weight that nothing reaches has the gradient 0."""
        start = f"{self.prefix}expected.{prefix}"
        for full in [name for name in self.file.tensors if name.startswith(start)]:
            name = full.removeprefix(start)
            if name in gradients:
                found = gradients[name]
                self.compare(prefix + name, torch.zeros_like(self.file.tensors[full]) if found is None else found)

    def _shaped(self, name: str, shape: tuple[str | int | EllipsisType, ...]) -> Tensor:
        tensor = self.file.take(self.prefix + name)
        if shape == (...,):
            return tensor
        found = tuple(tensor.shape)
        needed = tuple(self.sizes.get(size, size) if isinstance(size, str) else size for size in shape)
        if len(found) != len(needed) or any(isinstance(n, int) and n != f for f, n in zip(found, needed, strict=True)):
            sizes = ", ".join(map(str, needed)) + "," * (len(needed) == 1)
            raise ValueError(f"tensor {self.prefix + name!r} has shape {found}, needed is ({sizes}); give that shape")
        self.sizes |= {size: n for size, n in zip(needed, found, strict=True) if isinstance(size, str)}
        return tensor

    def _finite(self, name: str, tensor: Tensor) -> Tensor:
        if not tensor.isfinite().all():
            raise ValueError(f"tensor {self.prefix + name!r} holds numbers that are not finite; give finite ones")
        return tensor
