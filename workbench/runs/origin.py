"""Where a number comes from: command, commit, packages, time."""

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..places import INSTALLED

if TYPE_CHECKING:
    pass


PACKAGES = ("latent-workbench", "torch", "transformers", "accelerate", "numpy", "scikit-learn", "xarray", "plotly")


def versions() -> dict[str, str]:
    """Python, the kind of machine, and the packages a number depends on."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    return found | {name: _version(name) for name in PACKAGES}


@cache  # a process keeps what it has loaded
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def commit() -> str:
    """The commit of the code in use, with "+changes" when the tree differs from it; "unknown" outside a checkout."""
    if INSTALLED:
        return "unknown"  # a repository around the environment is another project's
    describe = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--exclude=*", "--abbrev=12"]
    try:
        found = subprocess.run([*describe, "--dirty=+changes"], capture_output=True, text=True, check=True)
        return found.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def provenance() -> dict[str, Any]:
    """What a result file says about where it comes from."""
    program = Path(sys.argv[0]).name
    return {
        "command": shlex.join(["workbench" if program == "__main__.py" else program, *sys.argv[1:]]),
        "commit": commit(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def command(*words: str | Path) -> str:
    """A command of ours as it can be pasted into a shell."""
    return shlex.join(["workbench", *map(str, words)])
