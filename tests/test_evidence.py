"""The standard of evidence: planted thoughts get the sentence that they were planted for.

A planted method thinks what it is told, and its language model is planted too: what it answers, and what a text costs,
hangs on the thoughts that it is given and on nothing else. So each case is known to be true.
"""

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from workbench.analysis.evidence import (
    FEWEST,
    LEAST,
    MEASURES,
    NOTHING,
    Evidence,
    read_evidence,
    state,
    table,
    write_evidence,
)
from workbench.backbone import Completion
from workbench.evidence.standard import assess
from workbench.methods import METHODS, LatentMethod, Thoughts, build
from workbench.tasks import Example, Task

COLOURS = ("red", "green", "blue")
QUESTIONS = 120
WIDTH = 32


def code(word: str) -> torch.Tensor:
    """A vector that says this word."""
    return torch.randn(WIDTH, generator=torch.Generator().manual_seed(zlib.crc32(word.encode())))


def chance(*words: object) -> float:
    """A number in [0, 1) that belongs to these words."""
    return random.Random(" ".join(map(str, words))).random()


def examples(split: str) -> list[Example]:
    """Questions whose answer is a number, with a colour and a shape that have nothing to do with each other."""
    made = []
    for k in range(QUESTIONS):
        answer, colour = str(10 + k % 12), COLOURS[int(3 * chance("colour", k))]
        labels: dict[str, str | int | float] = {"colour": colour, "shape": int(2 * chance("shape", k))}
        made.append(Example(f"q{k}", f"Tom has {k} apples.", (f"{k} + 1 = 2",), answer, labels))
    return made


def parse(completion: str) -> str | None:
    _, mark, answer = completion.rpartition("####")
    return answer.strip() or None if mark else None


TASK = Task("planted", examples, parse, lambda a, b: a == b, answer_tokens=8)


@dataclass(frozen=True)
class Config:
    pass


@pytest.fixture
def planted(tiny):
    """planted(says, reads): a method whose thoughts say a word for each example, and whose model answers rightly with
    the chance that `reads(example, word)` gives, or with an answer where it gives text."""

    def make(says: Callable[[Example], str], reads: Callable[[Example, str], float | str], slots: int = 2):
        words = sorted({says(example) for example in examples("test")})

        class Planted(LatentMethod):
            name = "planted"
            trained = False

            def think(self, prompts, *, paths=1):
                own = [torch.stack([code(says(p.example))] * slots) for p in prompts]
                vectors = torch.stack(own)[:, None].expand(-1, paths, -1, -1)
                return Thoughts(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool))

            def word(self, thoughts: Thoughts, row: int) -> str:
                """What the thoughts say to the model: the word whose code they are, or nothing."""
                kept = thoughts.vectors[row, 0][thoughts.mask[row, 0]]
                if not len(kept):
                    return ""
                near = [torch.cosine_similarity(kept.mean(0), code(word), 0) for word in words]
                return words[int(torch.stack(near).argmax())] if max(near) > 0.9 else "?"

            def answer(self, prompts, thoughts, decoding, *, draws=1, seed=0):
                found = []
                for k, prompt in enumerate(prompts):
                    read = reads(prompt.example, self.word(thoughts, k))
                    if not isinstance(read, str):
                        right = chance("answer", prompt.example.id) < read
                        read = prompt.example.answer if right else str(90 + k % 7)
                    text = read if prompt.begun else f"#### {read}"
                    tokens = tuple(self.backbone.plain_ids(text).tolist())
                    found.append([[Completion(text, tokens, True)]])
                return found

            def likelihood(self, prompts, thoughts):
                right = [reads(p.example, self.word(thoughts, k)) for k, p in enumerate(prompts)]
                gold = [p.example.answer for p in prompts]
                sure = [float(r == g) if isinstance(r, str) else r for r, g in zip(right, gold, strict=True)]
                return -torch.tensor(sure).clamp(0.05, 0.95).log()

        Planted.Config = Config
        return build("planted", tiny())

    known = dict(METHODS)
    yield make
    METHODS.clear()
    METHODS.update(known)


def weighed(method: LatentMethod) -> Evidence:
    return assess(method, TASK, TASK.examples("test"), looked=2, slots=0)


def rows(frame: Any, **chosen: str) -> list[dict[str, Any]]:
    return [row for row in frame.to_dict("records") if all(row[name] == value for name, value in chosen.items())]


def effect(found: Evidence, source: str, measure: str) -> dict[str, Any]:
    (row,) = rows(found.effects, source=source, measure=measure)
    return row


def test_a_prompt_is_only_a_prompt(planted):
    """One word for all questions, which the model answers better with."""
    found = weighed(planted(lambda example: "please", lambda example, word: 0.8 if word == "please" else 0.3))
    assert found.kind == "prompt"
    assert found.sentence.startswith("The thoughts work as a prompt only: without thoughts answers lose")
    assert effect(found, "other", "free")["difference"] == 0
    assert effect(found, "mean", "free")["difference"] == 0
    assert effect(found, "none", "free")["low"] > 0.3


def test_thoughts_that_leak_the_answer_are_followed(planted):
    """Thoughts say the answer, and the model says what they say: with another question's, that one's answer."""
    found = weighed(planted(lambda example: example.answer, lambda example, word: word if word.isdigit() else "0"))
    assert found.kind == "content"
    assert found.sentence.startswith("The thoughts carry the answer about their question")
    (whole,) = rows(found.swaps, slot="all", how="forced")
    assert (whole["follows"], whole["changed"]) == (1.0, 1.0)
    assert whole["chance"] < 0.3
    assert effect(found, "random", "forced")["difference"] == 1.0  # which says nothing


def test_ignored_thoughts_do_nothing_however_much_can_be_read_in_them(planted):
    found = weighed(planted(lambda example: str(example.labels["colour"]), lambda example, word: 0.5))
    assert found.kind == "nothing"
    assert found.sentence.startswith("The thoughts do nothing: without thoughts answers lose 0.0 points")
    (colour,) = rows(found.readers, label="colour")
    assert colour["low"] > 0.9 * colour["entropy"]  # readable, and not used


def test_slots_are_swapped_and_taken_away_one_by_one(planted):
    """The first slot says the answer, which alone the model reads; the second says nothing."""
    method = planted(lambda example: example.answer, lambda example, word: word if word.isdigit() else "0")
    plain = type(method).word
    type(method).word = lambda self, thoughts, row: plain(self, thoughts.each(lambda value: value[:, :, :1]), row)
    found = assess(method, TASK, TASK.examples("test", 40), looked=2)
    swaps = found.swaps[found.swaps["how"] == "forced"].set_index("slot")["follows"]
    assert swaps.to_dict() == {"all": 1.0, "0": 1.0, "1": 0.0}
    lost = {name: effect(found, name, "forced")["difference"] for name in ("swapped 0", "swapped 1", "without 1")}
    assert lost["swapped 0"] > 0.8
    assert (lost["swapped 1"], lost["without 1"]) == (0, 0)


def test_one_label_that_is_carried_is_named_and_no_other(planted):
    """Thoughts say the colour; the model knows the answer where they say that of its question."""
    said = planted(
        lambda example: str(example.labels["colour"]),
        lambda example, word: 0.9 if word == example.labels["colour"] else 0.2,
    )
    found = weighed(said)
    assert found.kind == "content"
    assert found.sentence.startswith("The thoughts carry colour (")
    assert "shape" not in found.sentence.partition(":")[0]
    assert "answer" not in found.sentence.partition(":")[0]
    colour, shape = (rows(found.readers, label=name)[0] for name in ("colour", "shape"))
    assert colour["gain_low"] > 0.3
    assert shape["low"] < shape["floor"] + LEAST


@pytest.mark.parametrize(
    ("reads", "words"),
    [
        (lambda example, word: 0.3 if word else 0.8, "The thoughts do harm, whosever they are: without thoughts"),
        (
            lambda example, word: 0.2 if word == example.labels["colour"] else 0.8,
            "The thoughts do harm: with another question's",
        ),
    ],
)
def test_thoughts_that_are_worse_than_none_or_than_anothers_do_harm(planted, reads, words):
    found = weighed(planted(lambda example: str(example.labels["colour"]), reads))
    assert found.kind == "harm"
    assert found.sentence.startswith(words)


def test_a_method_without_thoughts_has_none(tiny):
    task = Task("planted", examples, parse, lambda a, b: a == b, answer_tokens=4)
    found = assess(build("cot", tiny()), task, task.examples("test", 6), looked=2)
    assert found.kind == "none"
    assert found.sentence == "There are no thoughts before the answers, so that none can be swapped."
    assert set(found.values["measure"]) == {"free", "forced"}
    assert len(found.effects) == len(found.swaps) == 0


def test_too_few_questions_are_refused(tiny):
    with pytest.raises(ValueError, match="2 questions: swapping thoughts needs at least three"):
        assess(build("soft-prompt", tiny()), TASK, TASK.examples("test", 2))


# ------------------------------------------------------------------------------------------------------------ the rule


def made(content: Sequence[tuple[float, float, float]], presence: Sequence[tuple[float, float, float]]) -> Evidence:
    """Evidence with these effects (mean, low, high), measure by measure."""
    effects = [
        (source, measure, *numbers, 100)
        for source, given in (("other", content), ("none", presence))
        for measure, numbers in zip(MEASURES, given, strict=False)
    ]
    values, swaps, readers, attention = (table(name, []) for name in ("values", "swaps", "readers", "attention"))
    return Evidence(values, table("effects", effects), swaps, readers, attention)


YES, BAD, WIDE = (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.03, -0.1, 0.2)  # mean, low, high
NO, SMALL = (0, -0.02, 0.02), (0.005, 0.001, 0.01)


def test_the_state_of_an_effect():
    names = ("difference", "low", "high")
    found = [state(dict(zip(names, one, strict=True))) for one in (YES, NO, WIDE, BAD, SMALL)]
    assert found == ["there", "absent", "open", "harmful", "absent"]
    assert state({"difference": 0.0, "low": -NOTHING, "high": NOTHING}) == "open"  # its ends do not belong to it


@pytest.mark.parametrize(
    ("content", "presence", "kind"),
    [
        ([YES, NO], [YES, NO], "content"),
        ([NO, YES], [NO, NO], "content"),  # in any measure
        ([YES, BAD], [NO, NO], "content"),
        ([NO, BAD], [YES, NO], "harm"),
        ([NO, NO], [YES, NO], "prompt"),
        ([NO, NO], [BAD, YES], "harm"),  # the first that is sure
        ([NO, NO], [NO, NO], "nothing"),
        ([NO, NO], [WIDE, NO], "undecided"),
        ([WIDE, NO], [YES, NO], "undecided"),  # a prompt, and perhaps more
        ([NO, WIDE], [YES, NO], "prompt"),  # where presence is seen, content is not
        ([WIDE, NO], [NO, NO], "undecided"),
    ],
)
def test_every_case_of_the_rule(content, presence, kind):
    assert made(content, presence).kind == kind


def test_a_content_that_costs_answers_says_so():
    found = made([NO, YES], [BAD, NO])
    assert found.kind == "content"
    assert "and yet answers are worse for it: without thoughts answers lose -20.0 points" in found.sentence


def test_few_questions_decide_nothing():
    found = made([YES, YES], [YES, YES])
    few = replace(found, effects=found.effects.assign(n=FEWEST - 1))
    assert few.kind == "undecided"
    assert "49 questions tell nothing" in few.sentence


def test_what_is_undecided_says_what_would_tell():
    found = made([NO, NO], [(0.0, -0.1, 0.1), NO])
    assert found.sentence.startswith("Undecided whether they do anything: without thoughts answers lose 0.0 points")
    assert found.sentence.endswith("about 400 questions would tell.")  # half as wide takes four times as many


# ---------------------------------------------------------------------------------------------------------------- files


def test_what_is_written_is_read_again(planted, tmp_path):
    found = weighed(planted(lambda example: example.answer, lambda example, word: word if word.isdigit() else "0"))
    path = write_evidence(found, tmp_path / "deep")
    again = read_evidence(tmp_path / "deep")
    assert path == tmp_path / "deep" / "evidence.json"
    assert (again.kind, again.sentence, again.notes) == (found.kind, found.sentence, found.notes)
    for name, one in found.tables().items():
        assert list(again.tables()[name].columns) == list(one.columns)
        for column in one:
            left, right = one[column].tolist(), again.tables()[name][column].tolist()
            assert right == (pytest.approx(left) if isinstance(left[0], float) else left), column
    assert again.about["questions"] == QUESTIONS
    assert again.about["method"] == "planted"
    assert np.isfinite(again.about["seconds"])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[]", "must be an object"),
        ('{"notes": [], "about": {}, "tables": {"values": [{"source": "own"}]}}', "table 'values' lacks 'measure'"),
        ('{"notes": [], "about": {}, "tables": {}}', "lacks 'values'"),
    ],
)
def test_what_is_no_evidence_is_refused(tmp_path, text, complaint):
    (tmp_path / "evidence.json").write_text(text)
    with pytest.raises(ValueError, match=complaint):
        read_evidence(tmp_path)
