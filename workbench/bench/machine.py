"""What the machine can do: the rates that set a floor under times, and its name.

matrix rate = 2 m n k / seconds of an [m, k] x [k, n] product
copy rate   = bytes read and written / seconds of a copy larger than the caches
"""

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

Timer = Literal["wall", "cpu"]


def matrix_rate(device: torch.device, dtype: torch.dtype, sizes: tuple[int, int, int] | None = None) -> float:
    """FLOP/s of a matrix product of sizes (m, k, n); without them of a square one, 4096 on a GPU, 1024 on a CPU."""
    side = 4096 if device.type == "cuda" else 1024
    m, k, n = sizes or (side, side, side)
    a, b = (torch.randn(shape, device=device).to(dtype) for shape in ((m, k), (k, n)))
    out = torch.empty(m, n, device=device, dtype=dtype)
    return 2 * m * k * n / _fastest(lambda: torch.mm(a, b, out=out), device)


def copy_rate(device: torch.device, size: int | None = None) -> float:
    """Bytes per second, those read and those written, of a copy of `size` bytes; 1 GiB on a GPU, 256 MiB on a CPU."""
    size = size or (2**30 if device.type == "cuda" else 2**28)
    source = torch.ones(size // 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device)


def description(device: torch.device | None = None) -> dict[str, Any]:
    """The device's name, its cores, threads in use and torch's version; of the current GPU where there is one."""
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "name": name,
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def clock(device: torch.device) -> float:
    """Seconds, when everything asked of the device has been done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def alternating(
    acts: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device, timer: Timer = "wall"
) -> dict[str, dict[str, float]]:
    """Seconds of each act, one after the other so many times, after a first round to warm up: median and quartiles.

    `timer="cpu"` counts the seconds this process has computed, which vary less on a busy machine.
    """
    now = time.process_time if timer == "cpu" else partial(clock, device)
    seconds: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(repeats + 1):
        for name, act in acts.items():
            started = now()
            act()
            if number:
                seconds[name].append(now() - started)
    at = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    cuts = {name: torch.tensor(values, dtype=torch.float64).quantile(at).tolist() for name, values in seconds.items()}
    return {name: {"median": median, "low": low, "high": high} for name, (low, median, high) in cuts.items()}


def _fastest(act: Callable[[], Any], device: torch.device, repeats: int = 7) -> float:
    """Seconds of the fastest of a few repeats, after one to warm up: a rate that is reached, not a usual one."""
    act()
    seconds = []
    for _ in range(repeats):
        start = clock(device)
        act()
        seconds.append(clock(device) - start)
    return min(seconds)


def _processor() -> str:
    """The processor's own name where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
