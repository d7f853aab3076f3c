"""GSM8K: the native files, read whole, split cleanly and never with the test set; what is wrong is named."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.tasks import load_task

DATA = Path(__file__).parents[2] / "shared" / "data" / "gsm8k"
SPLITS = ("train", "dev", "test")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"GSM8K's JSONL files are not at {DATA}")


@needs_data
def test_gsm8k_splits():
    task = load_task("gsm8k", str(DATA))
    examples = {split: task.examples(split) for split in SPLITS}
    assert len(examples["train"]) + len(examples["dev"]) == 7473
    assert len(examples["test"]) == 1319
    assert len(examples["dev"]) / 7473 == pytest.approx(1 / 16, abs=0.01)
    ids = [e.id for split in SPLITS for e in examples[split]]
    assert len(set(ids)) == 7473 + 1319
    assert {e.id.split("-")[0] for e in examples["dev"]} == {"train"}  # test is never touched for tuning
    assert task.examples("dev") == examples["dev"]
    assert task.examples("test", 3) == examples["test"][:3]


@needs_data
def test_every_gold_answer_parses_to_itself():
    task = load_task("gsm8k", str(DATA))
    for split in SPLITS:
        for example in task.examples(split):
            assert task.parse(f"{task.mark} {example.answer}") == example.answer
            whole = "\n".join([*example.steps, f"{task.mark} {example.answer}"])
            found = task.parse(whole)
            assert found is not None
            assert task.same(found, example.answer)


@needs_data
def test_gsm8k_steps_are_clean():
    for example in load_task("gsm8k", str(DATA)).examples("test"):
        assert example.steps
        assert example.labels["steps"] == len(example.steps)
        assert not any("<<" in step or ">>" in step or "####" in step or "\n" in step for step in example.steps)
        assert all(step == step.strip() and step for step in example.steps)


@needs_data
def test_gsm8k_first_example():
    example = load_task("gsm8k", str(DATA / "test.jsonl")).examples("test", 1)[0]
    assert example.id == "test-0"
    assert example.question.startswith("Janet’s ducks lay 16 eggs per day.")
    assert example.answer == "18"
    assert example.steps[0] == "Janet sells 16 - 3 - 4 = 9 duck eggs a day."


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records))
    return path


RECORD = {"question": "How many?", "answer": "1 + 1 = <<1+1=2>>2\nSo it is 1,002.\n#### 1,002"}


def test_gsm8k_reads_a_folder_and_a_file(tmp_path):
    write(tmp_path / "test.jsonl", RECORD, "\n", RECORD)
    for source in (tmp_path, tmp_path / "test.jsonl"):
        first, second = load_task("gsm8k", str(source)).examples("test")
        assert (first.id, second.id) == ("test-0", "test-1")
        assert first.steps == ("1 + 1 = 2", "So it is 1,002.")
        assert first.answer == "1002"


def test_what_is_no_text_is_one_sentence(tmp_path):
    (tmp_path / "test.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"test\.jsonl is not UTF-8 text; save it as UTF-8, or give a JSONL file$"):
        load_task("gsm8k", str(tmp_path)).examples("test")


def test_line_ends_inside_text_are_kept(tmp_path):
    """U+2028 and the like are line ends to Python and plain characters to JSON."""
    question = "How many\u2028are\x85there?"
    (tmp_path / "test.jsonl").write_text(json.dumps(RECORD | {"question": question}, ensure_ascii=False) + "\r\n")
    assert load_task("gsm8k", str(tmp_path)).examples("test")[0].question == question


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        ([RECORD, "{broken\n"], r"test\.jsonl, line 2: not JSON"),
        ([RECORD, "\n", {"question": "?"}], r"test\.jsonl, line 3: lacks 'answer'; each line needs question, answer"),
        (["[1, 2]\n"], r"test\.jsonl, line 1: lacks 'question', 'answer'"),
        (
            [RECORD, {"question": "?", "answer": "5"}],
            r"test\.jsonl, line 2: the answer must end in a line '#### number', it ends in '5'$",
        ),
        ([{"question": 3, "answer": "#### 5"}], r"test\.jsonl, line 1: 'question' and 'answer' must be text$"),
        ([], "split 'test' of task 'gsm8k' is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path, lines, complaint):
    write(tmp_path / "test.jsonl", *lines)
    with pytest.raises(ValueError, match=complaint) as error:
        load_task("gsm8k", str(tmp_path)).examples("test")
    assert "\n" not in str(error.value)


def test_missing_data_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"no file at .*train\.jsonl; give the path of a JSONL file"):
        load_task("gsm8k", str(tmp_path)).examples("train")
    with pytest.raises(ValueError, match=r"no folder or file at './nowhere'; give one with test\.jsonl, or a hub id"):
        load_task("gsm8k", "./nowhere").examples("test")
    write(tmp_path / "test.jsonl", RECORD)
    with pytest.raises(ValueError, match=r"test\.jsonl has no train part; give the folder that holds train\.jsonl"):
        load_task("gsm8k", str(tmp_path / "test.jsonl")).examples("train")


def test_gsm8k_from_the_hub(monkeypatch):
    """The hub's rows go through the same code; without a network the message says what to do."""
    asked = []

    def load_dataset(*given, **named):
        asked.append((given, named))
        return [RECORD]

    monkeypatch.setitem(__import__("sys").modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert load_task("gsm8k").examples("test")[0].answer == "1002"
    assert load_task("gsm8k", "someone/gsm8k").examples("test")[0].id == "test-0"
    assert asked == [
        (("openai/gsm8k", "main"), {"split": "test"}),
        (("someone/gsm8k", "main"), {"split": "test"}),
    ]


def test_gsm8k_without_network_or_package(monkeypatch):
    def offline(*given, **named):
        raise ConnectionError("Couldn't reach the Hub\nand much more")

    monkeypatch.setitem(__import__("sys").modules, "datasets", SimpleNamespace(load_dataset=offline))
    with pytest.raises(ValueError, match=r"'openai/gsm8k' could not be loaded from the hub \(Couldn't reach the Hub\)"):
        load_task("gsm8k").examples("test")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)  # as if it were not installed
    with pytest.raises(ValueError, match="needs the package datasets"):
        load_task("gsm8k").examples("test")
