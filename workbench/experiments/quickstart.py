"""The five-minute proof: do thoughts help the shipped backbone with words it has never read?

Three arms on the shift domain: the empty slot, a soft prompt, LTA-Thinker; the last one also with every question's
thoughts given to another question, and on the base domain. Both trained arms see the same examples equally often, and
the learning rate of each is the best of three on the dev split. Nothing is chosen on the test split here.
"""

import multiprocessing
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .. import figures, store
from ..backbone import Backbone
from ..collect import collect
from ..diagnostics import describe
from ..files import write_json
from ..methods import build
from ..projection import project
from ..runs import provenance, read_metrics
from ..scores import accuracy, accuracy_table, compare
from ..tasks import load_task
from ..train import TrainConfig, train


@dataclass(frozen=True)
class Arm:
    """One method of the comparison and how it is trained (None: not at all)."""

    method: str
    training: TrainConfig | None
    controls: bool = False


ARMS = {
    "none": Arm("cot", None, controls=True),
    "soft_prompt": Arm("soft-prompt", TrainConfig(adamw_lr=0.02)),  # of 0.002, 0.02, 0.1
    "lta_thinker": Arm("lta-thinker", TrainConfig(lr=0.02), controls=True),  # of 0.01, 0.02, 0.05
}
TITLES = {
    "none": "empty slot",
    "soft_prompt": "soft prompt",
    "lta_thinker": "LTA-Thinker",
    "lta_thinker_shuffled": "LTA-Thinker, another question's thoughts",
    "none_in_domain": "empty slot, known words",
    "lta_thinker_in_domain": "LTA-Thinker, known words",
}
SHOWN = ("relative_spread", "effective_rank", "cosine", "slot_cosine", "norm_ratio", "verdict")


def quickstart(
    out: str | Path, *, seed: int = 0, backbone: str = "nano", questions: int = 1000, arms: Mapping[str, Arm] = ARMS
) -> dict[str, Any]:
    """Run all arms on `questions` test questions, print the table, write DIR/result.json, the stores and four figures.

    Started again after an interruption it goes on; after a finished run it starts over.
    """
    out, started, console = Path(out), time.time(), Console()
    runs = out / "runs" / f"seed{seed}"
    if (out / "result.json").exists():
        shutil.rmtree(runs, ignore_errors=True)
        (out / "result.json").unlink()
    _run({name: (arm, out, runs / name, seed, backbone, questions) for name, arm in arms.items()}, console)
    stores = {path.stem: store.load(path) for path in sorted((out / "stores").glob("*.nc"))}
    stores = {name: stores[name] for name in TITLES if name in stores}
    result: dict[str, Any] = {
        "accuracy": {name: asdict(accuracy(found)) for name, found in stores.items()},
        "against_none": _row(compare(stores["lta_thinker"], stores["none"])),
        "against_soft_prompt": _row(compare(stores["lta_thinker"], stores["soft_prompt"])),
        "diagnostics": {name: _look(stores[name]) for name in ("soft_prompt", "lta_thinker")},
        "seed": seed,
    }
    drawn = _draw(out, runs, stores)
    result |= {"seconds": round(time.time() - started, 1), **provenance()}
    write_json(out / "result.json", result)
    _print(console, result)
    console.print(f"Results: {out / 'result.json'}, stores in {out / 'stores'}, figures:")
    for path in drawn:
        console.print(f"  {path}")
    console.print("Next: `make lab` and open [bold]notebooks/00_tour.ipynb[/bold] to look at these thoughts by hand.")
    return result


Job = tuple[Arm, Path, Path, int, str, int]  # what run_arm takes


def _run(jobs: Mapping[str, Job], console: Console) -> None:
    """Every arm in a process of its own with one thread: threads that share cores slow each other down many times."""
    columns = (
        TextColumn("{task.description:12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
    )
    longest_first = sorted(jobs, key=lambda name: -_steps(jobs[name][0]))
    workers = max(1, min(len(jobs), os.cpu_count() or 1))
    with (
        _child_environment(),
        ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool,
        Progress(*columns, console=console) as progress,
    ):
        futures = {name: pool.submit(run_arm, name, *jobs[name]) for name in longest_first}
        bars = {name: progress.add_task(TITLES[name], total=_steps(jobs[name][0])) for name in jobs}
        while not all(future.done() for future in futures.values()):
            for name, bar in bars.items():
                progress.update(bar, completed=_written(jobs[name][2] / "metrics.jsonl"))
            failed = next((future for future in futures.values() if future.done() and future.exception()), None)
            if failed is not None:
                pool.shutdown(cancel_futures=True)
                failed.result()
            time.sleep(0.3)
        for name, bar in bars.items():
            futures[name].result()
            progress.update(bar, completed=_steps(jobs[name][0]))


@contextmanager
def _child_environment() -> Iterator[None]:
    """One thread per child and no bars of their own: this process draws them."""
    ours = {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _steps(arm: Arm) -> int:
    """Optimiser steps of an arm; 1 where there is nothing to train."""
    training = arm.training
    return 1 if training is None else training.epochs * -(-(training.examples or 0) // training.batch_size)


def _written(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_arm(name: str, arm: Arm, out: Path, folder: Path, seed: int, backbone_name: str, count: int) -> None:
    """Train one arm (in `folder`) and write its stores."""
    torch.set_num_threads(1)
    method = build(arm.method, Backbone.load(backbone_name), seed=seed)
    shift, known = load_task("arith-shift"), load_task("arith")
    if arm.training is not None:
        resume = (folder / "metrics.jsonl").exists()
        train(method, shift, replace(arm.training, seed=seed), folder, resume=resume)
    made = {name: collect(method, shift, shift.examples("test", count), seed=seed)}
    if arm.controls:
        made[f"{name}_in_domain"] = collect(method, known, known.examples("test", count), seed=seed)
    if arm.controls and arm.training is not None:
        made[f"{name}_shuffled"] = collect(method, shift, shift.examples("test", count), seed=seed, change="shuffled")
    for stem, found in made.items():
        store.save(found, out / "stores" / f"{stem}.nc")


def _look(found: xr.Dataset) -> dict[str, Any]:
    """The statistics the table shows, over all steps."""
    table = describe(found)
    table = table[(table["step"] == "all") & table["statistic"].isin(SHOWN)].set_index("statistic")
    return dict(zip(table.index.tolist(), table["value"].tolist(), strict=True))


def _row(table: Any) -> dict[str, Any]:
    return {str(name): value for name, value in table.iloc[0].to_dict().items()}


def _draw(out: Path, runs: Path, stores: dict[str, xr.Dataset]) -> list[Path]:
    metrics = {TITLES[name]: read_metrics(runs / name) for name in ("soft_prompt", "lta_thinker")}
    table = accuracy_table({TITLES[name]: found for name, found in stores.items()})
    made = {
        "quickstart_accuracy": figures.accuracy(table),
        "quickstart_thoughts": figures.thought_map(project(stores["lta_thinker"]), color="label_meaning", facet="step"),
        "quickstart_losses": figures.loss_curves(metrics, window=20),
        "quickstart_collapse": figures.collapse_by_step(metrics),
    }
    source = {"stores": [str(out / "stores" / f"{name}.nc") for name in stores], "runs": [str(runs)]}
    return [path for name, figure in made.items() for path in figures.save(figure, name, out / "figures", source)]


def _print(console: Console, result: dict[str, Any]) -> None:
    table = Table(title=f"Shift domain: new words, frozen backbone (seed {result['seed']})")
    for column in ("slot", "right %", "95 % interval", "n"):
        table.add_column(column, justify="left" if column == "slot" else "right")
    for name, row in result["accuracy"].items():
        interval = f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        table.add_row(TITLES[name], f"{100 * row['mean']:.1f}", interval.replace("[", "\\["), str(row["n"]))
    console.print(table)
    for other in ("none", "soft_prompt"):
        row = result[f"against_{other}"]
        console.print(
            f"LTA-Thinker minus {TITLES[other]}: {100 * row['difference']:+.1f} points "
            f"\\[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}], p = {row['p']:.2g} (paired, n = {row['n']})"
        )
    look = Table(title="Thoughts")
    look.add_column("statistic")
    names = list(result["diagnostics"])
    for name in names:
        look.add_column(TITLES[name], justify="right")
    for statistic in SHOWN:
        values = [result["diagnostics"][name][statistic] for name in names]
        if statistic == "verdict":
            look.add_row(statistic, *(("healthy", "drifting", "collapsed")[int(value)] for value in values))
        else:
            look.add_row(statistic, *(f"{value:.3g}" for value in values))
    console.print(look)
    console.print(f"{result['seconds']:.0f} seconds")
