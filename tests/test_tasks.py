"""Tasks: what is asked is possible, right, split cleanly and the same every time; answers are read as numbers."""

import random
import re
from collections import Counter
from dataclasses import replace
from hashlib import blake2b
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.tasks import Example, Task, arith, load_task
from workbench.tasks.answers import number_answer
from workbench.tasks.number import equal_numbers

STEP = re.compile(r"(\d+) ([-+*/]) (\d+) = (\d+) (\w+)")
SPLITS = ("train", "dev", "test")
NEW_WORDS = {verb for verbs in arith.SHIFT_VERBS.values() for verb in verbs}


def words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z]+", text))


@pytest.fixture(scope="module", params=["arith", "arith-shift"])
def task(request) -> Task:
    return load_task(request.param)


# -------------------------------------------------------------------------------------------------------------- arith


def test_sizes_and_unique_ids(task):
    for split, size in (("train", 8000), ("dev", 1000), ("test", 1000)):
        examples = task.examples(split)
        assert len(examples) == size
        assert len({e.id for e in examples}) == len({e.question for e in examples}) == size
        assert task.examples(split, 10) == examples[:10]


def test_few_examples_are_had_without_making_the_split(monkeypatch):
    """Only what is asked for is made, once, in whatever order it is asked for."""
    made = 0
    compose = arith.compose

    def counted(*given):
        nonlocal made
        made += 1
        return compose(*given)

    monkeypatch.setattr(arith, "compose", counted)
    arith.problems.cache_clear()
    task = load_task("arith")
    few = task.examples("train", 5)
    assert 5 <= made < 50
    before = made
    assert task.examples("train", 3) == few[:3]
    assert made == before
    found = arith.problems("train", arith.DIFFICULTIES["standard"], False)
    assert len(found) == 8000
    assert [p.example for p in found[4:7]] == task.examples("train", 7)[4:]
    assert made < 50
    assert found[-1] is found[7999]
    with pytest.raises(IndexError):
        found[8000]


def test_splits_are_disjoint_by_construction(task):
    """The question alone decides its split: whatever the seed and the size, no question can be in two."""
    questions = {split: {e.question for e in task.examples(split)} for split in SPLITS}
    assert not questions["train"] & questions["dev"]
    assert not questions["train"] & questions["test"]
    assert not questions["dev"] & questions["test"]
    for split in SPLITS:
        assert {arith.split_of(q) for q in questions[split]} == {split}
        other_seed = arith.stream(split, 7, arith.DIFFICULTIES["standard"])
        assert {arith.split_of(next(other_seed).example.question) for _ in range(20)} == {split}


def test_domains_share_no_question():
    base, shift = load_task("arith"), load_task("arith-shift")
    assert not {e.question for e in base.examples("test")} & {e.question for e in shift.examples("test")}


def test_problems_are_the_same_every_time(task):
    examples = task.examples("dev", 30)
    arith.problems.cache_clear()
    assert task.examples("dev", 30) == examples
    other = [next(arith.stream("dev", 1, arith.DIFFICULTIES["standard"])).example for _ in range(3)]
    assert other[0] not in examples  # the seed matters


def test_problems_stay_what_they_are():
    """Committed stores and figures name examples by id, and the shipped weights were made with them: no drift."""
    digests = {}
    for name in ("arith", "arith-shift"):
        ids = [e.id for split in ("dev", "test") for e in load_task(name).examples(split, 200)]
        digests[name] = blake2b("\n".join(ids).encode(), digest_size=6).hexdigest()
    assert digests == {"arith": "b3666fdb4baf", "arith-shift": "f0f89115ce72"}
    example = load_task("arith-shift").examples("dev", 1)[0]
    assert replace(example, labels={}) == Example(
        id="b53bfa896da5",
        question="Mia has 41 books. Mia breaks 6 books. How many books does Mia have?",
        steps=("41 - 6 = 35 books",),
        answer="35",
    )


def test_steps_replay_to_the_answer(task):
    for example in task.examples("dev"):
        value = None
        for step in example.steps:
            before, symbol, amount, after, item = STEP.fullmatch(step).groups()  # type: ignore[union-attr]
            assert value in (None, int(before))
            value = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__, "/": int.__floordiv__}[symbol](
                int(before), int(amount)
            )
            assert value == int(after)
            assert symbol != "/" or int(before) % int(amount) == 0
            assert item in arith.ITEMS
            assert 1 <= value <= arith.DIFFICULTIES["standard"].largest
        assert example.answer == str(value)
        assert int(STEP.fullmatch(example.steps[0]).group(1)) in map(int, re.findall(r"\d+", example.question))  # type: ignore[union-attr]
        assert f"How many {item} does" in example.question


def test_known_sentences_tell_the_steps():
    """Read by a second, plain reader: sentences in known words give the steps in order."""
    symbols = {verb: symbol for symbol, verbs in arith.VERBS.items() for verb in verbs}
    for example in load_task("arith").examples("dev", 300):
        who, items = re.fullmatch(r".* How many (\w+) does (\w+) have\?", example.question).groups()[::-1]  # type: ignore[union-attr]
        found = []
        for sentence in re.findall(r"[^.?]+[.?]", example.question):
            sentence = sentence.strip()
            if match := re.fullmatch(r"\w+ has (\d+) boxes with (\d+) (\w+) each\.", sentence):
                found.append(("*", match[2]))
            elif match := re.fullmatch(r"\w+ makes (\d) times as many \w+\.", sentence):
                found.append(("*", match[1]))
            elif match := re.fullmatch(r"\w+ shares the \w+ equally with (\d) friends?\.", sentence):
                found.append(("/", str(int(match[1]) + 1)))
            elif match := re.fullmatch(r"\w+ has (\d+) times as many \w+ as \w+\.", sentence):
                found.append(("*", match[1]))
            elif match := re.fullmatch(r"\w+ has (\d+) more \w+ than \w+\.", sentence):
                found.append(("+", match[1]))
            elif (match := re.fullmatch(r"\w+ (\w+) (\d+) (\w+)\.", sentence)) and match[1] in symbols:
                assert match[3] == items
                found.append((symbols[match[1]], match[2]))
        assert [STEP.fullmatch(step).group(2, 3) for step in example.steps] == found  # type: ignore[union-attr]
        assert who in arith.NAMES


@pytest.mark.parametrize("difficulty", ["standard", "hard"])
def test_every_reading_of_the_new_words_is_possible(difficulty):
    """The numbers never tell what a new word means: with + and - swapped in any way all values stay in range."""
    knobs = arith.DIFFICULTIES[difficulty]
    rng = random.Random(3)
    seen = 0
    for _ in range(300):
        problem = arith.compose(rng, knobs, arith.SHIFT_VERBS)
        new = sorted({word for word in problem.words if word})
        seen += len(new) > 1
        for signs in product("+-", repeat=len(new)):
            meaning = dict(zip(new, signs, strict=True))
            value = int(problem.example.steps[0].split()[0])
            for word, symbol, step in zip(problem.words, problem.operations, problem.example.steps, strict=True):
                symbol, amount = meaning[word] if word else symbol, int(step.split()[2])
                quotient, rest = divmod(value, amount)
                assert symbol != "/" or rest == 0
                value = {"+": value + amount, "-": value - amount, "*": value * amount, "/": quotient}[symbol]
                assert 1 <= value <= knobs.largest
    assert seen > 20  # problems with several new words are among them


def test_new_words_stand_for_their_operation():
    for problem in arith.problems("dev", arith.DIFFICULTIES["standard"], True):
        for word, symbol in zip(problem.words, problem.operations, strict=True):
            assert word is None or word in arith.SHIFT_VERBS[symbol]
        assert any(problem.words)


def test_new_words_are_in_the_shift_domain_only():
    nonce = set(arith.NONCE_VERBS)
    for example in load_task("arith").examples("train"):
        assert not words(example.question) & (NEW_WORDS | nonce)
    found: Counter[str] = Counter()
    for example in load_task("arith-shift").examples("train"):
        assert words(example.question) & NEW_WORDS
        assert not words(example.question) & nonce
        found.update(words(example.question) & NEW_WORDS)
    assert set(found) == NEW_WORDS
    assert min(found.values()) > 300  # each is learnt from many examples
    assert not NEW_WORDS & {verb for verbs in arith.VERBS.values() for verb in verbs}
    assert not NEW_WORDS & nonce


def test_labels(task):
    for example in task.examples("dev"):
        sentences = re.findall(r"[^.?]+[.?]", example.question)
        new = [sentence for sentence in sentences if words(sentence) & NEW_WORDS]
        labels = example.labels
        assert labels["operations"] == len(example.steps)
        assert labels["shift"] == len(new)
        told = "boxes with" not in example.question  # the first amount has a sentence of its own
        assert len(sentences) == 1 + told + labels["operations"] + labels["distractor"]
        if not new:
            assert labels["critical_step"] == -1
            continue
        amount = re.search(r"\d+", new[0])[0]  # type: ignore[index]
        assert STEP.fullmatch(example.steps[labels["critical_step"]]).group(3) == amount  # type: ignore[index,union-attr]


def test_labels_cover_what_they_compare():
    counts = Counter(e.labels["operations"] for e in load_task("arith-shift").examples("dev"))
    assert set(counts) == {1, 2, 3}
    assert min(counts.values()) > 150
    share = sum(e.labels["distractor"] for e in load_task("arith").examples("dev")) / 1000
    assert share == pytest.approx(0.25, abs=0.05)


def test_difficulty_is_a_knob():
    steps, largest = {}, {}
    for name, knobs in arith.DIFFICULTIES.items():
        examples = load_task("arith", name).examples("dev", 300)
        counts = {len(e.steps) for e in examples}
        assert counts == set(range(knobs.operations[0], knobs.operations[1] + 1))
        steps[name] = sum(len(e.steps) for e in examples)
        largest[name] = max(int(e.answer) for e in examples)
        distracted = sum(e.labels["distractor"] for e in examples)
        assert distracted / 300 == pytest.approx(knobs.distractor, abs=0.08)
    assert steps["easy"] < steps["standard"] < steps["hard"]
    assert largest["standard"] <= 49 < largest["hard"] <= 99
    assert load_task("arith", "hard").source == "hard"  # what a run writes down reads the same problems again


def test_bad_names_are_one_sentence():
    with pytest.raises(ValueError, match=r"^unknown task 'arithm': use one of .*arith, .*; did you mean 'arith'\?$"):
        load_task("arithm")
    said = r"^unknown difficulty 'hrd': use one of easy, hard, standard; a file .* task jsonl; did you mean 'hard'\?$"
    with pytest.raises(ValueError, match=said):
        load_task("arith", "hrd")
    with pytest.raises(ValueError, match=r"^task 'arith' has no split 'valid'; use one of train, dev, test$"):
        load_task("arith").examples("valid")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^cannot take 0 examples; give at least 1, or None for the whole split$"):
        load_task("arith").examples("dev", 0)


# ------------------------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("#### 1,234", "1234"),
        ("#### 1,234.50", "1234.50"),
        ("#### -10", "-10"),
        ("#### $5.", "5"),
        ("it costs $5.", "5"),
        ("#### 3.50", "3.50"),
        ("5-3", None),
        ("5 - 3", None),
        ("from 5 to -3", None),
        ("no number", None),
        ("", None),
        ("####", None),
        ("####  ", None),
        ("12 + 5 = 17 apples\n#### 17", "17"),
        ("12 + 5 = 17 apples", "17"),
        ("#### 7 apples, not 8", "7"),
        ("#### 3\n#### 4", "4"),
        ("5 ####", "5"),
        ("####12", "12"),
        ("#### .5", ".5"),
        ("#### 10%", "10"),
        ("#### 1,000,000", "1000000"),
        ("1, 2, 3", None),
        ("#### x", None),
        ("9 #### x", None),
    ],
)
def test_reading_an_answer(completion, answer):
    assert number_answer(completion) == answer


def test_numbers_are_compared_as_numbers():
    assert equal_numbers("3.50", "3.5")
    assert equal_numbers("5", "5.0")
    assert equal_numbers("-10", "-10.00")
    assert equal_numbers(".5", "0.5")
    assert not equal_numbers("3.5", "35")
    assert not equal_numbers("10", "-10")
    assert not equal_numbers("0.1", "0.10000000000000001")  # exact, no rounding
    assert equal_numbers("blue", " blue")
    assert not equal_numbers("blue", "5")


@given(st.integers(-(10**9), 10**9), st.sampled_from(["#### {}", "so {} it is", "#### ${} in all", "x\n#### {}.\n"]))
def test_any_whole_number_is_read_back(number, form):
    assert number_answer(form.format(number)) == str(number)
    assert equal_numbers(number_answer(form.format(f"{number:,}")), str(number))  # type: ignore[arg-type]


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-10000, max_value=10000))
def test_any_amount_is_read_back(amount):
    assert equal_numbers(number_answer(f"#### {amount:,}"), str(amount))  # type: ignore[arg-type]


@given(st.text())
def test_reading_never_fails(text):
    found = number_answer(text)
    assert found is None or equal_numbers(found, found)


def test_every_valid_chain_of_an_arith_problem_ends_in_its_answer():
    """+ and - in any order, none below 0, factors where they are; the given chain comes first."""
    example = Example("x", "?", ("5 - 2 = 3 pens", "3 + 4 = 7 pens", "7 * 2 = 14 pens", "14 - 9 = 5 pens"), "5")
    found = arith.chains(example)
    assert found[0] == example.steps
    assert found[1] == ("5 + 4 = 9 pens", "9 - 2 = 7 pens", "7 * 2 = 14 pens", "14 - 9 = 5 pens")
    assert len(found) == 2
    below = Example("y", "?", ("1 + 4 = 5 pens", "5 - 3 = 2 pens"), "2")
    assert arith.chains(below) == [below.steps]  # 1 - 3 is below 0
    same = Example("z", "?", ("1 + 4 = 5 pens", "5 + 4 = 9 pens"), "9")
    assert len(arith.chains(same)) == 1
    for one in load_task("arith").examples("dev", 50):
        chains = arith.chains(one)
        assert chains[0] == one.steps
        for chain in chains:
            assert chain[-1].split(" ")[4] == one.answer
            for step in chain:
                left, symbol, right, _, value, _ = step.split(" ")
                assert arith.APPLY[symbol](float(left), float(right)) == float(value) >= 0
