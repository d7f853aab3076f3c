"""What a result says of the code it comes from, and that a run is the same from any folder."""

import json
import subprocess
from pathlib import Path

import pytest

from workbench import runs
from workbench.backbone import Backbone
from workbench.methods import METHODS
from workbench.tasks import load_task


def git(folder: Path, *words: str) -> str:
    person = ["-c", "user.name=Someone", "-c", "user.email=someone@example.org"]
    done = subprocess.run(["git", "-C", str(folder), *person, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_commit_is_that_of_the_code_and_says_when_it_has_changed(tmp_path, monkeypatch):
    code = tmp_path / "package" / "runs.py"
    code.parent.mkdir()
    code.write_text("first")
    monkeypatch.setattr("workbench.runs.origin.__file__", str(code))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert runs.commit() == "unknown"  # no checkout
    git(tmp_path, "init")
    assert runs.commit() == "unknown"  # one without a commit
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    name = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    git(tmp_path, "tag", "-m", "a release", "v1")
    (tmp_path / "notes.txt").write_text("not tracked")
    assert runs.commit() == name
    code.write_text("second")
    assert runs.commit() == f"{name}+changes"
    git(tmp_path, "add", ".")
    assert runs.commit() == f"{name}+changes"


def test_a_run_is_found_from_any_folder(tiny_folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine").symlink_to(tiny_folder())
    (tmp_path / "pack.yaml").write_text("tasks: {gsm8k: {before: 'Think.'}}")
    (tmp_path / "sets").mkdir()
    row = json.dumps({"question": "What is 1 + 1?", "answer": "1 + 1 = 2\n#### 2"}) + "\n"
    (tmp_path / "sets" / "train.jsonl").write_text(row)
    monkeypatch.chdir(tmp_path)
    assert Backbone.load("models/mine").name == str(tmp_path / "models" / "mine")
    assert Backbone.load("nano").name == "nano"
    task = load_task("gsm8k", "sets", prompts="pack.yaml")
    assert task.source == str(tmp_path / "sets")
    assert task.prompts is not None
    assert task.prompts.source.startswith(str(tmp_path / "pack.yaml") + "@")
    assert METHODS["softcot"].Config(assistant="models/mine").assistant == str(tmp_path / "models" / "mine")
    assert load_task("gsm8k", "openai/gsm8k").source == "openai/gsm8k"
    (tmp_path / "easy").mkdir()
    assert load_task("arith", "easy").source == "easy"
    with pytest.raises(ValueError, match=rf"^no backbone at '{tmp_path}/models/none'"):
        Backbone.load(str(tmp_path / "models" / "none"))
