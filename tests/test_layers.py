"""Who may import whom, what must stay light, and what stands at the top of the repository (DESIGN section 1)."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from jaxtyping import TypeCheckError

import workbench

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workbench"

# What of workbench each module may import, inside functions too. A line may name only lines above it.
ALLOWED = {
    "__init__": "",
    "config": "",
    "files": "",
    "tasks": "config files",
    "decoding": "config",
    "attention": "",
    "states": "",
    "thoughts": "",
    "flight": "attention decoding states thoughts",
    "writing": "attention decoding flight thoughts",
    "generation": "decoding thoughts writing",
    "packing": "attention",
    "prefixes": "packing",
    "label_losses": "",
    "backbone": "config attention decoding states thoughts generation prefixes",
    "likelihood": "attention backbone label_losses packing",
    "methods": "config decoding tasks thoughts writing backbone likelihood",
    "official": "files backbone methods",
    "check": "methods",
    "store": "files",
    "within": "store",
    "diagnostics": "",
    "scores": "",
    "projection": "files store",
    "exports": "files projection",
    "runs": "config files backbone methods",
    "plan": "config methods prefixes",
    "stages": "files methods",
    "checkpointing": "attention",
    "launch": "methods plan stages",
    "train": "config decoding files tasks backbone methods diagnostics runs plan stages checkpointing launch packing "
    "prefixes",
    "dry_run": "tasks backbone label_losses methods plan train",
    "changes": "config methods",
    "lens": "tasks backbone methods diagnostics",
    "collect": "tasks thoughts backbone methods store runs changes lens",
    "counter": "backbone tasks methods scores collect",
    "answering": "backbone tasks methods runs",
    "pretrain": "files tasks backbone methods scores runs collect",
    "figures": "files diagnostics runs",  # of runs: commit and versions, without torch
    "widgets": "files store within scores diagnostics projection exports runs figures",
    "experiments": "config files tasks backbone methods store diagnostics scores projection runs train collect counter "
    "figures",
    "bench": "tasks decoding packing prefixes generation backbone methods store diagnostics runs plan train collect",
}
ALLOWED["options"] = "config decoding tasks methods plan counter pretrain experiments"
ALLOWED["__main__"] = " ".join(ALLOWED)  # the command line calls everything
ANALYSIS = ("store", "within", "scores", "diagnostics", "projection", "exports", "figures", "widgets")
LIVE = (
    "tasks",
    "decoding",
    "attention",
    "writing",
    "generation",
    "backbone",
    "methods",
    "train",
    "dry_run",
    "changes",
    "lens",
    "collect",
    "runs",
    "answering",
)
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
        ("store.py", "from .train import train", "store imports train"),
        ("store.py", "from . import files, collect", "store imports collect"),
        ("store.py", "import workbench.collect", "store imports collect"),
        ("store.py", "from workbench import train", "store imports train"),
        ("store.py", "from workbench import Backbone", "store imports __init__"),
        ("store.py", "def late():\n    from .backbone import Backbone", "store imports backbone"),
        ("figures/curves.py", "from ..train import train", "figures imports train"),
        ("figures/deep/curves.py", "from ...train import train", "figures imports train"),
        ("scores.py", "def late():\n    import torch.nn", "scores imports torch"),
        ("methods/one.py", "from plotly import graph_objects", "methods imports plotly"),
        ("methods/one.py", "from ..runs import commit", "methods imports runs"),
        ("novelty.py", "", "novelty is not in the table of layers: add it"),
    ],
)
def test_a_planted_import_is_found(tmp_path, place, code, complaint):
    """The test above can fail."""
    package = tmp_path / "workbench"
    for name in ("train.py", "collect.py", "files.py", "backbone.py", "runs.py", place):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("")
    assert wrong_imports(package, {**ALLOWED, "novelty": ""}) == []
    (package / place).write_text(code)
    assert wrong_imports(package, ALLOWED) == [complaint]


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ((), TORCH | SCREEN | {"numpy", "pandas", "xarray", "scipy", "sklearn"}),
        (tuple(name for name in ANALYSIS if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()), TORCH),
        (LIVE, SCREEN),
    ],
    ids=["workbench", "analysis", "live"],
)
def test_what_must_stay_light_is(modules, heavy):
    """In a fresh process: importing brings in nothing of the other side, at any depth."""
    names = ", ".join(["workbench", *(f"workbench.{name}" for name in modules)])
    code = f"import sys, {names}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "workbench" in loaded
    assert set(loaded) & heavy == set()


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
    *("pyproject.toml", "LICENSE", "Makefile", ".gitignore", ".ci"),
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
    assert inner == {"pip": ["-e .[dev]"]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert python.startswith(f"python{project['requires-python']}")
    assert "torch>=2.11,<2.14" in project["dependencies"]
