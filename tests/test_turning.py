"""The thought that is moved is the surest one whose answer turns."""

import numpy as np
import pytest
from stores import synthetic_store

from workbench import store
from workbench.evidence.turning import turning

WHERE = {"+": np.full(8, 3.0), "-": np.full(8, -3.0)}


@pytest.fixture
def read():
    """A store in which the second slot says plus or minus, surer from question to question."""
    found = synthetic_store(6, steps=2, accuracy=1.0)
    shape = (6, 1, 2, 1)
    token, sure = np.full(shape, "the", dtype=object), np.full(shape, 0.1)
    token[:, 0, 1, 0] = ["+", "-", "+", " -", "+", "+"]
    sure[:, 0, 1, 0] = [0.2, 0.9, 0.7, 0.8, 0.6, 0.5]
    ids = np.zeros(shape, int)
    return found.assign(lens_id=(store.RANK, ids), lens_token=(store.RANK, token), lens_probability=(store.RANK, sure))


def listening(questions):
    """What answers by the sign of the second thought, to these questions alone."""
    asked = []

    def answer(question, vectors):
        asked.append(question)
        sign = abs(vectors[1]).min() == 3 and vectors[1].mean()
        return f"{sign:+.0f}" if question in questions else "the same"

    return answer, asked


def test_the_surest_that_turns_is_found(read):
    answer, asked = listening({"0002", "0003"})
    found = turning(read, answer, WHERE.__getitem__, ("+", "-"))
    assert (found.question, found.step, found.word, found.other) == ("0003", 1, "-", "+")
    assert (found.probability, found.after, found.turns) == (0.8, "+3", True)
    assert list(dict.fromkeys(asked)) == ["0001", "0003"]


def test_where_none_turns_the_surest_is_given(read):
    answer, asked = listening(set())
    found = turning(read, answer, WHERE.__getitem__, ("+", "-"), tries=2)
    assert (found.question, found.turns) == ("0001", False)
    assert len(asked) == 4


def test_wrong_answers_do_not_count(read):
    wrong = read.assign(correct=read["correct"] & (np.arange(6) != 3)[:, None, None])
    assert turning(wrong, listening({"0002", "0003"})[0], WHERE.__getitem__, ("+", "-")).question == "0002"


def test_what_cannot_be_is_said(read):
    with pytest.raises(ValueError, match=r"no thought behind a right answer reads as one of x, y"):
        turning(read, listening(set())[0], WHERE.__getitem__, ("x", "y"))
    with pytest.raises(ValueError, match=r"does not say what thoughts read as"):
        turning(synthetic_store(), listening(set())[0], WHERE.__getitem__, ("+", "-"))
