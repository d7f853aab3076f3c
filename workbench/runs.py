"""A run's folder: what was asked (config.yaml), what happened (metrics.jsonl), what came out (weights, result.json).

config.yaml           task, backbone, method and settings: differences from the defaults only
metrics.jsonl         one row per logged step
log.txt               what `start_training` runs print
process.json          which process that is, for whoever wants to know whether it still runs, or to stop it
weights.safetensors   the trained weights, self-describing: its metadata rebuilds the method
snapshots/            the same after some of the steps, where `snapshot_every` asked for it
stage0.pt, ...        the prompts a stage trains on, where a method has made its own
checkpoint.pt         everything needed to go on exactly where training stopped
result.json           numbers, seconds and full provenance
"""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import psutil
import yaml

from .config import differences
from .files import read_jsonl, whole, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from .backbone import Backbone
    from .methods import LatentMethod

RUNS = Path(__file__).parents[1] / "data" / "runs"  # where runs go unless told otherwise; git ignores it
PACKAGES = ("latent-workbench", "torch", "transformers", "accelerate", "numpy", "scikit-learn", "xarray", "plotly")


def versions() -> dict[str, str]:
    """Python, the kind of machine, and the packages a number depends on."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    return found | {name: _version(name) for name in PACKAGES}


@cache  # a process keeps what it has loaded
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def commit() -> str:
    """The commit of the code in use, with "+changes" when the tree differs from it; "unknown" outside a checkout."""
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*", "--abbrev=12"]
    try:
        found = subprocess.run([*describe, "--dirty=+changes"], capture_output=True, text=True, check=True)
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance() -> dict[str, Any]:
    """What a result file says about where it comes from."""
    program = Path(sys.argv[0]).name
    return {
        "command": " ".join(["workbench" if program == "__main__.py" else program, *sys.argv[1:]]),
        "commit": commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def describe_method(method: "LatentMethod") -> dict[str, Any]:
    """What rebuilds a method: its name, backbone and the differences of its config from the defaults."""
    backbone = {"backbone": method.backbone.name}
    if method.backbone.revision:
        backbone["revision"] = method.backbone.revision
    return backbone | {"method": method.name, "options": differences(method.config)}


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """config.yaml, in the form `workbench train --config` reads."""
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def read_config(folder: str | Path) -> dict[str, Any]:
    """config.yaml of a run."""
    path = Path(folder) / "config.yaml"
    if not path.is_file():
        raise ValueError(f"no run at {folder} (it has no config.yaml); give the folder that `workbench train` made")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML ({' '.join(str(error).split())}); give another run's folder") from error
    if not isinstance(config, dict) or "task" not in config:
        raise ValueError(f"{path} names no task; give the folder of a run that `workbench train` made")
    return config


def read_metrics(folder: str | Path) -> pd.DataFrame:
    """metrics.jsonl as a table, a row per logged step; NaN where a row lacks a value."""
    return pd.DataFrame(read_jsonl(Path(folder) / "metrics.jsonl", ("step",)))


def start_training(
    folder: str | Path, config: Mapping[str, Any] | None = None, *, threads: int = 1
) -> subprocess.Popen[bytes]:
    """Start `workbench train` in a process of its own; its output goes to log.txt in `folder`.

    config: settings as in `workbench train --config`, differences from the defaults; None goes on with the run that
    was stopped in `folder`. `threads`: of torch; several runs that share cores are fastest with one each. SIGINT
    (`process.send_signal(signal.SIGINT)`) makes the run finish its step, save and end.
    """
    folder = Path(folder)
    if config is None:
        read_config(folder)  # or one sentence: nothing to go on with
    elif (folder / "metrics.jsonl").exists():
        raise ValueError(f"{folder} holds a run already; go on with it (config=None), or give another folder")
    else:
        write_config(folder, dict(config))
    command = [sys.executable, "-m", "workbench", "train", "--config", str(folder / "config.yaml")]
    command += ["--out", str(folder), "--resume", str(config is None).lower()]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "TQDM_DISABLE": "1"}
    with open(folder / "log.txt", "ab") as log:
        # a session of its own: an interrupt of the notebook must not reach it a second time, which would kill it
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    note_process(folder, process.pid)
    return process


def note_process(folder: str | Path, pid: int) -> None:
    """Write down which process trains in `folder`, for `running` and `stop_training`."""
    about = {"pid": pid, "began": psutil.Process(pid).create_time(), "machine": platform.node()}
    write_text(Path(folder) / "process.json", json.dumps(about) + "\n")


def running(folder: str | Path) -> int | None:
    """The id of the process that `start_training` started last in `folder`, None where it has ended.

    It is found by its id and the time it began, so also from another notebook or after a kernel's restart; a run on
    another machine, or one started on the command line, is not seen.
    """
    try:
        about = json.loads((Path(folder) / "process.json").read_text(encoding="utf-8"))
        process = psutil.Process(about["pid"])
        same = about["machine"] == platform.node() and abs(process.create_time() - about["began"]) < 1
        return process.pid if same and process.status() != psutil.STATUS_ZOMBIE else None
    except (FileNotFoundError, json.JSONDecodeError, psutil.NoSuchProcess):
        return None


def stop_training(folder: str | Path) -> bool:
    """Ask the process that trains in `folder` to finish its step, save and end; False where none does."""
    pid = running(folder)
    if pid is not None:
        os.kill(pid, signal.SIGINT)
    return pid is not None


def save_weights(
    method: "LatentMethod",
    folder: str | Path,
    weights: "Mapping[str, Tensor] | None" = None,
    *,
    snapshot: bool = False,
) -> Path:
    """Write what the method says is saved, its trained weights, with what is needed to rebuild it around them.

    `weights`: by name, where the method's own are sharded over processes; None takes its own.
    `snapshot`: among the snapshots of a run, under the method's training step.
    """
    from safetensors.torch import save_file

    step = method.training_step
    path = Path(folder) / (f"snapshots/step{step:06d}.safetensors" if snapshot else "weights.safetensors")
    # one entry: of several safetensors writes an order that differs from one time to the next
    about = json.dumps(describe_method(method) | {"training_step": step, "stage": method.stage})
    if weights is None:
        weights = method.saved()
    tensors = {name: p.detach().cpu().contiguous() for name, p in weights.items()}
    with whole(path) as temporary:
        save_file(tensors, temporary, metadata={"workbench": about})
    return path


def snapshot_steps(folder: str | Path) -> list[int]:
    """The training steps whose weights a run keeps, ascending; empty where it was trained without `snapshot_every`."""
    if not Path(folder).is_dir():
        raise ValueError(f"no run at {folder}; give the folder that `workbench train` made")
    names = (path.stem.removeprefix("step") for path in Path(folder).glob("snapshots/step*.safetensors"))
    return sorted(int(name) for name in names if name.isdecimal())


def load_method(path: str | Path, backbone: "Backbone | None" = None, *, step: int | None = None) -> "LatentMethod":
    """The trained method in a run's folder (or weights file), on its own backbone or a given one of the same shape.

    `step`: the snapshot after that many training steps instead, one of `snapshot_steps`.
    """
    from safetensors import SafetensorError, safe_open

    from .backbone import Backbone
    from .config import choose
    from .methods import METHODS, build

    path = Path(path)
    if step is not None:
        path = _snapshot(path, step)
    path = path / "weights.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"no trained weights at {path}; give the folder of a finished run or its weights.safetensors")
    try:
        opened = safe_open(path, "pt")
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); train again, or give another run") from error
    with opened as file:
        metadata = file.metadata() or {}
        if "workbench" not in metadata:
            raise ValueError(
                f"{path} was not written by this workbench (no description in it); give a run's weights.safetensors"
            )
        about = json.loads(metadata["workbench"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a reader, not a dict)
    if backbone is None:
        needs = choose("method", about["method"], METHODS).needs
        backbone = Backbone.load(about["backbone"], revision=about.get("revision"), weights=needs == "model")
    config = choose("method", about["method"], METHODS).Config(**about["options"])
    method = build(about["method"], backbone, config)
    own = method.saved()
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    wanted = {name: tuple(p.shape) for name, p in own.items()}
    if shapes != wanted:
        different = sorted(set(shapes.items()) ^ set(wanted.items()))[0]
        raise ValueError(
            f"{path} does not fit {about['method']} on {backbone.name!r}: {different[0]} {different[1]} differs"
        )
    for name, value in own.items():
        value.data.copy_(tensors[name])
    method.training_step, method.stage = about.get("training_step"), about.get("stage")
    return method.eval()


def _snapshot(folder: Path, step: int) -> Path:
    known = snapshot_steps(folder)
    if step not in known:
        kept = (
            f"it has those of steps {', '.join(map(str, known))}" if known else "train with snapshot_every to have some"
        )
        raise ValueError(f"the run {folder} has no snapshot of step {step}; {kept}")
    return folder / f"snapshots/step{step:06d}.safetensors"
