"""What is asked of `collect`, checked before the first answer: whatever would be refused after the last one."""

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import nn

from ..backbone import Decoding
from ..config import Notice
from ..methods import LatentMethod, Prompt, Thoughts
from ..store import COORDINATES, storable
from ..tasks import Example, Task
from .changes import Change, change_named

_SAMPLED = 4096  # numbers of a frozen tensor that tell it from others


class NothingDiffers(Notice):
    """Several answers are asked for that can only be the same."""


def whole_numbers(**given: int) -> None:
    """ValueError for the first number that is no whole one from 1 on."""
    for name, number in given.items():
        if isinstance(number, bool) or not hasattr(number, "__index__"):
            raise ValueError(f"{name}={number!r}: it must be a whole number")
        if number < 1:
            raise ValueError(f"{name}={number}: it must be at least 1")


def seed_of(seed: int) -> int:
    """The seed, if a store can hold it."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__") or not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed={str(seed)[:40]}: it must be a whole number of at most 63 bits")
    return operator.index(seed)


@dataclass(frozen=True)
class Asked:
    """The settings of a collection, checked."""

    decoding: Decoding
    paths: int
    draws: int
    batch_size: int
    seed: int
    readout: int


def settings(
    method: LatentMethod, task: Task, decoding: Decoding | None, paths: int, draws: int, batch_size: int, seed: int,
    readout: int,
) -> Asked:  # fmt: skip
    """What is asked for, with the task's own length where none is given; ValueError for what cannot be."""
    whole_numbers(paths=paths, draws=draws, batch_size=batch_size)
    decoding = decoding or Decoding()
    decoding = replace(decoding, max_new_tokens=decoding.max_new_tokens or task.answer_tokens)
    if not 0 <= readout <= len(method.backbone.table):
        raise ValueError(
            f"readout={readout}: {method.backbone.name!r} has {len(method.backbone.table)} tokens, "
            "give 1 to that many, or 0"
        )
    return Asked(decoding, int(paths), int(draws), int(batch_size), seed_of(seed), readout)


def change_of(change: str | Change | None, count: int) -> Change | None:
    """The change that is meant, tried on as many empty thoughts: what it refuses is refused before thinking."""
    if not isinstance(change, str):
        return change
    made = change_named(change)
    made([Thoughts(torch.zeros(1, 1, 0, 1), torch.zeros(1, 1, 0, dtype=torch.bool))] * count)
    return made


def coordinates(examples: Sequence[Example]) -> dict[str, Any]:
    """Ids, questions, answers and labels as a store has them; ValueError, one sentence, where it cannot."""
    if not examples:
        raise ValueError("no examples to collect; give at least one")
    for example in examples:
        parts = {"id": example.id, "question": example.question, "answer": example.answer}
        parts |= {f"step {k}": step for k, step in enumerate(example.steps)}
        for name, value in parts.items():
            if not isinstance(value, str):
                raise ValueError(f"{name} of example {_short(example.id)} is a {type(value).__name__}: give text")
    ids = _texts([example.id for example in examples])
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise ValueError(f"example id {_short(name)} occurs more than once: ids must be unique, give each its own")
        seen.add(name)
    found: dict[str, Any] = {
        "example": ids,
        "question": ("example", _texts([example.question for example in examples])),
        "gold": ("example", _texts([example.answer for example in examples])),
    }
    for name in examples[0].labels:
        _check_label_name(name)
    names = set(examples[0].labels)
    for example in examples:
        other = sorted(map(str, names ^ set(example.labels)))
        if other:
            first, second = _short(examples[0].id), _short(example.id)
            raise ValueError(
                f"examples {first} and {second} do not have the same labels (only one has {_short(other[0])}): "
                "give each label to all examples, or to none"
            )
    return found | {f"label_{name}": ("example", _label(name, examples)) for name in examples[0].labels}


def _check_label_name(name: object) -> None:
    if not isinstance(name, str) or not name or "/" in name or storable(name) != name:
        raise ValueError(f"label {_short(name)} cannot be stored: name labels by text without '/' and NUL")


def _label(name: str, examples: Sequence[Example]) -> np.ndarray:
    """One label of all examples: text, numbers, or yes and no."""
    values = [example.labels[name] for example in examples]
    kinds: dict[str, Any] = {"text": str, "numbers": (bool, int, float, np.bool_, np.integer, np.floating)}
    fits = [[isinstance(value, kind) for kind in kinds.values()] for value in values]
    odd = next((k for k, own in enumerate(fits) if not any(own) or own != fits[0]), None)
    if odd is not None:
        raise ValueError(
            f"label {_short(name)} of example {_short(examples[odd].id)} is {_short(values[odd])}, and "
            f"{_short(values[0])} of example {_short(examples[0].id)}: give it as text to all, or as a number to all"
        )
    array = _texts([str(value) for value in values]) if fits[0][0] else np.array(values)
    if array.dtype.kind == "O" and not fits[0][0]:
        raise ValueError(f"label {_short(name)} holds a number of more than 64 bits: give it as text")
    kind = COORDINATES.get(f"label_{name}")
    if kind is not None and array.dtype.kind not in "iu":
        raise ValueError(f"label {_short(name)} is known to diagnostics as whole numbers: give such, or rename it")
    return array


def _texts(values: Sequence[str]) -> np.ndarray:
    """Texts as objects: an array of fixed width would make all as large as the longest."""
    array = np.empty(len(values), dtype=object)
    array[:] = [storable(value) for value in values]
    return array


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def thoughts_problem(thoughts: Thoughts, example: Example) -> None:
    """ValueError where a question's thoughts are not finite: known as soon as they are thought."""
    parts = thoughts.vectors if thoughts.mixture is None else thoughts.mixture.weights
    if not bool(torch.isfinite(parts[thoughts.mask]).all()):
        raise ValueError(
            f"the thoughts of example {_short(example.id)} are NaN or infinite: look at the training run, or at the "
            "change of thoughts"
        )


def repeated(thoughts: Sequence[Thoughts], decoding: Decoding, draws: int) -> tuple[str, bool]:
    """A sentence about paths or draws that cannot differ ("" if they can), and whether answers are only copies."""
    greedy = decoding.temperature == 0 or decoding.top_k == 1
    paths = thoughts[0].mask.shape[1]
    same = paths > 1 and all(_same_paths(t) for t in thoughts)
    told = []
    if same:
        rest = "and so are their answers, for decoding is greedy" if greedy else "which only what is drawn tells apart"
        told.append(f"the {paths} paths of every question are the same thoughts, {rest}")
    if draws > 1 and greedy:
        told.append(f"the {draws} draws of every path are the same answer, for decoding is greedy")
    return "; ".join(told), greedy and (same or draws > 1)


def _same_paths(thoughts: Thoughts) -> bool:
    parts = [thoughts.mask, thoughts.vectors]
    parts += [thoughts.mixture.tokens, thoughts.mixture.weights] if thoughts.mixture else []
    return all(bool((part == part[:, :1]).all()) for part in parts)


def about(
    method: LatentMethod, task_name: str, prompts: Sequence[Prompt], settings: Mapping[str, object]
) -> dict[str, str]:
    """What decides the thoughts and answers of a collection, in a form that can be compared."""
    backbone = method.backbone
    read = [(p.example, *(v.tolist() for v in (p.before, p.after, p.question, p.answer))) for p in prompts]
    found = {
        "method": method.name,
        "options": repr(method.config),
        "backbone": f"{backbone.name} {backbone.revision or ''}".strip(),
        "task": task_name,
        "examples or prompts": digest(repr(read).encode()),
        **{name: str(value) for name, value in settings.items()},
        "device and number format": f"{backbone.device.type} {backbone.table.dtype}",
        "weights": weights_digest(method),
    }
    return {name: value if len(value) < 200 else digest(value.encode()) for name, value in found.items()}


def digest(content: bytes) -> str:
    return blake2b(content, digest_size=16).hexdigest()


def weights_digest(module: nn.Module) -> str:
    """What tells these weights from others: trainable ones to the bit, of frozen ones some thousand numbers each."""
    found = blake2b(digest_size=16)
    tensors = [*module.named_parameters(), *module.named_buffers()]
    for name, tensor in tensors:
        flat = tensor.detach().reshape(-1)
        if not tensor.requires_grad:
            flat = flat[:: max(1, len(flat) // _SAMPLED)]
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(flat.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()
