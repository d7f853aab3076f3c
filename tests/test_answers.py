"""Answers: ugly completions are read strictly, LaTeX is compared without hanging, the reference's mistakes are kept."""

import random
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.tasks import equality, load_task
from workbench.tasks.answers import boxed, math_answer, number_answer, option_letter, unwrapped, yes_or_no
from workbench.tasks.equality import equal_math

# ------------------------------------------------------------------------------------------------------ strict answers


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("$\\boxed{1,234}$.", "1234"), ("-5", "-5"), ("3.14159.", "3.14159"), ("10%", "10"), ("1.005", "1.005"),
        ("#### -$10", "-10"), ("#### $-10", "-10"), ("#### −10", "-10"), ("f(3)-5", None), ("1,2,3", None),
        ("1{,}234", "1234"), ("12,\\!345", "12345"), ("#### **7**", "7"), ("#### $\\boxed{-3}$", "-3"),
    ],
)  # fmt: skip
def test_numbers(completion, answer):
    assert number_answer(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        # the article is no option
        ("A) because it is a match", "A"), ("B) because it is a match", "B"), ("#### B) because it is a match", "B"),
        ("#### C because it is a match", "C"), ("#### A because it fits", "A"), ("#### A match", None),
        ("It is a match.", None), ("A match is a match.", None), ("Answer: A match", None),
        ("the answer is a dog", None),
        ("I have a plan", None), ("A dog, a cat", None), ("#### a", "A"), ("#### (a)", "A"), ("#### a dog", None),
        # forms of a letter
        ("#### C", "C"), ("#### c.", "C"), ("#### **C**", "C"), ("#### $\\boxed{\\text{C}}$", "C"), ("####D", "D"),
        ("so $\\boxed{C}$. I hope it is correct.", "C"), ("\\boxed{\\text{(C)}}", "C"),
        ("#### C) 24\nB) is wrong", "C"),
        ("#### The answer is (C).", "C"), ("#### Option C", "C"), ("#### E 05/01/2021", "E"), ("#### A 05/01", "A"),
        ("The answer is C.", "C"), ("The correct answer is: (C) 24", "C"), ("Correct answer - C", "C"),
        ("ANSWER:C", "C"),
        ("the answer is option C", "C"), ("The answer is A because B is a trap", "A"), ("option E", "E"), ("C", "C"),
        ("The answer is B. The answer is C.", "C"), ("the answer is B since option A is small", "B"), ("(D)", "D"),
        ("#### A\nAnd so on", "A"), ("Answer: A\nand so on", "A"), ("answer is c\nso", "C"), ("#### B\n#### C", "C"),
        # none, or no decision
        ("option G", None), ("#### G", None), ("#### F", None), ("", None), ("####", None), ("#### ", None),
        ("A) 5 or B) 6", None), ("#### 24", None), ("P(A) = 0.5", None), ("Vitamin C helps", None), ("C-section", None),
        ("#### B or C", None), ("#### A, B", None), ("#### D/E", None), ("The answer is (B) or (C).", None),
        ("The answer is not (B).", None),
        ("Option B is incorrect.", None), ("#### Ｃ", "C"), ("（Ｄ）", "D"), ("#### C, because B is wrong", "C"),
        ("\\boxed{B and D}", None),
        ("#### Cat", None), ("#### C'est", None), ("\\boxed{24}", None), ("a b c d", None),
    ],
)  # fmt: skip
def test_letters(completion, answer):
    assert option_letter(completion, "ABCDE") == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("No. Actually yes", "Yes"), ("I know nothing", None), ("Yes, because there is no snow", "Yes"), ("", None),
        ("#### Yes", "Yes"), ("#### no.", "No"), ("#### **No**, there is no way", "No"),
        ("#### The answer is yes", "Yes"),
        ("#### True", "Yes"), ("#### false", "No"), ("it is true", None), ("#### maybe", None),
        ("\\boxed{\\text{No}}", "No"),
        ("There is no way. The answer is Yes since no one knows.", "Yes"), ("answer: no", "No"), ("There is no", "No"),
        ("#### Yes or no", None), ("#### No idea", None), ("#### Yes/No", None), ("The answer is not yes.", None),
        ("Is it yes or no?", None),
        ("#### No one", None), ("#### No, there is one", "No"), ("#### ＮＯ", "No"), ("#### No because it melts", "No"),
        ("There is no snow", None), ("It is No. 1", None), ("yesterday, nobody", None), ("yes\nbecause", "Yes"),
        ("The answer is `Yes`.", "Yes"), ("#### Not sure", None), ("Finished reasoning, the answer is: Yes.", "Yes"),
    ],
)  # fmt: skip
def test_yes_or_no(completion, answer):
    assert yes_or_no(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("#### \\frac12", "\\frac12"), ("#### $\\frac{1}{2}$.", "\\frac{1}{2}"), ("#### The answer is $x=4$.", "x=4"),
        ("so $\\boxed{\\frac{1}{\\sqrt{1+\\frac{1}{2}}}}$. I hope", "\\frac{1}{\\sqrt{1+\\frac{1}{2}}}"),
        ("\\boxed{1} and \\boxed{2}", "2"), ("\\boxed{1} and \\boxed{2", "1"), ("\\boxed 5.", "5"), ("\\fbox{5}", "5"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"), ("\\boxed{3}\n#### $4$", "4"), ("\\boxed{3}\n####", "3"),
        ("#### \\$18.90", "\\$18.90"), ("#### $\\$36$", "\\$36"), ("#### \\(5\\)", "5"), ("#### \\[5\\]", "5"),
        ("it is 5", None), ("", None), ("####", None), ("#### $", "$"), ("\\boxed{}", None), ("#### 50\\%", "50\\%"),
    ],
)  # fmt: skip
def test_latex(completion, answer):
    assert math_answer(completion) == answer


PIECES = [
    "####",
    "answer",
    "is",
    "the",
    "A",
    "a",
    "(",
    ")",
    "\\boxed{",
    "}",
    "$",
    "yes",
    "no",
    "-",
    "5",
    ",",
    ".",
    "\n",
    " ",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text())
def test_reading_never_fails(text):
    assert number_answer(text) is None or number_answer(text)
    assert option_letter(text, "ABCDEF") in (None, *"ABCDEF")
    assert yes_or_no(text) in (None, "Yes", "No")
    assert boxed(text) is None or unwrapped(math_answer(text) or "x")


def test_endless_repetition_is_read_quickly():
    rng = random.Random(0)
    start = time.perf_counter()
    for piece in [*PIECES, "answer ", "the answer is ", "option ", "$5$ ", " \n", "\\text{", "1,"]:
        for text in (piece * 3000, f"#### {piece * 3000}", "".join(rng.choices(PIECES, k=3000))):
            for read in (number_answer, yes_or_no, math_answer, lambda t: option_letter(t, "ABCDE")):
                read(text)
    assert time.perf_counter() - start < 20


# ------------------------------------------------------------------------------------------------------- LaTeX equality


@pytest.mark.parametrize(
    ("prediction", "gold", "same"),
    [
        ("\\frac12", "\\frac{1}{2}", True), ("0.5", "\\frac{1}{2}", True), ("x=4", "4", True),
        ("Evelyn", "\\text{Evelyn}", True),
        ("1,000", "1000", True), ("90^\\circ", "90", True), ("(1, 2)", "\\left(1,2\\right)", True),
        ("(2,1)", "(1,2)", False),
        ("\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}", "\\begin{pmatrix}-\\frac13\\\\\\frac23\\end{pmatrix}", True),
        ("(x+1)^2", "x^2+2x+1", True), ("-5", "5", False), ("(2,5)", "[2,5)", False), ("B", "\\text{(B)}", True),
        ("", "5", False),
        ("\\frac{", "5", False), ("\\text{odd}", "\\text{even}", False), ("5.0", "5", True),
        ("1e99999999999", "5", False),
    ],
)  # fmt: skip
def test_latex_equality(prediction, gold, same):
    assert equal_math(prediction, gold) is same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # a fragment is not all of it
        ("7\\sqrt(3)", "7"), ("7\\sqrt(3)", "7\\sqrt(5)"), ("g(t)=1", "\\forall t<0, g(t)=1"), ("1,2,\\ldots", "1,2"),
        ("5 or 6", "5"),
        ("0.\\overline{3}", "0.3"), ("4\\frac", "4"), ("5 +", "5"), ("2 3", "5"), ("3 \\pmod 5", "3"),
        ("f'(x)", "f(x)"), ("\\vec{a}", "a"),
        # bases, units, subscripts
        ("101_2", "101_3"), ("101_{2}", "101"), ("(47)_8", "(47)_9"), ("5\\text{ kg}", "5\\text{ lb}"),
        ("5 cm", "5 mm"), ("5\\%", "5\\text{ cm}"),
        ("5t", "5"), ("5c", "5d"), ("x_1", "x_2"), ("\\log_2 9", "\\log_3 9"), ("y=5", "x=5"),
        # small and long numbers
        ("\\frac{1}{300!}", "\\frac{1}{301!}"), ("2^{-80}", "2^{-81}"), ("10^{-12}", "10^{-13}"), ("e^{-90}", "0"),
        ("0.333333", "\\frac13"),
        ("\\pi\\cdot 10^{-25}", "\\pi\\cdot 10^{-26}"), ("2^{900}+1", "2^{900}"), ("(10^{-20}, 1)", "(10^{-21}, 1)"),
        ("x<e^{-50}", "x<e^{-60}"),
        ("1+\\frac{2}{\\mathrm{e}}", "1-\\frac{2}{\\mathrm{e}}"), ("[0,e^{-40}]", "[0,e^{-41}]"),
        # words are no products of letters
        ("\\text{listen}", "\\text{silent}"), ("never", "\\text{nerve}"), ("\\text{A}", "\\text{B}"),
    ],
)  # fmt: skip
def test_what_differs_is_not_equal(one, other):
    assert not equal_math(one, other)
    assert not equal_math(other, one)


@pytest.mark.parametrize(
    ("prediction", "gold"),
    [
        ("3\\sqrt(2)", "\\sqrt{18}"), ("5", "5\\text{ cm}^2"), ("12 inches", "12\\text{ inch}"), ("101_{2}", "101_2"),
        ("50\\%", "0.5"),
        ("50\\%", "50"), ("1.5\\pi", "\\frac{3\\pi}{2}"), ("10^{-3}", "0.001"), ("3\\text{ or }4", "4, 3"),
        ("even", "\\text{even}"),
        ("2\\frac12", "2.5"), ("y=2x+1", "y = 1+2x"), ("(-\\infty, 3)", "(-\\infty,3)"), ("pi", "\\pi"),
        ("\\$1,250", "1250"),
        ("\\left[0,\\tfrac12\\right)", "[0,0.5)"), ("\\{1, 2\\}", "\\{2,1\\}"),
        ("\\frac{1}{\\sqrt3}", "\\frac{\\sqrt3}{3}"),
    ],
)  # fmt: skip
def test_what_is_written_otherwise_is_equal(prediction, gold):
    assert equal_math(prediction, gold)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("\\boxed{\\boxed{5}}", "5"), ("\\boxed{3+\\boxed{4}}", "3+{4}"), ("#### 3+\\boxed{4}", "3+{4}"),
        ("#### so $x = \\boxed{4}$.", "4"),
        ("#### \\boxed{1}, \\boxed{2}", "{1}, {2}"), ("#### " + "x" * 2000, None),
        ("\\boxed{" * 9000 + "5" + "}" * 9000, None),
        ("#### Step 1: square\n\\boxed{9}", "9"),
    ],
)  # fmt: skip
def test_boxes_in_boxes(completion, answer):
    """Each is read as a whole, however deep they lie."""
    assert math_answer(completion) == answer


def test_equality_from_any_thread():
    """math-verify's own guard works in the main thread only."""
    found = []
    threads = [
        threading.Thread(target=lambda k=k: found.append(equal_math(f"{k}/7", f"\\frac{{{k}}}{{7}}"))) for k in (1, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True, True]


def test_what_hangs_is_not_equal_and_does_no_harm(monkeypatch):
    equal_math("\\frac{1}{3}", "\\frac{2}{6}")  # the helper is up
    before = equality._helper().process
    monkeypatch.setattr(equality, "PATIENCE", 0.3)
    assert not equal_math("(x+1)^{10^{10}}", "(1+x)^{10^{9}}")
    assert before is not None
    assert before.poll() is not None  # ended and waited for
    monkeypatch.undo()
    assert equal_math("\\frac{3}{9}", "\\frac{2}{6}")


def test_an_interrupted_comparison_leaves_no_reply_behind(monkeypatch):
    """Else every later answer would be judged by the reply to the one before."""

    def interrupted(timeout):
        raise KeyboardInterrupt

    equal_math("\\frac{2}{5}", "\\frac{4}{10}")
    monkeypatch.setattr(equality._helper().replies, "get", interrupted)
    with pytest.raises(KeyboardInterrupt):
        equal_math("\\frac{6}{10}", "\\frac{3}{5}")  # true
    assert not equal_math("\\frac{6}{10}", "\\frac{4}{5}")
    assert equal_math("\\frac{6}{10}", "\\frac{3}{5}")


def test_without_math_verify(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ValueError, match=r"^comparing LaTeX answers needs the package math-verify; pip install '.*'"):
        equal_math("\\frac{4}{9}", "2")


def test_a_helper_that_cannot_start_is_no_wrong_answer(monkeypatch):
    monkeypatch.setattr(equality, "HELPERS", [])
    monkeypatch.setattr(equality.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match=r"^the helper that compares LaTeX did not start; run /bin/false"):
        equal_math("\\frac{5}{9}", "2")


# ------------------------------------------------------------------------------------------- the reference's evaluation


@pytest.mark.parametrize(
    ("name", "completion", "answer"),
    [
        ("gsm8k", "$\\boxed{1,234}$.", "1234"), ("gsm8k", "-5", "5"), ("gsm8k", "3.14159.", "3.14"),
        ("gsm8k", "10%", "10"),
        ("gsm8k", "1.005", "1.0"), ("gsm8k", "no digits", None), ("gsm8k-socratic", "#### 5 of 7", "7"),
        ("strategyqa", "No. Actually yes", "Yes"), ("strategyqa", "I know nothing", None),
        ("strategyqa", "Yes, because there is no snow", "No"),
        ("aqua", "so $\\boxed{C}$. I hope it is correct.", "C"), ("aqua", "B) because it is a match", "A"),
        ("aqua", "option G", None), ("date_understanding", "B) because it is a match", "A"), ("aqua", "#### f", "F"),
        ("math500", "$\\boxed{\\frac12}$", "1/2"), ("math500", "\\boxed{3\\sqrt{2}}", "3√(2)"),
        ("math500", "\\boxed{(1, 2)}", "(1,2)"), ("math500", "\\boxed{1,000}", "1000"),
        ("math500", "\\boxed{90^\\circ}", "90"),
        ("math500", "\\boxed{\\text{Evelyn}}", "Evelyn"), ("math500", "\\boxed{50\\%}", "50%"),
        ("math500", "\\boxed{x=4}", "x=4"),
        ("math500", "\\boxed{\\begin{pmatrix} -1/3 \\\\ 2/3 \\end{pmatrix}}", "[-1/3/3]"),
        ("math500", "it is 1,234", "1234"),
        ("math500", "nothing", None), ("math500", "\\boxed{1} then \\boxed{2}", "2"),
    ],
)  # fmt: skip
def test_the_reference_reads_as_described(name, completion, answer):
    assert load_task(name, parse="reference").parse(completion) == answer


def test_the_reference_compares_as_described():
    gsm, math = (load_task(name, parse="reference") for name in ("gsm8k", "math500"))
    assert gsm.parsing == math.parsing == "reference"
    assert load_task("gsm8k").parsing == "strict"
    assert not gsm.same("10", "-10")  # two gold answers of the test set cannot be met
    assert gsm.same("1.0", "1")
    assert math.same("1/2", "\\frac12")
    assert not math.same("x=4", "4")  # no part after the last "="
    assert not math.same("0.5", "\\frac12")
