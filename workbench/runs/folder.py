"""What was asked (config.yaml) and what happened (metrics.jsonl); starting a run in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..files import checked, logged_jsonl, quoted, read_yaml, write_text
from ..places import DATA, INSTALLED
from ..plugins import loaded
from .owners import note_process, refuse

if TYPE_CHECKING:
    import pandas as pd

# Where runs go unless told otherwise: git ignores it, and without a checkout it is in the folder one works in.
RUNS = Path("data/runs") if INSTALLED else DATA / "runs"
SETTINGS = {  # what config.yaml may hold -> its kinds; only the task must be there
    "task": str, "backbone": (str, type(None)), "method": (str, type(None)), "options": (dict, type(None)),
    "training": (dict, type(None)), "data": (str, type(None)), "prompts": (str, type(None)),
    "revision": (str, type(None)), "preset": (str, type(None)), "layout": (dict, type(None)),
    "plugins": (str, list, type(None)),
}  # fmt: skip
KEPT = ("metrics.jsonl", "checkpoint.pt", "snapshots", "weights.safetensors", "result.json")  # that there is a run


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


def read_metrics(folder: str | Path, fields: tuple[str, ...] = ()) -> "pd.DataFrame":
    """metrics.jsonl as a table, a row per logged step; NaN where a row lacks a value.

    fields: what each row must have beside its step. A last line that is torn is not there yet. ValueError, naming the
    line, where a value is no number (`warnings`, a list of sentences, aside), or where steps do not rise from row to
    row.
    """
    import pandas as pd  # here: training begins without it

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
    was stopped in `folder`. Plugins that are loaded here are loaded there, unless it names others. `threads`: of torch;
    several runs that share cores are fastest with one each. SIGINT (`process.send_signal(signal.SIGINT)`) makes the run
    finish its step, save and end.
    """
    folder = Path(folder)
    refuse(folder)
    if config is None:
        read_config(folder)  # or one sentence: nothing to go on with
    elif begun(folder):
        raise ValueError(f"{folder} holds a run already; go on with it (config=None), or give another folder")
    else:
        known = {"plugins": loaded()} if loaded() else {}
        write_config(folder, known | dict(config))
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
