"""A file of the user's own as a task: what is read of it, how, what is left out, and what a run remembers."""

import random
from pathlib import Path

import pytest
from own_files import SPLITS, given, svamp, written

from workbench.__main__ import main
from workbench.tasks import Layout, load_task
from workbench.tasks.accounts import account
from workbench.tasks.jsonl.task import RowsLeftOut

GSM8K = Path(__file__).parents[2] / "shared" / "data" / "gsm8k"


# ------------------------------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize("kind", ["json", "jsonl", "csv", "tsv", "parquet"])
def test_the_same_rows_are_the_same_examples_in_every_kind_of_file(tmp_path, kind):
    task = load_task("jsonl", written(tmp_path / f"svamp.{kind}", svamp()))
    found = given(task)
    assert len(found) == 60
    first = found["chal-0"]
    assert first.question == "Tom has 9  pens and gives 3 pens away. How many has Tom?"
    assert (first.steps, first.answer) == (("9 - 3 = 6",), "6")
    assert task.layout == Layout(
        "Body+Question", "Answer", "Equation", "none", "ID", kind="number", dev=0.1, test=0.2, seed=0,
        instruction="Solve the problem step by step, one short step per line. End with a line that reads '#### ' and "
        "the number.",
    )  # fmt: skip
    assert task.parse("so\n#### 6.0") == "6.0"
    assert task.same("6.0", "6")


@pytest.mark.parametrize(
    ("row", "example"),
    [
        (
            {"iIndex": 4, "sQuestion": "Q?", "lEquations": ["X=(4.0*(9.0-1.0))"], "lSolutions": [32.0]},
            ("Q?", ("4*(9-1)=32",), "32"),
        ),
        (
            {"body": "B.", "question": "Q?", "answer": "9 (apples)", "formula": "7+2=9"},
            ("B. Q?", ("7+2=9",), "9"),
        ),
        (
            {"question": "Q?", "cot": "<<3+4=7>> <<7*2=14>>", "answer": "14"},
            ("Q?", ("3+4=7", "7*2=14"), "14"),
        ),
        (
            {"question": "Q?", "steps": ["3 + 4 = 7", "7 * 2 = 14"], "answer": "14"},
            ("Q?", ("3 + 4 = 7", "7 * 2 = 14"), "14"),
        ),
        (
            {"question": "Q?", "answer": "He has 3 + 4 = <<3+4=7>>7.\nTwice that is 14.\n#### 1,400"},
            ("Q?", ("He has 3 + 4 = 7.", "Twice that is 14."), "1400"),
        ),
        (
            {"problem": "Q?", "solution": "It is so.\nThus \\boxed{14}."},
            ("Q?", ("It is so.", "Thus \\boxed{14}."), "14"),
        ),
        ({"input": "Q?", "target": "-1/2"}, ("Q?", (), "-1/2")),
    ],
    ids=["multiarith", "asdiv", "gsm8k-aug", "steps", "gsm8k", "boxed", "plain"],
)
def test_public_layouts_are_known_by_their_columns(tmp_path, row, example):
    task = load_task("jsonl", written(tmp_path / "own.jsonl", [row]), layout={"test": 0, "dev": 0})
    (found,) = task.load("train")
    assert (found.question, found.steps, found.answer) == example
    assert task.layout.kind == "number"


@pytest.mark.parametrize(
    ("steps", "read"),
    [
        (["x=40"], ("x=40",)), (["3+4", "7*2"], ("3+4", "7*2")), ("X = 3 * 4", ("3 * 4 = 12",)), ("12.0", ("12.0",)),
        ("(3.0+9.0)*(2.0-1.0)", ("(3+9)*(2-1)=12",)), ("3+9=x", ("3+9=12",)), ("3+9=12", ("3+9=12",)), ("", ()),
        ("((10.0 + 2.0))", ("10 + 2 = 12",)), ("Add 3 + 9", ("Add 3 + 9",)), (None, ()),
    ],
)  # fmt: skip
def test_only_a_lone_calculation_without_its_result_gets_it(tmp_path, steps, read):
    rows = [{"question": "Q?", "steps": steps, "answer": 12}]
    task = load_task("jsonl", written(tmp_path / "own.json", rows), layout={"test": 0, "dev": 0})
    assert task.load("train")[0].steps == read


def test_lines_of_text_are_read_as_gsm8k_aug_is_published(tmp_path):
    text = "Out of 600, 30% left. How many?||<<600*30/100=180>> <<600-180=420>> #### 420\n"
    task = load_task("jsonl", written(tmp_path / "train.txt", [], text), layout={"test": 0, "dev": 0})
    (found,) = task.load("train")
    assert (found.steps, found.answer) == (("600*30/100=180", "600-180=420"), "420")
    assert "steps: what stands before the answer's ####" in task.taken


@pytest.mark.parametrize(
    ("rows", "answers"),
    [
        ([{"options": ["A)one", "B)two", "C)six"], "correct": "C"}], ["C"]),
        ([{"choices": ["one", "two"], "answer": "two"}], ["B"]),
        ([{"choices": {"label": ["1", "2"], "text": ["x", "y"]}, "answerKey": "2"}], ["B"]),
        ([{"A": "one", "B": "two", "C": "", "answer": "b"}], ["B"]),
        ([{"options": {"A": "x", "B": "y"}, "answer": "A"}], ["A"]),
        ([{"choices": ["x", "y"], "answer": 0}, {"choices": ["x", "y", "z"], "answer": 2}], ["A", "C"]),
        ([{"choices": ["x", "y"], "answer": 1}, {"choices": ["x", "y", "z"], "answer": 3}], ["A", "C"]),
    ],
    ids=["aqua", "text", "arc", "columns", "object", "from 0", "from 1"],
)
def test_a_choice_is_its_letter(tmp_path, rows, answers):
    rows = [{"question": f"Q{k}?", **row} for k, row in enumerate(rows)]
    task = load_task("jsonl", written(tmp_path / "own.jsonl", rows), layout={"test": 0, "dev": 0})
    found = task.load("train")
    assert [example.answer for example in found] == answers
    assert all("\nA) " in example.question and "\nB) " in example.question for example in found)
    assert task.parse("The answer is B.") == "B"


def test_a_place_that_could_be_two_options_is_left_out(tmp_path):
    rows = [{"question": f"Q{k}?", "choices": ["x", "y", "z"], "answer": 1} for k in range(4)]
    with pytest.raises(ValueError, match="4 of 4 rows cannot be read; the answer is a place, and no row says whether"):
        load_task("jsonl", written(tmp_path / "own.jsonl", rows))


@pytest.mark.parametrize(
    ("answers", "kind", "completion", "right"),
    [
        ([True, False], "yes-no", "Yes, it is.", True),
        (["no", "yes", 1, 0], "yes-no", "#### yes", False),
        (["$\\frac{1}{2}$", "x^2"], "latex", "so \\boxed{\\frac{1}{2}}", True),
        (["Paris", "the Seine"], "text", "The answer is paris.", True),
        (["Paris", "Rome"], "text", "Paris is nice\n#### Rome", False),
        ([3, "4.50"], "number", "It is 3.", True),
    ],
)
def test_the_kind_of_answer_is_found(tmp_path, answers, kind, completion, right):
    rows = [{"question": f"Q{k}?", "answer": answer} for k, answer in enumerate(answers)]
    task = load_task("jsonl", written(tmp_path / "own.jsonl", rows), layout={"test": 0, "dev": 0})
    assert task.layout.kind == kind
    first = task.load("train")[0]
    read = task.parse(completion)
    assert read is not None
    assert task.same(read, first.answer) is right
    assert task.same(task.parse(f"#### {first.answer}"), first.answer)


def test_what_a_table_leaves_empty_is_nothing(tmp_path):
    rows = [{"question": f"Q{k}?", "cot": None if k else "2+1=3", "answer": 3 + k} for k in range(3)]
    for kind in ("parquet", "csv", "json"):
        task = load_task("jsonl", written(tmp_path / f"own.{kind}", rows), layout={"test": 0, "dev": 0})
        assert [example.steps for example in task.load("train")] == [("2+1=3",), (), ()]


# -------------------------------------------------------------------------------------------------------------- splits


def test_a_file_is_cut_by_a_hash_and_a_question_stays_where_it_is(tmp_path):
    def cut(rows, **layout):
        task = load_task("jsonl", written(tmp_path / "own.json", rows), layout=layout)
        return {name: task.split_of([example]) for name, example in given(task).items()}

    few, many = cut(svamp(300)), cut(svamp(400)[::-1])
    assert few == {name: many[name] for name in few}
    counts = [list(many.values()).count(split) for split in SPLITS]
    assert sum(counts) == 400
    assert 20 < counts[1] < 60
    assert 50 < counts[2] < 110
    assert cut(svamp(300), seed=1) != few
    assert set(cut(svamp(300), dev=0.5, test=0.5).values()) == {"dev", "test"}


def test_a_folder_has_its_own_splits_and_no_question_is_in_two(tmp_path):
    rows = svamp(40)
    written(tmp_path / "svamp_test.json", rows[:10])
    written(tmp_path / "train-00000-of-00002.jsonl", rows[5:20])
    written(tmp_path / "train-00001-of-00002.jsonl", rows[20:])
    written(tmp_path / "notes.json", [{"a": 1}])
    written(tmp_path / "extra" / "dev.json", rows)  # files in folders of the folder are no splits
    with pytest.warns(RowsLeftOut, match="5 of 45 rows are left out; the question stands in test too: 5 rows"):
        task = load_task("jsonl", str(tmp_path))
    found = {split: {example.id for example in task.load(split)} for split in SPLITS}
    files = "train-00000-of-00002.jsonl as train, train-00001-of-00002.jsonl as train"
    assert f"files: svamp_test.json as test, {files}" in task.taken
    assert found["test"] == {f"chal-{k}" for k in range(10)}
    assert found["train"] | found["dev"] == {f"chal-{k}" for k in range(10, 40)}
    assert found["dev"]
    assert not found["train"] & found["dev"]


def test_a_file_called_as_the_split_is_taken_before_others(tmp_path):
    written(tmp_path / "test.json", svamp(4))
    written(tmp_path / "test_hard.json", svamp(30))
    assert load_task("jsonl", str(tmp_path)).taken[-1] == "files: test.json as test"


@pytest.mark.skipif(not GSM8K.is_dir(), reason=f"GSM8K's JSONL files are not at {GSM8K}")
def test_gsm8k_is_read_as_its_own_task_reads_it(tmp_path):
    lines = (GSM8K / "test.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[:300]
    (tmp_path / "test.jsonl").write_text("".join(lines), encoding="utf-8")
    own, native = (load_task(name, str(tmp_path)).examples("test") for name in ("jsonl", "gsm8k"))
    told = [[(one.question, one.steps, one.answer) for one in found] for found in (own, native)]
    assert told[0] == told[1]


def test_ids_that_are_not_one_each_are_places(tmp_path):
    rows = [{**row, "ID": "same"} for row in svamp(6)]
    task = load_task("jsonl", written(tmp_path / "own.json", rows), layout={"test": 0, "dev": 0})
    assert sorted(given(task)) == [f"own-{k}" for k in range(1, 7)]


# ------------------------------------------------------------------------------------------------------------ left out


def test_rows_that_cannot_be_read_are_said_with_their_place(tmp_path):
    rows = svamp(12)  # of which the first of each kind that is left out is shown
    rows[2]["Answer"] = "4 (red); 5 (blue)"
    rows[5]["Answer"] = "many"
    rows[6]["Answer"] = None
    rows[7]["Body"] = " "
    rows[9] = rows[8] | {"ID": "copy"}
    with pytest.warns(RowsLeftOut, match="5 of 12 rows are left out"):
        task = load_task("jsonl", written(tmp_path / "own.json", rows), layout={"test": 0, "dev": 0})
    assert len(task.load("train")) == 7
    assert set(task.refused) == {
        "the answer says several numbers: 1 row (first own.json, row 3, '4 (red); 5 (blue)')",
        "the answer cannot be read as a number: 1 row (first own.json, row 6, 'many')",
        "there is no answer: 1 row (first own.json, row 7)",
        "'Body' holds no text: 1 row (first own.json, row 8, ' ')",
        f"the same example stands before: 1 row (first own.json, row 10, {rows[8]['Body'] + ' How many has Tom?'!r})",
    }
    said = account(task)
    assert "rows: 12, 5 of them left out" in said
    assert "examples: train 7; dev none" in said
    assert all(f"  {sentence}" in said for sentence in task.refused)


BAD = {
    "missing": (None, "no file or folder at .*own.json; give one of your own"),
    "empty": ("", "own.json.*: not JSON"),
    "list": ("[]", "own.json is empty"),
    "not JSON": ("[{]", "own.json, line 1: not JSON"),
    "no rows": ('{"a": 1}', "own.json holds no list of rows, or more than one"),
    "no object": ('[{"question": "a", "answer": 1}, 3]', "own.json, line 1: an entry must be an object"),
    "columns": (
        '[{"text": "a", "answer": 1}]',
        "no column is called as the question usually is; give --layout.question",
    ),
    "all bad": ('[{"question": "a", "answer": {}}]', "1 of 1 rows cannot be read; the answer holds several values"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_one_sentence_and_leaves_nothing(tmp_path, name, capsys):
    text, complaint = BAD[name]
    path = tmp_path / "own.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        load_task("jsonl", str(path))
    assert main(["train", "--task", "jsonl", "--data", str(path), "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        (
            "own.csv",
            "question,answer\nwhat, then,3\n",
            "line 2: 3 cells, the header has 2; quote a cell that holds ','",
        ),
        ("own.csv", "question,question\n1,2\n", "the header names 'question' twice"),
        ("own.csv", 'question,answer\n"what,3\n', "no CSV"),
        ("own.parquet", "PAR0", "own.parquet is no parquet file"),
        ("own.xml", "<a/>", "own.xml is of a kind that is not read; give .jsonl"),
        ("own.jsonl", '{"question": "a", "answer": 1}\n{"question"\n', "own.jsonl, line 2: not JSON"),
    ],
)
def test_each_kind_of_file_has_its_sentence(tmp_path, name, text, complaint):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=complaint):
        load_task("jsonl", str(tmp_path / name))


ODD = [
    None, True, 0, -3.5, 1e300, 10**40, "", "a", "12", "9 (apples)", "\\frac{1}{2}", "####", "x #### 5", "\\boxed{", [],
    [1, 2], ["A) x", "B) y"], {"A": "x", "B": "y"}, {"text": ["x", "y"], "label": 3}, {}, [[1]], "a\nb",
    "1/0", "\u2028", "<<1+1=2>>", "X=(1+2)", "((1+2)", "x" * 3000, [None, "a"], float("nan"), float("inf"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::workbench.tasks.jsonl.task.RowsLeftOut")
@pytest.mark.parametrize("seed", range(5))
def test_whatever_columns_hold_it_is_read_or_one_sentence(tmp_path, seed):
    draw = random.Random(seed)
    names = ["steps", "options", "A", "B", "id", "solution", "labels"]
    for _ in range(40):
        columns = ["question", "answer", *draw.sample(names, 3)]
        few = {column: draw.sample(ODD, 2) for column in columns}
        rows = [
            {column: draw.choice(few[column]) if draw.random() < 0.5 else f"{k}" for column in columns}
            for k in range(draw.randint(1, 6))
        ]
        layout = {"kind": draw.choice(["number", "choice", "yes-no", "text", "latex"])} if draw.random() < 0.5 else {}
        try:
            told = [account(load_task("jsonl", written(tmp_path / "own.json", rows), layout=layout))]
        except ValueError as error:
            told = str(error).splitlines()
        assert len(told) == 1


def test_a_line_separator_in_a_cell_is_no_line(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text('question,answer\na\u2028b,1\n"c,\nd",2\n', encoding="utf-8")
    found = load_task("jsonl", str(path), layout={"test": 0, "dev": 0}).load("train")
    assert [(one.question, one.answer) for one in found] == [("a\u2028b", "1"), ("c,\nd", "2")]


@pytest.mark.parametrize(
    ("layout", "complaint"),
    [
        ({"question": "Text"}, "there is no column 'Text' for question; there are ID, Body, Question"),
        ({"kind": "numbers"}, "kind"),
        ({"kind": "choice"}, "a choice needs its options: give --layout.options"),
        ({"dev": 0.6, "test": 0.6}, "dev is 0.6 and test 0.6 of the file; give shares of at most 1 together"),
        ({"test": 2}, "test is 2.*; give a number from 0 to 1"),
        ({"columns": "a"}, "unknown option 'columns': there are question, answer"),
    ],
)
def test_a_layout_that_cannot_be_is_one_sentence(tmp_path, layout, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_task("jsonl", written(tmp_path / "own.json", svamp(4)), layout=layout)


def test_a_split_without_examples_says_what_to_do(tmp_path):
    task = load_task("jsonl", written(tmp_path / "test.json", svamp(4)))
    assert len(task.examples("test")) == 4
    with pytest.raises(
        ValueError, match=r"test.json has no train examples \(4 test\); give a folder with a train file"
    ):
        task.examples("train")
    task = load_task("jsonl", written(tmp_path / "own.json", svamp(4)), layout={"dev": 0})
    with pytest.raises(ValueError, match=r"has no dev examples .*a larger --layout\.dev"):
        task.examples("dev")


def test_only_a_file_of_ones_own_has_a_layout(tmp_path):
    with pytest.raises(ValueError, match="task 'arith' knows how its files are laid out"):
        load_task("arith", layout=Layout(seed=1))
    with pytest.raises(ValueError, match=r"has no test part; .* a file with columns of its own is read by task jsonl"):
        load_task("gsm8k", written(tmp_path / "own.json", svamp(4))).examples("test")
