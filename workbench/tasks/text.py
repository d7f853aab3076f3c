"""Any text as blocks of so many bytes, to be modelled one by one: a file, or all text files of a folder.

    workbench train --method ltm --task text --data notes/ --options.tokenizer bytes
    --data notes/,block=256                                    blocks of at most 256 bytes (128 unless given)

Of each file the first eight tenths are for training, the next tenth is dev and the last one test, so that blocks of
two splits seldom touch. Without a source it is arithmetic problems, made and worked, one behind the other.
"""

from functools import lru_cache
from itertools import islice
from pathlib import Path

from ..files import placed, read_text
from . import Example, Split, Task
from .arith import DIFFICULTIES, stream

DESCRIBED = True  # by a path and the size of blocks: see `split_source`
BLOCK, MADE = 128, 2000  # bytes of a block; problems of the text that is made
SHARES: dict[Split, tuple[float, float]] = {"train": (0.0, 0.8), "dev": (0.8, 0.9), "test": (0.9, 1.0)}


def split_source(source: str | None) -> tuple[str | None, int]:
    """The path and the size of blocks in "PATH,block=N"; ValueError for a size that is none."""
    path, mark, size = (source or "").partition(",block=")
    if mark and not (size.isdecimal() and 0 < int(size) <= 2**20):
        raise ValueError(f"block={size[:20]} is no size of a block; give bytes from 1 to {2**20}")
    return (placed(path) if path else None), int(size) if mark else BLOCK


def blocks(text: str, size: int) -> list[str]:
    """The text cut into pieces of at most so many bytes, no character torn; blank ones are left out."""
    found, start, count = [], 0, 0
    for place, character in enumerate(text):
        width = len(character.encode("utf-8", "surrogatepass"))
        if count + width > size:
            found.append(text[start:place])
            start, count = place, 0
        count += width
    return [one for one in [*found, text[start:]] if one.strip()]


@lru_cache(maxsize=4)
def texts(path: str | None) -> tuple[str, ...]:
    """The files' contents; ValueError where there is no text."""
    if path is None:
        made = (problem.example for problem in islice(stream("train", 1, DIFFICULTIES["standard"]), MADE))
        return ("\n\n".join("\n".join([e.question, *e.steps, f"#### {e.answer}"]) for e in made),)
    files = sorted(p for p in Path(path).rglob("*") if p.is_file()) if Path(path).is_dir() else [Path(path)]
    found = []
    for file in files:
        try:
            found.append(read_text(file, "a text file or a folder of such"))
        except ValueError:
            if len(files) == 1:
                raise
    if not any(one.strip() for one in found):
        raise ValueError(f"no text at {path}; give a text file, or a folder with some")
    return tuple(found)


def examples(path: str | None, size: int, split: Split) -> list[Example]:
    """The blocks of a split."""
    low, high = SHARES[split]
    found = []
    for text in texts(path):
        own = blocks(text, size)
        found += own[round(low * len(own)) : round(high * len(own))]
    return [Example(f"text-{split}-{k}", one, (), one, {}) for k, one in enumerate(found)]


def task(source: str | None = None) -> Task:
    """Blocks of a text; an answer is right where a whole block is written again."""
    path, size = split_source(source)
    return Task(
        name="text",
        load=lambda split: examples(path, size, split),
        parse=lambda written: written or None,
        same=lambda found, gold: found == gold,
        source=None if source is None else (path or "") + (f",block={size}" if size != BLOCK else ""),
        answer_tokens=size,
        texts=True,
    )
