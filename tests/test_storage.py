"""What disks, kills and second owners do to a run's folder: one sentence and nothing lost, or as if it had not been."""

import json
import os
import random
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mean_read import SHORT, rows
from moments import at_step, power_cut
from safetensors.torch import load_file

from workbench import files, runs
from workbench.__main__ import main
from workbench.backbone import Backbone
from workbench.methods import METHODS, build
from workbench.runs import checkpoints, owners
from workbench.tasks import Example, Task, load_task
from workbench.training.loop import TrainConfig, TrainingFailed, train

CONFIG = replace(SHORT, snapshot_every=4)  # ten steps; checkpoints at 4, 8 and 10
SEALED = ("checkpoint.pt", "weights.safetensors", "snapshots/step000004.safetensors")
FLIPS = 15 * int(os.environ.get("WORKBENCH_FUZZ", "1"))
KILLS = 4 * int(os.environ.get("WORKBENCH_FUZZ", "1"))


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith-shift")


@pytest.fixture(scope="module")
def finished(tiny, task, tmp_path_factory) -> Path:
    return train(build("soft-prompt", tiny()), task, CONFIG, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def crashed(tiny, task, tmp_path_factory) -> Path:
    """The same run, ended in its seventh step: checkpoint and snapshot of step 4, rows up to 6."""
    folder = tmp_path_factory.mktemp("crashed") / "run"
    with power_cut(7):
        train(build("soft-prompt", tiny()), task, CONFIG, folder)
    return folder


@pytest.fixture
def stopped(crashed, tmp_path) -> Path:
    """A copy of the crashed run, to do things to."""
    return Path(shutil.copytree(crashed, tmp_path / "stopped"))


def resume(tiny, task: Task, folder: Path, **settings) -> Path:
    return train(build("soft-prompt", tiny()), task, replace(CONFIG, **settings), folder, resume=True)


def read(folder: Path, name: str, backbone: Backbone) -> object:
    """What one of the sealed files holds."""
    if name == "checkpoint.pt":
        return checkpoints.checksum(vars(checkpoints.read(folder)))
    method = runs.load_method(folder / name, backbone)
    return checkpoints.checksum([method.training_step, method.stage, [p for p in method.parameters()]])


# ------------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("name", SEALED)
def test_damaged_files_are_named_in_a_sentence(finished, tiny, tmp_path, name):
    path = Path(shutil.copytree(finished, tmp_path / "run")) / name
    data, backbone = path.read_bytes(), tiny()
    size = len(data)
    for damaged in (
        b"",
        data[:1],
        data[: size // 2],
        data[:-1],
        bytes(size),
        data[: size // 2] + bytes(size - size // 2),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=rf"^[^\n]*{path.name} is damaged \([^\n]+$"):
            read(tmp_path / "run", name, backbone)


@pytest.mark.parametrize("name", SEALED)
def test_a_flipped_bit_is_noticed_unless_it_changes_nothing(finished, tiny, tmp_path, name):
    path = Path(shutil.copytree(finished, tmp_path / "run")) / name
    data, backbone = path.read_bytes(), tiny()
    whole, rng, noticed = read(tmp_path / "run", name, backbone), random.Random(name), 0
    harmless = 0
    for _ in range(FLIPS):
        changed = bytearray(data)
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        try:
            found = read(tmp_path / "run", name, backbone)
        except ValueError as error:
            noticed += path.name in str(error)
        else:
            assert found == whole
            harmless += 1
    assert noticed + harmless == FLIPS
    assert noticed > FLIPS / 3  # the rest is filling between the parts


def test_files_of_before_there_were_checksums_are_read(stopped, finished, tiny, task):
    path = stopped / "checkpoint.pt"
    saved = torch.load(path, weights_only=True)
    for name in ("digest", "origin", "log"):
        del saved[name]
    torch.save(saved, path)
    resume(tiny, task, stopped)
    assert rows(stopped) == rows(finished)


def test_a_checkpoint_that_somebody_altered_is_refused(stopped, tiny, task):
    path = stopped / "checkpoint.pt"
    torch.save(torch.load(path, weights_only=True) | {"step": 2}, path)
    with pytest.raises(ValueError, match="does not match its checksum"):
        resume(tiny, task, stopped)


# -------------------------------------------------------------------------------------------------------- metrics.jsonl


@pytest.mark.parametrize("tail", [b'{"step": 7, "lo', bytes(700), b'{"step": 7, "loss": 1\0\0\0\0', bytes(30) + b"\n"])
def test_a_torn_last_row_is_dropped(stopped, finished, tiny, task, tail):
    with open(stopped / "metrics.jsonl", "ab") as file:
        file.write(tail)
    assert runs.read_metrics(stopped)["step"].tolist() == [1, 2, 3, 4, 5, 6]
    resume(tiny, task, stopped)
    assert rows(stopped) == rows(finished)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda lines: lines[:2] + lines[3:], r"rows up to step 4 are missing or have changed; put it back"),
        (lambda lines: [lines[0].replace('"step": 1', '"step": 0'), *lines[1:]], r"missing or have changed"),
        (lambda lines: [lines[0], lines[1][:9], *lines[2:]], r"metrics\.jsonl, line 2: not JSON"),
        (lambda lines: [], r"rows up to step 4 are missing"),
    ],
)
def test_metrics_that_lack_rows_before_the_checkpoint_are_refused(stopped, tiny, task, change, complaint):
    path = stopped / "metrics.jsonl"
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=complaint):
        resume(tiny, task, stopped)
    assert path.read_bytes() == before


def test_a_damaged_row_in_the_middle_is_a_sentence(stopped):
    path = stopped / "metrics.jsonl"
    path.write_text(path.read_text().replace('"step": 3', '"step" 3'))
    with pytest.raises(ValueError, match=r"line 3: not JSON"):
        runs.read_metrics(stopped)


# ------------------------------------------------------------------------------------------------------------ full disk


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing fails beyond this size, as on a full disk."""
    kept = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, kept[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, kept)


def test_a_full_disk_ends_training_in_a_sentence(finished, tiny, task, tmp_path):
    folder = tmp_path / "run"
    complaint = r"^\S+checkpoint\.pt could not be written \(File too large\); make room.*; there is no checkpoint yet$"
    with largest_file(3000), pytest.raises(TrainingFailed, match=complaint):
        train(build("soft-prompt", tiny()), task, CONFIG, folder)
    assert not [path for path in folder.rglob(".*")], "something is left"
    resume(tiny, task, folder)
    assert rows(folder) == rows(finished)


@pytest.mark.parametrize("size", [0, 500, 1500])  # for process.json and config, snapshots, metrics
def test_a_full_disk_is_a_sentence_wherever_it_happens(tiny, task, tmp_path, size):
    with largest_file(size), pytest.raises(TrainingFailed, match=r"^\S+ could not be written \([^\n]*$"):
        train(build("soft-prompt", tiny()), task, CONFIG, tmp_path / "run")


# --------------------------------------------------------------------------------------------------------------- owners


def test_a_folder_has_one_owner(tmp_path):
    with owners.owned(tmp_path / "run") as owner:
        owner.begun = True
        assert runs.running(tmp_path / "run") == os.getpid()
        complaint = rf"^process {os.getpid()}, begun at .*, trains in \S+; let it end, stop"
        with pytest.raises(ValueError, match=complaint), owners.owned(tmp_path / "run"):
            pass
        with pytest.raises(ValueError, match="trains in"):
            runs.start_training(tmp_path / "run", {"task": "arith"})
    assert (runs.running(tmp_path / "run"), runs.ended(tmp_path / "run")) == (None, "finished")
    with owners.owned(tmp_path / "run"):
        pass


def test_an_owner_that_was_killed_is_followed(tmp_path):
    about = {"pid": 2**22 + 1, "began": 1.0, "machine": os.uname().nodename}
    (tmp_path / "process.json").write_text(json.dumps(about))
    with owners.owned(tmp_path):
        assert runs.running(tmp_path) == os.getpid()
    assert json.loads((tmp_path / "process.json").read_text()) == about  # nothing was begun


def test_training_twice_in_one_folder_is_refused(tiny, task, tmp_path):
    """A second one comes while the first is in its third step."""
    said = []

    def second() -> None:
        for again in (False, True):
            with pytest.raises(ValueError, match=str(tmp_path)) as refused:
                train(build("soft-prompt", tiny()), task, CONFIG, tmp_path / "run", resume=again)
            said.append(str(refused.value))

    with at_step(3, second):
        train(build("soft-prompt", tiny()), task, CONFIG, tmp_path / "run")
    assert "holds a run already" in said[0]
    assert f"process {os.getpid()}" in said[1]
    assert [row["step"] for row in rows(tmp_path / "run")] == list(range(1, 11))


def test_a_run_whose_folder_is_taken_away_ends(tiny, task, tmp_path):
    def another() -> None:
        shutil.rmtree(tmp_path / "run")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "config.yaml").write_text("task: of another\n")

    gone = "was removed or made anew while this trained in it"
    with pytest.raises(TrainingFailed, match=gone), at_step(3, another):
        train(build("soft-prompt", tiny()), task, CONFIG, tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.yaml"]


def test_starting_over_ends_what_trains_there(tmp_path):
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    runs.note_process(folder, process.pid)
    runs.discard(tmp_path / "runs")
    assert process.wait() < 0
    assert not (tmp_path / "runs").exists()
    runs.discard(tmp_path / "runs")  # where there is none, nothing happens
    with owners.owned(folder), pytest.raises(ValueError, match=r"trains in .* not removed"):
        runs.discard(tmp_path / "runs")


def test_what_killed_processes_leave_is_removed(stopped, finished, tiny, task):
    dead, alive = (f".{files._machine()}.{pid}.tmp" for pid in (2**22 + 1, os.getppid()))
    left = [stopped / f".checkpoint.pt{dead}", stopped / "snapshots" / f".step000008.safetensors{dead}"]
    kept = [stopped / f".checkpoint.pt{alive}", stopped / ".checkpoint.pt.0123abcd.1.tmp", stopped / ".notes.tmp"]
    for path in (*left, *kept):
        path.write_text("half")
    (stopped / "snapshots" / "step000008.safetensors").write_bytes(b"of a step that is made again")
    resume(tiny, task, stopped)
    assert [path for path in (*left, *kept) if path.exists()] == kept
    assert all(
        (stopped / "snapshots" / path.name).read_bytes() == path.read_bytes()
        for path in (finished / "snapshots").iterdir()
    )


def test_killed_trainings_end_as_if_never_killed(tiny_folder, tmp_path):
    """SIGKILL at system calls and at any time (more of them with WORKBENCH_FUZZ=25)."""
    command = [sys.executable, str(Path(__file__).with_name("kills.py")), str(tiny_folder()), str(tmp_path), "1"]
    done = subprocess.run([*command, str(KILLS)], capture_output=True, text=True)
    assert done.stdout == f"{KILLS} kills, 0 runs that differ\n", done.stdout + done.stderr


# ------------------------------------------------------------------------------------------------------ what is resumed


def test_only_the_settings_that_differ_are_named(stopped, tiny, task):
    complaint = r"belongs to other settings \(training\.lr: 0\.02 in the run, 0\.01 given\); resume with those"
    with pytest.raises(ValueError, match=complaint):
        resume(tiny, task, stopped, lr=0.01, log_every=3)
    with pytest.raises(ValueError, match=r"settings \(options\.thoughts: \d+ in the run, 7 given\); resume"):
        train(
            build("soft-prompt", tiny(), METHODS["soft-prompt"].Config(thoughts=7)), task, CONFIG, stopped, resume=True
        )


def test_settings_that_alter_no_weight_may_change(stopped, finished, tiny, task):
    free = {"log_every": 5, "probe_every": 3, "probe_examples": 4, "save_every": 5, "snapshot_every": 3}
    resume(tiny, task, stopped, micro_batch=4, **free)
    one, other = (load_file(folder / "weights.safetensors") for folder in (finished, stopped))
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    assert runs.snapshot_steps(stopped) == [0, 4, 6, 9, 10]


def test_other_data_and_other_frozen_weights_are_refused(stopped, tiny, task):
    grown = replace(task, load=lambda split: task.load(split)[:30])
    others = replace(task, load=lambda split: task.load(split)[1:])
    asked = replace(task, instruction="Think.")
    for changed, complaint in (
        (grown, r"the training data of arith-shift are not those the run began with \(40 then, 30 now\)"),
        (others, r"are not those the run began with \(as many, but others\); put those back"),
        (asked, r"the prompts made of the training data"),
    ):
        with pytest.raises(ValueError, match=complaint):
            resume(tiny, changed, stopped)
    backbone = tiny()
    backbone.model.model.layers[1].mlp.up_proj.weight.data[0, 3] += 1
    with pytest.raises(ValueError, match=r"the weights of backbone .* are not those the run began with"):
        train(build("soft-prompt", backbone), task, CONFIG, stopped, resume=True)


def test_a_run_without_metrics_is_still_a_run(stopped, tiny, task):
    (stopped / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="holds a run already"):
        train(build("soft-prompt", tiny()), task, CONFIG, stopped)
    with pytest.raises(ValueError, match="rows up to step 4 are missing"):
        resume(tiny, task, stopped)


# --------------------------------------------------------------------------------------------------------- small things


@pytest.mark.filterwarnings("ignore:.* are unknown to backbone")
@pytest.mark.parametrize("name", ["soft-prompt", "lta-thinker"])
def test_one_question_is_enough_to_train(tiny, tmp_path, name):
    example = Example("one", "Ann has 2 plums and 1 more.", ("2 + 1 = 3",), "3")
    own = Task("own", lambda split: [example], lambda text: text, lambda a, b: a == b, answer_tokens=4)
    config = TrainConfig(examples=None, epochs=2, batch_size=1, probe_every=1, probe_answers=1, probe_examples=1)
    folder = train(build(name, tiny()), own, config, tmp_path / "run")
    (first, _) = rows(folder)
    assert first["probe_rms"] > 0
    assert "probe_spread" not in first


def test_printed_commands_can_be_pasted(tmp_path, stopped, tiny, task):
    folder = Path(stopped.rename(tmp_path / "my run (1)"))
    with pytest.raises(KeyboardInterrupt) as said, at_step(6, lambda: os.kill(os.getpid(), 2)):
        resume(tiny, task, folder)
    words = shlex.split(str(said.value).split("`")[1])
    assert words == ["workbench", "train", "--config", str(folder / "config.yaml"), "--out", str(folder), *words[-2:]]
    assert shlex.split(runs.command("collect", "--run", folder)) == ["workbench", "collect", "--run", str(folder)]


def test_a_refused_command_is_one_sentence(stopped, capsys):
    (stopped / "checkpoint.pt").write_bytes(b"PK")
    assert main(["train", "--config", str(stopped / "config.yaml"), "--out", str(stopped), "--resume", "true"]) == 2
    complaint = capsys.readouterr().err.strip()
    assert "checkpoint.pt is damaged" in complaint
    assert "\n" not in complaint
