"""Versions of what the project needs, as constraints for pip.

python tests/versions.py lowest      those that pyproject.toml allows at least: `make oldest` tests with them
python tests/versions.py installed   those of the environment that runs this: `make update` keeps them
"""

import re
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
HEADER = "# Exact versions with which every check passed. `make update` writes this file, by the newest ones allowed."


def requirements(pyproject: str) -> list[str]:
    """All lines of pyproject.toml that ask for a package, but for the project's own groups."""
    project = tomllib.loads(pyproject)["project"]
    lines = [*project["dependencies"], *(line for group in project["optional-dependencies"].values() for line in group)]
    return [line for line in lines if not line.startswith(project["name"])]


def lowest(pyproject: str) -> list[str]:
    """`name==version` of every requirement, its version being the lower bound; ValueError where one has none."""
    found = []
    for line in requirements(pyproject):
        match = re.fullmatch(r"([\w.-]+)(\[[\w,]+\])?>=([\w.]+)(,<[\w.]+)?", line)
        if not match:
            raise ValueError(f"pyproject.toml asks for {line!r}: give its lowest version, as name>=1.2 or name>=1.2,<2")
        found.append(f"{match[1]}=={match[3]}")
    return found


def installed() -> list[str]:
    """`name==version` of every package but this one and pip; torch's build (+cpu, +cu130) is left to who installs."""
    found = {one.name.lower().replace("_", "-"): one.version.partition("+")[0] for one in distributions()}
    return [f"{name}=={found[name]}" for name in sorted(found.keys() - {"latent-workbench", "pip"})]


if __name__ == "__main__":
    print(
        *(lowest(PROJECT.read_text(encoding="utf-8")) if sys.argv[1:] == ["lowest"] else [HEADER, *installed()]),
        sep="\n",
    )
