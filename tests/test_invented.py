"""Tasks in invented words: what the text says and what it does not, splits, and answers in more or fewer words."""

import re

import pytest

from workbench.tasks import arith, invented, load_task

NAMES = ("invented-more", "invented-sums", "invented-told")
SPLITS = ("train", "dev", "test")
WORD = {"+": "more", "-": "fewer"}


def verbs(meanings):
    return {verb for group in meanings.values() for verb in group}


def test_no_verb_is_in_two_tasks_or_a_word_of_arith():
    told = [verb for own in invented.TOLD.values() for verb in own]
    groups = [verbs(invented.MORE), verbs(invented.SUMS), set(told)]
    every = [verb for group in groups for verb in group]
    assert len(set(every)) == len(every) == 12 + 12 + len(told)
    known = {verb for table in (arith.VERBS, arith.SHIFT_VERBS) for group in table.values() for verb in group}
    assert not {f"{verb}s" for verb in every} & (known | set(arith.NONCE_VERBS))


def test_what_is_told_in_one_split_is_in_no_other():
    for parts in (invented.TOLD, {s: [m for g in invented.MEANINGS[s].values() for m in g] for s in SPLITS}):
        every = [one for own in parts.values() for one in own]
        assert len(set(every)) == len(every)


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_disjoint_seeded_and_balanced(name):
    task = load_task(name)
    questions = {split: [e.question for e in task.examples(split)] for split in SPLITS}
    assert {split: len(own) for split, own in questions.items()} == {"train": 4000, "dev": 500, "test": 500}
    assert len({q for own in questions.values() for q in own}) == 5000
    assert {arith.split_of(q) for q in questions["test"]} == {"test"}
    again = load_task(name).examples("test", 5)
    assert again == task.examples("test", 5)
    share = sum(str(e.labels["meaning"]).startswith("+") for e in task.examples("dev")) / 500
    assert 0.4 < share < 0.6
    for e in task.examples("dev", 50):
        assert task.same(task.parse(f"{task.mark} {e.answer}"), e.answer)


def test_one_verb_decides_and_nothing_else_does():
    for e in load_task("invented-more").examples("dev"):
        (verb,) = [verb for verb in verbs(invented.MORE) if f" {verb}s " in e.question]
        (symbol,) = [symbol for symbol, group in invented.MORE.items() if verb in group]
        assert (e.answer, e.labels["verb"], e.labels["meaning"]) == (WORD[symbol], verb, symbol)
    trained = {e.labels["verb"] for e in load_task("invented-more").examples("train", 500)}
    assert trained == verbs(invented.MORE)  # a dictionary: the verbs of dev and test are known


def test_a_sum_is_what_its_verbs_say_and_every_reading_is_possible():
    counts = set()
    for e in load_task("invented-sums").examples("dev"):
        start = int(re.search(r"has (\d+)", e.question)[1])
        moves = re.findall(r"(\w+)s (\d+) \w+\.", e.question.split(".", 1)[1])
        value = start
        for (verb, amount), step in zip(moves, e.steps, strict=True):
            sign = 1 if verb in invented.SUMS["+"] else -1
            assert step == f"{value} {'+' if sign > 0 else '-'} {amount} = {value + sign * int(amount)}"
            value += sign * int(amount)
        assert e.answer == str(value)
        assert min(invented.readings(e)) >= 1
        counts.add(len(moves))
    assert counts == {1, 2}
    assert {len(e.steps) for e in load_task("invented-sums", "two").examples("dev", 50)} == {2}
    with pytest.raises(ValueError, match="unknown number of verbs 'three'"):
        load_task("invented-sums", "three")


def test_what_is_told_says_the_answer():
    seen = set()
    for split in SPLITS:
        meanings = {text: symbol for symbol, group in invented.MEANINGS[split].items() for text in group}
        for e in load_task("invented-told").examples(split, 300):
            verb, paraphrase = re.match(r"To (\w+) things means (.*?)\. ", e.question).groups()
            assert f" {verb}s some " in e.question
            assert verb in invented.TOLD[split]
            assert e.answer == WORD[meanings[paraphrase]]
            seen.add((split, meanings[paraphrase]))
    assert len(seen) == 6


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: more", "more"),
        ("Tom has fewer.\nAnswer: More apples.", "more"),
        ("#### less", "fewer"),
        ("fewer", "fewer"),
        ("He has more apples than before.", "more"),
        ("more or fewer", None),
        ("Answer:\nmore", "more"),
        ("Answer: 12", None),
        ("", None),
        ("Answer: moreover", None),
    ],
)
def test_more_or_fewer_is_read(text, answer):
    assert invented.more_or_fewer(text) == answer
