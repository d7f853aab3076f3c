"""Speed, measured as ratios within one run: each shortcut beside the plain way, and the floor the machine sets."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from ..backbone import Backbone
from ..runs import provenance
from .diagnostics import diagnostics
from .fast_loop import inner_steps
from .generation import collecting, generation, queueing, writing_thoughts
from .machine import Timer, copy_rate, description, matrix_rate
from .models import eight_billion, mid_size
from .optimizers import optimizing
from .results import load, parts, ratio_table, shipped, ways
from .superpositions import training_latents
from .training import Shape, training, training_thoughts

__all__ = [
    "bench", "collecting", "description", "diagnostics", "generation", "inner_steps", "load", "mid_size", "optimizing",
    "parts", "queueing", "ratio_table", "shipped", "tables", "training", "training_latents", "training_thoughts",
    "ways", "writing_thoughts",
]  # fmt: skip

Part = Literal["training", "generation", "diagnostics"]
PARTS: tuple[Part, ...] = ("training", "generation", "diagnostics")
ARITH = Shape(constant=4, question=26, target=20)  # tokens of the shipped backbone's own problems


def bench(
    parts: Sequence[Part] = PARTS,
    backbone: str | None = None,
    *,
    repeats: int = 5,
    timer: Timer = "wall",
    compile: bool = False,
) -> dict[str, Any]:
    """Every part's results, what was measured on and where it comes from; plain values only.

    Without a `backbone`: the shipped one, which trains on problems of its own length, and a random Qwen3, which trains
    on questions and answers as long as GSM8K's: "mid_size", or on a GPU "eight_billion" of weights. With one: that one,
    on GSM8K's lengths. What is written is as long for all (see `generation`).
    `compile` adds a training step whose layers torch.compile has fused.
    """
    if repeats < 1:
        raise ValueError(f"repeats is {repeats}; give at least 1")
    if backbone is not None and set(parts) == {"diagnostics"}:
        raise ValueError(f"backbone is {backbone!r}, but diagnostics measure none; leave it out")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    random = "eight_billion" if device.type == "cuda" else "mid_size"
    machine = description() | {"matrix_rate": matrix_rate(device, torch.float32), "copy_rate": copy_rate(device)}
    found: dict[str, Any] = {"machine": machine}
    own = Backbone.load(backbone or "nano").to(device) if set(parts) - {"diagnostics"} else None
    other = None
    if own is not None and backbone is None:
        other = eight_billion(device) if random == "eight_billion" else mid_size()
    if "training" in parts and own is not None:
        shape, size = (ARITH, 32) if backbone is None else (Shape(), 8)
        found["training"] = training(own, shape, batch_size=size, repeats=repeats, timer=timer, compile=compile)
        found["training"]["thoughts"] = training_thoughts(own, shape, repeats=repeats, timer=timer)
        found["training"]["optimizers"] = optimizing(own, shape, repeats=repeats, timer=timer)
        if backbone is None and device.type == "cpu":
            found["training"]["fast_loop"] = inner_steps(repeats=repeats, timer=timer)
        found["training"]["latents"] = training_latents(own, shape, repeats=repeats, timer=timer)
        if other is not None:
            found["training"][random] = training(
                other, Shape(), batch_size=4, repeats=repeats, timer=timer, compile=compile
            )
            found["training"][f"{random}_optimizers"] = optimizing(other, Shape(), repeats=repeats, timer=timer)
    if "generation" in parts and own is not None:
        found["generation"] = generation(own, repeats=repeats, timer=timer)
        found["generation"]["queue"] = queueing(own, repeats=repeats, timer=timer)
        found["generation"]["thoughts"] = writing_thoughts(own, repeats=repeats, timer=timer)
        if other is not None:
            found["generation"][random] = generation(other, repeats=repeats, timer=timer)
        found["collect"] = collecting(own, repeats=repeats, timer=timer)
        if other is not None:
            found["collect"][random] = collecting(other, count=64, repeats=repeats, timer=timer)
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
    for name, part in parts(found).items():
        said = [f"{key} {value:.3g}" for key, value in part.items() if isinstance(value, float)]
        lines += ["", f"{name}: {', '.join(said)}"]
        spent = sorted(part.get("parts", {}).items(), key=lambda row: -row[1])
        lines += [f"  {text:20}{seconds:8.1f} CPU s {seconds / part['cpu_seconds']:6.0%}" for text, seconds in spent]
        for way, row in part.get("rungs", {}).items():
            times = f"{1e3 * row['median']:9.1f} ms [{1e3 * row['low']:.1f}, {1e3 * row['high']:.1f}]"
            rest = [f"{row[key]:.2f} {text}" for key, text in RATIOS.items() if key in row]
            lines.append(f"  {way:12}{times:32}{', '.join(rest)}")
    return "\n".join(lines)


RATIOS = {"speedup": "times as fast", "over_floor": "times the floor"}
