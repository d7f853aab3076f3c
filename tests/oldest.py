"""The lowest versions that pyproject.toml allows, as constraints for pip: `make oldest` installs and tests them."""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lowest(pyproject: str) -> list[str]:
    """`name==version` of every requirement with a lower bound, in the order of the file."""
    project = tomllib.loads(pyproject)["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [re.match(r"([\w.-]+)(?:\[[^]]*\])?>=([\w.]+)", line) for group in groups for line in group]
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    print(*lowest(PROJECT.read_text(encoding="utf-8")), sep="\n")
