"""What a notebook shows: a store, a training run, a live model, looked at by hand. No torch here.

Traits are the model of every widget: what the mouse can set, a control of the keyboard and a line of Python can set
too; `widget.to_html(path)` keeps the current view as one page. Each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .collapse import Collapse as Collapse
    from .compare import Compare as Compare
    from .inspector import Inspector as Inspector
    from .monitor import TrainingMonitor as TrainingMonitor
    from .positive import PositiveSteps as PositiveSteps
    from .probe import Probe as Probe
    from .runs import Runs as Runs
    from .watching import watch as watch

_HOMES = {
    "Inspector": "inspector",
    "PositiveSteps": "positive",
    "Collapse": "collapse",
    "Compare": "compare",
    "TrainingMonitor": "monitor",
    "Probe": "probe",
    "Runs": "runs",
    "watch": "watching",
}

__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"workbench.widgets has no {name!r}; it has {', '.join(sorted(_HOMES))}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
