"""ProsQA: what is asked has one answer, splits are clean, native files load whole, paths are judged."""

import json
import re
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

from workbench.backbone import Backbone
from workbench.tasks import Example, load_task, prosqa
from workbench.tasks.arith import split_of

DATA = Path(__file__).parents[2] / "shared" / "data" / "prosqa"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the published file is not at {DATA}")


def reached(question: str) -> tuple[str, dict[str, int], list[str]]:
    """Who is asked about, how far each thing is from them, and the two options: told again without the task's code."""
    *sentences, asked = re.findall(r"[^.?]+[.?]", question)
    edges = [(words[-4], words[-1].rstrip(".")) for words in (s.split() for s in sentences)]
    person, _, first, _, second = re.fullmatch(r" Is (\w+) (a) (\w+) (or) (\w+)\?", asked).groups()  # type: ignore[union-attr]
    found, hops = {person: 0}, 0
    while True:
        hops += 1
        new = {b for a, b in edges if a in found and b not in found}
        if not new:
            return person, found, [first, second]
        found |= dict.fromkeys(new, hops)


def made(difficulty: str, count: int, seed: int = 0) -> list[Example]:
    source = prosqa.stream("train", seed, prosqa.DIFFICULTIES[difficulty])
    return [next(source) for _ in range(count)]


# ------------------------------------------------------------------------------------------------------- made problems


@pytest.mark.parametrize("difficulty", prosqa.DIFFICULTIES)
def test_exactly_one_of_two_can_be_reached_and_the_steps_are_a_shortest_path(difficulty):
    low, high = prosqa.DIFFICULTIES[difficulty].hops
    for e in made(difficulty, 40):
        person, found, options = reached(e.question)
        (right,) = [option for option in options if option in found]
        assert e.answer == f"{person} is a {right}."
        assert low <= found[right] <= high
        assert len(e.steps) == e.labels["hops"] == found[right]
        assert e.steps[0].startswith(f"{person} is a ")
        assert e.steps[-1].endswith(f" is a {right}.")
        for step, after in zip(e.steps, e.steps[1:], strict=False):
            assert after.startswith(f"Every {step.split()[-1].rstrip('.')} ")
        assert all(step in e.question for step in e.steps)
        assert e.labels["edges"] == e.question.count(".")
        nodes = set(re.findall(r"\w+", e.question)) - {"Every", "is", "a", "Is", "or"}
        assert e.labels["nodes"] == len(nodes)


def test_standard_problems_are_of_the_published_kind():
    """23 nodes, 36 edges, three to six steps, the short ones most often; the right option first in half of them."""
    examples = made("standard", 300)
    assert mean(e.labels["nodes"] for e in examples) == pytest.approx(23, abs=1.5)  # type: ignore[type-var]
    assert mean(e.labels["edges"] for e in examples) == pytest.approx(36, abs=2.5)  # type: ignore[type-var]
    hops = Counter(e.labels["hops"] for e in examples)
    assert set(hops) == {3, 4, 5, 6}
    assert hops[3] + hops[4] > 0.8 * len(examples)
    first = sum(reached(e.question)[2][0] in reached(e.question)[1] for e in examples)
    assert 0.4 < first / len(examples) < 0.6


def test_mini_problems_are_small():
    examples = made("mini", 50)
    assert max(e.labels["nodes"] for e in examples) <= 10  # type: ignore[type-var]
    assert {e.labels["hops"] for e in examples} == {3}


def test_no_shallow_rule_gives_the_answer_away():
    """The right concept is told neither earlier nor more often than the wrong one, by much."""
    earlier = oftener = 0
    examples = made("standard", 300)
    for e in examples:
        _, found, options = reached(e.question)
        right, wrong = sorted(options, key=lambda option: option not in found)
        told = e.question.rpartition(".")[0]
        earlier += told.index(right) < told.index(wrong)
        oftener += told.count(right) > told.count(wrong)
    assert 0.35 < earlier / len(examples) < 0.65
    assert oftener / len(examples) < 0.65


def test_splits_are_disjoint_and_always_the_same(monkeypatch):
    monkeypatch.setattr(prosqa, "SIZES", {"train": 60, "dev": 30, "test": 30})
    prosqa.problems.cache_clear()
    task, seen = load_task("prosqa", "mini"), set()
    for split in ("train", "dev", "test"):
        examples = task.examples(split)
        assert len({e.id for e in examples}) == len({e.question for e in examples}) == {"train": 60}.get(split, 30)
        assert {split_of(e.question) for e in examples} == {split}
        assert not seen & {e.question for e in examples}
        seen |= {e.question for e in examples}
        prosqa.problems.cache_clear()
        assert task.examples(split) == examples
    prosqa.problems.cache_clear()
    assert made("mini", 5) != made("mini", 5, seed=1)


def test_the_shipped_backbone_has_a_token_for_every_word_but_three():
    backbone, unknown = Backbone.load("nano"), set()
    vocabulary = backbone.tokenizer.get_vocab()
    for e in made("standard", 20):
        words = re.findall(r"\w+", " ".join([e.question, *e.steps, e.answer]))
        unknown |= {word for word in words if word not in vocabulary}
    assert unknown == {"Every", "Is", "or"}  # one and the same token, which still marks where a rule begins


# --------------------------------------------------------------------------------------------------------- native files


@needs_data
def test_the_published_file_loads_whole():
    examples = load_task("prosqa", str(DATA)).examples("dev")
    native = json.loads((DATA / "valid.json").read_text())
    assert len(examples) == len(native) == 300
    assert Counter(e.labels["hops"] for e in examples) == {3: 124, 4: 133, 5: 36, 6: 7}
    for e, row in zip(examples, native, strict=True):
        assert (e.question, e.steps, e.answer) == (row["question"], tuple(row["steps"]), row["answer"])
        told = [(row["idx_to_symbol"][a], row["idx_to_symbol"][b]) for a, b in row["edges"]]
        assert Counter(prosqa.rules(e.question)) == Counter(told)
        person, found, options = reached(e.question)
        assert person == row["idx_to_symbol"][row["root"]]
        assert found[row["idx_to_symbol"][row["target"]]] == len(e.steps)
        assert set(options) == {row["idx_to_symbol"][row[key]] for key in ("target", "neg_target")}
        assert prosqa.path_kind(e.question, "\n".join([*e.steps, f"#### {e.answer}"])) == "correct path"


RECORD = {
    "question": "Tom is a daxes. Every daxes is a wugs. Ann is a feps. Is Tom a feps or wugs?",
    "answer": "Tom is a wugs.", "steps": ["Tom is a daxes.", "Every daxes is a wugs."], "root": 0,
}  # fmt: skip


@pytest.mark.parametrize("prefix", ["", "prosqa_"])
def test_native_files_are_found_by_either_name(tmp_path, prefix):
    for part in ("train", "valid", "test"):
        record = RECORD | {"question": RECORD["question"].replace("feps", part)}
        (tmp_path / f"{prefix}{part}.json").write_text(json.dumps([record], indent=1))
    task = load_task("prosqa", str(tmp_path))
    for split, part in (("train", "train"), ("dev", "valid"), ("test", "test")):
        (example,) = task.examples(split)
        assert part in example.question
        assert example.labels == {"steps": 2, "question_words": 19, "hops": 2, "nodes": 5, "edges": 3}
    (example,) = load_task("prosqa", str(tmp_path / f"{prefix}valid.json")).examples("dev")
    assert example.answer == "Tom is a wugs."


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1", r"test\.json, line 1: not JSON"),
        ("{}", r"test\.json, line 1: no list"),
        (
            '[\n {"question": "q",\n "answer": "a", "steps": []},\n 3]',
            r"test\.json, line 4: an entry must be an object",
        ),
        (json.dumps([{"question": "q"}]), r"test\.json, line 1: lacks 'answer', 'steps'"),
        ("\n" + json.dumps([RECORD | {"steps": "Tom"}]), r"test\.json, line 2: 'steps' must be a list of sentences"),
        (json.dumps([RECORD | {"answer": "wugs"}]), r"'answer' must be a sentence like 'Tom is a lempus\.'"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, content, said):
    (tmp_path / "test.json").write_text(content)
    with pytest.raises(ValueError, match=said):
        load_task("prosqa", str(tmp_path)).examples("test")


def test_what_is_neither_difficulty_nor_place_is_one_sentence(tmp_path):
    with pytest.raises(
        ValueError, match=r"unknown difficulty \(and no file or folder\) 'minni': use one of long, mini"
    ):
        load_task("prosqa", "minni")
    with pytest.raises(ValueError, match="no file at"):
        load_task("prosqa", str(tmp_path)).examples("train")


# ------------------------------------------------------------------------------------------------- reading and judging


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Tom is a daxes.\nEvery daxes is a wugs.\n#### Tom is a wugs.", "Tom is a wugs."),
        ("#### Tom is a wugs", "Tom is a wugs."),
        ("Tom is a wugs.", "Tom is a wugs."),
        (" Tom is an opus .", None),
        ("Tom is a daxes.\nEvery daxes is a wugs.", None),
        ("#### wugs", None),
        ("####", None),
        ("", None),
    ],
)
def test_an_answer_is_the_sentence_behind_the_mark_or_all_there_is(completion, answer):
    assert load_task("prosqa").parse(completion) == answer


def test_a_concept_alone_in_a_box_is_right_for_its_sentence_only():
    same = load_task("prosqa").same
    assert same("wugs", "Tom is a wugs.")
    assert same("Tom is a wugs.", "Tom is a wugs.")
    assert not same("daxes", "Tom is a wugs.")
    assert not same("Bob is a wugs.", "Tom is a wugs.")
    assert prosqa.path_kind(QUESTION, "\\boxed{dd}") == "correct label"


def test_every_gold_answer_reads_back():
    task = load_task("prosqa")
    for e in made("mini", 20):
        assert task.parse("\n".join([*e.steps, f"{task.mark} {e.answer}"])) == e.answer
        assert task.same(e.answer.lower(), e.answer)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Tom is a daxes.\n### Tom is a wugs.", "Tom is a wugs."),
        ("#### 1,234", "1234"),
        ("Tom is a wugs.", "Tom is a wugs."),  # without a mark all of it
        ("no # idea # here ", "here"),
        ("", None),
    ],
)
def test_the_published_reading(completion, answer):
    task = load_task("prosqa", parse="reference")
    assert task.parse(completion) == answer
    assert task.same("Tom is a wugs.", "Tom is a wugs.")
    assert not task.same("tom is a wugs.", "Tom is a wugs.")


QUESTION = (  # a long way a-b-c-d and a short one a-d; e-f belongs to another person
    "Tom is a aa. Every aa is a bb. Every bb is a cc. Every cc is a dd. Every aa is a dd. Ann is a ee. "
    "Every ee is a ff. Is Tom a ff or dd?"
)


@pytest.mark.parametrize(
    ("worked", "answer", "kind"),
    [
        ("Tom is a aa. Every aa is a dd.", "Tom is a dd.", "correct path"),
        ("Every aa is a dd.", "Tom is a dd.", "correct path"),  # thoughts stand for the first step
        ("Tom is a aa. Every aa is a bb. Every bb is a cc. Every cc is a dd.", "Tom is a dd.", "longer path"),
        ("Tom is a aa. Every aa is a cc. Every cc is a dd.", "Tom is a dd.", "hallucination"),  # no such rule
        ("Tom is a aa. Every cc is a dd.", "Tom is a dd.", "hallucination"),  # no connection
        ("Every ee is a ff.", "Tom is a ff.", "hallucination"),  # nothing leads there
        ("Tom is a aa. Every aa is a bb.", "Tom is a dd.", "wrong target"),
        ("", "Tom is a dd.", "correct label"),
        ("", "Tom is a ff.", "incorrect label"),
        ("", "what?", "incorrect label"),
    ],
)
def test_paths_are_judged(worked, answer, kind):
    assert prosqa.path_kind(QUESTION, f"{worked}\n#### {answer}") == kind


def test_an_answer_without_steps_or_mark_is_a_label():
    assert prosqa.path_kind(QUESTION, "Tom is a dd.") == "correct label"
    assert prosqa.path_kind(QUESTION, "\\boxed{Tom is a dd.}") == "correct label"
    with pytest.raises(ValueError, match="must end in 'Is Tom a"):
        prosqa.path_kind("Tom is a aa.", "x")


def test_of_several_shortest_paths_one_is_taken_and_of_none_it_is_said():
    edges = [("Tom", "aa"), ("Tom", "bb"), ("aa", "cc"), ("bb", "cc"), ("cc", "dd")]
    assert prosqa.shortest_path(edges, "Tom", "dd") in (["Tom", "aa", "cc", "dd"], ["Tom", "bb", "cc", "dd"])
    with pytest.raises(ValueError, match="no rules lead from dd to Tom"):
        prosqa.shortest_path(edges, "dd", "Tom")


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("Every a is a b.\n\\boxed{Tom is a wugs.}", "Tom is a wugs."),
        ("$\\boxed{\\text{Tom is a wugs}}$", "Tom is a wugs."),
        ("#### **Tom is a wugs.**", "Tom is a wugs."), ("#### The answer is: Tom is a wugs.", "Tom is a wugs."),
        ("Tom is a b. Every b is a wugs.", None), ("#### Tom is a wugs or daxes", None), ("\\boxed{wugs}", "wugs"),
        ("So Tom is a $\\boxed{\\text{wugs}}$.", "Tom is a wugs."), ("\\boxed{Tom\\ is~a\\ wugs}", "Tom is a wugs."),
        ("\\boxed{\\text{Tom } \\text{is a wugs.}}", "Tom is a wugs."), ("Bob is not a \\boxed{wugs}.", None),
        ("The answer is: $\\boxed{\\text{a wugs}}$.", "wugs"),
        ("#### Tom is a \\boxed{wugs}", "Tom is a wugs."), ("\\boxed{wugs or daxes}", None), ("\\boxed{Tom}", None),
    ],
)  # fmt: skip
def test_an_answer_is_a_sentence_behind_the_mark_or_in_a_box(completion, answer):
    assert load_task("prosqa").parse(completion) == answer
