"""checkpoint.pt: everything to go on exactly where training stopped, and whether it is still what was written.

It says which settings, which examples and which frozen weights it belongs to, how far metrics.jsonl was, and carries a
checksum of all that. Files of before there were checksums are read without.
"""

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import digest, lasting, logged_jsonl, write_text
from ..methods import LatentMethod, Prompt

NAME, LOG = "checkpoint.pt", "metrics.jsonl"
FIELDS = {"step", "setup", "weights", "optimizers", "seconds"}
SEALED = FIELDS | {"origin", "log", "digest"}
ROW = 256  # numbers of each frozen tensor that are looked at: other weights differ in those, too
# Settings that say how numbers are computed, or what is kept and looked at on the way: no weight depends on them. And
# the plugins: one that was mended can go on, and it is said that it has changed.
FREE = (
    "gradient_checkpointing", "processes", "prefix_cache", "prefix_cache_gib", "compile", "padded", "full_logits",
    "micro_batch", "plugins", "log_every", "probe_every", "probe_examples", "probe_answers", "save_every",
    "snapshot_every",
)  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """What a run is made of besides its settings, as checksums: examples, their prompts as ids, weights not trained."""

    count: int
    examples: str
    prompts: str
    frozen: str


@dataclass(frozen=True)
class Checkpoint:
    """A run after so many steps. `setup` as in config.yaml, `log` the length and checksum of metrics.jsonl; what files
    of before do not say is None."""

    step: int
    setup: dict[str, Any]
    weights: dict[str, Tensor]
    optimizers: list[dict[str, Any]]
    seconds: float
    origin: Origin | None
    log: tuple[int, str] | None


def origin(method: LatentMethod, prompts: Sequence[Prompt]) -> Origin:
    """That of training `method`, as it is before training, on these prompts."""
    examples = (json.dumps(asdict(prompt.example), sort_keys=True, default=str) for prompt in prompts)
    ids = (ids for prompt in prompts for ids in (prompt.before, prompt.after, prompt.target))
    frozen = (
        (name, tuple(p.shape), p.detach().reshape(-1)[:ROW])
        for name, p in method.named_parameters()
        if not p.requires_grad
    )
    return Origin(len(prompts), digest(examples), checksum(ids), checksum(frozen))


def checksum(value: Any) -> str:
    """Of tensors (precision, shape, bytes), plain values, and what dicts and lists hold of them, in order."""
    return digest(_pieces(value))


def _pieces(value: Any) -> Iterator[str | memoryview]:
    if isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}"
        numbers: Any = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        yield memoryview(numbers)
    elif isinstance(value, Mapping):
        yield "{"
        for key, inner in value.items():
            yield repr(key)
            yield from _pieces(inner)
        yield "}"
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        yield "["
        for inner in value:
            yield from _pieces(inner)
        yield "]"
    else:
        yield repr(value)


# ---------------------------------------------------------------------------------------------------------- the file


def write(folder: Path, checkpoint: Checkpoint) -> None:
    """As one file that is whole or absent, and on the disk; OSError, one sentence, where there is no room for it."""
    content = {
        "step": checkpoint.step,
        "setup": json.dumps(checkpoint.setup, sort_keys=True),
        "weights": checkpoint.weights,
        "optimizers": checkpoint.optimizers,
        "seconds": checkpoint.seconds,
        "origin": checkpoint.origin and asdict(checkpoint.origin),
        "log": checkpoint.log and list(checkpoint.log),
    }
    content["digest"] = checksum(content)
    with lasting(folder / NAME) as temporary, open(temporary, "wb") as file:
        into: Any = _Keeping(file)  # as much of a file as torch asks for
        try:
            torch.save(content, into)
        except RuntimeError as error:  # torch says of a full disk that a position was unexpected
            raise into.trouble or error from error


class _Keeping:
    """A file that keeps the error it had, which torch replaces by one of its own."""

    def __init__(self, file: Any):
        self.file = file
        self.trouble: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.trouble = error
            raise

    def flush(self) -> None:
        self.file.flush()


def read(folder: Path) -> Checkpoint:
    """That of a run; ValueError, one sentence, where the file is not what was written."""
    path = folder / NAME
    try:
        with zipfile.ZipFile(path) as parts:
            bad = parts.testzip()  # before anything in it is believed
            if bad is not None:
                raise ValueError(f"its part {bad} has changed")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if set(saved) not in (FIELDS, SEALED):
            raise ValueError("it has other fields")
        seal = saved.pop("digest", None)
        if seal is not None and seal != checksum(saved):
            raise ValueError("its content does not match its checksum")
        log = saved.get("log")
        return Checkpoint(
            saved["step"], json.loads(saved["setup"]), saved["weights"], saved["optimizers"], saved["seconds"],
            Origin(**saved["origin"]) if saved.get("origin") else None, (log[0], log[1]) if log else None,
        )  # fmt: skip
    except Exception as error:  # a changed byte can make zipfile and torch raise anything
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ValueError(
            f"{path} is damaged ({reason}); put back a copy, or delete it and resume from the first step"
        ) from error


# ------------------------------------------------------------------------------------------------- what it belongs to


def check(
    folder: Path, saved: Checkpoint, setup: dict[str, Any], defaults: dict[str, Any], given: Origin, log: bool
) -> None:
    """ValueError, one sentence, unless a run of this setup and origin can go on from the checkpoint that was saved.

    Setups leave out what is as in `defaults`. `log`: look at metrics.jsonl, too.
    """
    _check_settings(folder, saved.setup, setup, defaults)
    _check_origin(folder, saved.origin, given, setup)
    if log:
        _check_log(folder, saved)


def _check_settings(folder: Path, kept: dict[str, Any], given: dict[str, Any], defaults: dict[str, Any]) -> None:
    """Name the settings that differ and are not free to."""
    named = [_flat(kept), _flat(given)]
    usual = _flat(defaults)
    other = [
        f"{name}: {_said(named[0].get(name, usual.get(name)))} in the run, "
        f"{_said(named[1].get(name, usual.get(name)))} given"
        for name in dict.fromkeys([*named[0], *named[1]])
        if named[0].get(name, usual.get(name)) != named[1].get(name, usual.get(name))
        and name.removeprefix("training.") not in FREE
    ]
    if other:
        raise ValueError(
            f"{folder / NAME} belongs to other settings ({'; '.join(other)}); resume with those of the run, or train "
            "in another folder"
        )


def _flat(setup: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in setup.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


def _said(value: Any) -> str:
    text = "none" if value is None else json.dumps(value, ensure_ascii=False).strip('"')
    return text if len(text) <= 100 else f"{text[:60]} … {text[-37:]}"


def _check_origin(folder: Path, kept: Origin | None, given: Origin, setup: dict[str, Any]) -> None:
    """Refuse to go on with other examples, prompts or frozen weights."""
    if kept is None or kept == given:
        return
    data = f"{setup['task']}" + (f" ({setup['data']})" if setup.get("data") else "")
    if kept.examples != given.examples:
        counts = f"{kept.count} then, {given.count} now" if kept.count != given.count else "as many, but others"
        what = f"the training data of {data} are not those the run began with ({counts})"
    elif kept.prompts != given.prompts:
        what = f"the prompts made of the training data of {data} are not those the run began with (wording, tokenizer)"
    else:
        what = f"the weights of backbone {setup['backbone']} are not those the run began with"
    raise ValueError(f"{folder / NAME} cannot be resumed: {what}; put those back, or train in another folder")


# -------------------------------------------------------------------------------------------------------- metrics.jsonl


def log_state(folder: Path) -> tuple[int, str]:
    """Length and checksum of metrics.jsonl."""
    data = (folder / LOG).read_bytes() if (folder / LOG).exists() else b""
    return len(data), digest([data])


def _check_log(folder: Path, checkpoint: Checkpoint) -> None:
    """Metrics.jsonl must have all rows up to the checkpoint, as they were then."""
    path = folder / LOG
    if checkpoint.log is not None:
        length, seal = checkpoint.log
        data = path.read_bytes()[:length] if path.exists() else b""
        whole = len(data) == length and digest([data]) == seal
    else:
        rows = _rows(path)
        whole = any(row["step"] == checkpoint.step for row in rows)
    if not whole:
        _rows(path)  # a line that cannot be read is named
        raise ValueError(
            f"{path} is not the one that {folder / NAME} goes with: rows up to step {checkpoint.step} are missing or "
            "have changed; put it back, or train in another folder"
        )


def cut_log(folder: Path, checkpoint: Checkpoint | None) -> None:
    """Leave the rows up to the checkpoint in metrics.jsonl: those behind it, torn or not, are made again."""
    path = folder / LOG
    if not path.exists():
        return
    if checkpoint is None:
        write_text(path, "")
    elif checkpoint.log is not None:
        write_text(path, path.read_bytes()[: checkpoint.log[0]].decode())
    else:
        write_text(path, "".join(json.dumps(row) + "\n" for row in _rows(path) if row["step"] <= checkpoint.step))


def _rows(path: Path) -> list[dict[str, Any]]:
    return [row for _, row in logged_jsonl(path, ("step",))] if path.exists() else []
