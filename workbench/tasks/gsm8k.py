"""GSM8K (Cobbe et al. 2021): school word problems with worked steps, read in their native JSONL.

`source` is a folder with train.jsonl and test.jsonl, one of those files, or a hub id (default openai/gsm8k). The dev
split is held out of train by a hash of the question (one in sixteen); test is never touched for it.
"""

import re
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..files import numbered_jsonl
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
    examples = [_example(f"{part}-{i}", where, record) for i, (where, record) in enumerate(_records(part, source))]
    return examples if split == "test" else [e for e in examples if _held_out(e.question) == (split == "dev")]


def _records(part: str, source: str) -> list[tuple[str, dict[str, Any]]]:
    """The records of a part, each with the place it was found at."""
    path = Path(source).expanduser()
    if path.is_file() and path.stem != part:
        raise ValueError(f"{path} has no {part} part; give the folder that holds {part}.jsonl, or a hub id")
    if path.exists():
        path = path / f"{part}.jsonl" if path.is_dir() else path
        rows = numbered_jsonl(path, ("question", "answer"))
        return [(f"{path}, line {number}", record) for number, record in rows]
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
        rows: Any = datasets.load_dataset(source, "main", split=part)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{source!r} could not be loaded from the hub ({reason}); give a folder with {part}.jsonl"
        ) from error
    return [(f"{source}, {part} record {number}", record) for number, record in enumerate(rows)]


def _held_out(question: str) -> bool:
    return blake2b(question.encode(), digest_size=2).digest()[0] % 16 == 0


def _example(name: str, where: str, record: dict[str, Any]) -> Example:
    question, answer = record["question"], record["answer"]
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ValueError(f"{where}: 'question' and 'answer' must be text")
    worked, mark, final = answer.rpartition("####")
    if not mark:
        raise ValueError(f"{where}: the answer must end in a line '#### number', it ends in {answer[-60:]!r}")
    steps = tuple(CALCULATOR.sub("", line).strip() for line in worked.splitlines() if line.strip())
    labels: dict[str, str | int | float] = {"steps": len(steps), "question_words": len(question.split())}
    return Example(name, question.strip(), steps, final.strip().replace(",", ""), labels)
