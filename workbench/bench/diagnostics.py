"""Speed and memory of `describe` on a random store that lies on disk in parts, beside the least it could take.

    floor = bytes of the thoughts / copy rate + 2 n d^2 / matrix rate      read once; the covariance of each step
    peak  = largest resident memory of a fresh process that opens the store and describes it (with torch, half a GB)

A floor for one reading and one covariance: spectra, neighbours and intervals come on top.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from ..analysis.diagnostics import blocks, cloud_sums, describe, streamed, tables
from ..store import SCHEMA, load, save
from .machine import copy_rate, description, matrix_rate

PART = 1000  # examples of a part file
PARTS = {  # what takes most of the time: its functions, none of which calls another
    "read": [(blocks, "read")],
    "means of examples": [(streamed, "_each")],
    "variance parts": [(streamed, "_pieces")],
    "covariance": [(cloud_sums, "_scatter")],
    "spectrum": [(cloud_sums, "_eigenvalues"), (cloud_sums, "covariance_eigenvalues")],
    "distances": [(cloud_sums, "_squared_distances")],
    "neighbours": [(cloud_sums, "_neighbours")],
    "gaussian_kl": [(cloud_sums, "gaussian_kl_shrunk")],
    "bootstrap": [(tables, "resamples"), (tables, "ratio_bootstrap")],
}
RANK = 64  # directions that thoughts of a random store share, beside noise in all


def diagnostics(
    examples: int = 25_000,
    slots: int = 4,
    width: int = 4096,
    *,
    reference: int = 1000,
    level: float | None = 0.95,
    seed: int = 0,
    folder: str | Path | None = None,
) -> dict[str, Any]:
    """Describe a random store of examples x slots thoughts [width] in float16, in a process of its own.

    seconds (of `describe`, after opening), cpu_seconds (the same over all cores), peak_gb (10^9 bytes), parts (CPU
    seconds of each, over all cores; rest: of everything else), floor (seconds) and over_floor, bytes, flops, rates. The
    store is written to a temporary folder (in `folder`), which needs room for 2 examples x slots x width bytes.
    """
    with tempfile.TemporaryDirectory(dir=folder) as where:
        size = random_store(Path(where), examples, slots, width, reference, seed)
        code = "import sys; from workbench.bench.diagnostics import measured; measured(*sys.argv[1:])"
        run = subprocess.run(
            [sys.executable, "-c", code, where, json.dumps(level)], capture_output=True, text=True, check=False
        )
        if run.returncode:
            why = (run.stderr.strip().splitlines() or [f"it ended with {run.returncode}, perhaps for want of memory"])[
                -1
            ]
            raise RuntimeError(f"describing {examples} x {slots} thoughts of {width} failed: {why}")
        found = json.loads(run.stdout)
    device = torch.device("cpu")
    rates = {"copy_rate": copy_rate(device), "matrix_rate": matrix_rate(device, torch.float32)}
    thoughts, flops = examples * slots, 2 * examples * slots * width**2
    # a copy reads and writes each byte; what is described is read only
    floor = 2 * thoughts * width / rates["copy_rate"] + flops / rates["matrix_rate"]
    return {
        **found,
        "floor": floor,
        "over_floor": found["seconds"] / floor,
        "bytes": 2 * thoughts * width,
        "stored_bytes": size,
        "flops": flops,
        **rates,
        "shape": {
            "examples": examples,
            "slots": slots,
            "width": width,
            "reference": reference,
            "sample": streamed.SAMPLE,
        },
        "machine": description(device),
    }


def random_store(folder: Path, examples: int, slots: int, width: int, reference: int, seed: int = 0) -> int:
    """Write a valid store in part files, one part in memory at a time; bytes written.

    Thoughts are Gaussian: their slot's own mean, `RANK` shared directions with falling scale, and noise.
    """
    rng = np.random.default_rng(seed)
    scale = np.linspace(4, 1, min(RANK, width)).astype(np.float32)
    axes = rng.standard_normal((len(scale), width), np.float32) * (scale / np.sqrt(len(scale)))[:, None]
    means = rng.standard_normal((slots, width), np.float32)
    tokens = rng.standard_normal((reference, width), np.float32).astype(np.float16)
    written = 0
    for number, start in enumerate(range(0, examples, PART)):
        count = min(PART, examples - start)
        thought = rng.standard_normal((count, 1, slots, len(scale)), np.float32) @ axes
        thought += rng.standard_normal(thought.shape, np.float32) + means
        written += (
            save(_part(thought.astype(np.float16), tokens, start, seed), folder / f"{number:05}.nc").stat().st_size
        )
    return written


def _part(thought: np.ndarray, tokens: np.ndarray, start: int, seed: int) -> xr.Dataset:
    count, step, draw = len(thought), ("example", "path", "step"), ("example", "path", "draw")
    ids = [f"random-{start + k}" for k in range(count)]
    one = (count, 1, 1)
    return xr.Dataset(
        {
            "thought": ((*step, "feature"), thought),
            "mask": (step, np.ones(thought.shape[:3], dtype=bool)),
            "text": (draw, np.full(one, "1")),
            "prediction": (draw, np.full(one, "1")),
            "correct": (draw, np.ones(one, dtype=bool)),
            "length": (draw, np.ones(one, dtype=np.int64)),
            "finished": (draw, np.ones(one, dtype=bool)),
            "reference": (("reference", "feature"), tokens),
        },
        coords={"example": ids, "question": ("example", ids), "gold": ("example", ["1"] * count)},
        attrs={
            "schema": SCHEMA, "method": "random", "config": "", "backbone": "none", "task": "none", "split": "test",
            "seed": seed, "versions": "{}", "commit": "", "created": "2026-01-01T00:00:00",
        },
    )  # fmt: skip


# ------------------------------------------------------------------------------------------- in a process of its own


def measured(folder: str, level: str) -> None:
    """Describe the store in a folder, in blocks, and print what it took as JSON."""
    store, spent = load(folder), {part: list[float]() for part in PARTS}
    for part, functions in PARTS.items():
        for module, name in functions:
            setattr(module, name, _timed(getattr(module, name), spent[part]))
    started, computed = time.perf_counter(), time.process_time()
    table = describe(store, level=json.loads(level), stream=True)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - computed
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    parts = {part: sum(each) for part, each in spent.items()}
    parts["rest"] = cpu_seconds - sum(parts.values())
    found = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_gb": peak / 1e9, "parts": parts, "rows": len(table)}
    print(json.dumps(found))


def _timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    """The function, which then notes the seconds it computed: of its own thread, since several work at once."""

    @wraps(function)
    def timed(*given: Any, **named: Any) -> Any:
        started = time.thread_time()
        found = function(*given, **named)
        spent.append(time.thread_time() - started)
        return found

    return timed
