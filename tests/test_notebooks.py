"""The notebooks: small and clean as files, and each runs from top to bottom on the shipped backbone."""

import ast
import re
import subprocess
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from workbench.bench import parts, shipped

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").rglob("*.ipynb"))
# What runs here in place of settings in the first cell: as much as what must be seen needs, which for the tour, the
# collapse (half its training is not healthy yet), the comparison and the gallery is all of it.
SMALLER = {
    # the stopped run is stopped at step 5 of 30
    "01_train": "EXAMPLES, EPOCHS, QUESTIONS = 160, 6, 64; RATES = {'muon': (0.3,), 'adamw': (0.01,)}",
    "03_positive_steps": "EPOCHS, QUESTIONS = 2, 120",
    "04_paper_figures": "EPOCHS = 2",
    "00_tour": "EXAMPLES, EPOCHS, QUESTIONS = 640, 2, 64",
    "05_inspect": "QUESTIONS = 40",
    "08_speed": "REPEATS = 1",
}
EXPERIMENT = "RUN, SEEDS, QUESTIONS, EXAMPLES, EPOCHS = True, [0], 4, 16, 1; OUT = {out!r}"  # of many minutes
SEEN = {  # what a reader must have seen in the end, besides no error
    "00_tour": ("own thoughts", "relative_spread", "right answer:", "reads as +", ", moved to -", "quickstart"),
    "01_train": (
        "⚠",
        "focus loss is the constant log S",
        "reference: collapsed",
        "stopped after step",
        "largest difference: 0.0",
    ),
    "02_collapse": (
        "default: healthy",
        "weight 1: collapsed at training steps 0, 25, 50",
        "published: collapsed: thoughts do",
    ),
    "03_positive_steps": ("critical", ", more than without focus: "),
    "04_paper_figures": ("collapse.pdf", "map_over_training.svg", "projector_config.pbtxt"),
    "05_inspect": (
        "questions answered wrongly",
        "kept as wrong.html",
        "questions on which the two disagree",
        "positive steps are not the critical one",
        "collapsed at training step 0",
        "as it was: ",
        "watched is running",
    ),
    "06_compare": ("lta-thinker on arith-shift: What the thoughts say", "coconut on arith: The thoughts make no sure"),
    "07_gallery": (),  # figures alone
    "08_speed": ("times as fast, 10 draws",),
}
FIGURES = {"00_tour": 5, "01_train": 8, "02_collapse": 11, "03_positive_steps": 8}
FIGURES |= {"04_paper_figures": 10, "05_inspect": 0, "06_compare": 4, "07_gallery": 22}
FIGURES |= {"08_speed": 1 + sum(len(parts(found)) for found in shipped().values())}
FIGURES |= {"loss_ablation": 2, "thought_count": 4, "scaling": 2, "variance": 2, "alignment": 2}
FIGURES |= {"positive_step": 4, "transfer": 4}  # half of them shipped, half made by the notebook
FIGURES |= {"lt_tuning": 14}  # and four maps
FIGURES |= {"ltm": len(list((ROOT / "data" / "experiments" / "ltm" / "figures").glob("*.json"))) + 7 + 1}  # and a map
FIGURES |= {"latent_sft": 10}
MOST = 3_000_000  # bytes of an executed notebook, widgets' state included: it is mailed, and kept in git
# a browser test runs the tour, too, and both write its folder: never at the same time
TOGETHER = {"00_tour": [pytest.mark.xdist_group("tour")]}
each = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.stem, marks=TOGETHER.get(path.stem, [])) for path in NOTEBOOKS]
)


def test_there_are_notebooks():
    assert {path.stem for path in NOTEBOOKS} >= set(SEEN)


@each
def test_a_notebook_is_committed_without_results(path: Path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert path.stat().st_size < 100_000
    assert len(code) <= 15
    assert "widgets" not in notebook.metadata
    for cell in code:
        assert cell.outputs == []
        assert cell.execution_count is None
        assert not cell.source.lstrip().startswith(("!", "%"))


@each
def test_a_notebook_starts_with_its_settings_and_has_short_functions(path: Path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    settings = ast.parse(cells[0].source).body
    assert all(isinstance(line, ast.Assign) for line in settings)
    assert all(name.id.isupper() for line in settings for name in ast.walk(line) if isinstance(name, ast.Name))
    for cell in cells:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno is not None
                assert node.end_lineno - node.lineno < 10, node.name


@each
def test_a_notebook_says_how_long_it_takes(path: Path):
    first = nbformat.read(path, as_version=4).cells[0]
    assert first.cell_type == "markdown"
    said = re.search(r"^\*About (half a|a|one|two|three) minutes?( on two cores)?\b.*\*$", first.source, re.MULTILINE)
    assert said is not None, first.source


@each
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_notebook_runs_from_top_to_bottom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From a copy elsewhere: it must find everything through the package, not through the folder it is in."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    before = untracked()
    notebook = nbformat.read(path, as_version=4)
    if path.parent.name == "experiments":
        change = EXPERIMENT.format(out=str(tmp_path / "ipython" / "out"))
    else:
        change = SMALLER.get(path.stem, "")
    settings = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert assigned(change) <= assigned(settings.source)
    settings.source += f"\n{change}"
    where: Any = {"metadata": {"path": str(tmp_path)}}
    # its state is needed by the bars, which draw into a widget; the executed copy is not kept
    client = NotebookClient(notebook, timeout=1500, kernel_name="python3", store_widget_state=True, resources=where)
    client.execute()
    size = len(nbformat.writes(notebook).encode())
    assert size < MOST, f"{size / 1e6:.1f} MB, executed"
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    noise = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert noise == []
    drawn = [output for output in outputs if "application/vnd.plotly.v1+json" in output.get("data", {})]
    assert len(drawn) == FIGURES[path.stem]
    shown = " ".join(output.get("text", "") + str(output.get("data", {}).get("text/html", "")) for output in outputs)
    for words in SEEN.get(path.stem, ("•",)):
        assert words in shown
    assert untracked() == before
    assert {found.name for found in tmp_path.iterdir()} <= {"ipython"}


def assigned(source: str) -> set[str]:
    """The names that get a value in these lines."""
    names = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name))
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


def untracked() -> set[str]:
    """Files in the repository that git neither tracks nor ignores."""
    command = ["git", "-C", str(ROOT), "ls-files", "--others", "--exclude-standard"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())
