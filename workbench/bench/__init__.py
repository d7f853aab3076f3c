"""Speed, measured as ratios within one run: each shortcut beside the plain way, and the floor the machine sets."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from ..backbone import Backbone
from ..runs import provenance
from .diagnostics import diagnostics
from .generation import collecting, generation, mid_size, queueing
from .machine import Timer, copy_rate, description, matrix_rate
from .training import Shape, training

Part = Literal["training", "generation", "diagnostics"]
PARTS: tuple[Part, ...] = ("training", "generation", "diagnostics")
ARITH = Shape(constant=4, question=26, target=20)  # tokens of the shipped backbone's own problems


def bench(
    parts: Sequence[Part] = PARTS, backbone: str | None = None, *, repeats: int = 5, timer: Timer = "wall"
) -> dict[str, Any]:
    """Every part's results, what was measured on and where it comes from; plain values only.

    Without a `backbone`: the shipped one with problems of its own length, and (as "mid_size") a random Qwen3 with
    questions and answers as long as GSM8K's. With one: that one, at GSM8K's lengths.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    machine = description() | {"matrix_rate": matrix_rate(device, torch.float32), "copy_rate": copy_rate(device)}
    found: dict[str, Any] = {"machine": machine}
    shipped = Backbone.load(backbone or "nano") if set(parts) - {"diagnostics"} else None
    other = mid_size().to(device) if shipped is not None and backbone is None else None
    if "training" in parts and shipped is not None:
        own = (ARITH, 32) if backbone is None else (Shape(), 8)
        found["training"] = training(shipped, own[0], batch_size=own[1], repeats=repeats, timer=timer)
        if other is not None:
            found["training"]["mid_size"] = training(other, Shape(), batch_size=4, repeats=repeats, timer=timer)
    if "generation" in parts and shipped is not None:
        found["generation"] = generation(shipped, repeats=repeats, timer=timer)
        found["generation"]["queue"] = queueing(shipped, repeats=repeats, timer=timer)
        if other is not None:
            found["generation"]["mid_size"] = generation(other, repeats=repeats, timer=timer)
        found["collect"] = collecting(shipped, repeats=repeats, timer=timer)
    if "diagnostics" in parts:
        found["diagnostics"] = diagnostics()
    return found | provenance()


def tables(found: dict[str, Any]) -> str:
    """What was found, to be read: a table of the ways of each part, in milliseconds."""
    lines = [
        ", ".join(
            f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in found["machine"].items()
        )
    ]
    for name, part in _parts(found):
        said = [f"{key} {value:.3g}" for key, value in part.items() if isinstance(value, float)]
        lines += ["", f"{name}: {', '.join(said)}"]
        for way, row in part.get("rungs", {}).items():
            times = f"{1e3 * row['median']:9.1f} ms [{1e3 * row['low']:.1f}, {1e3 * row['high']:.1f}]"
            rest = [f"{row[key]:.2f} {text}" for key, text in RATIOS.items() if key in row]
            lines.append(f"  {way:12}{times:32}{', '.join(rest)}")
    return "\n".join(lines)


RATIOS = {"speedup": "times as fast", "over_floor": "times the floor"}


def _parts(found: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The parts and what they hold of other backbones, by name."""
    named = [(name, found[name]) for name in ("training", "generation", "collect", "diagnostics") if name in found]
    inner = [(f"{name} {key}", part[key]) for name, part in named for key in ("mid_size", "queue") if key in part]
    return sorted([*named, *inner])
