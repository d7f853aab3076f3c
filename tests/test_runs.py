"""What a result says of the code it comes from."""

import subprocess
from pathlib import Path

from workbench import runs


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
