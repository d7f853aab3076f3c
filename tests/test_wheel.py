"""A wheel of this repository works where there is no checkout: what the project ships is in it, and found there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
USE = """
from dataclasses import replace
import workbench as wb
from workbench.experiments import EXPERIMENTS
from workbench.experiments.quickstart import ARMS, quickstart

print(wb.__file__)
print(wb.runs.RUNS, wb.runs.commit(), *wb.bench.shipped())
for name in set(EXPERIMENTS) - {"benchmarks"}:  # of which no results are shipped yet
    assert wb.shipped_report(name).findings
wb.widgets.Inspector  # reads what a page needs beside the code
print(wb.Backbone.load("nano").table.shape[0])
little = {
    name: replace(arm, training=arm.training and replace(arm.training, examples=32, epochs=1, probe_examples=8))
    for name, arm in ARMS.items()
}
quickstart("made", questions=8, arms=little)
"""


def run(*words: str | Path, folder: Path, **environment: str) -> str:
    done = subprocess.run(words, cwd=folder, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_wheel_works_outside_a_checkout(tmp_path):
    tree, place, work = tmp_path / "tree", tmp_path / "installed", tmp_path / "work"
    shutil.copytree(ROOT / "workbench", tree / "workbench", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "data", tree / "data", ignore=shutil.ignore_patterns("runs", "quickstart", "smollm2"))
    fetched = tree / "data" / "backbones" / "smollm2"
    fetched.mkdir()
    (fetched / "config.json").write_text("{}")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
    run(*pip, "wheel", "--quiet", "--no-index", "--no-build-isolation", "--no-deps", "-w", "dist", ".", folder=tree)
    (wheel,) = (tree / "dist").glob("*.whl")
    run(*pip, "install", "--quiet", "--no-index", "--no-deps", "--target", place, wheel, folder=tree)
    assert (place / "workbench" / "shipped" / "backbones" / "nano" / "config.json").is_file()
    assert not (place / "workbench" / "shipped" / "backbones" / "smollm2").exists()
    shutil.rmtree(tree)
    work.mkdir()
    for words in (("init", "-q"), ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "a", "--allow-empty")):
        run("git", *words, folder=work)  # the user's own project is a repository: its commit is not that of the code

    said = run(sys.executable, "-c", USE, folder=work, PYTHONPATH=str(place)).splitlines()
    assert Path(said[0]).is_relative_to(place)
    assert said[1].split()[:2] == [str(Path("data/runs")), "unknown"]
    assert "cpu-2-cores" in said[1]
    assert int(said[2]) > 100
    assert "wb.widgets.Inspector(" in said[-2]
    assert "workbench report made" in said[-1]
    assert (work / "made" / "result.json").is_file()
    assert "quickstart" in run(sys.executable, "-m", "workbench", "--help", folder=work, PYTHONPATH=str(place))


def test_in_a_checkout_data_are_the_checkouts():
    from workbench import places, runs

    assert not places.INSTALLED
    assert ROOT / "data" == places.DATA
    assert ROOT / "data" / "runs" == runs.RUNS
    assert (places.PACKAGE / "shipped").resolve() == (ROOT / "data").resolve()
