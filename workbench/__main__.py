"""The command line: one command per act, every setting documented in `workbench COMMAND --help`.

A configuration is the differences from the defaults, as YAML (`--config run.yaml`) or dotted options
(`--options.thoughts 8 --training.epochs 3`).
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for bad input (one sentence on stderr), 1 for training gone wrong."""
    argv = list(sys.argv[1:] if argv is None else argv)
    from .train import TrainingFailed

    try:
        parser = _parser(argv)
        arguments = parser.instantiate(parser.parse_args(argv or ["--help"]))
        command = str(arguments["command"])
        COMMANDS[command](arguments[command])
    except (ValueError, FileNotFoundError) as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 2
    except TrainingFailed as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        print(f"workbench: {error or 'interrupted'}", file=sys.stderr)
        return 130
    return 0


def _parser(argv: Sequence[str]) -> ArgumentParser:
    from .backbone import Decoding
    from .pretrain import PretrainConfig
    from .train import TrainConfig

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog="workbench", description="A research workbench for latent reasoning.")
    commands = parser.add_subcommands(dest="command")

    quickstart = ArgumentParser(
        description="Train on the shipped backbone, collect, diagnose, draw: under five minutes."
    )
    quickstart.add_argument("--out", type=Path, default=Path("data/quickstart"), help="folder for results and figures")
    quickstart.add_argument("--seed", type=int, default=0, help="seed of both trainings")
    commands.add_subcommand("quickstart", quickstart)

    commands.add_subcommand("methods", ArgumentParser(description="List the methods and their options."))

    pretrain = ArgumentParser(description="Make the tiny backbone from nothing (about five minutes per seed on a CPU).")
    pretrain.add_argument("--out", type=Path, required=True, help="folder to make")
    pretrain.add_argument("--seeds", type=list[int], default=[0], help="seeds to make and measure; the first is kept")
    pretrain.add_class_arguments(PretrainConfig, "settings", skip={"seed"})
    commands.add_subcommand("pretrain", pretrain)

    train = ArgumentParser(description="Train a method on a task.")
    train.add_argument("--config", action="config", help="YAML with differences from the defaults")
    _what(train, argv)
    train.add_argument("--training", type=TrainConfig, default=TrainConfig())
    train.add_argument("--out", type=Path, help="run folder; default data/runs/TASK/METHOD/seedN")
    train.add_argument("--resume", type=bool, default=False, help="go on from the folder's checkpoint")
    commands.add_subcommand("train", train)

    collect = ArgumentParser(description="Run a method over examples and write a store of thoughts and answers.")
    collect.add_argument(
        "--run", type=Path | None, default=None, help="folder of a trained run (else --method, untrained)"
    )
    _what(collect, argv)
    collect.add_argument("--split", type=Literal["train", "dev", "test"], default="test", help="split to answer")
    collect.add_argument("--count", type=int | None, default=None, help="first examples of the split; default all")
    collect.add_argument("--paths", type=int, default=1, help="thoughts per question")
    collect.add_argument("--draws", type=int, default=1, help="answers per thought")
    collect.add_argument("--batch_size", type=int, default=128, help="questions at a time")
    collect.add_argument("--seed", type=int, default=0, help="seed of what is sampled")
    collect.add_argument(
        "--shuffled", type=bool, default=False, help="control: give every question another one's thoughts"
    )
    collect.add_argument("--decoding", type=Decoding, default=Decoding())
    collect.add_argument("--out", type=Path, required=True, help="store to write, ending in .nc")
    commands.add_subcommand("collect", collect)

    score = ArgumentParser(description="Accuracy with intervals of one store, paired comparison of more.")
    score.add_argument("stores", type=Path, nargs="+", help=".nc files; the first is compared with each other one")
    commands.add_subcommand("score", score)

    figures = ArgumentParser(description="Draw the figures of stores and runs, or redraw one from its sidecar.")
    figures.add_argument("stores", type=Path, nargs="*", help=".nc files")
    figures.add_argument("--runs", type=list[Path], default=[], help="run folders, for curves")
    figures.add_argument("--sidecar", type=Path | None, default=None, help="redraw this figure's .json")
    figures.add_argument("--color", default="correct", help="column that colours the map, e.g. label_operations")
    figures.add_argument("--how", type=Literal["pca", "umap"], default="pca", help="projection of the map")
    figures.add_argument("--formats", type=list[str], default=["html", "png"], help="of html, png, pdf, svg")
    figures.add_argument("--out", type=Path, default=Path("figures"), help="folder for the figures")
    commands.add_subcommand("figures", figures)
    return parser


def _what(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """The options that name a task, a backbone and a method; the method named in `argv` brings its own options."""
    from .config import choose
    from .methods import METHODS

    parser.add_argument("--task", default="arith-shift", help="task name")
    parser.add_argument(
        "--data", type=str | None, default=None, help="where the task reads: path, hub id or difficulty"
    )
    parser.add_argument("--backbone", default="nano", help="shipped name, folder, or hub id")
    parser.add_argument("--revision", type=str | None, default=None, help="revision of a hub backbone")
    parser.add_argument("--method", default="lta-thinker", help=f"one of {', '.join(sorted(METHODS))}")
    cls = choose("method", _asked(argv, "method", "lta-thinker"), METHODS)
    presets = {"default": cls.Config(), **cls.presets}
    parser.add_argument("--preset", default="default", help=f"options to start from: {', '.join(presets)}")
    if fields(cls.Config):
        preset = choose("preset", _asked(argv, "preset", "default"), presets)
        parser.add_argument("--options", type=cls.Config, default=preset)
    else:
        parser.add_argument("--options", type=dict, default={}, help="this method has no options")


def _asked(argv: Sequence[str], name: str, default: str) -> str:
    """What the command line says `--name` is, before it is parsed: which options exist depends on it."""
    pairs = [
        word.split("=", 1) if "=" in word else [word, after] for word, after in zip(argv, [*argv[1:], ""], strict=True)
    ]
    given = {option: value for option, value in reversed(pairs)}
    if f"--{name}" in given:
        return given[f"--{name}"]
    path = Path(given.get("--config", ""))
    content = yaml.safe_load(path.read_text()) if path.is_file() else None
    return str(content.get(name, default)) if isinstance(content, dict) else default


def _method(given: Namespace) -> Any:
    """The untrained method the options describe, on its backbone."""
    from .backbone import Backbone
    from .methods import METHODS, build

    backbone = Backbone.load(given.backbone, revision=given.revision)
    options = given.options or METHODS[given.method].Config()
    seed = given.training.seed if "training" in given else given.seed
    return build(given.method, backbone, options, seed=seed)


def quickstart(given: Namespace) -> None:
    from .experiments.quickstart import quickstart

    quickstart(given.out, seed=given.seed)


def methods(given: Namespace) -> None:
    """Names, what they are, and each option with its default."""
    from .methods import METHODS

    for name, cls in sorted(METHODS.items()):
        print(f"{name:14}{(cls.__doc__ or sys.modules[cls.__module__].__doc__ or '').strip().splitlines()[0]}")
        for field in fields(cls.Config):
            print(f"{'':14}--options.{field.name} {field.default}")


def pretrain(given: Namespace) -> None:
    from .pretrain import pretrain

    folder = pretrain(given.settings, given.out, tuple(given.seeds))
    print((folder / "README.md").read_text())


def train(given: Namespace) -> None:
    from .tasks import load_task
    from .train import train

    task = load_task(given.task, given.data)
    out = given.out or Path("data/runs") / given.task / given.method / f"seed{given.training.seed}"
    folder = train(_method(given), task, given.training, out, resume=given.resume)
    print(f"trained: {folder}; next: workbench collect --run {folder} --out {folder / 'test.nc'}")


def collect(given: Namespace) -> None:
    from . import store
    from .collect import collect, shuffled
    from .runs import load_method, read_config
    from .scores import accuracy
    from .tasks import load_task

    if given.run is not None:
        about = read_config(given.run)
        method, task = load_method(given.run), load_task(about["task"], about.get("data"))
    else:
        method, task = _method(given), load_task(given.task, given.data)
    if given.out.suffix != ".nc":
        raise ValueError(f"--out {given.out} must end in .nc")
    found = collect(
        method, task, task.examples(given.split, given.count), split=given.split, decoding=given.decoding,
        paths=given.paths, draws=given.draws, batch_size=given.batch_size, seed=given.seed,
        change=shuffled if given.shuffled else None,
    )  # fmt: skip
    store.save(found, given.out)
    interval = accuracy(found)
    low, mean, high = (f"{100 * value:.1f}" for value in (interval.low, interval.mean, interval.high))
    print(f"{given.out}: {interval.n} questions, {mean} % right [{low}, {high}]")


def score(given: Namespace) -> None:
    import pandas as pd

    from . import store
    from .scores import accuracy_table, compare

    stores = {str(path): store.load(path) for path in given.stores}
    with pd.option_context("display.width", 200, "display.max_columns", None):
        print(accuracy_table(stores).to_string(index=False))
        first, *others = stores
        for other in others:
            print(f"\n{first} minus {other}, on the examples both have:")
            print(compare(stores[first], stores[other]).to_string(index=False))


def figures(given: Namespace) -> None:
    from . import figures, store
    from .projection import project
    from .runs import read_metrics
    from .scores import accuracy_table

    if given.sidecar is not None:
        drawn = {given.sidecar.stem: figures.redraw(given.sidecar)}
    elif given.stores or given.runs:
        stores = {path.stem: store.load(path) for path in given.stores}
        drawn = {}
        if stores:
            drawn["accuracy"] = figures.accuracy(accuracy_table(stores))
        thinking = {name: found for name, found in stores.items() if found.sizes["step"]}
        if thinking:
            facet = "store" if len(thinking) > 1 else None
            drawn["thoughts"] = figures.thought_map(project(thinking, given.how), color=given.color, facet=facet)
        if given.runs:
            metrics = {run.name: read_metrics(run) for run in given.runs}
            drawn |= {"losses": figures.loss_curves(metrics), "collapse": figures.collapse_by_step(metrics)}
    else:
        raise ValueError("nothing to draw; give stores (.nc), --runs folders, or --sidecar figure.json")
    source = {"stores": [str(path) for path in given.stores], "runs": [str(run) for run in given.runs]}
    for name, figure in drawn.items():
        for path in figures.save(figure, name, given.out, source, tuple(given.formats)):
            print(path)


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "quickstart": quickstart,
    "methods": methods,
    "pretrain": pretrain,
    "train": train,
    "collect": collect,
    "score": score,
    "figures": figures,
}

if __name__ == "__main__":
    sys.exit(main())
