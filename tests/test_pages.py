"""What the pages say: each example runs, each path that is named is there, a file that is dropped in is found."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import workbench as wb
from workbench.backbone import Decoding
from workbench.evidence.collect import collect
from workbench.experiments import Setting, grid
from workbench.methods import METHODS, build
from workbench.store import check
from workbench.tasks import load_task
from workbench.training.loop import TrainConfig, train

ROOT = Path(__file__).parents[1]
HOUSE, METHOD = ROOT / "workbench" / "README.md", ROOT / "workbench" / "methods" / "README.md"
PAGES = (ROOT / "README.md", *ROOT.glob("workbench/**/README.md"), ROOT / "figures" / "README.md")
PAGES += tuple(ROOT.glob("data/**/README.md"))
FEW = TrainConfig(examples=16, epochs=1, batch_size=8, probe_examples=4)


def examples(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def cell(monkeypatch):
    """A notebook's names; what its methods register is forgotten afterwards."""
    known = dict(METHODS)
    yield {"__name__": "__main__"}
    METHODS.clear()
    METHODS.update(known)


def test_each_method_of_the_page_is_trained_or_not_collected_and_described(cell, tiny, tmp_path):
    """`trained` says which of the two; a row of `describe` needs thoughts, before the answers or in them."""
    task = load_task("arith-shift")
    for example in examples(METHOD):
        exec(example, cell)
    defined = {cls.name: cls for cls in cell.values() if isinstance(cls, type) and issubclass(cls, wb.LatentMethod)}
    assert set(defined) == {"pause", "marked"}
    for name, cls in defined.items():
        method = build(name, tiny(), seed=1)
        if cls.trained:
            train(method, task, FEW, tmp_path / name)
        # of 64 words each, since a word in 50 is thought by the second one
        store = collect(method, task, task.examples("dev", 6), decoding=Decoding(64, temperature=1.0))
        check(store)
        assert store["mask"].values.any(), name
        assert wb.describe(store, level=None)["value"].notna().any()
        if name == "marked":
            assert (store["thought_draw"].values[store["mask"].values] == 0).all()


def test_each_example_of_how_to_add_one_runs(cell, tiny, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(setting, cells, folders, console):  # in this process
        for one in cells:
            grid.run_cell(setting, one, folders[one.name])

    monkeypatch.setattr(grid, "_run", run)
    task = load_task("arith-shift")
    method = build("lta-thinker", tiny())
    store = collect(method, task, task.examples("dev", 8), decoding=Decoding(4))
    cell |= {"wb": wb, "backbone": method.backbone, "task": task, "method": method, "store": store}
    for example in examples(HOUSE):
        exec(example, cell)

    assert (cell["sums"].split_of(cell["sums"].examples("test")), cell["parse"]("5 #### 7")) == ("test", "7")
    assert all(0 < share <= 1 for share in cell["shares"])
    assert (tmp_path / "figures" / "share_by_slot.json").is_file()
    assert len(cell["widget"].figure().data[0].x) == 1
    assert (tmp_path / "shares.html").stat().st_size > 10_000
    setting = Setting(str(tiny_folder()), seeds=[0], questions=4, training=FEW, decoding=Decoding(4), workers=1)
    done = grid.run_cells(setting, cell["cells"](setting), tmp_path / "grid", Console(quiet=True))
    found = cell["report"](setting, done)
    assert re.fullmatch(r"One thought: [\d.]+% right; two: [\d.]+%\.", found.findings[0])
    assert found.figures["thoughts"].data


@pytest.mark.parametrize(
    "page", [*PAGES, *ROOT.glob("notebooks/**/*.ipynb")], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_each_path_that_a_page_names_is_there(page):
    assert missing(page.read_text(encoding="utf-8")) == []


def test_the_first_page_leads_to_every_other_one():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = [page.relative_to(ROOT).as_posix() for page in ROOT.glob("workbench/*/README.md")]
    assert len(pages) > 5
    assert [page for page in [*pages, "workbench/README.md"] if f"]({page})" not in text] == []
    first = text.split("\n## ")[1]  # the first screen: five commands, and where the rest is
    assert first.startswith("Five commands\n")
    commands = [line for line in first.split("```")[1].splitlines() if line]
    assert len(commands) == 5
    assert {line.split()[1] for line in commands if line.startswith("workbench ")} == {"train", "collect", "report"}


def missing(text: str) -> list[str]:
    """Paths of the package, the tests, the notebooks and the data that a text names and that are not there."""
    named = re.findall(r"(?<![\w/.-])((?:workbench|tests|notebooks|data/(?:backbones|benchmarks))/[\w./-]*\w)", text)
    return [name for name in sorted(set(named)) if not (ROOT / name).exists() and Path(name).stem != "NAME"]


def test_a_path_that_is_not_there_is_found():
    assert missing("see `workbench/backbone.py`, workbench/backbone/model.py and tests/nothing") == [
        "tests/nothing",
        "workbench/backbone.py",
    ]


def test_the_pages_name_every_room():
    rooms = {path.name for path in (ROOT / "workbench").iterdir() if (path / "__init__.py").exists()}
    for page in (HOUSE, ROOT / "README.md"):
        text = page.read_text(encoding="utf-8")
        assert [room for room in sorted(rooms) if f"workbench/{room}" not in text] == [], page


def test_a_method_in_the_folder_is_found_by_itself(tmp_path):
    """In a copy of the package, on the command line: one file, named nowhere."""
    shutil.copytree(ROOT / "workbench", tmp_path / "workbench", ignore=shutil.ignore_patterns("__pycache__", "shipped"))
    pause = examples(METHOD)[0].replace("import workbench as wb", "from .base import LatentMethod, Thoughts")
    (tmp_path / "workbench" / "methods" / "zzz.py").write_text(pause.replace("wb.", ""), encoding="utf-8")
    (tmp_path / "workbench" / "methods" / "aaa.py").write_text(
        pause.replace("wb.", "").replace('"pause"', '"early"'), encoding="utf-8"
    )
    code = "from workbench.methods import METHODS; import workbench; print(workbench.__file__, *METHODS)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    place, *names = done.stdout.split()
    assert Path(place).is_relative_to(tmp_path)
    assert (names[0], names[-1]) == ("early", "pause")
    assert names[1:-1] == [name for name in METHODS if METHODS[name].__module__.startswith("workbench.")]
