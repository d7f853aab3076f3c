"""Where the files lie that the project ships: backbones, what experiments found, benchmarks.

In a checkout they are in its data/, to which the link `shipped` beside this file leads. A wheel is built through the
link and holds them in a folder in its place.
"""

from pathlib import Path

PACKAGE = Path(__file__).parent
INSTALLED = (PACKAGE / "shipped").is_dir() and not (PACKAGE / "shipped").is_symlink()  # from a wheel: no checkout
DATA = PACKAGE / "shipped" if INSTALLED else PACKAGE.parent / "data"
BACKBONES, EXPERIMENTS, BENCHMARKS = DATA / "backbones", DATA / "experiments", DATA / "benchmarks"
EXAMPLE = DATA / "example"  # what a quickstart on the first 400 test questions made
QUICKSTART = Path("data/quickstart") if INSTALLED else DATA / "quickstart"  # where yours goes
FETCHED = ("smollm2",)  # backbones that are not shipped and that `workbench fetch NAME` puts beside the shipped ones
