"""The command line, in this process: what works, and what each mistake is answered with."""

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentParser
from safetensors.torch import load_file
from stores import synthetic_store

from workbench import runs, store
from workbench.__main__ import COMMANDS, main
from workbench.experiments import pretrain
from workbench.methods import METHODS
from workbench.tasks import load_task

SHORT = [
    *["--training.examples", "16", "--training.batch_size", "8", "--training.epochs", "1"],
    *["--training.probe_examples", "4"],
]


@pytest.fixture
def backbone(tiny_folder) -> list[str]:
    return ["--backbone", str(tiny_folder())]


@pytest.fixture(scope="module")
def trained(tiny_folder, tmp_path_factory) -> Path:
    """The folder of a short LTA-Thinker run, made by the command."""
    folder = tmp_path_factory.mktemp("runs") / "seed0"
    assert main(["train", "--backbone", str(tiny_folder()), *SHORT, "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def made(trained, tmp_path_factory) -> Path:
    """A store of that run's test answers, made by the command."""
    path = tmp_path_factory.mktemp("stores") / "test.nc"
    assert main(["collect", "--run", str(trained), "--count", "6", "--out", str(path), *CAP]) == 0
    return path


CAP = ["--decoding.max_new_tokens", "8"]


# ---------------------------------------------------------------------------------------------------------- what works


def test_methods_lists_all_with_their_options(capsys):
    assert main(["methods"]) == 0
    listed = capsys.readouterr().out
    for name in METHODS:
        assert re.search(rf"^{name} +\S+ \S+", listed, re.M)
    assert "--options.thoughts 4" in listed


def test_no_command_prints_what_there_is(capsys):
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^ +{name} +\w+", printed, re.M) for name in COMMANDS)


def test_train_leaves_a_run(trained, capsys, tiny_folder):
    assert {path.name for path in trained.iterdir()} == {
        *("config.yaml", "metrics.jsonl", "checkpoint.pt", "weights.safetensors", "result.json", "process.json")
    }
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert config == {
        "backbone": str(tiny_folder()),
        "method": "lta-thinker",
        "options": {},
        "task": "arith-shift",
        "data": None,
        "training": {"examples": 16, "epochs": 1, "batch_size": 8, "probe_examples": 4},
    }


def test_train_takes_dotted_options_and_says_what_is_next(backbone, tmp_path, capsys):
    options = ["--method", "soft-prompt", "--options.thoughts", "2", "--training.optimizer=adamw", "--task", "arith"]
    assert main(["train", *backbone, *SHORT, *options, "--out", str(tmp_path / "run")]) == 0
    assert f"next: workbench collect --run {tmp_path / 'run'}" in capsys.readouterr().out
    config = runs.read_config(tmp_path / "run")
    assert (config["options"], config["task"]) == ({"thoughts": 2}, "arith")
    assert load_file(tmp_path / "run" / "weights.safetensors")["vectors"].shape == (2, 32)


@pytest.mark.slow
@pytest.mark.parametrize("options", [["--preset", "reference", "--options.thoughts", "3"], ["--data", "easy"]])
def test_config_of_a_run_makes_the_same_run_again(backbone, tmp_path, options):
    assert main(["train", *backbone, *SHORT, *options, "--out", str(tmp_path / "a")]) == 0
    assert main(["train", "--config", str(tmp_path / "a" / "config.yaml"), "--out", str(tmp_path / "b")]) == 0
    for name in ("config.yaml", "weights.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_options_overrule_the_config(trained, tmp_path):
    options = ["--training.epochs", "2", "--options.thoughts", "2"]
    assert main(["train", "--config", str(trained / "config.yaml"), *options, "--out", str(tmp_path / "run")]) == 0
    config = runs.read_config(tmp_path / "run")
    assert config["training"] == {"examples": 16, "epochs": 2, "batch_size": 8, "probe_examples": 4}
    assert config["options"] == {"thoughts": 2}


def test_collect_from_a_run(made, trained, capsys):
    found = store.load(made)
    examples = load_task("arith-shift").examples("test", 6)
    assert found["example"].values.tolist() == [e.id for e in examples]
    assert dict(found.sizes)["step"] == 4
    assert found.attrs["split"] == "test"
    assert json.loads(found.attrs["decoding"])["max_new_tokens"] == 8
    assert (found["length"] <= 8).all()


def test_collect_on_another_task_than_the_run_was_trained_on(trained, tmp_path, capsys):
    path = tmp_path / "base.nc"
    assert main(["collect", "--run", str(trained), "--task", "arith", "--count", "2", "--out", str(path), *CAP]) == 0
    assert store.load(path)["example"].values.tolist() == [e.id for e in load_task("arith").examples("test", 2)]
    assert re.search(r"base\.nc: 2 questions, \d+\.\d % right \[", capsys.readouterr().out)


def test_collect_untrained_with_draws_paths_and_shuffling(backbone, tmp_path):
    options = ["--method", "soft-prompt", "--paths", "2", "--draws", "3", "--decoding.temperature", "1"]
    options += ["--split", "dev"]
    for name, more in (("a.nc", []), ("b.nc", ["--batch_size", "2"]), ("c.nc", ["--change", "shuffled"])):
        out = ["--count", "4", "--out", str(tmp_path / name)]
        assert main(["collect", *backbone, *options, *CAP, *more, *out]) == 0
    first, second, third = (store.load(tmp_path / name) for name in ("a.nc", "b.nc", "c.nc"))
    assert (first.sizes["path"], first.sizes["draw"], first.attrs["split"]) == (2, 3, "dev")
    assert first["text"].equals(second["text"])  # the batch size changes nothing
    assert (first.attrs["changed"], third.attrs["changed"]) == ("", "shuffled")


def test_score_one_and_compare_two(tmp_path, capsys):
    for name, accuracy in (("low", 0.2), ("high", 0.9)):
        store.save(synthetic_store(60, accuracy=accuracy), tmp_path / f"{name}.nc")
    assert main(["score", str(tmp_path / "low.nc")]) == 0
    alone = capsys.readouterr().out
    assert "low.nc" in alone
    assert "minus" not in alone
    assert main(["score", str(tmp_path / "high.nc"), str(tmp_path / "low.nc")]) == 0
    assert f"{tmp_path / 'high.nc'} minus {tmp_path / 'low.nc'}, on the examples both have" in capsys.readouterr().out


def test_figures_of_stores_and_runs_of_one_name(made, trained, tmp_path, capsys):
    """Runs are called seed0 and stores test.nc everywhere: both of a pair are drawn, under what tells them apart."""
    other = tmp_path / "other" / trained.name
    assert main(["train", "--config", str(trained / "config.yaml"), "--training.seed", "1", "--out", str(other)]) == 0
    twin = store.save(store.load(made), tmp_path / "twin" / made.name)
    drawn = ["figures", str(made), str(twin), "--runs", str(trained), str(other), "--formats", "[html]"]
    assert main([*drawn, "--out", str(tmp_path / "figures")]) == 0
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    names = ("accuracy", "thoughts", "losses", "collapse")
    assert written == {f"{name}.{ending}" for name in names for ending in ("html", "json")}
    sidecars = {name: json.loads((tmp_path / "figures" / f"{name}.json").read_text()) for name in names}
    for name, pair in (("losses", (trained, other)), ("accuracy", (made, twin))):
        drawn = json.dumps(sidecars[name]["figure"])
        assert all(f"{path.parent.name}/{path.stem}" in drawn for path in pair)
    sidecar = ["--from", str(tmp_path / "figures" / "losses.json")]
    assert main(["figures", *sidecar, "--formats", "[html]", "--out", str(tmp_path / "again")]) == 0
    first, second = (json.loads((tmp_path / name / "losses.json").read_text()) for name in ("figures", "again"))
    assert first["figure"]["data"] == second["figure"]["data"]


@pytest.mark.slow
def test_pretrain(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(pretrain, "measure", partial(pretrain.measure, count=2))
    small = {"steps": 16, "batch_size": 4, "width": 32, "layers": 1, "heads": 2}
    options = [word for name, value in small.items() for word in (f"--settings.{name}", str(value))]
    assert main(["pretrain", *options, "--out", str(tmp_path / "made")]) == 0
    assert "nano: a tiny language model" in capsys.readouterr().out
    assert json.loads((tmp_path / "made" / "pretrain.json").read_text())["config"]["width"] == 32
    assert main(["pretrain", *options, "--out", str(tmp_path / "made")]) == 2
    assert "exists already" in capsys.readouterr().err


def loaded(argv: list[str]) -> set[str]:
    """What a command brings in, in a process of its own."""
    code = "import atexit, sys; atexit.register(lambda: print(*sys.modules)); from workbench.__main__ import main; "
    command = [sys.executable, "-c", code + "main(sys.argv[1:])", *argv]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1].split())


@pytest.mark.slow
def test_looking_at_stores_needs_no_torch(tmp_path):
    store.save(synthetic_store(), tmp_path / "a.nc")
    found = loaded(["score", str(tmp_path / "a.nc")])
    assert "workbench.analysis.scores" in found
    assert not {"torch", "transformers"} & found


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "collect"])
def test_saying_what_there_is_needs_nothing_that_does_it(command):
    """Methods bring torch and transformers in, since one file holds a method and its options; the rest stays out."""
    found = loaded([command, "--help"])
    assert "workbench.methods" in found
    heavy = {"workbench.training.loop", "workbench.evidence.collect", "xarray", "pandas", "sklearn", "umap", "plotly"}
    assert not heavy & found


# ------------------------------------------------------------------------------------------------------------ mistakes


@pytest.fixture
def broken(tmp_path_factory, tiny_folder) -> Path:
    """A folder with everything that can be wrong."""
    folder = tmp_path_factory.mktemp("broken")
    (folder / "bad").mkdir()
    record = {"question": "How many?", "answer": "#### 2"}
    (folder / "bad" / "train.jsonl").write_text(json.dumps(record) + "\n{oops\n")
    (folder / "empty").mkdir()
    (folder / "empty" / "test.jsonl").write_text("")
    (folder / "text.nc").write_text("no store")
    synthetic_store().assign_attrs(schema="workbench-store-0").to_netcdf(folder / "old.nc", engine="h5netcdf")
    for name in ("config.yaml", "yaml.yaml"):
        (folder / name).write_text("training: {epochs: 2}\ntask: [")
    (folder / "unknown.yaml").write_text("training: {epochs: 2, epoch: 3}\n")
    (folder / "begun").mkdir()
    (folder / "begun" / "config.yaml").write_text("method: lta-thinker\ntask: arith-shift\nbackbone: nano\n")
    return folder


MISTAKES = {
    "command": ("trian", r"unknown command 'trian': use one of .*, score, tasks, train; did you mean 'train'\?$"),
    "method": ("train --method lta-thinkr", r"unknown method 'lta-thinkr': .*; did you mean 'lta-thinker'\?$"),
    "preset": ("train --preset refrence", r"unknown preset 'refrence': .*; did you mean 'reference'\?$"),
    "task": ("train --task arit", r"unknown task 'arit': use one of .*arith, .*.*; did you mean 'arith'\?$"),
    "difficulty": ("train --data harder", r"unknown difficulty 'harder': use .* did you mean 'hard'\?$"),
    "field": ("train --training.epoch 3", r"has no option --training\.epoch; .* did you mean --training\.epochs\?$"),
    "option": ("collect --optoins.thoughts=3 --out a.nc", r"has no option --optoins\.thoughts; see workbench collect"),
    "whole number": (
        "train --training.epochs many",
        r"--training\.epochs: expected int, got many; see workbench train",
    ),
    "choice": ("train --options.slots x", r"--options\.slots: expected one of 'learned', 'token-ids', got x; see"),
    "optional": (
        "collect --count few --out a.nc",
        r"--count: expected (int, null|null, int), got few; see workbench collect",
    ),
    "no output": ("collect", r"workbench collect needs out; see workbench collect --help$"),
    "experiment": ("experiment nonsense", r"^workbench: name: expected one of 'loss-ablation', .*, got nonsense"),
    "no stores": ("score", r"workbench score needs stores; see workbench score --help$"),
    "zero": ("train --training.batch_size 0", r"batch_size=0 in the training settings: it must be at least 1$"),
    "config is no YAML": (
        "train --config BROKEN/yaml.yaml",
        r"yaml\.yaml is not YAML \(.*\); give a run's config\.yaml$",
    ),
    "config is missing": ("train --config /nowhere.yaml", r"--config: File does not exist: '/nowhere\.yaml'"),
    "config field": ("train --config BROKEN/unknown.yaml", r"epoch.* see workbench train --help$"),
    "backbone path": ("train --backbone ./nowhere", r"no backbone at './nowhere': give a shipped name \(.*nano"),
    "backbone folder": ("train --backbone BROKEN/bad", r"backbone '.*bad' could not be loaded \(.*\); mend it"),
    "no weights": (
        "collect --run BROKEN/begun --out OUT/a.nc",
        r"no trained weights at .*; give the folder of a finish",
    ),
    "no run": ("collect --run /nowhere --out OUT/a.nc", r"no run at /nowhere \(it has no config\.yaml\)"),
    "run is no YAML": ("collect --run BROKEN --out OUT/a.nc", r"config\.yaml is not YAML \(.*\); give another run's"),
    "run and method": ("collect --run /x --method=cot --out a.nc", r"give --run or --method, not both$"),
    "store name": ("collect --out OUT/a.txt", r"--out .*a\.txt must end in \.nc$"),
    "no store": ("score /nowhere.nc", r"no store at '/nowhere\.nc': check the path"),
    "not a store": ("score BROKEN/text.nc", r"'.*text\.nc' is no netCDF file"),
    "old store": ("score BROKEN/old.nc", r"schema 'workbench-store-0' and this workbench reads 'workbench-store-1'"),
    "old store drawn": ("figures BROKEN/old.nc --out OUT", r"schema 'workbench-store-0' and this workbench reads"),
    "no metrics": ("figures --runs BROKEN --out OUT", r"no file at .*metrics\.jsonl"),
    "nothing to draw": ("figures --out OUT", r"nothing to draw; give stores"),
    "no sidecar": ("figures --from /nowhere.json --out OUT", r"no sidecar at '/nowhere\.json'"),
    "seeds": ("pretrain --seeds [] --out OUT/a", r"no seeds given; give at least one$"),
}
ON_A_MODEL = {
    "nothing to train": ("train --method cot", r"method 'cot' has nothing to train"),
    "bad line": ("train --task gsm8k --data BROKEN/bad", r"train\.jsonl, line 2: not JSON \(.*\); each line must be"),
    "empty split": (
        "collect --task gsm8k --data BROKEN/empty --out OUT/a.nc",
        r"split 'test' of task 'gsm8k' is empty",
    ),
    "no data": ("train --task gsm8k --data ./nowhere", r"no folder or file at './nowhere'"),
    "no examples": ("collect --count 0 --out OUT/a.nc", r"cannot take 0 examples; give at least 1"),
    "no paths": ("collect --paths 0 --count 2 --out OUT/a.nc", r"paths=0: it must be at least 1$"),
    "shuffling one": ("collect --change shuffled --count 1 --out OUT/a.nc", r"needs at least two questions"),
    "nothing to resume": ("train --resume true", r"nothing to resume: no checkpoint at .*; train without resume$"),
}


def placed(command: str, broken: Path, out: Path) -> list[str]:
    return [word.replace("BROKEN", str(broken)).replace("OUT", str(out)) for word in command.split()]


def refused(argv: list[str], complaint: str, folder: Path, capsys: pytest.CaptureFixture) -> None:
    """The command answers with exit code 2 and one sentence, and leaves nothing in `folder`."""

    def files() -> dict[Path, int]:  # but who was in a run's folder last
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != "process.json"}

    before = files()
    assert main(argv) == 2
    told = capsys.readouterr().err
    assert told.startswith("workbench: ")
    assert told.count("\n") == 1, told
    assert re.search(complaint, told.rstrip("\n")), told
    assert files() == before


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, broken, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where a default output would go
    command, complaint = MISTAKES[name]
    refused(placed(command, broken, tmp_path), complaint, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_A_MODEL)
def test_a_mistake_with_a_model_is_one_sentence(name, broken, backbone, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command, complaint = ON_A_MODEL[name]
    refused([*placed(command, broken, tmp_path), *backbone], complaint, tmp_path, capsys)


def test_a_run_is_not_overwritten(trained, backbone, capsys):
    refused(["train", *backbone, *SHORT, "--out", str(trained)], r"holds a run already; resume it, or", trained, capsys)
    other = ["--training.lr", "1", "--resume", "true", "--out", str(trained)]
    refused(["train", *backbone, *SHORT, *other], r"belongs to other settings", trained, capsys)


def test_training_gone_wrong_is_another_exit_code(backbone, tmp_path, capsys):
    options = ["--training.optimizer", "adamw", "--training.lr", ".inf", "--out", str(tmp_path / "run")]
    assert main(["train", *backbone, *SHORT, *options]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(r"workbench: thoughts of the probe set .* at step 1; there is no checkpoint yet; .*\n", told)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "process.json"}


# ----------------------------------------------------------------------------------------------------------------- help


def undocumented(help_text: str) -> list[str]:
    """The options of a help page that say nothing but their type and default."""
    entries = re.split(r"\n  (?=-)", help_text)[1:]
    found = []
    for entry in (entry.split("\n\n")[0] for entry in entries):
        option, _, text = entry.partition("  ") if "\n" not in entry.split("  ")[0] else entry.partition("\n")
        said = re.sub(r"\((?:type|required|default)[^)]*\)", "", text).strip()
        if not said:
            found.append(option.split()[0])
    return found


@pytest.mark.parametrize(
    "argv", [[name] for name in COMMANDS] + [["train", "--method", method] for method in sorted(METHODS)], ids=" ".join
)
def test_every_setting_is_documented(argv, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    with pytest.raises(SystemExit) as left:
        main([*argv, "--help"])
    assert left.value.code == 0
    page = capsys.readouterr().out
    assert undocumented(page) == []
    for config in {"train": ["training"], "collect": ["decoding"], "pretrain": ["settings"]}.get(argv[0], []):
        assert page.count(f"--{config}.") > 2  # the page does list them


def test_an_undocumented_setting_is_found(monkeypatch):
    """The test above can fail."""

    @dataclass
    class Config:
        told: int = 1
        """How it is."""
        untold: float = 2.0
        listed: str = "a"
        """What it is."""

    monkeypatch.setenv("COLUMNS", "400")
    parser = ArgumentParser()
    parser.add_argument("--options", type=Config, default=Config())
    parser.add_argument("--bare", type=int, default=3)
    assert undocumented(parser.format_help()) == ["--bare", "--options.untold"]
