"""How a task is asked: the plain reply form, examples before the question, and replies that end with their answer."""

import json
from dataclasses import replace

import pytest
import torch
from families import family

import workbench as wb
from workbench.__main__ import main
from workbench.backbone import Decoding
from workbench.backbone.endings import ending
from workbench.backbone.thoughts import Made, State
from workbench.methods import build
from workbench.runs import read_config
from workbench.tasks import Example, Task, load_task
from workbench.tasks.answers import number_answer, option_letter, yes_or_no
from workbench.tasks.wording import MARK, Wording, read, worded


def sums(split):
    first = {"train": range(2, 30), "dev": range(30, 40), "test": range(40, 50)}[split]
    return [Example(f"{a}", f"{a} + 1 = ?", (f"{a} + 1 = {a + 1}",), str(a + 1)) for a in first]


SUMS = Task("sums", sums, number_answer, str.__eq__, instruction="Add. End with '#### ' and the number.")


def test_names_are_read_and_written():
    assert read("plain") == Wording("plain")
    assert read("plain:4") == Wording("plain", 4)
    assert read("own:2:7") == Wording("own", 2, 7)
    assert read("pack.yaml") is None
    for text in ("plain", "plain:4", "own:2:7"):
        assert str(read(text)) == text


@pytest.mark.parametrize("text", ["plain:x", "plain:1:2:3", "own", "own:0", "plain:65", "plain:0:3", "plain:-1"])
def test_other_wordings_are_one_sentence(text):
    with pytest.raises(ValueError, match=r"wording .*; give"):
        read(text)


def test_the_plain_form_asks_for_an_answer_and_reads_it():
    task = worded(SUMS, Wording("plain"))
    assert task.message("40 + 1 = ?", "", "other") == "Add. End with 'Answer: ' and the number.\n40 + 1 = ?"
    assert (task.mark, task.stops, task.wording) == (MARK, True, "plain")
    assert task.parse("40 + 1 = 41\nAnswer: 41") == "41"
    assert task.parse("answer : 41 pens") == "41"
    assert task.parse("Answer: 3\nAnswer: 41") == "41"
    assert task.parse("#### 41") == "41"  # as ever
    assert task.read(" 41\nmore 5", begun=MARK) == "41"
    assert task.read(f"{MARK} 41\nmore 5", begun=MARK) == "41"  # of a method that puts the mark before its answer
    assert SUMS.parse("Answer:") is None


@pytest.mark.parametrize(
    ("parse", "said", "answer"),
    [
        (yes_or_no, "Answer: Yes", "Yes"),
        (lambda text: option_letter(text, "ABCDE"), "Answer: C", "C"),
        (number_answer, "Answer: 1,200 dollars", "1200"),
    ],
)
def test_every_kind_of_answer_is_read_in_the_plain_form(parse, said, answer):
    task = worded(replace(SUMS, parse=parse), Wording("plain"))
    assert task.parse(f"So it is.\n{said}").replace(",", "") == answer


def test_examples_are_of_train_seeded_and_never_the_question_itself():
    task = worded(SUMS, Wording("plain", 3))
    ids = [one.id for one in task.shots]
    train = {e.id for e in sums("train")}
    assert len(set(ids)) == 4  # one to spare
    assert set(ids) <= train
    assert worded(SUMS, Wording("plain", 3)).shots == task.shots
    assert worded(SUMS, Wording("plain", 3, 1)).shots != task.shots
    message = task.message("40 + 1 = ?", "<>", "other")
    first, second, third, spare = task.shots
    assert message == "\n\n".join(
        ["Add. End with 'Answer: ' and the number."]
        + [f"Question: {e.question}\n{e.steps[0]}\nAnswer: {e.answer}" for e in (first, second, third)]
        + ["Question: 40 + 1 = ?<>"]
    )
    asked = task.message(second.question, "", "other")
    assert asked.count(second.question) == 1
    assert spare.question in asked
    own = worded(SUMS, Wording("own", 3))
    assert (own.mark, own.stops) == ("####", False)
    assert f"#### {first.answer}" in own.message("?", "", "other")
    with pytest.raises(ValueError, match="has 28 train examples, too few to show 28; ask for fewer"):
        worded(SUMS, Wording("own", 28))


def test_a_store_says_how_it_was_asked(tmp_path, tiny_folder):
    out = tmp_path / "a.nc"
    command = ["collect", "--method", "cot", "--task", "arith", "--prompts", "plain:2", "--count", "2"]
    assert main([*command, "--backbone", str(tiny_folder()), "--decoding.max_new_tokens", "3", "--out", str(out)]) == 0
    attrs = wb.store.load(out).attrs
    assert attrs["prompts"] == "plain:2"
    shots = load_task("arith", prompts="plain:2").shots
    assert json.loads(attrs["shots"]) == [one.id for one in shots[:-1]]
    assert {one.id for one in shots} <= {e.id for e in load_task("arith").examples("train")}


def test_a_run_remembers_how_it_was_asked(tiny, tmp_path):
    task = load_task("arith", prompts="plain:2:5")
    config = wb.TrainConfig(examples=8, epochs=1, batch_size=4, probe_examples=2)
    wb.train(build("soft-prompt", tiny()), task, config, tmp_path / "run")
    about = read_config(tmp_path / "run")
    assert about["prompts"] == "plain:2:5"
    assert load_task(about["task"], about.get("data"), prompts=about["prompts"]).shots == task.shots


# ---------------------------------------------------------------------------------------------------- where replies end


def replies(backbone, text, begins):
    """What is left of a reply that a model would write as `text`, and whether it ended by itself."""
    ids = backbone.ids(text)

    def says(state: State) -> Made:
        return Made(None, words=ids[state.count.clamp(max=len(ids) - 1)])

    step = ending(says, backbone, [begins])
    (row,) = backbone.generate([backbone.embed(backbone.ids("Tom"))], Decoding(len(ids)), step=step)
    return row[0].text, row[0].finished


@pytest.mark.parametrize(
    ("text", "begins", "left", "finished"),
    [
        ("5 + 3 = 8\nAnswer: 8\n\nQuestion: and", MARK, "5 + 3 = 8\nAnswer: 8", True),
        ("Answer:\n8\nso", MARK, "Answer:\n8\nso", False),  # nothing on that line
        ("5 + 3 = 8\nTom", MARK, "5 + 3 = 8\nTom", False),
        (" 8\nTom has", "", " 8", True),
        ("\n\n8\nTom has", "", "\n\n8", True),
        ("8\nTom has", None, "8\nTom has", False),
    ],
)
def test_a_reply_ends_with_its_line(text, begins, left, finished):
    assert replies(family("qwen2.5"), text, begins) == (left, finished)


def test_rows_of_one_batch_end_each_by_its_own_line():
    backbone = family("qwen3")
    ids = [backbone.ids(text) for text in ("Answer: 8\nTom has", "8\nTom has 5")]

    def says(state: State) -> Made:
        said = [ids[p][min(c, len(ids[p]) - 1)] for p, c in zip(state.prompts, state.count.tolist(), strict=True)]
        return Made(None, words=torch.stack(said))

    rows = [backbone.embed(backbone.ids("Tom"))] * 2
    for plain in (False, True):
        step = ending(says, backbone, [MARK, None])
        first, second = backbone.generate(rows, Decoding(max(map(len, ids))), step=step, plain=plain)
        assert (first[0].text, first[0].finished, second[0].finished) == ("Answer: 8", True, False)
    assert ending(says, backbone, [None, None]) is says


def test_direct_writes_its_answer_and_no_more(monkeypatch):
    """The fault: it wrote on to its length cap, and the last number it came to was graded."""
    backbone = family("qwen3")
    method, ids = build("direct", backbone), backbone.ids(" 8\nTom has 12 apples\n#### 12")
    monkeypatch.setattr(
        "workbench.methods.base.words", lambda decoding: lambda state: Made(None, words=ids[state.count])
    )
    store = wb.collect(method, SUMS, SUMS.examples("test", 2))
    assert store["prediction"].values.ravel().tolist() == ["8", "8"]
    assert store["length"].max() < 5
    assert store["finished"].all()
