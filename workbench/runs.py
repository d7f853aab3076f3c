"""A run's folder: what was asked (config.yaml), what happened (metrics.jsonl), what came out (weights, result.json).

config.yaml           task, backbone, method and settings: differences from the defaults only
metrics.jsonl         one row per logged step
log.txt               what `start_training` runs print
process.json          which process trains here, or did: `running`, `stop_training` (see owners.py)
weights.safetensors   the trained weights, self-describing: its metadata rebuilds the method
snapshots/            the same after some of the steps, where `snapshot_every` asked for it
stage0.pt, ...        the prompts a stage trains on, where a method has made its own
checkpoint.pt         everything needed to go on exactly where training stopped
result.json           numbers, seconds and full provenance
"""

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from .config import differences
from .files import checked, from_json, lasting, logged_jsonl, quoted, read_yaml, shown, sweep, write_text
from .owners import discard, elsewhere, ended, note_process, refuse, running, stop_training  # noqa: F401  (runs.running ...)
from .places import DATA, INSTALLED

if TYPE_CHECKING:
    from torch import Tensor

    from .backbone import Backbone
    from .methods import LatentMethod

# Where runs go unless told otherwise: git ignores it, and without a checkout it is in the folder one works in.
RUNS = Path("data/runs") if INSTALLED else DATA / "runs"
SETTINGS = {  # what config.yaml may hold -> its kinds; only the task must be there
    "task": str, "backbone": (str, type(None)), "method": (str, type(None)), "options": (dict, type(None)),
    "training": (dict, type(None)), "data": (str, type(None)), "prompts": (str, type(None)),
    "revision": (str, type(None)), "preset": (str, type(None)),
}  # fmt: skip
DESCRIPTION = {  # the same of what weights say of themselves
    "backbone": str, "method": str, "options": dict, "revision": (str, type(None)),
    "training_step": (int, type(None)), "stage": (int, type(None)), "digest": (str, type(None)),
}  # fmt: skip
KEPT = ("metrics.jsonl", "checkpoint.pt", "snapshots", "weights.safetensors", "result.json")  # that there is a run
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
    if INSTALLED:
        return "unknown"  # a repository around the environment is another project's
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
        "command": shlex.join(["workbench" if program == "__main__.py" else program, *sys.argv[1:]]),
        "commit": commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def command(*words: str | Path) -> str:
    """A command of ours as it can be pasted into a shell."""
    return shlex.join(["workbench", *map(str, words)])


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
    config = read_yaml(path, "another run's folder")
    if not isinstance(config, dict) or "task" not in config:
        raise ValueError(f"{path} names no task; give the folder of a run that `workbench train` made")
    return checked(config, SETTINGS, str(path), "give the folder of a run that `workbench train` made")


def read_metrics(folder: str | Path, fields: tuple[str, ...] = ()) -> pd.DataFrame:
    """metrics.jsonl as a table, a row per logged step; NaN where a row lacks a value.

    fields: what each row must have beside its step. A last line that is torn is not there yet. ValueError, naming the
    line, where a value is no number (`warnings`, a list of sentences, aside), or where steps do not rise from row to
    row.
    """
    path = Path(folder) / "metrics.jsonl"
    rows, last = [], -1
    for number, row in logged_jsonl(path, {"step": int, **dict.fromkeys(fields, float)}):
        try:
            rows.append(metrics_row(row, last))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}; restore the line, or give another run") from error
        last = row["step"]
    return pd.DataFrame(rows)


def metrics_row(row: dict[str, Any], last: int = -1) -> dict[str, Any]:
    """A row of metrics.jsonl as it should be, `last` the step of the row before; ValueError, a few words, else."""
    if not last < row["step"] < 2**63:
        raise ValueError(f"'step' is {quoted(row['step'])}, it must be over {last}")
    for name, value in row.items():
        if name == "warnings":
            if not isinstance(value, list) or not all(isinstance(sentence, str) for sentence in value):
                raise ValueError(f"'warnings' must be a list of sentences, it is {quoted(value)}")
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"{quoted(name)} must be a number, it is {quoted(value)}")
        elif value is not None and not -1e300 < value < 1e300 and value == value:
            raise ValueError(f"{quoted(name)} is {quoted(value)}, which no training writes")
    return row


def start_training(
    folder: str | Path, config: Mapping[str, Any] | None = None, *, threads: int = 1
) -> subprocess.Popen[bytes]:
    """Start `workbench train` in a process of its own; its output goes to log.txt in `folder`.

    config: settings as in `workbench train --config`, differences from the defaults; None goes on with the run that
    was stopped in `folder`. `threads`: of torch; several runs that share cores are fastest with one each. SIGINT
    (`process.send_signal(signal.SIGINT)`) makes the run finish its step, save and end.
    """
    folder = Path(folder)
    refuse(folder)
    if config is None:
        read_config(folder)  # or one sentence: nothing to go on with
    elif begun(folder):
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


def begun(folder: str | Path) -> bool:
    """Whether `folder` holds anything of a run: then it is gone on with, or left alone."""
    return any((Path(folder) / name).exists() for name in KEPT)


def refuse_run(folder: str | Path) -> None:
    """ValueError, one sentence, where `folder` holds a run."""
    if begun(folder):
        raise ValueError(f"{folder} holds a run already; resume it, or give another folder")


def drop_snapshots(folder: str | Path, behind: int) -> None:
    """Remove the snapshots of later steps, and what killed processes have left beside them."""
    place = Path(folder) / "snapshots"
    for step in snapshot_steps(folder):
        if step > behind:
            _snapshot(Path(folder), step).unlink()
    sweep(place)


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
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from .checkpoints import checksum

    step = method.training_step
    path = Path(folder) / (f"snapshots/step{step:06d}.safetensors" if snapshot else "weights.safetensors")
    # one entry: of several safetensors writes an order that differs from one time to the next
    about = describe_method(method) | {"training_step": step, "stage": method.stage}
    if weights is None:
        weights = method.saved()
    tensors = {name: p.detach().cpu().contiguous() for name, p in weights.items()}
    about["digest"] = checksum([about, dict(sorted(tensors.items()))])
    with lasting(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"workbench": json.dumps(about)})
        except SafetensorError as error:  # of a full disk, say: it wraps what the system said
            raise OSError(f"{path} could not be written ({error}); make room, or give another place") from error
    return path


def snapshot_steps(folder: str | Path) -> list[int]:
    """The training steps whose weights a run keeps, ascending; empty where it was trained without `snapshot_every`."""
    if not Path(folder).is_dir():
        raise ValueError(f"no run at {folder}; give the folder that `workbench train` made")
    names = (re.fullmatch(r"step([0-9]{6,12})", path.stem) for path in Path(folder).glob("snapshots/*.safetensors"))
    return sorted(int(name[1]) for name in names if name is not None)


def load_method(path: str | Path, backbone: "Backbone | None" = None, *, step: int | None = None) -> "LatentMethod":
    """The trained method in a run's folder (or weights file), on its own backbone or a given one of the same shape.

    `step`: the snapshot after that many training steps instead, one of `snapshot_steps`.
    """
    from safetensors import SafetensorError, safe_open

    from .backbone import Backbone
    from .checkpoints import checksum
    from .config import choose, configured
    from .methods import METHODS, build

    path = Path(path)
    if step is not None:
        path = _snapshot(path, step)
    path = path / "weights.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"no trained weights at {path}; give the folder of a finished run or its weights.safetensors")
    advice = "train again, or give another run"
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a reader, not a dict)
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:  # the last two: dtypes that torch lacks
        raise ValueError(f"{path} is damaged ({shown(error)}); {advice}") from error
    if "workbench" not in metadata:
        raise ValueError(
            f"{path} was not written by this workbench (no description in it); give a run's weights.safetensors"
        )
    try:
        about = checked(from_json(metadata["workbench"]), DESCRIPTION, "it")
        seal = about.pop("digest", None)  # files of before there were checksums have none, and no other field
        content = checksum([about, dict(sorted(tensors.items()))])
        if (set(about) >= set(DESCRIPTION)) if seal is None else seal != content:
            raise ValueError(f"{path} is damaged (its content does not match its checksum); {advice}")
        config = configured(choose("method", about["method"], METHODS).Config, about["options"])
    except ValueError as error:
        raise ValueError(f"{path} describes itself wrongly ({shown(error, 300)}); {advice}") from error
    if backbone is None:
        needs = METHODS[about["method"]].needs
        backbone = Backbone.load(about["backbone"], revision=about.get("revision"), weights=needs == "model")
    method = build(about["method"], backbone, config)
    own = method.saved()
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    wanted = {name: tuple(p.shape) for name, p in own.items()}
    if shapes != wanted:
        different = sorted(set(shapes.items()) ^ set(wanted.items()))[0]
        raise ValueError(
            f"{path} does not fit {about['method']} on {backbone.name!r}: {shown(different[0])} {different[1]} differs"
        )
    bad = [name for name, t in tensors.items() if not t.is_floating_point() or not bool(t.float().isfinite().all())]
    if bad:
        raise ValueError(f"{path}: tensor {bad[0]!r} holds what are no finite numbers; {advice}")
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
