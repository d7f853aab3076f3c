"""Numbers are read by what is said: whole or not at all, in any spelling, of gold answers as of predictions."""

import json

import pytest

from workbench.tasks import load_task
from workbench.tasks.number import equal_numbers, number_said


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # fractions, powers
        ("2/5", "0.4"), ("7/4 of a mile", "1.75"), ("4 3/4", "4.75"), ("-1 1/2", "-1.5"), ("2 and 1/2", "2.5"),
        ("\\frac34", "0.75"),
        ("3\\dfrac{1}{4}", "3.25"), ("-\\tfrac{3}{8}", "-0.375"), ("\\frac{-1}{4}", "-0.25"), ("5¾", "5.75"),
        ("3⁄8", "0.375"),
        ("2e4", "20000"), ("2.5E-1", "0.25"), ("10^4", "10000"), ("10**2", "100"), ("10^{-2}", "0.01"),
        ("10⁵", "100000"),
        ("6.02 × 10³", "6020"), ("1.2 \\times 10^{2}", "120"), ("1.2 \\cdot 10^2 m", "120"), ("2^5", "32"),
        ("3 million", "3000000"),
        # signs
        ("- 8", "-8"), ("–8", "-8"), ("—8", "-8"), ("－８", "-8"), ("‑8", "-8"), ("-$8.50", "-8.5"), ("$-8.50", "-8.5"),
        ("(-8)", "-8"),
        ("minus 8", "-8"), ("+8", "8"), ("−\u00a08", "-8"),
        # thousands and digits
        ("12,345,678", "12345678"), ("12\u202f345", "12345"), ("12\u00a0345\u00a0678", "12345678"), ("12'345", "12345"),
        ("12_345", "12345"), ("12{,}345", "12345"), ("12\\,345", "12345"), ("1,23,456", "123456"), ("٤٢", "42"),
        ("４２", "42"),
        # dress, units, currencies
        ("€42", "42"), ("42 €", "42"), ("US$42", "42"), ("42 USD", "42"), ("42%", "42"), ("42\\%", "42"),
        ("42°", "42"), ("42km", "42"),
        ("42 cm^2", "42"), ("42 m²", "42"), ("$42/hour", "42"), ("__42__", "42"), ("`42`", "42"), ("42.", "42"),
        (".25", "0.25"),
        ("42 (see line 3)", "42"), ("42, not 43", "42"), ("42 because 40 + 2 = 42", "42"), ("about 42", "42"),
        ("42nd", "42"),
        ("6 * 7 = 42", "42"), ("n = 42", "42"), ("84/2 = 42 pens", "42"), ("2x = 84 => x = 42", "42"),
        ("4 \\div 2 = 2", "2"),
    ],
)  # fmt: skip
def test_what_is_said(text, value):
    read = number_said(text)
    assert read is not None
    assert equal_numbers(read, value)
    assert not equal_numbers(read, f"1{value.lstrip('-')}")


@pytest.mark.parametrize(
    "text",
    [
        "3-4", "3–4", "3 to 4", "3 or 4", "between 3 and 4", "3:30", "2:1", "12/25/2020", "2020-01-05", "12,34",
        "1,2345", "0,5", "1.234,5",
        "1.2.3", "3, 4", "3 4", "3 hours 20 minutes", "3 dollars and 20 cents", "5'3", "3 + 4", "3 - 4", "3x", "3 x",
        "3\\sqrt{2}", "3√2",
        "√9", "2\\pi", "3!", "17_8", "17₈", "0x1F", "±3", ">3", "≤ 3", "x > 3", "x != 3", "not 3", "3 out of 4",
        "3 and a half",
        "3 dozen", "3k", "$3M", "0.333...", "0.\\overline{3}", "1/0", "1e99999991", "10^99999", "9" * 500,
        "7 squared", "(3)", "[3]", "--3",
        "twenty 3", "3 to four", "a = 3, b = 4", "Tom 3, Ann 4", "x3", "3e", "2^0.5", "nan", "inf", "three", "",
        "3" + " " * 2000,
    ],
)  # fmt: skip
def test_a_part_of_what_is_said_is_nothing(text):
    assert number_said(text) is None


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        # a box and an announcement say it, whatever numbers follow
        ("Thus \\boxed{30}. (All 4 weeks are counted.)", "30"), ("$\\fbox{\\text{30 eggs}}$ in 4 boxes", "30"),
        ("\\boxed{\\boxed{30}} of 40", "30"), ("\\boxed{29 + \\boxed{1}}", None), ("\\boxed{3} or \\boxed{4}", None),
        ("First \\boxed{5}, and then \\boxed{30} after 2 steps.", "30"), ("\\boxed{\\frac{-3}{4}}", "-0.75"),
        ("The answer is 30. I used 2 rules.", "30"), ("**Final Answer:** 30 (of 50)", "30"),
        ("Answer (in euros): 30\nin 2 days", "30"),
        ("The answer is\n\n30\n\nin 2 steps", "30"), ("So the total is 10 + 20 = 30. That is 3 times 10.", "30"),
        ("- 30 is the answer. I looked 2 times.", "-30"), ("The answer is 10. No: the answer is 30.", "30"),
        ("The answer is not 30", None), ("The answer is found by adding 5 to 3.", None),
        ("the answers are 3 and 4", None),
        ("Answer - 30", None), ("the answer is between 3 and 4", None),
        # marks
        ("#### 30 ####", "30"), ("#####30", "30"), ("#### 3\n#### 30", "30"), ("#### Answer: 30", "30"),
        ("#### Final answer\n30", "30"),
        ("#### Step 1: add\n10 + 20\n#### Step 2: say\nThe answer is 30.", "30"), ("30\n#### unknown", None),
        ("#### 30\nNext: 40", "30"),
        ("#### \\boxed{3} or \\boxed{4}", None), ("#### $\\boxed{3}+4$", None),
        # sentences
        ("10 + 20 = 30 eggs", "30"), ("She has 50 eggs.\nShe keeps 50 - 20 = 30 of them.", "30"),
        ("There are 3 hens and 4 cocks.", None),
        ("She has 30. I checked it 2 times.", None),
    ],
)  # fmt: skip
def test_an_answer_is_where_it_is_said(completion, answer):
    task = load_task("gsm8k")
    read = task.parse(completion)
    assert read == answer if read is None or answer is None else task.same(read, answer)


@pytest.mark.parametrize(
    "written",
    [
        "27", "2,700", "27.50", "$27", "27 euros", "9%", "-9%", "3/8", "2 3/8", "–27", "**27**", "\\boxed{27}",
        "n = 27", "27 #", "$\\frac{3}{8}$",
        "2.7e3", "27.", "+27", "27 km/h", "20 + 7 = 27", "٢٧", "2 million", "27, not 28",
    ],
)  # fmt: skip
def test_a_gold_answer_is_right_when_copied(tmp_path, written):
    (tmp_path / "test.jsonl").write_text(
        json.dumps({"question": "?", "answer": f"a step\n#### {written}"}), encoding="utf-8"
    )
    task = load_task("gsm8k", str(tmp_path))
    (example,) = task.examples("test")
    for text in (written, example.answer):
        read = task.parse(f"a step\n#### {text}")
        assert read is not None
        assert task.same(read, example.answer)


@pytest.mark.parametrize(
    "written", ["27-28", "12,34", "27 or 28", "many", "(27)", "3:30", "1e99999991", "5!", "9" * 3000]
)
def test_a_gold_answer_that_nothing_can_equal_is_refused(tmp_path, written):
    rows = [{"question": "?", "answer": "a\n#### 1"}, {"question": "??", "answer": f"a step\n#### {written}"}]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=r"test\.jsonl, line 2: the answer must end in a line '#### number'") as error:
        load_task("gsm8k", str(tmp_path)).examples("test")
    assert len(str(error.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        (["<<48/2=24>>", "<<48+24=72>>"], ("48/2=24", "48+24=72")),
        (["<<48/2=24>> <<48+24=72>>"], ("48/2=24", "48+24=72")),
        (["<<48/2=24>>.", "Both: 48 + 24 = <<48+24=72>>72"], ("48/2=24", "Both: 48 + 24 = 72")),
        (["<<>>", "72 in all"], ("72 in all",)),
    ],
)
def test_equations_alone_are_steps(tmp_path, lines, steps):
    """As in GSM8K-Aug; in GSM8K's own lines they repeat what stands beside them."""
    answer = "\n".join([*lines, "#### 72"])
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "?", "answer": answer}))
    (example,) = load_task("gsm8k", str(tmp_path)).examples("test")
    assert example.steps == steps
    assert example.labels["steps"] == len(steps)
