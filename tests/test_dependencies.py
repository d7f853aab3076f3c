"""What the project needs of others: versions that are named once, and nothing called that they are about to drop."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
import versions
from packaging.requirements import Requirement
from packaging.version import Version
from torch import nn

import workbench as wb
from workbench.backbone import model as used
from workbench.backbone.attention import cache_name

ROOT = Path(__file__).parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
ASKED = [Requirement(line) for line in versions.requirements(PYPROJECT)]
CONSTRAINTS = [
    line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
]


def test_every_package_that_is_asked_for_has_one_exact_version_that_is_allowed():
    assert all(re.fullmatch(r"[a-z0-9.-]+==[0-9a-z.]+", line) for line in CONSTRAINTS)  # no address, no local build
    exact = dict(line.split("==") for line in CONSTRAINTS)
    assert len(exact) == len(CONSTRAINTS)
    for one in ASKED:
        assert one.specifier.contains(exact.get(one.name, "0")), f"{one} against {exact.get(one.name)}: make update"


def test_the_lowest_versions_are_those_of_the_bounds():
    found = dict(line.split("==") for line in versions.lowest(PYPROJECT))
    assert set(found) == {one.name for one in ASKED}
    for one in ASKED:
        bounds = {bound.operator: Version(bound.version) for bound in one.specifier}
        assert Version(found[one.name]) == bounds[">="]
    with pytest.raises(ValueError, match="asks for 'numpy<3': give its lowest version"):
        versions.lowest('[project]\nname = "x"\ndependencies = ["numpy<3"]\noptional-dependencies = {}')


def test_versions_of_an_environment_are_exact_and_without_builds():
    found = versions.installed()
    assert f"torch=={torch.__version__.partition('+')[0]}" in found
    assert not [line for line in found if "+" in line or "@" in line or line.startswith(("latent-workbench", "pip=="))]
    command = [sys.executable, str(ROOT / "tests" / "versions.py"), "lowest"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == versions.lowest(PYPROJECT)


# -------------------------------------------------------------------------------------------------------- deprecations


def renamed(forward):
    """As transformers marks an argument that has another name now: the warning names whoever called `forward`."""

    def wrapped(self, x, **given):
        if "old" in given:
            warnings.warn("`old` is called `new` now", FutureWarning, stacklevel=2)
        return forward(self, x)

    return wrapped


LIBRARY = """
import torch

class Inner(torch.nn.Module):
    @renamed
    def forward(self, x):
        return x + 1

class Outer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Inner()

    @torch.no_grad()
    def forward(self, x):
        return self.inner(x, old=1)
"""


@pytest.fixture
def library(tmp_path):
    """A package of others whose models pass an argument by a deprecated name among themselves."""
    (tmp_path / "library.py").write_text(LIBRARY)
    names = {"__name__": "library", "renamed": renamed}
    exec(compile(LIBRARY, str(tmp_path / "library.py"), "exec"), names)
    return names


def test_a_deprecated_call_is_an_error_where_it_is_ours_and_none_where_others_do_it(library):
    x = torch.zeros(2)
    with pytest.raises(FutureWarning, match="is called `new` now"):
        library["Inner"]()(x, old=1)
    with pytest.raises(FutureWarning, match="is called `new` now"), torch.no_grad():
        nn.Sequential(library["Inner"]())[0](x, old=1)
    assert library["Outer"]()(x).tolist() == [1, 1]


def read_and_write(backbone: wb.Backbone) -> None:
    """What reading with a cache, a likelihood with its gradient, and writing answers call of transformers."""
    method = wb.build("soft-prompt", backbone)
    task = wb.load_task("arith")
    examples = task.examples("dev", 2)
    prompts = [method.render(example, task) for example in examples]
    losses = method(prompts)
    losses.total.backward()
    wb.collect(method, task, examples, decoding=wb.Decoding(max_new_tokens=2))


def test_nothing_deprecated_is_called_to_read_and_to_write(tiny):
    for family in ("qwen3", "llama", "gpt2"):
        read_and_write(tiny(family))


def test_the_name_that_transformers_dropped_would_be_noticed(tiny, monkeypatch):
    """The test above can fail."""
    backbone = tiny()
    if cache_name(type(backbone.model)) == "past_key_values":
        pytest.skip("this transformers has not renamed the argument yet")
    monkeypatch.setattr(used, "cache_name", lambda model: "past_key_values")
    with pytest.raises(FutureWarning, match="past_key_values"):
        read_and_write(backbone)
