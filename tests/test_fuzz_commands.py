"""Odd arguments of every command: one sentence or a right result, never a traceback. Seeded, see `make fuzz`."""

import random
import re

import pytest
from fuzzing import RAW, ROWS, TIMES, lines_of, told

from workbench import store
from workbench.__main__ import main


def test_no_stores(tmp_path, capsys):
    rng = random.Random("no stores")
    (tmp_path / "folder.nc").mkdir()
    for k in range(6 * TIMES):
        path = tmp_path / f"{k}.nc"
        path.write_bytes(rng.choice(RAW))
        for argv in (
            ["score"],
            ["figures", "--out", str(tmp_path / "out")],
            ["export", "--out", str(tmp_path / "out")],
        ):
            for given in (path, tmp_path / "folder.nc", tmp_path / "nothing.nc"):
                assert told([*argv, str(given)], capsys) == 2


COMMANDS = {  # command -> what it needs, and the options that are given odd values
    "collect": (["--out", "OUT/a.nc", "--count=1"], ["run", "step", "task", "data", "prompts", "backbone", "method",
                "preset", "options", "options.thoughts", "split", "count", "parse", "batch_size", "seed", "decode",
                "decoding.temperature", "decoding.max_new_tokens", "decoding.top_k", "paths", "draws", "change",
                "readout", "out"]),
    "train": (["--dry-run=true", "--training.examples=4", "--out", "OUT/new"], ["config", "task", "data", "prompts",
              "backbone", "method", "preset", "options.thoughts", "options.temperature", "training", "training.seed",
              "training.lr", "training.batch_size", "training.examples", "training.warmup", "training.clip",
              "training.optimizer", "training.epochs", "training.probe_examples", "training.save_every", "out"]),
    "figures": (["--formats=[]", "--out", "OUT/f", "--runs", "OUT/run"], ["formats", "window", "how", "color", "from"]),
    "export": (["OUT/no.nc", "--out", "OUT"], ["what", "how", "out"]),
    "check": (["lta-parity", "OUT/no.safetensors"], ["json", "nothing"]),
    "experiment": (["variance", "--out", "OUT/no.nc"], ["seeds", "questions", "training.epochs",
                   "workers", "batch_size", "task", "decoding.temperature"]),
    "pretrain": (["--out", "OUT"], ["seeds", "settings.steps", "settings.width", "settings.heads",
                 "settings.batch_size", "settings.layers", "settings.muon_lr", "settings.hints"]),
    "bench": (["diagnostics", "--repeats=0"], ["timer", "backbone", "json"]),
}  # fmt: skip
WORDS = [
    "", "-1", "0", "x", "1e999", "nan", "inf", "-inf", "9" * 400,
    "9" * 5000, "1.5", "true", "null", "[]", "{}",
    "[" * 2000, "{a: {a: {a: 1}}}", "&a [*a]", "x" * 3000, "é" * 200, "\ud800", "a\0b", "../" * 900, "\n",
    "--", "'", '"', "a b",
    "%s%n{0}", "2**3", "[1, x]", "!!python/name:os.system", "~", "/dev/null", "/", ".",
]  # fmt: skip


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_odd_arguments(command, tmp_path, capsys, tiny_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    needed, names = COMMANDS[command]
    (tmp_path / "no.nc").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.jsonl").write_bytes(lines_of(ROWS))
    needed = [word.replace("OUT", str(tmp_path)) for word in needed]
    if command in ("collect", "train"):
        needed += ["--backbone", str(tiny_folder())]
    rng = random.Random(command)
    cases = [(name, word) for name in names for word in WORDS]
    for name, word in rng.sample(cases, min(len(cases), 24 * TIMES)):
        told(
            [command, *needed, f"--{name}", word] if rng.random() < 0.5 else [command, *needed, f"--{name}={word}"],
            capsys,
        )


@pytest.mark.parametrize("error", [ValueError, OSError, RecursionError, MemoryError, OverflowError])
def test_bad_input_is_never_a_traceback(error, capsys, monkeypatch):
    def fail(path):
        raise error("x" * 5000 + "\nand more")

    monkeypatch.setattr(store, "load", fail)
    assert told(["score", "a.nc"], capsys) == 2


def test_what_is_typed_is_repeated_in_short(capsys):
    for argv in (
        ["x" * 3000],
        ["score", "y" * 3000],
        ["train", "--" + "z" * 3000],
        ["methods", "a\0b"],
        ["score", "a b" * 999],
    ):
        assert main(argv) == 2
        said = capsys.readouterr().err
        assert len(said) < 400, said
        assert re.fullmatch(r"workbench: [^\n]+\n", said)
