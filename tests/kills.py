"""Trainings that are killed (SIGKILL) at chosen moments and resumed: `kills.py BACKBONE OUT SEED KILLS`.

Each training is a forked process, so that none loads torch again. It is killed at the n-th time that it opens, renames
or removes something in its folder, or after a random while. A line on stdout for each run that did not end as the one
that was never killed, and one in the end with how many were.
"""

import os
import random
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from mean_read import SHORT, MeanRead, rows

from workbench import runs
from workbench.backbone import Backbone
from workbench.tasks import load_task
from workbench.train import train

CONFIG = replace(SHORT, examples=12, epochs=2, batch_size=4, save_every=2, snapshot_every=3, probe_every=100)
CALLS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate"}


def trained(backbone: Path, folder: Path, call: int | None = None, after: float | None = None) -> bool:
    """Train, or resume, in a process of its own; whether it ended by itself. Killed before its `call`-th call that
    concerns the folder, or `after` so many seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.dup2(os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
            method, task = MeanRead(Backbone.load(str(backbone))), load_task("arith-shift")
            if call is not None:
                die_at(call, str(folder))
            if after is not None:
                signal.signal(signal.SIGALRM, signal.SIG_DFL)
                signal.setitimer(signal.ITIMER_REAL, after)
            train(method, task, CONFIG, folder, resume=runs.begun(folder))
            code = 0
        except BaseException as error:
            print(f"{folder.name}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        raise SystemExit(f"{folder.name}: a training ended with {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def die_at(call: int, folder: str) -> None:
    left = [call]

    def look(event: str, given: tuple) -> None:
        if event in CALLS and any(isinstance(one, str | Path) and str(one).startswith(folder) for one in given[:2]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)


def differences(whole: Path, killed: Path) -> list[str]:
    """What is not as in the run that was never killed."""
    names = [sorted(str(path.relative_to(run)) for path in run.rglob("*")) for run in (whole, killed)]
    found = [f"files {names[1]} instead of {names[0]}"] if names[0] != names[1] else []
    files = ["config.yaml", "weights.safetensors", *(name for name in names[0] if name.endswith(".safetensors"))]
    found += [name for name in dict.fromkeys(files) if (whole / name).read_bytes() != (killed / name).read_bytes()]
    found += ["metrics.jsonl"] if rows(whole) != rows(killed) else []
    return found + ([] if runs.ended(killed) == "finished" else [f"process.json says {runs.ended(killed)}"])


def main(backbone: Path, out: Path, seed: int, kills: int) -> None:
    rng, wrong, done = random.Random(seed), 0, 0
    started = time.monotonic()
    trained(backbone, out / "whole")
    long = time.monotonic() - started
    while done < kills:
        folder = out / f"killed{done}"
        for _ in range(min(rng.randint(1, 3), kills - done)):
            by_call, call, after = rng.random() < 0.6, rng.randint(1, 60), rng.uniform(0, long) + 1e-3
            if trained(backbone, folder, call if by_call else None, None if by_call else after):
                break
            done += 1
        trained(backbone, folder)
        different = differences(out / "whole", folder)
        wrong += bool(different)
        if different:
            print(f"{folder}: {'; '.join(different)}", flush=True)
        else:
            shutil.rmtree(folder)
    print(f"{done} kills, {wrong} runs that differ", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
