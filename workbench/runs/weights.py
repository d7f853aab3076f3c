"""Trained weights as files that rebuild their method: of a finished run, and snapshots along the way."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import differences
from ..files import checked, from_json, lasting, shown, sweep

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbone import Backbone
    from ..methods import LatentMethod


DESCRIPTION = {  # the same of what weights say of themselves
    "backbone": str, "method": str, "options": dict, "revision": (str, type(None)),
    "training_step": (int, type(None)), "stage": (int, type(None)), "digest": (str, type(None)),
}  # fmt: skip


def describe_method(method: "LatentMethod") -> dict[str, Any]:
    """What rebuilds a method: its name, backbone and the differences of its config from the defaults."""
    backbone = {"backbone": method.backbone.name}
    if method.backbone.revision:
        backbone["revision"] = method.backbone.revision
    return backbone | {"method": method.name, "options": differences(method.config)}


def drop_snapshots(folder: str | Path, behind: int) -> None:
    """Remove the snapshots of later steps, and what killed processes have left beside them."""
    place = Path(folder) / "snapshots"
    for step in snapshot_steps(folder):
        if step > behind:
            _snapshot(Path(folder), step).unlink()
    sweep(place)


def save_weights(
    method: "LatentMethod",
    folder: str | Path,
    weights: "Mapping[str, Tensor] | None" = None,
    *,
    snapshot: bool = False,
) -> Path:
    """Write what the method says is saved, its trained weights, with what is needed to rebuild it around them.

    `weights`: by name, where the method's own are sharded over processes; None takes its own.
    `snapshot`: among the snapshots of a run, under the method's training step.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    from .checkpoints import checksum

    step = method.training_step
    path = Path(folder) / (f"snapshots/step{step:06d}.safetensors" if snapshot else "weights.safetensors")
    # one entry: of several safetensors writes an order that differs from one time to the next
    about = describe_method(method) | {"training_step": step, "stage": method.stage}
    if weights is None:
        weights = method.saved()
    tensors = {name: p.detach().cpu().contiguous() for name, p in weights.items()}
    about["digest"] = checksum([about, dict(sorted(tensors.items()))])
    with lasting(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"workbench": json.dumps(about)})
        except SafetensorError as error:  # of a full disk, say: it wraps what the system said
            raise OSError(f"{path} could not be written ({error}); make room, or give another place") from error
    return path


def snapshot_steps(folder: str | Path) -> list[int]:
    """The training steps whose weights a run keeps, ascending; empty where it was trained without `snapshot_every`."""
    if not Path(folder).is_dir():
        raise ValueError(f"no run at {folder}; give the folder that `workbench train` made")
    names = (re.fullmatch(r"step([0-9]{6,12})", path.stem) for path in Path(folder).glob("snapshots/*.safetensors"))
    return sorted(int(name[1]) for name in names if name is not None)


def load_method(path: str | Path, backbone: "Backbone | None" = None, *, step: int | None = None) -> "LatentMethod":
    """The trained method in a run's folder (or weights file), on its own backbone or a given one of the same shape.

    `step`: the snapshot after that many training steps instead, one of `snapshot_steps`.
    """
    from ..backbone import Backbone
    from ..config import configured
    from ..methods import METHODS, build

    path = _weights_file(path, step)
    about, tensors = read_weights(path)
    if backbone is None:
        needs = METHODS[about["method"]].needs
        backbone = Backbone.load(about["backbone"], revision=about.get("revision"), weights=needs == "model")
    method = build(about["method"], backbone, configured(METHODS[about["method"]].Config, about["options"]))
    own = method.saved()
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    wanted = {name: tuple(p.shape) for name, p in own.items()}
    if shapes != wanted:
        different = sorted(set(shapes.items()) ^ set(wanted.items()))[0]
        raise ValueError(
            f"{path} does not fit {about['method']} on {backbone.name!r}: {shown(different[0])} {different[1]} differs"
        )
    for name, value in own.items():
        value.data.copy_(tensors[name])
    method.training_step, method.stage = about.get("training_step"), about.get("stage")
    return method.eval()


def read_weights(path: str | Path) -> "tuple[dict[str, Any], dict[str, Tensor]]":
    """What the weights file of a run (or its folder) says of itself, and its tensors by name, as sound as they were.

    ValueError, one sentence, for a file that is damaged, of something else, or holds what are no finite numbers.
    """
    from safetensors import SafetensorError, safe_open

    from ..config import choose, configured
    from ..methods import METHODS, OWN_METHOD
    from ..plugins import remembered
    from .checkpoints import checksum
    from .folder import read_config

    path = _weights_file(path)
    if not path.is_file():
        raise ValueError(f"no trained weights at {path}; give the folder of a finished run or its weights.safetensors")
    advice = "train again, or give another run"
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a reader, not a dict)
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:  # the last two: dtypes that torch lacks
        raise ValueError(f"{path} is damaged ({shown(error)}); {advice}") from error
    if "workbench" not in metadata:
        raise ValueError(
            f"{path} was not written by this workbench (no description in it); give a run's weights.safetensors"
        )
    try:
        about = checked(from_json(metadata["workbench"]), DESCRIPTION, "it")
        seal = about.pop("digest", None)  # files of before there were checksums have none, and no other field
        content = checksum([about, dict(sorted(tensors.items()))])
        if (set(about) >= set(DESCRIPTION)) if seal is None else seal != content:
            raise ValueError(f"{path} is damaged (its content does not match its checksum); {advice}")
        home = next((place for place in path.parents[:2] if (place / "config.yaml").is_file()), None)
        if about["method"] not in METHODS and home is not None:
            remembered(read_config(home))
        configured(choose("method", about["method"], METHODS, OWN_METHOD).Config, about["options"])
    except ValueError as error:
        raise ValueError(f"{path} describes itself wrongly ({shown(error, 300)}); {advice}") from error
    bad = [name for name, t in tensors.items() if not t.is_floating_point() or not bool(t.float().isfinite().all())]
    if bad:
        raise ValueError(f"{path}: tensor {bad[0]!r} holds what are no finite numbers; {advice}")
    return about, tensors


def _weights_file(path: str | Path, step: int | None = None) -> Path:
    path = Path(path) if step is None else _snapshot(Path(path), step)
    return path / "weights.safetensors" if path.is_dir() else path


def _snapshot(folder: Path, step: int) -> Path:
    known = snapshot_steps(folder)
    if step not in known:
        kept = (
            f"it has those of steps {', '.join(map(str, known))}" if known else "train with snapshot_every to have some"
        )
        raise ValueError(f"the run {folder} has no snapshot of step {step}; {kept}")
    return folder / f"snapshots/step{step:06d}.safetensors"
