"""A research workbench for latent reasoning: train, extract, diagnose and compare thought vectors.

    import workbench as wb
    backbone = wb.Backbone.load("nano")
    task = wb.load_task("arith-shift")
    method = wb.build("lta-thinker", backbone)
    wb.train(method, task, wb.TrainConfig(epochs=2), "data/runs/first")
    store = wb.collect(method, task, task.examples("dev"))
    wb.describe(store)

The names below load their modules on first use, so importing the package costs nothing and the analysis side (stores,
scores, diagnostics, projection, exports, figures) never loads torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_HOME = {
    "Backbone": "backbone",
    "Decoding": "decoding",
    "LatentMethod": "methods",
    "METHODS": "methods",
    "Made": "thoughts",
    "pick": "decoding",
    "LTAThinkerConfig": "methods.lta_thinker",
    "Prompt": "methods",
    "Thoughts": "methods",
    "build": "methods",
    "Task": "tasks",
    "Example": "tasks",
    "load_task": "tasks",
    "TrainConfig": "plan",
    "train": "train",
    "collect": "collect",
    "change_named": "changes",
    "shuffled": "changes",
    "answering": "answering",
    "load_method": "runs",
    "read_metrics": "runs",
    "snapshot_steps": "runs",
    "start_training": "runs",
    "Setting": "experiments",
    "experiment": "experiments",
    "shipped_report": "experiments",
    "watch": "widgets",
    "describe": "diagnostics",
    "divergence_table": "diagnostics",
    "drift_table": "diagnostics",
    "information_table": "diagnostics",
    "accuracy_table": "scores",
    "compare": "scores",
    "project": "projection",
}
_MODULES = (
    "bench", "diagnostics", "exports", "figures", "lens", "projection", "runs", "scores", "store", "widgets", "within",
)  # fmt: skip

__all__ = sorted([*_HOME, *_MODULES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"workbench has no {name!r}; it has {', '.join(__all__)}")


class _Package(ModuleType):
    """`train` and `collect` name a function and a file of this package: loading the file must not hide the function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
