"""Experiments: a grid of runs, their stores, one table with intervals, its figures and what they say.

`experiment("loss-ablation")` runs one on the shipped backbone; a `Setting` names another backbone, task or budget. Each
file is one experiment: its first line is the question, `cells` the grid, `report` what is made of the stores, and
`SETTING`, where it has one, what it runs on unless it is told.
"""

from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console

from .. import places
from ..config import choose, differences
from ..runs import RUNS
from .grid import Setting, run_cells
from .report import Report, read, write
from .tuning import tuned

__all__ = ["EXPERIMENTS", "Report", "Setting", "default_setting", "experiment", "question", "shipped_report"]

EXPERIMENTS = {  # name -> file in this folder
    "loss-ablation": "loss_ablation",
    "thought-count": "thought_count",
    "scaling": "scaling",
    "variance": "variance",
    "alignment": "alignment",
    "positive-step": "positive_step",
    "transfer": "transfer",
    "compare": "compare",
    "lt-tuning": "lt_tuning",
    "benchmarks": "benchmarks",
    "ltm": "ltm",
    "latent-sft": "latent_sft",
}


def experiment(name: str, setting: Setting | None = None, out: str | Path | None = None) -> Report:
    """Run the experiment `name` in the folder `out` (default data/runs/experiments/NAME) and write what it found.

    Started again it goes on where it stopped; a finished one is only read. Another setting needs another folder.
    """
    module = _module(name)
    setting, console = setting or default_setting(name), Console()
    out = Path(out) if out is not None else RUNS / "experiments" / name
    done = run_cells(setting, tuned(setting, module.cells(setting), out, console), out, console)
    report = module.report(setting, done)
    for path in write(report, out, {"experiment": name, "question": question(name), "setting": differences(setting)}):
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    for sentence in report.findings:
        console.print(f"• {sentence}", highlight=False, markup=False)
    return report


def shipped_report(name: str) -> Report:
    """What the experiment found when it was run for this repository: table, figures, findings (data/experiments)."""
    return read(places.EXPERIMENTS / choose("experiment", name, {known: known for known in EXPERIMENTS}))


def default_setting(name: str) -> Setting:
    """What an experiment runs on unless it is told: its own `SETTING` where it has one."""
    return getattr(_module(name), "SETTING", None) or Setting()


def question(name: str) -> str:
    """What an experiment asks, in one line."""
    return (_module(name).__doc__ or "").splitlines()[0]


def _module(name: str) -> Any:
    return import_module(f".{choose('experiment', name, EXPERIMENTS)}", __name__)
