"""A Python file of the user's own, named once: its methods and tasks are known wherever its runs are."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from rich.console import Console

import workbench as wb
from workbench import plugins, runs, store, tasks
from workbench.__main__ import main
from workbench.experiments import Setting, grid
from workbench.methods import METHODS
from workbench.training.plan import TrainConfig

SOURCE = '''
"""Mine."""
from dataclasses import dataclass

import torch

import workbench as wb


class Wait(wb.LatentMethod):
    """The same learned vector, some times."""

    name = "wait"

    @dataclass(frozen=True)
    class Config:
        count: int = 3
        """How many."""

    def __init__(self, backbone, config):
        super().__init__(backbone, config)
        self.vector = torch.nn.Parameter(torch.zeros(backbone.width))

    def think(self, prompts, *, paths=1):
        vectors = self.vector.expand(len(prompts), paths, self.config.count, -1)
        return wb.Thoughts(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool))


def examples(split):
    first = {"train": range(2, 30), "dev": range(30, 40), "test": range(40, 50)}[split]
    return [wb.Example(f"{a}+2", f"{a} + 2 = ?", (f"{a} + 2 = {a + 2}",), str(a + 2)) for a in first]


def parse(completion):
    _, mark, answer = completion.rpartition("####")
    return answer.strip() or None if mark else None


def told(source):
    """Sums that a file tells."""
    return wb.Task("told", examples, parse, lambda a, b: a == b, source=source)


sums = wb.Task("sums", examples, parse, same=lambda prediction, gold: prediction == gold)
TASKS = {"told": told}
'''
SHORT = {"examples": 8, "batch_size": 4, "epochs": 1, "probe_examples": 4}
OPTIONS = [word for name, value in SHORT.items() for word in (f"--training.{name}", str(value))]


@pytest.fixture
def forget():
    """A function that forgets all plugins, as a new process has; it does so in the end, too."""
    known = dict(METHODS)

    def clear() -> None:
        METHODS.clear()
        METHODS.update(known)
        for name in plugins._loaded:
            sys.modules.pop(name, None)
        for names in (tasks.OWN, plugins._loaded, plugins._home, plugins._said):
            names.clear()

    yield clear
    clear()


@pytest.fixture
def mine(tmp_path, forget) -> Path:
    path = tmp_path / "my.py"
    path.write_text(SOURCE)
    return path


def test_named_once_it_is_known_to_all_that_the_run_goes_through(mine, forget, tmp_path, tiny_folder, capsys):
    run, out = tmp_path / "run", ["--decoding.max_new_tokens", "4", "--count", "4", "--out", str(tmp_path / "t.nc")]
    assert main(["methods", "--plugins", str(mine)]) == 0
    assert "--options.count 3" in capsys.readouterr().out
    forget()
    assert main(["tasks", "--plugins", str(mine), "--task", "sums"]) == 0
    assert "examples: train 28; dev 10; test 10" in capsys.readouterr().out
    forget()
    asked = ["--backbone", str(tiny_folder()), "--method", "wait", "--options.count", "2", "--task", "sums"]
    assert main(["train", "--plugins", str(mine), *asked, *OPTIONS, "--out", str(run)]) == 0
    config = runs.read_config(run)
    assert config["plugins"].startswith(f"{mine}@")
    assert len(config["plugins"]) == len(f"{mine}@") + 12
    forget()
    assert main(["collect", "--run", str(run), *out]) == 0
    found = store.load(tmp_path / "t.nc")
    assert (found.attrs["method"], found.attrs["task"], found.sizes["step"]) == ("wait", "sums", 2)
    forget()
    assert runs.load_method(run).name == "wait"
    forget()
    assert wb.answering(run, found).task.name == "sums"
    forget()
    config = ["--config", str(run / "config.yaml"), "--out"]
    assert main(["train", *config, str(tmp_path / "again")]) == 0
    forget()
    capsys.readouterr()
    mine.write_text(SOURCE.replace("= ?", "= ??"))
    assert main(["collect", "--run", str(run), *out]) == 0
    assert capsys.readouterr().err.count(f"plugin {mine} has changed since the run was made") == 1
    mine.unlink()
    forget()
    assert main(["collect", "--run", str(run), *out]) == 2
    assert (
        capsys.readouterr().err
        == f"workbench: no file at {mine}; give the path of a Python file with tasks or methods\n"
    )


def test_a_mended_plugin_goes_on_with_its_run_and_says_so(mine, forget, tmp_path, tiny_folder, capsys):
    run = ["--out", str(tmp_path / "run")]
    asked = ["--backbone", str(tiny_folder()), "--method", "wait", "--plugins", str(mine), *OPTIONS]
    assert main(["train", *asked, *run]) == 0
    first = runs.read_config(tmp_path / "run")["plugins"]
    forget()
    mine.write_text(SOURCE + "# mended\n")
    assert main(["train", *asked, *run, "--resume", "true"]) == 0
    assert "has changed since the run was made" in capsys.readouterr().err
    assert runs.read_config(tmp_path / "run")["plugins"] != first


def test_a_run_remembers_only_the_plugins_it_needs(mine, tiny):
    wb.load_plugins(mine)
    assert plugins.behind(METHODS["wait"], "arith") == plugins.behind(METHODS["cot"], "sums") == plugins.loaded()
    assert plugins.behind(METHODS["cot"], "arith") == []


@pytest.mark.slow
def test_the_background_run_knows_what_is_known_here(mine, tmp_path, tiny_folder):
    wb.load_plugins(mine)
    config = {"task": "told", "data": "x", "method": "wait", "backbone": str(tiny_folder()), "training": SHORT}
    process = runs.start_training(tmp_path / "run", config)
    assert process.wait(timeout=300) == 0, (tmp_path / "run" / "log.txt").read_text()
    config = runs.read_config(tmp_path / "run")
    assert config["plugins"] == plugins.loaded()[0]
    assert config["data"] == "x"


@pytest.mark.slow
def test_an_experiment_knows_it_in_its_own_processes(mine, tmp_path, tiny_folder):
    wb.load_plugins(mine)
    setting = Setting(backbone=str(tiny_folder()), task="sums", seeds=[0], questions=4, workers=1)
    cell = grid.Cell("wait", 0, training=TrainConfig(**SHORT))
    (done,) = grid.run_cells(setting, [cell], tmp_path, Console(quiet=True))
    assert done.store().attrs["method"] == "wait"


def test_an_experiment_takes_plugins_and_a_layout(mine, tmp_path, monkeypatch):
    asked: list[Setting] = []
    monkeypatch.setattr("workbench.experiments.experiment", lambda name, setting, out: asked.append(setting))
    line = ["experiment", "compare", "--plugins", str(mine), "--task", "jsonl", "--layout.kind", "number"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    assert (asked[0].task, asked[0].layout, "wait" in METHODS) == ("jsonl", wb.Layout(kind="number"), True)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("x = (", "my.py, line 1: SyntaxError: '\\(' was never closed; mend the file"),
        ("import workbench\n\nnosuch", "my.py, line 3: NameError: name 'nosuch' is not defined; mend the file"),
        ("import sys\nsys.exit(3)", "my.py, line 2: SystemExit: 3"),
        ("TASKS = ['a']", "TASKS must map names to functions of a source"),
        (SOURCE.replace('Task("sums"', 'Task("gsm8k"'), "a task is called 'gsm8k' already; give yours another name"),
        (SOURCE.replace('"wait"', '"cot"'), "two methods are called 'cot'"),
    ],
)
def test_a_bad_plugin_is_one_sentence(mine, capsys, text, complaint):
    mine.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        wb.load_plugins(mine)
    assert plugins.loaded() == []
    assert main(["train", "--plugins", str(mine)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("workbench: plugin ")
    assert told.count("\n") == 1


def test_what_is_unknown_says_how_to_make_it_known(capsys):
    for name in ("method", "task"):
        assert main(["train", f"--{name}", "mine"]) == 2
        assert "--plugins my.py" in capsys.readouterr().err


def test_the_same_text_is_run_once_and_a_new_one_again(mine):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (first,), (second,) = wb.load_plugins(mine), wb.load_plugins(str(mine))
        assert first is second
        mine.write_text(SOURCE.replace('sums = wb.Task("sums"', 'sums = wb.Task("more"'))
        wb.load_plugins(mine)
    assert "more" in tasks.OWN
    assert "sums" not in tasks.OWN
    assert METHODS["wait"].__module__ == first.__name__
    with pytest.raises(ValueError, match="task 'more' reads nothing, and 'x' is given: leave --data out"):
        wb.load_task("more", "x")


def test_a_table_of_tasks_loads_no_torch():
    code = "import sys, workbench.plugins, workbench.tasks.accounts; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
