"""A run's folder: what was asked (config.yaml), what happened (metrics.jsonl), what came out (weights, result.json).

config.yaml           task, backbone, method and settings: differences from the defaults only
metrics.jsonl         one row per logged step
log.txt               what `start_training` runs print
process.json          which process trains here, or did: `running`, `stop_training` (see owners.py)
weights.safetensors   the trained weights, self-describing: its metadata rebuilds the method
snapshots/            the same after some of the steps, where `snapshot_every` asked for it
stage0.pt, ...        the prompts a stage trains on, where a method has made its own
checkpoint.pt         everything needed to go on exactly where training stopped
result.json           numbers, seconds and full provenance

    folder       config.yaml and metrics.jsonl, read and written; `start_training`
    owners       which process trains in a folder, one at a time
    weights      `save_weights`, `load_method`, snapshots
    checkpoints  checkpoint.pt: everything to go on from, with checksums
    origin       where a number comes from: command, commit, versions

Imports config, files, places, and late, so that reading a run's table loads no torch, backbone and methods.
"""

from .folder import RUNS, begun, metrics_row, read_config, read_metrics, refuse_run, start_training, write_config
from .origin import PACKAGES, command, commit, provenance, versions
from .owners import discard, elsewhere, ended, note_process, refuse, running, stop_training
from .weights import describe_method, drop_snapshots, load_method, read_weights, save_weights, snapshot_steps

__all__ = [
    "PACKAGES", "RUNS", "begun", "command", "commit", "describe_method", "discard", "drop_snapshots", "elsewhere",
    "ended", "load_method", "metrics_row", "note_process", "provenance", "read_config", "read_metrics", "read_weights",
    "refuse", "refuse_run", "running", "save_weights", "snapshot_steps", "start_training", "stop_training", "versions",
    "write_config",
]  # fmt: skip
