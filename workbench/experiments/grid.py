"""A grid of runs: each cell trains one method with one seed and collects its stores, in a process of its own.

    OUT/cells/<cell>/   cell.json (what was asked), the run's own files, log.txt, <store>.nc, measured.json

What is whole is kept: started again, finished stores are read, a stopped training goes on from its checkpoint. Cells
run side by side, one thread each on CPU (threads that share cores slow each other down many times), one GPU each.
"""

import json
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .. import store
from ..backbone import Backbone, Decoding
from ..config import choose
from ..evidence.collect import collect
from ..files import checked, read_json, shown, write_json
from ..methods import METHODS, LatentMethod, build
from ..plugins import is_plugin, load_plugins, loaded
from ..progress import Lines
from ..runs import begun, load_method
from ..tasks import Layout, Split, Task, load_task
from ..training.loop import TrainConfig, train

FOLDER = str.maketrans({" ": "-", "/": "-", ",": None})  # of a condition, as the name of a folder


@dataclass(frozen=True)
class Setting:
    """What an experiment runs on: the backbone, the task, the seeds and one budget for every run."""

    backbone: str = "nano"
    """Shipped name, folder, or hub id."""
    revision: str | None = None
    """Revision of a hub backbone."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision that the backbone is loaded in; auto is the stored one."""
    task: str = "arith-shift"
    """Task that is trained and tested on."""
    data: str | None = None
    """What the task reads: a path, hub id or difficulty."""
    prompts: str | None = None
    """YAML with the tasks' messages in other words (see workbench/tasks/prompts.py)."""
    layout: Layout = field(default_factory=Layout)
    """How the file of task jsonl is read."""
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    """Seeds of the trainings; every condition is run with each."""
    questions: int | None = 500
    """Test questions per store (the first of the split); None for all."""
    training: TrainConfig = field(default_factory=TrainConfig)
    """The budget of every run; its seed is replaced by each of `seeds`."""
    decoding: Decoding = field(default_factory=Decoding)
    """How answers are written, unless the experiment is about that."""
    batch_size: int = 128
    """Questions answered at a time."""
    workers: int | None = None
    """Cells at a time; None for one per GPU, or one per CPU core."""

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds is {self.seeds}; give at least one, each once")
        for name in ("questions", "batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}; give at least 1")


@dataclass(frozen=True)
class Answers:
    """One store of a cell: the trained task unless another is named, answered with thoughts as they are or changed.

    `options`: of the method's options those that are others here, such as whether it may think at test; not such as
    decide what its weights are. `readout`: words kept of what each thought is read as.
    """

    task: str | None = None
    data: str | None = None
    split: Split = "test"
    change: str | None = None
    paths: int = 1
    draws: int = 1
    temperature: float | None = None
    options: dict[str, Any] = field(default_factory=dict)
    readout: int = 0


@dataclass(frozen=True)
class Trial:
    """One setting to try on dev: options, and the training where there is one."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    training: TrainConfig | None = None


@dataclass(frozen=True)
class Cell:
    """One run: a method with its options and one seed; `training` None where nothing is trained.

    `condition` is what the tables say about the cell (column -> value), the same for all seeds of a condition. `task`
    and `data` are trained on and answered in place of the setting's. `measure`, a function at the top of a module,
    gives numbers of the live method that no store holds. Of `trials` the best on dev is run (see tuning.py).
    """

    method: str
    seed: int
    options: dict[str, Any] = field(default_factory=dict)
    training: TrainConfig | None = None
    condition: dict[str, str | int | float] = field(default_factory=dict)
    stores: dict[str, Answers] = field(default_factory=lambda: {"test": Answers()})
    measure: Callable[[LatentMethod, Task], dict[str, Any]] | None = None
    task: str | None = None
    data: str | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def name(self) -> str:
        """Folder of the cell: its condition and seed."""
        words = [value if isinstance(value, str) else f"{key}={value:g}" for key, value in self.condition.items()]
        return "_".join([*(words or [self.method]), f"seed{self.seed}"]).translate(FOLDER)

    @property
    def steps(self) -> int:
        """Optimiser steps if every epoch is full; 1 where there is nothing to train. For progress only."""
        training = self.training
        return 1 if training is None else training.epochs * -(-(training.examples or 0) // training.batch_size) or 1


@dataclass(frozen=True)
class Done:
    """A finished cell and its folder."""

    cell: Cell
    folder: Path

    def store(self, name: str = "test") -> xr.Dataset:
        return store.load(self.folder / f"{name}.nc")

    def measured(self) -> dict[str, Any]:
        path, what = self.folder / "measured.json", "it back, or delete the cell's folder to measure again"
        return checked(read_json(path, what), {}, shown(path), f"give {what}")


def soft_prompt_training(setting: Setting) -> TrainConfig:
    """The budget with ten times AdamW's rate, which constant vectors want (arith-shift, dev: best of 1, 10, 50)."""
    return replace(setting.training, adamw_lr=10 * setting.training.adamw_lr)


def run_cells(setting: Setting, cells: Sequence[Cell], out: Path, console: Console) -> list[Done]:
    """Run every cell that is not finished in `out`; the finished cells, in the order given."""
    names = [cell.name for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two cells are called {twice[0]!r}; give their conditions different values")
    folders = {cell.name: out / "cells" / cell.name for cell in cells}
    for cell in cells:
        _claim(setting, cell, folders[cell.name])
    todo = [cell for cell in cells if not _finished(cell, folders[cell.name])]
    if todo:
        _run(setting, sorted(todo, key=lambda cell: -cell.steps), folders, console)
    return [Done(cell, folders[cell.name]) for cell in cells]


def _claim(setting: Setting, cell: Cell, folder: Path) -> None:
    """Write what is asked of a cell, or refuse a folder that holds something else."""
    rest = [("layout", setting.layout == Layout()), ("dtype", setting.dtype == "auto")]
    free = ("seeds", "training", "workers", "batch_size", *(name for name, default in rest if default))
    shared = {k: v for k, v in asdict(setting).items() if k not in free}
    measure = cell.measure and f"{cell.measure.__module__}.{cell.measure.__name__}"
    asked = json.loads(json.dumps({**asdict(replace(cell, measure=None)), "measure": measure, "setting": shared}))
    for answers in asked["stores"].values():  # folders made before stores could ask for read-outs are gone on with
        if not answers["readout"]:
            del answers["readout"]
    path = folder / "cell.json"
    if not path.exists():
        write_json(path, asked)
        return
    what = "another --out, or delete the cell's folder"
    known = checked(read_json(path, what), {}, shown(path), f"give {what}")
    different = sorted(key for key in known.keys() | asked.keys() if known.get(key) != asked.get(key))
    if different:
        raise ValueError(f"{folder} was made with another {', '.join(different)}; give another --out, or delete it")


def _finished(cell: Cell, folder: Path) -> bool:
    wanted = [f"{name}.nc" for name in cell.stores] + ["measured.json"] * (cell.measure is not None)
    return all((folder / name).exists() for name in wanted)


def _run(setting: Setting, cells: Sequence[Cell], folders: dict[str, Path], console: Console) -> None:
    """The cells in processes of their own; one bar for all and one for each that is running."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
    )
    gpus = torch.cuda.device_count()
    workers = min(len(cells), setting.workers or gpus or os.cpu_count() or 1)
    context = multiprocessing.get_context("spawn")
    places = context.Queue()
    for k in range(workers):
        places.put(str(k % gpus) if gpus else "")
    with (
        _child_environment(single_thread=not gpus),
        ProcessPoolExecutor(workers, context, initializer=_settle, initargs=(places, _homes(), loaded())) as pool,
        Progress(*columns, console=console) as progress,
    ):
        total = progress.add_task(f"{len(cells)} runs", total=sum(cell.steps for cell in cells))
        bars = {cell.name: progress.add_task(cell.name, total=cell.steps, visible=False) for cell in cells}
        watched = console.is_terminal or console.is_jupyter  # else nothing is drawn until the end: lines, then
        lines = (
            None if watched else Lines(f"{len(cells)} runs, steps", sum(cell.steps for cell in cells), 0, console.file)
        )
        futures = {cell.name: pool.submit(run_cell, setting, cell, folders[cell.name]) for cell in cells}
        while not all(future.done() for future in futures.values()):
            done = _show(progress, total, bars, cells, folders, futures)
            if lines is not None:
                lines.update(done - lines.done)
            failed = next((name for name, future in futures.items() if future.done() and future.exception()), None)
            if failed is not None:
                pool.shutdown(cancel_futures=True)
                _raise(failed, futures[failed])
            time.sleep(0.3)
        _show(progress, total, bars, cells, folders, futures)
        for name, future in futures.items():
            if future.exception() is not None:
                _raise(name, future)


def _show(
    progress: Progress,
    total: Any,
    bars: dict[str, Any],
    cells: Sequence[Cell],
    folders: dict[str, Path],
    futures: dict[str, Future],
) -> int:
    """Move the bars; how many steps are done."""
    done = 0
    for cell in cells:
        ready = futures[cell.name].done()
        steps = cell.steps if ready else min(cell.steps, _written(folders[cell.name] / "metrics.jsonl"))
        done += steps
        progress.update(bars[cell.name], completed=steps, visible=futures[cell.name].running() and not ready)
    progress.update(total, completed=done)
    return done


def _raise(name: str, future: Future) -> None:
    """The error of a cell, with the cell's name where it is one for the reader."""
    error = future.exception()
    if isinstance(error, ValueError):
        raise ValueError(f"cell {name}: {error}") from error
    future.result()


def _homes() -> list[str]:
    """The modules that registered methods stand in; a notebook's own cannot be imported elsewhere."""
    return sorted({name for cls in METHODS.values() if not is_plugin(name := cls.__module__)} - {"__main__"})


def _settle(places: Any, homes: Sequence[str], plugins: Sequence[str]) -> None:
    """In each new process: take one GPU, or one CPU thread; know all methods; end with the process that started it."""
    place = places.get()
    if place:
        os.environ["CUDA_VISIBLE_DEVICES"] = place
    else:
        torch.set_num_threads(1)
    for home in homes:
        import_module(home)
    load_plugins(*plugins)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers; a checkpoint keeps what they have done."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _child_environment(single_thread: bool) -> Iterator[None]:
    """No bars of the children's own (this process draws them), and one thread each on CPU."""
    ours = {"TQDM_DISABLE": "1"} | ({"OMP_NUM_THREADS": "1"} if single_thread else {})
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


def _written(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run_cell(setting: Setting, cell: Cell, folder: Path) -> None:
    """Train the cell if it asks for that and is not trained yet; then whatever of its stores is missing.

    What training prints goes to the cell's log.txt: many cells share one terminal.
    """
    with open(folder / "log.txt", "a", encoding="utf-8") as log, redirect_stdout(log):
        _train_and_collect(setting, cell, folder)


def _train_and_collect(setting: Setting, cell: Cell, folder: Path) -> None:
    name, data = (setting.task, setting.data) if cell.task is None else (cell.task, cell.data)
    layout = setting.layout if name == setting.task else None
    task = load_task(name, data, prompts=setting.prompts, layout=layout)
    method = _method(setting, cell, task, folder)
    trained = method.config
    for name, asked in cell.stores.items():
        path = folder / f"{name}.nc"
        if path.exists():
            continue
        other = task if asked.task is None else load_task(asked.task, asked.data, prompts=setting.prompts)
        decoding = setting.decoding
        if asked.temperature is not None:
            decoding = replace(decoding, temperature=asked.temperature)
        examples = other.examples(asked.split, setting.questions)
        method.config = replace(trained, **asked.options) if asked.options else trained
        collect(
            method, other, examples, split=asked.split, decoding=decoding, paths=asked.paths, draws=asked.draws,
            batch_size=setting.batch_size, seed=cell.seed, change=asked.change, readout=asked.readout, out=path,
        )  # fmt: skip
    method.config = trained
    if cell.measure is not None and not (folder / "measured.json").exists():
        write_json(folder / "measured.json", cell.measure(method, task))


def _method(setting: Setting, cell: Cell, task: Task, folder: Path) -> LatentMethod:
    """The cell's method, trained if it should be."""
    whole = choose("method", cell.method, METHODS).needs == "model"
    backbone = Backbone.load(setting.backbone, revision=setting.revision, dtype=setting.dtype, weights=whole)
    if (folder / "weights.safetensors").exists():
        return load_method(folder, backbone)
    options = choose("method", cell.method, METHODS).Config(**cell.options)
    method = build(cell.method, backbone, options, seed=cell.seed)
    if cell.training is not None:
        train(method, task, replace(cell.training, seed=cell.seed), folder, resume=begun(folder))
    return method
