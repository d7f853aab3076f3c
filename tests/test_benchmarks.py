"""Benchmarks: real files load whole, splits share no question, gold answers read back, bad input is one sentence."""

import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.tasks import Example, Task, load_task
from workbench.tasks.math500 import worked_steps

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real benchmark files are not at {DATA}")
FOLDERS = {"gsm8k-socratic": "gsm8k", "date_understanding-all": "date_understanding"}
COUNTS = {  # train and dev together, dev where it is a part of its own, test
    "gsm8k": (7473, None, 1319),
    "gsm8k-socratic": (None, None, 1319),
    "aqua": (None, 254, 254),
    "strategyqa": (1832, None, 458),
    "math500": (None, None, 500),
    "date_understanding": (270, None, 99),
    "date_understanding-all": (None, None, 369),
}


def real(name: str, **options) -> Task:
    return load_task(name, str(DATA / FOLDERS.get(name, name)), **options)


def real_examples(name: str) -> list[Example]:
    """All that is there."""
    task, (train, dev, test) = real(name), COUNTS[name]
    splits = [*(["train"] if train else []), *(["dev"] if train or dev else []), *(["test"] if test else [])]
    return [example for split in splits for example in task.examples(split)]  # type: ignore[arg-type]


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(r if isinstance(r, str) else json.dumps(r) + "\n" for r in records))
    return path


# ---------------------------------------------------------------------------------------------------------- real files


@needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_counts(name):
    task, (train, dev, test) = real(name), COUNTS[name]
    assert len(task.examples("test")) == test
    if train:
        assert len(task.examples("train")) + len(task.examples("dev")) == train
        assert 0.05 < len(task.examples("dev")) / train < 0.25
    if dev:
        assert len(task.examples("dev")) == dev


@needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_every_gold_answer_parses_to_itself(name):
    task = real(name)
    for example in real_examples(name):
        announced = f"{task.mark} {example.answer}"
        assert task.parse(announced) == example.answer
        assert task.parse("\n".join([*example.steps, announced])) == example.answer
        assert task.same(example.answer, example.answer)


@needs_data
@pytest.mark.parametrize("name", COUNTS)
def test_examples_are_whole(name):
    examples = real_examples(name)
    assert len({e.id for e in examples}) == len(examples)
    for e in examples:
        assert e.labels["steps"] == len(e.steps)
        assert e.labels["question_words"] == len(e.question.split()) > 0
        assert all(step and step == step.strip() and "\n" not in step for step in e.steps)
        assert bool(e.steps) != name.startswith("date_understanding")  # which has no worked steps


@needs_data
@pytest.mark.parametrize("name", ["gsm8k", "strategyqa", "date_understanding", "aqua"])
def test_no_question_is_in_two_splits(name):
    seen: set[str] = set()
    for split in ("dev", "test") if name == "aqua" else ("train", "dev", "test"):
        questions = {" ".join(e.question.casefold().split()) for e in real(name).examples(split)}
        assert not questions & seen
        seen |= questions


@needs_data
def test_both_gsm8k_formats_have_the_same_steps():
    for plain, asked in zip(real("gsm8k").examples("test"), real("gsm8k-socratic").examples("test"), strict=True):
        assert (plain.question, plain.answer, len(plain.steps)) == (asked.question, asked.answer, len(asked.steps))
        for short, long in zip(plain.steps, asked.steps, strict=True):
            assert long.split()[-len(short.split()) :] == short.split()
            assert "**" not in long
            assert len(long) > len(short)


@needs_data
def test_dates_are_shuffled():
    """The source lists the right option first in 364 of 369; shuffled, no letter is the answer much more often."""
    examples = real("date_understanding-all").examples("test")
    letters = Counter(e.answer for e in examples)
    assert set(letters) == set("ABCDEF")
    assert max(letters.values()) < 369 * 0.25
    assert examples == real("date_understanding-all").examples("test")
    native = json.loads((DATA / "date_understanding" / "task.json").read_text())["examples"]
    for e, row in zip(examples, native, strict=True):
        options = dict(line.split(") ", 1) for line in e.question.splitlines()[1:])
        assert row["target_scores"][options[e.answer]] == 1
        assert set(options.values()) == set(row["target_scores"])


@needs_data
def test_no_story_is_in_two_splits_of_dates():
    stories = [{e.labels["story"] for e in real("date_understanding").examples(s)} for s in ("train", "dev", "test")]
    assert [len(s) for s in stories] == [24, 6, 11]
    assert len(set.union(*stories)) == 41


@needs_data
def test_labels():
    levels = Counter(e.labels["level"] for e in real("math500").examples("test"))
    assert set(levels) == {1, 2, 3, 4, 5}
    assert len({e.labels["subject"] for e in real("math500").examples("test")}) == 7
    assert {e.labels["options"] for e in real("date_understanding").examples("test")} == {5, 6}
    aqua = real("aqua").examples("dev")[0]
    assert aqua.question.endswith("\nA) 32400\nB) 6000\nC) 600\nD) 60000\nE) 10")
    assert aqua.steps[-1] == "Speed in miles/minutes = 60 * 540 = 32400"  # "Correct answer - A" is no step


@needs_data
def test_the_reference_on_real_gold_answers():
    """On well-behaved completions it reads every gold answer but the two negative ones."""
    missed = {}
    for name in ("gsm8k", "aqua", "strategyqa", "math500"):
        task = real(name, parse="reference")
        texts = ((e.answer, f"Therefore, the final answer is: $\\boxed{{{e.answer}}}$.") for e in task.examples("test"))
        missed[name] = [gold for gold, text in texts if not task.same(task.parse(text) or "", gold)]
    assert missed == {"gsm8k": ["-10", "-3"], "aqua": [], "strategyqa": [], "math500": []}


@needs_data
def test_dates_of_the_reference_are_ours():
    """Only the reading differs: examples, splits and gold answers are the same."""
    assert real("date_understanding", parse="reference").examples("dev") == real("date_understanding").examples("dev")


# -------------------------------------------------------------------------------------------------- splits and sources

MATH = {"problem": "What is $1+1$?", "solution": "It is $\\boxed{2}$.", "answer": "2", "subject": "Algebra", "level": 1}
AQUA = {"question": "How many?", "options": ["A)1", "B) 2", "C)3 x", "D)4", "E)5"], "rationale": "x\n", "correct": "B"}
DATE = {"input": "Today is May 1. What day is it?", "target_scores": {"05/01": 1, "05/02": 0, "05/03": 0}}
FACT = {"qid": "q1", "question": "Is ice cold?", "answer": True, "facts": "Ice is frozen.\nFrozen is cold."}


def test_math_can_be_trained_on_other_problems(tmp_path):
    """What a folder's train file shares with its test file is left out; dev is held out of the rest."""
    write(tmp_path / "test.jsonl", MATH | {"unique_id": "t"})
    others = [MATH | {"problem": f"What is $1+{i}$?", "unique_id": f"u{i}"} for i in range(1, 201)]
    write(tmp_path / "train.jsonl", *others)
    train, dev = (load_task("math500", str(tmp_path)).examples(split) for split in ("train", "dev"))
    assert len(train) + len(dev) == 199
    assert 3 < len(dev) < 30
    assert not {e.question for e in train} & {e.question for e in dev}
    assert MATH["problem"] not in {e.question for e in train + dev}


def test_what_has_no_train_split_says_so(tmp_path):
    write(tmp_path / "test.jsonl", MATH | {"unique_id": "t"})
    with pytest.raises(ValueError, match=r"^MATH-500 is a test set and has no dev split; give a folder .*$"):
        load_task("math500", str(tmp_path)).examples("dev")
    with pytest.raises(ValueError, match=r"^date_understanding-all has no train split; use date_understanding,"):
        load_task("date_understanding-all").examples("train")


def test_the_hub_is_asked_for_native_parts(monkeypatch):
    asked = []

    def load_dataset(*given, **named):
        asked.append((*given, named["split"]))
        question = {"inputs": "Q: Today is May 1. What day is it?\nA:"}
        options = {"multiple_choice_targets": ["05/01", "05/02"], "multiple_choice_scores": [1, 0]}
        gsm = {"question": "How many?", "answer": "How many? ** 1 + 1 = <<1+1=2>>2\n#### 2"}
        rows: dict[str, dict] = {
            "HuggingFaceH4/MATH-500": MATH | {"unique_id": "t"},
            "deepmind/aqua_rat": AQUA,
            "ChilleD/StrategyQA": FACT | {"facts": FACT["facts"].split("\n")},
            "tasksource/bigbench": question | options,
            "openai/gsm8k": gsm,
        }
        return [rows[given[0]]]

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert load_task("math500").examples("test")[0].answer == "2"
    assert load_task("aqua").examples("dev")[0].steps == ("x",)
    assert load_task("strategyqa").examples("test")[0].steps == ("Ice is frozen.", "Frozen is cold.")
    assert load_task("date_understanding-all").examples("test")[0].question.startswith("Today is May 1. What day is it")
    assert load_task("gsm8k-socratic").examples("test")[0].steps == ("How many? 1 + 1 = 2",)
    assert asked == [
        ("HuggingFaceH4/MATH-500", "test"),
        ("deepmind/aqua_rat", "raw", "validation"),
        ("ChilleD/StrategyQA", "test"),
        ("tasksource/bigbench", "date_understanding", "train+validation"),
        ("openai/gsm8k", "socratic", "test"),
    ]
    with pytest.raises(ValueError, match=r"^openai/gsm8k, test record 0: lacks 'qid', 'facts'; each record needs qid,"):
        load_task("strategyqa", "openai/gsm8k").examples("test")


def test_the_order_in_the_source_has_no_say(tmp_path):
    """The same options in another order make the same question."""
    other = DATE | {"target_scores": dict(reversed(list(DATE["target_scores"].items())))}
    first, second = (
        load_task("date_understanding-all", str(write(tmp_path / f"{i}.json", {"examples": [d]}))).examples("test")
        for i, d in enumerate((DATE, other))
    )
    assert first == second


@pytest.mark.parametrize(
    ("name", "lines", "complaint"),
    [
        (
            "gsm8k",
            [{"question": "?", "answer": "x\n#### five"}],
            r"line 1: the answer must end in a line '#### number'",
        ),
        ("gsm8k-socratic", [{"question": "?", "answer": "1+1=2\n#### 2"}], r"line 1: .*'sub-question \*\* step', it"),
        ("math500", [MATH], r"test.jsonl, line 1: lacks 'unique_id'; each line needs"),
        (
            "math500",
            ["\n", MATH | {"level": "Level 1", "unique_id": "t"}],
            r"test.jsonl, line 2: 'level' must be a whol",
        ),
        (
            "math500",
            [MATH | {"unique_id": "t", "answer": " "}],
            r"test.jsonl, line 1: 'answer' must be text, it is ' '$",
        ),
        ("aqua", [AQUA, AQUA | {"options": ["A)1"]}], r"test.jsonl, line 2: 'options' must be five texts"),
        ("aqua", [AQUA | {"options": None}], r"test.jsonl, line 1: 'options' must be five texts"),
        ("aqua", [AQUA | {"correct": "F"}], r"test.jsonl, line 1: 'correct' must be a letter A to E, it is 'F'$"),
        ("strategyqa", [FACT | {"answer": "yes"}], r"_dev.jsonl, line 1: 'answer' must be true or false, it is 'yes'$"),
        ("strategyqa", [FACT | {"facts": [1]}], r"_dev.jsonl, line 1: 'facts' must be text with a fact per line"),
        ("strategyqa", [FACT, "nonsense\n"], r"_dev.jsonl, line 2: not JSON"),
        ("date_understanding", ["{}"], r"task.json, line 1: no list 'examples'"),
        ("date_understanding", ['{"examples":\n\n[x'], r"task.json, line 3: not JSON"),
        (
            "date_understanding",
            ['{"examples": [\n', DATE, ",\n", "7]}"],
            r"task.json, line 4: an example must be an obj",
        ),
        (
            "date_understanding",
            ['{"examples": [\n', DATE, ",", {"input": "?"}, "]}"],
            r"line 3: lacks 'inputs', 'multi",
        ),
        (
            "date_understanding",
            [{"examples": [DATE | {"target_scores": {"a": 1, "b": 1}}]}],
            r"line 1: there must be 2",
        ),
        ("date_understanding", [{"examples": [DATE | {"input": 3}]}], r"line 1: 'input' must be text, it is 3$"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, name, lines, complaint):
    files = {
        "strategyqa": "strategyqa_dev.jsonl",
        "date_understanding": "task.json",
        "gsm8k-socratic": "test_socratic.jsonl",
    }
    write(tmp_path / files.get(name, "test.jsonl"), *lines)
    with pytest.raises(ValueError, match=complaint) as error:
        load_task(name, str(tmp_path)).examples("test")
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aqua", "strategyqa", "date_understanding", "prosqa"])
def test_how_a_file_was_saved(tmp_path, name):
    """With a byte order mark and Windows' line ends it is read; in UTF-16 it is said how to save it."""
    rows: dict[str, tuple[str, object]] = {
        "gsm8k": ("test.jsonl", {"question": "Anna’s?", "answer": "x\n#### 5"}),
        "math500": ("test.jsonl", MATH | {"unique_id": "t"}),
        "aqua": ("test.jsonl", AQUA),
        "strategyqa": ("strategyqa_dev.jsonl", FACT),
        "date_understanding": ("task.json", {"examples": [DATE]}),
        "prosqa": (
            "test.json",
            [{"question": "Tom is a wugs. Is Tom a wugs or daxes?", "answer": "Tom is a wugs.", "steps": []}],
        ),
    }
    file, content = rows[name]
    path, task = tmp_path / file, load_task(f"{name}-all" if name == "date_understanding" else name, str(tmp_path))
    text = json.dumps(content, ensure_ascii=False, indent=None if file.endswith("l") else 1) + "\n"
    path.write_text(text, encoding="utf-8")
    plain = task.examples("test")
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    assert task.examples("test") == plain
    for encoding in ("utf-16", "utf-16-le", "utf-32-be"):
        path.write_text(text, encoding=encoding)
        with pytest.raises(ValueError, match=r"is not UTF-8 text; save it as UTF-8, or give [^\n]*$"):
            task.examples("test")
    path.write_text("[" * 5000 + "]" * 5000 if not file.endswith("l") else '{"a":' * 5000 + "1" + "}" * 5000)
    with pytest.raises(ValueError, match=r"not JSON \(nested too deep\); [^\n]*$"):
        task.examples("test")


@pytest.mark.parametrize(
    ("name", "file", "row"),
    [
        ("gsm8k", "test.jsonl", {"question": "?", "answer": "long " * 999}),
        ("math500", "test.jsonl", MATH | {"unique_id": "t", "answer": "x" * 2000}),
        ("math500", "test.jsonl", MATH | {"unique_id": "t", "level": "y" * 2000}),
        ("aqua", "test.jsonl", AQUA | {"options": ["long" * 999]}),
        ("strategyqa", "strategyqa_dev.jsonl", FACT | {"facts": list(range(999))}),
        ("strategyqa", "strategyqa_dev.jsonl", FACT | {"answer": "maybe" * 999}),
    ],
)
def test_a_sentence_repeats_little_of_what_it_complains_of(tmp_path, name, file, row):
    write(tmp_path / file, row)
    with pytest.raises(ValueError, match=f"{file}, line 1: ") as error:
        load_task(name, str(tmp_path)).examples("test")
    assert len(str(error.value)) < len(str(tmp_path)) + 300


def test_missing_dates_and_unknown_parsers(tmp_path):
    with pytest.raises(ValueError, match=r"no file at .*task\.json; give the path of BIG-bench's task\.json"):
        load_task("date_understanding", str(tmp_path)).examples("test")
    with pytest.raises(ValueError, match=r"unknown way to parse answers 'refrence'.*did you mean 'reference'\?$"):
        load_task("gsm8k", parse="refrence")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^task 'arith' has no reference evaluation; use parse='strict'$"):
        load_task("arith", parse="reference")


def test_steps_of_a_solution():
    solution = (
        "We have $x = 1.$ Then \\[y = 2. So\\] it is 3.5.\n\n[asy]draw(1. A);[/asy]\n\nThus\n$z$. (Why?) "
        "\\begin{align*}\na &= 1. \\\\\nB &= 2.\n\\end{align*} Done"
    )
    assert worked_steps(solution) == (
        "We have $x = 1.$",
        "Then \\[y = 2. So\\] it is 3.5.",
        "Thus $z$.",
        "(Why?)",
        "\\begin{align*} a &= 1. \\\\ B &= 2. \\end{align*} Done",
    )
    assert worked_steps("It costs \\$5. So \\$6.") == ("It costs \\$5.", "So \\$6.")
    assert worked_steps("An open $x. And more") == ("An open $x. And more",)
