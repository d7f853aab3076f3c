"""Every registered task by every registered method: what is collected is written, and read again as it was."""

import json

import pytest
from families import family

import workbench as wb
from workbench.methods import METHODS, build
from workbench.methods.lt_tuning import LTTuningConfig
from workbench.methods.ltm import LTMConfig
from workbench.methods.soft_thinking import SoftThinkingConfig
from workbench.tasks import TASKS, load_task

SHORT = {
    "soft-thinking": SoftThinkingConfig(max_thoughts=3),
    "lt-tuning": LTTuningConfig(forced_thoughts=2),
    "ltm": LTMConfig(width=16, layers=1, heads=1, latents=2, test_steps=2),
}
DATES = {
    "examples": [
        {"input": f"Tom was born {day} days ago. When?", "target_scores": {"05/09/2001": 1, "06/01/2001": 0}}
        for day in range(1, 60)
    ]
}
# Native files, one JSON value each or several lines of them; tasks that are made here have none.
FILES = {
    "test.jsonl": {  # of several tasks: each reads the fields that are its own
        "question": "Tom has 3 + {n}?",
        "answer": "3 + 1 = 4\n#### 4",
        "problem": "Find {n}.",
        "solution": "It is 4.",
        "subject": "Algebra",
        "level": 1,
        "unique_id": "m{n}",
        "rationale": "Add.",
        "correct": "B",
        "options": ["A)1", "B)2", "C)3", "D)4", "E)5"],
    },
    "test_socratic.jsonl": {"question": "Tom has 3 + {n}?", "answer": "How many? ** 3 + 1 = 4\n#### 4"},
    "strategyqa_dev.jsonl": {"qid": "q{n}", "question": "Is {n} even?", "answer": True, "facts": ["It ends in 8."]},
}
MADE = ("arith", "arith-shift", "invented-more", "invented-sums", "invented-told", "prosqa", "toy", "text")
APART = {"math500": "math", "jsonl": "own"}  # task: folder of its own


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Native files of all tasks that read some, two questions each; MATH-500's answer is its own."""
    folder = tmp_path_factory.mktemp("native")
    for name, row in FILES.items():
        lines = [json.dumps(row).replace("{n}", str(n)) for n in (3, 8)]
        (folder / name).write_text("\n".join(lines))
    (folder / "task.json").write_text(json.dumps(DATES))
    own = folder / "own"
    own.mkdir()
    (own / "test.jsonl").write_text("\n".join(json.dumps({"question": f"{n} + 1?", "answer": n + 1}) for n in (3, 8)))
    math = folder / "math"
    math.mkdir()
    (math / "test.jsonl").write_text((folder / "test.jsonl").read_text().replace("3 + 1 = 4\\n#### 4", "4"))
    return folder


def loaded(name, folder):
    return load_task(name, None if name in MADE else str(folder / APART.get(name, "")))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TASKS))
def test_what_any_method_collects_of_any_task_is_written_and_read(folder, tmp_path, name):
    task = loaded(name, folder)
    examples = task.examples("test", 2)
    for method in sorted(METHODS):
        path = tmp_path / f"{method}.nc"
        made = build(method, family("qwen3"), SHORT.get(method))
        found = wb.collect(made, task, examples, decoding=wb.Decoding(4), out=path)
        back = wb.store.load(path)
        for variable in ("text", "prediction", "correct", "mask"):
            assert back[variable].values.tolist() == found[variable].values.tolist(), (method, variable)
        assert "step_text" in back or not any(e.steps for e in examples), method


def test_every_task_has_questions(folder):
    for name in TASKS:
        assert len(loaded(name, folder).examples("test", 2)) == 2
