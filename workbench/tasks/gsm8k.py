"""GSM8K (Cobbe et al. 2021): school word problems with worked steps, read in their native JSONL.

`source` is a folder with train.jsonl and test.jsonl, one of those files, or a hub id (default openai/gsm8k). The dev
split is held out of train by a hash of the question (one in sixteen); test is never touched for it.
"""

import re
from hashlib import blake2b
from pathlib import Path

from ..files import read_jsonl
from . import Example, Split, Task
from .answers import equal_numbers, last_number

HUB = "openai/gsm8k"
CALCULATOR = re.compile(r"<<[^>]*>>")
INSTRUCTION = (
    "Solve the problem step by step, one short step per line. End with a line that reads '#### ' and the number."
)


def task(source: str | None = None) -> Task:
    return Task(
        name="gsm8k",
        load=lambda split: load(split, source or HUB),
        parse=last_number,
        same=equal_numbers,
        source=source,
        instruction=INSTRUCTION,
    )


def load(split: Split, source: str) -> list[Example]:
    """The examples of a split; ids are train-17, test-3: the record's place in its file."""
    part = "test" if split == "test" else "train"
    examples = [_example(f"{part}-{i}", r["question"], r["answer"]) for i, r in enumerate(_records(part, source))]
    return examples if split == "test" else [e for e in examples if _held_out(e.question) == (split == "dev")]


def _records(part: str, source: str) -> list[dict[str, str]]:
    path = Path(source).expanduser()
    if path.is_dir():
        return read_jsonl(path / f"{part}.jsonl", ("question", "answer"))
    if path.is_file():
        if path.stem != part:
            raise ValueError(f"{path} has no {part} part; give the folder that holds {part}.jsonl, or a hub id")
        return read_jsonl(path, ("question", "answer"))
    if source.count("/") != 1 or source.startswith((".", "/", "~")):
        raise ValueError(f"no folder or file at {source!r}; give one with {part}.jsonl, or a hub id like {HUB}")
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"reading {source!r} from the hub needs the package datasets (pip install 'latent-workbench[hub]'); "
            f"or give a folder with {part}.jsonl"
        ) from error
    try:
        return list(datasets.load_dataset(source, "main", split=part))  # pyright: ignore[reportReturnType, reportArgumentType]
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{source!r} could not be loaded from the hub ({reason}); give a folder with {part}.jsonl"
        ) from error


def _held_out(question: str) -> bool:
    return blake2b(question.encode(), digest_size=2).digest()[0] % 16 == 0


def _example(name: str, question: str, answer: str) -> Example:
    worked, mark, final = answer.rpartition("####")
    if not mark:
        raise ValueError(f"gsm8k record {name} has no '#### answer' line: {answer[-60:]!r}")
    steps = tuple(CALCULATOR.sub("", line).strip() for line in worked.splitlines() if line.strip())
    labels: dict[str, str | int | float] = {"steps": len(steps), "question_words": len(question.split())}
    return Example(name, question.strip(), steps, final.strip().replace(",", ""), labels)
