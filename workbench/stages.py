"""What a stage of training is about: the parameters that learn in it, and the prompts that it trains on.

Prompts that a method has made for a stage with the weights of its beginning cannot be made again later. They lie in the
run's folder, a file for each such stage, with a checksum:

    blake2b of the content (16 bytes) | content, as torch saves it
"""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from .files import whole
from .methods import LatentMethod, Prompt

PARTS = ("before", "after", "target", "question", "steps", "answer", "given")  # of a prompt, beside its example


def at_rest(method: LatentMethod, stage: int) -> frozenset[str]:
    """Names of the parameters that are trained but do not learn in this stage; ValueError for a pattern of none."""
    about, learned = method.stages()[stage], method.learned()
    for pattern in about.learns:
        if not any(fnmatchcase(name, pattern) for name in learned):
            raise ValueError(
                f"stage {about.name!r} of method {method.name!r}: {pattern!r} learns in it, and no trained parameter "
                f"is called so; they are {', '.join(sorted(learned))[:100]} ..."
            )
    return frozenset(name for name in learned if not any(fnmatchcase(name, pattern) for pattern in about.learns))


def changes(method: LatentMethod) -> bool:
    """Whether some parameters rest in some stage."""
    return any(at_rest(method, stage) for stage in range(len(method.stages())))


def packed(prompts: Sequence[Prompt]) -> bytes:
    """Prompts as a file's content: all but their examples, of which the ids."""
    rows = [{"id": p.example.id} | {name: getattr(p, name) for name in PARTS} for p in prompts]
    own = [{name: _own(value) for name, value in row.items()} for row in rows]
    made = BytesIO()
    torch.save(own, made)
    content = made.getvalue()
    return blake2b(content, digest_size=16).digest() + content


def _own(value: Any) -> Any:
    """Tensors without what else lies in their storage."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {name: _own(inner) for name, inner in value.items()}
    return [_own(inner) for inner in value] if isinstance(value, tuple) else value


def unpacked(content: bytes, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that were packed, each with the example of the one in its place; ValueError where they do not fit."""
    if blake2b(content[16:], digest_size=16).digest() != content[:16]:
        raise ValueError("its content does not match its checksum")
    rows: Any = torch.load(BytesIO(content[16:]), weights_only=True)
    if [row.pop("id") for row in rows] != [p.example.id for p in prompts]:
        raise ValueError("it is of other examples")
    return [
        replace(prompt, **{name: tuple(value) if name == "steps" else value for name, value in row.items()})
        for prompt, row in zip(prompts, rows, strict=True)
    ]


def checked(made: Sequence[Prompt], prompts: Sequence[Prompt], method: LatentMethod) -> Sequence[Prompt]:
    """What a method's `start` gave, if it is one prompt for each of the given ones."""
    if [p.example.id for p in made] != [p.example.id for p in prompts]:
        raise ValueError(
            f"{type(method).__name__}.start gave {len(made)} prompts for {len(prompts)}, or of other examples; give "
            "one for each, in their order"
        )
    return made


def path(folder: Path, stage: int) -> Path:
    """Where the prompts of a stage lie, if its method makes its own."""
    return folder / f"stage{stage}.pt"


def read(folder: Path, stage: int, prompts: Sequence[Prompt]) -> bytes | None:
    """The content of the file of a stage, None where there is none; ValueError, one sentence, for a damaged one."""
    where = path(folder, stage)
    if not where.exists():
        return None
    content = where.read_bytes()
    try:
        unpacked(content, prompts)
    except Exception as error:  # a changed byte can make torch raise anything
        raise ValueError(
            f"{where} is damaged ({' '.join(str(error).split())[:100]}); put back a copy, or train in another folder"
        ) from error
    return content


def write(folder: Path, stage: int, content: bytes) -> None:
    with whole(path(folder, stage)) as temporary:
        temporary.write_bytes(content)
