"""Run folders as training leaves them, of a few rows: for what lists, draws and removes runs."""

import json
from pathlib import Path

from stores import synthetic_store

from workbench import runs, store


def run_folder(
    folder: Path, *, steps: int = 40, task: str = "arith", seed: int = 0, first: float = 60.0, spread: float = 0.5
) -> Path:
    """A finished run of `steps` steps whose first loss is `first` and whose thoughts spread by `spread`."""
    folder.mkdir(parents=True)
    training = {"seed": seed, "probe_answers": 32}
    runs.write_config(folder, {"task": task, "method": "lta-thinker", "backbone": "nano", "training": training})
    rows = []
    for step in range(1, steps + 1):
        row = {"step": step, "seconds": 3.0 * step, "loss": first if step == 1 else 1 / step}
        if step % 10 == 0:
            row |= {"probe_relative_spread": spread, "probe_slot_cosine": 0.1, "probe_accuracy": step / 80}
        rows.append(json.dumps(row))
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "result.json").write_text(json.dumps({"created": f"2026-01-0{seed + 1}T00:00:00+00:00"}))
    return folder


def kept_store(path: Path, *, accuracy: float = 0.6, seed: int = 0, changed: str = "") -> Path:
    found = synthetic_store(examples=40, steps=2, seed=seed, accuracy=accuracy)
    return store.save(found.assign_attrs(changed=changed, training_step=40), path)
