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

from importlib import import_module
from typing import Any

_HOME = {
    "Backbone": "backbone",
    "glossary": "words",
    "Decoding": "backbone",
    "fetch": "fetched",
    "LatentMethod": "methods",
    "METHODS": "methods",
    "Made": "backbone",
    "pick": "backbone.decoding",
    "LTAThinkerConfig": "methods.lta_thinker",
    "Prompt": "methods",
    "Thoughts": "methods",
    "build": "methods",
    "Task": "tasks",
    "Example": "tasks",
    "Layout": "tasks",
    "load_task": "tasks",
    "load_plugins": "plugins",
    "TrainConfig": "training.plan",
    "train": "training.loop",
    "collect": "evidence.collect",
    "change_named": "evidence.changes",
    "shuffled": "evidence.changes",
    "answering": "evidence.answering",
    "load_method": "runs",
    "read_metrics": "runs",
    "run_table": "overview",
    "snapshot_steps": "runs",
    "start_training": "runs",
    "Setting": "experiments",
    "experiment": "experiments",
    "shipped_report": "experiments",
    "quickstart_made": "experiments.quickstart",
    "turning": "evidence.turning",
    "watch": "widgets",
    "assess": "evidence.standard",
    "describe": "analysis.diagnostics",
    "read_evidence": "analysis.evidence",
    "divergence_table": "analysis.diagnostics",
    "drift_table": "analysis.diagnostics",
    "information_table": "analysis.diagnostics",
    "accuracy_table": "analysis.scores",
    "compare": "analysis.scores",
    "project": "analysis.projection",
}
_MODULES = {
    "bench": "bench",
    "diagnostics": "analysis.diagnostics",
    "exports": "analysis.exports",
    "figures": "figures",
    "lens": "analysis.lens",
    "projection": "analysis.projection",
    "runs": "runs",
    "scores": "analysis.scores",
    "store": "store",
    "widgets": "widgets",
    "within": "store.within",
}

__all__ = sorted([*_HOME, *_MODULES])  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f".{_HOME[name]}", __name__), name)
    if name in _MODULES:
        return import_module(f".{_MODULES[name]}", __name__)
    raise AttributeError(f"workbench has no {name!r}; it has {', '.join(__all__)}")
