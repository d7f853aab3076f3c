"""Questions of a user's own, as files of every kind."""

import csv
import json
from contextlib import suppress
from pathlib import Path

import pandas as pd

import workbench as wb

SPLITS = ("train", "dev", "test")


def svamp(count: int = 60) -> list[dict]:
    return [
        {
            "ID": f"chal-{k}", "Body": f"Tom has {k + 9}  pens and gives 3 pens away.", "Question": "How many has Tom?",
            "Equation": f"( {k + 9}.0 - 3.0 )", "Answer": float(k + 6), "Type": "Subtraction",
        }
        for k in range(count)
    ]  # fmt: skip


def written(path: Path, rows: list[dict], text: str | None = None) -> str:
    """The rows as a file of the kind that the path's name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix in (".csv", ".tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text(text or "")
    return str(path)


def given(task) -> dict[str, wb.Example]:
    """All examples, whichever split they are in."""
    found: dict[str, wb.Example] = {}
    for split in SPLITS:
        with suppress(ValueError):  # one that has none
            found |= {example.id: example for example in task.examples(split)}
    return found
