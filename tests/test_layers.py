"""Who may import whom, what must stay light, and what stands at the top of the repository (DESIGN section 1)."""

import ast
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import torch
import yaml
from jaxtyping import TypeCheckError

import workbench

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workbench"

# What of workbench each room (or file beside the rooms) may import, inside functions too. A line may name only lines
# above it, so that no room is above itself. Each room's page, its `__init__.py`, says the same in words.
ALLOWED = {
    "__init__": "",
    "files": "",
    "places": "",
    "words": "",
    "progress": "",
    "config": "files",
    "tasks": "config files",
    "plugins": "config files tasks",
    "backbone": "config files places",
    "fetched": "config files places",
    "methods": "config files tasks backbone",
    "store": "files",
    "analysis": "files tasks backbone store",  # of tasks and backbone: names of types, for lens
    "runs": "config files places plugins backbone methods",
    "training": "config files progress tasks plugins backbone methods analysis runs",
    "evidence": "config files progress tasks plugins backbone methods store analysis runs",
    "overview": "files store analysis runs",
    "figures": "files analysis runs",  # of runs: commit and versions, without torch
    "widgets": "files store analysis runs overview figures",
    "checks": "config files tasks backbone methods",
    "experiments": "config files places progress tasks plugins backbone methods store analysis runs training evidence "
    "figures",
    "bench": "files places tasks backbone methods store analysis runs training evidence",
    "commands": "config files places fetched tasks plugins backbone methods store analysis runs training evidence "
    "overview figures widgets checks experiments bench",
}
ALLOWED["__main__"] = " ".join(ALLOWED)  # the command line calls everything
ANALYSIS = ("store", "analysis", "figures", "widgets")
PAGES = (
    "backbone",
    "fetched",
    "training",
    "runs",
    "store",
    "evidence",
    "analysis",
    "checks",
    "commands",
)  # that list their files
LIVE = ("tasks", "backbone", "methods", "runs", "training", "evidence")
TORCH = {"torch", "transformers", "accelerate", "peft", "safetensors", "tokenizers"}
SCREEN = {"plotly", "ipywidgets", "anywidget", "umap", "jscatter", "kaleido"}


def imports(package: Path) -> dict[str, set[str]]:
    """What each module of a package imports: its own modules as ".name", others by their first word.

    A folder counts as one module. `import workbench` itself is ".__init__".
    """
    found: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        names = found.setdefault(parts[0], set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                targets = [alias.name.split(".") for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                here = [package.name, *parts[: len(parts) - node.level]] if node.level else []
                base = here + (node.module.split(".") if node.module else [])
                targets = [[*base, alias.name] for alias in node.names]
            else:
                continue
            for target in targets:
                if target[0] != package.name:
                    names.add(target[0])
                    continue
                inner = target[1] if len(target) > 1 else ""
                module = (package / f"{inner}.py").exists() or (package / inner).is_dir()
                names.add(f".{inner}" if inner and module else ".__init__")
        names.discard(f".{parts[0]}")
    return found


def wrong_imports(package: Path, allowed: dict[str, str]) -> list[str]:
    """A sentence for each import that the table does not allow."""
    complaints = []
    for module, names in sorted(imports(package).items()):
        if module not in allowed:
            complaints.append(f"{module} is not in the table of layers: add it")
            continue
        inner = {name[1:] for name in names if name.startswith(".")}
        complaints += [f"{module} imports {name}" for name in sorted(inner - set(allowed[module].split()))]
        for group, heavy in ((ANALYSIS, TORCH), (LIVE, SCREEN)):
            if module in group:
                complaints += [f"{module} imports {name}" for name in sorted(names & heavy)]
    return complaints


def test_the_table_goes_down_only():
    above: set[str] = set()
    for module, names in ALLOWED.items():
        assert set(names.split()) <= above, f"{module} names a module that does not stand above it"
        above.add(module)


def test_imports_go_down_only():
    assert wrong_imports(PACKAGE, ALLOWED) == []


@pytest.mark.parametrize(
    ("place", "code", "complaint"),
    [
        ("store/disk.py", "from ..training.loop import train", "store imports training"),
        ("store/disk.py", "from .. import files, evidence", "store imports evidence"),
        ("store/disk.py", "import workbench.evidence.collect", "store imports evidence"),
        ("store/disk.py", "from workbench import training", "store imports training"),
        ("store/disk.py", "from workbench import Backbone", "store imports __init__"),
        ("store/disk.py", "def late():\n    from ..backbone import Backbone", "store imports backbone"),
        ("figures/deep/curves.py", "from ...training import loop", "figures imports training"),
        ("analysis/scores.py", "def late():\n    import torch.nn", "analysis imports torch"),
        ("methods/one.py", "from plotly import graph_objects", "methods imports plotly"),
        ("methods/one.py", "from ..runs import commit", "methods imports runs"),
        ("novelty.py", "", "novelty is not in the table of layers: add it"),
    ],
)
def test_a_planted_import_is_found(tmp_path, place, code, complaint):
    """The test above can fail."""
    package = tmp_path / "workbench"
    rooms = ("training/loop.py", "evidence/collect.py", "backbone/model.py", "runs/folder.py")
    for name in (*rooms, "files.py", place):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    assert wrong_imports(package, {**ALLOWED, "novelty": ""}) == []
    (package / place).write_text(code)
    assert wrong_imports(package, ALLOWED) == [complaint]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rooms", "heavy"),
    [
        ((), TORCH | SCREEN | {"numpy", "pandas", "xarray", "scipy", "sklearn"}),
        (ANALYSIS, TORCH),
        (LIVE, SCREEN),
    ],
    ids=["workbench", "analysis", "live"],
)
def test_what_must_stay_light_is(rooms, heavy):
    """In a fresh process: importing any module of these rooms brings in nothing of the other side, at any depth."""
    files = (path.relative_to(ROOT).with_suffix("") for room in rooms for path in (PACKAGE / room).rglob("*.py"))
    modules = sorted(".".join(path.parts).removesuffix(".__init__") for path in files)
    assert (len(modules) > 10) == bool(rooms)
    names = ", ".join(["workbench", *modules])
    code = f"import sys, {names}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "workbench" in loaded
    assert set(loaded) & heavy == set()


def circles(package: Path) -> list[str]:
    """Modules that need each other at the top of their files, so that who is imported first decides what works."""
    needs = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        here = parts[:-1]
        found = needs.setdefault(name, set())
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join([*here[: len(here) - node.level + 1], *(node.module or "").split(".")]).rstrip(".")
                folder = package.parent / base.replace(".", "/")
                for alias in node.names:  # a module, or a name in one
                    found.add(f"{base}.{alias.name}" if (folder / f"{alias.name}.py").exists() else base)
    order = TopologicalSorter({name: (found & set(needs)) - {name} for name, found in needs.items()})
    try:
        order.prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_two_modules_need_each_other():
    """A room's page may say the names of its modules again; these never import the page."""
    assert circles(PACKAGE) == []


def test_a_planted_circle_is_found(tmp_path):
    package = tmp_path / "workbench"
    (package / "room").mkdir(parents=True)
    (package / "room" / "__init__.py").write_text("from .one import first\n")
    (package / "room" / "one.py").write_text("from .two import second\n")
    (package / "room" / "two.py").write_text("def late():\n    from .one import first\n")
    assert circles(package) == []
    (package / "room" / "two.py").write_text("from .one import first\n")
    assert set(circles(package)) == {"workbench.room.one", "workbench.room.two"}


def test_every_room_begins_with_its_page():
    rooms = [path for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))]
    assert 12 <= len(rooms) <= 15
    for room in rooms:
        page = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert page, room.name
        missing = [path.stem for path in room.glob("*.py") if path.stem != "__init__" and path.stem not in page]
        assert room.name not in PAGES or not missing, f"{room.name}: its page does not name {missing}"


def test_every_public_name_is_there():
    for name in workbench.__all__:
        assert getattr(workbench, name) is not None
    with pytest.raises(AttributeError, match=r"workbench has no 'trian'; it has .*train"):
        workbench.trian  # noqa: B018
    assert callable(workbench.train)
    assert callable(workbench.collect)


def test_shapes_are_checked_in_tests(tiny):
    """conftest's import hook is in place: a wrong shape is an error at the call, not a broadcast."""
    backbone = tiny()
    with pytest.raises(TypeCheckError, match="mask"):
        backbone.run(torch.zeros(1, 3, backbone.width), torch.ones(3, dtype=torch.bool))


# ---------------------------------------------------------------------------------------------------------- the folder

TOP = {
    *("notebooks", "workbench", "data", "figures", "tests", "environment.yml", "README.md"),
    *("pyproject.toml", "constraints.txt", "LICENSE", "Makefile", ".gitignore", ".ci"),
}


def test_nothing_new_at_the_top():
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listing.returncode:
        pytest.skip("this is no git checkout: what belongs to the project cannot be told from what lies about")
    found = {name.split("/")[0] for name in listing.stdout.split("\0") if name}
    assert "workbench" in found
    assert found <= TOP


def test_environment_has_one_list_of_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, inner = environment["dependencies"]
    assert pip == "pip"
    assert inner == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert python.startswith(f"python{project['requires-python']}")
