"""The probe without a browser: which thoughts the callable is asked with, what is kept of its answers, odd stores."""

import numpy as np
import pytest
import traitlets as tr
from kept_pages import fetched
from stores import synthetic_store

from workbench.analysis.diagnostics import principal_axes
from workbench.analysis.projection import pca, placed
from workbench.widgets import Probe


class Live:
    """A callable that answers with what it was asked, and remembers."""

    def __init__(self):
        self.asked = []

    def __call__(self, example, vectors):
        self.asked.append((example, vectors))
        return f"{example} {vectors.sum():.3f}"

    @property
    def last(self):
        return self.asked[-1][1]


@pytest.fixture
def store():
    return synthetic_store(20)


def thoughts(store, example):
    return store["thought"].sel(example=example).isel(path=0).values.astype(np.float32)


def test_unchanged_thoughts_are_asked_first(store):
    live = Live()
    widget = Probe(store, live, question="0003")
    ((example, vectors),) = live.asked
    assert example == "0003"
    np.testing.assert_array_equal(vectors, thoughts(store, "0003"))
    assert widget.answers.empty
    assert "answered otherwise here" in widget.said_now.value  # this callable is not the store's model


def test_along_an_axis_in_standard_deviations(store):
    live = Live()
    widget = Probe(store, live, question="0003")
    widget.step = 2
    widget.axis = 2
    widget.amount = 1.5
    cloud = store["thought"].isel(path=0, step=2).values.astype(np.float64)
    centred = cloud - cloud.mean(0)
    values, directions = np.linalg.eigh(centred.T @ centred / (len(cloud) - 1))
    moved = live.last - thoughts(store, "0003")
    assert np.abs(moved[[0, 1, 3]]).max() == 0
    along = directions[:, -2]
    assert np.abs(moved[2] @ along) == pytest.approx(1.5 * np.sqrt(values[-2]), rel=1e-3)
    assert np.linalg.norm(moved[2]) == pytest.approx(1.5 * np.sqrt(values[-2]), rel=1e-3)
    row = widget.answers.iloc[-1]
    assert row[["question", "thought", "moved", "amount", "changed"]].tolist() == ["0003", 2, "axis 2", 1.5, True]
    assert row["answer"] == f"0003 {live.last.sum():.3f}"
    assert "another answer" in widget.said_now.value


def test_towards_another_question_a_gold_step_a_word(store):
    live, word = Live(), np.full(8, 2.0)
    steps = np.random.default_rng(0).normal(size=(20, 3, 8)).astype(np.float32)
    store["step_vector"] = (("example", "reasoning", "feature"), steps)
    widget = Probe(store, live, embedding=lambda text: word * len(text), question="0003")
    own = thoughts(store, "0003")
    widget.kind, widget.other = "other", "0007"
    widget.amount = 0.25
    np.testing.assert_allclose(live.last[0], 0.75 * own[0] + 0.25 * thoughts(store, "0007")[0], rtol=1e-4, atol=1e-5)
    widget.amount = 1.0
    np.testing.assert_allclose(live.last[0], thoughts(store, "0007")[0], rtol=1e-4, atol=1e-5)
    widget.kind = "gold step"
    np.testing.assert_allclose(live.last[0], steps[3, 0], rtol=1e-4, atol=1e-5)
    widget.kind, widget.word = "word", "plus"
    np.testing.assert_allclose(live.last[0], np.full(8, 8.0), rtol=1e-5)
    assert widget.answers["moved"].tolist()[-1] == "'plus'"
    np.testing.assert_array_equal(live.last[1:], own[1:])


def test_a_sweep_goes_from_end_to_end(store):
    live = Live()
    widget = Probe(store, live)
    found = widget.sweep()
    assert found["amount"].tolist() == np.linspace(-3, 3, 9).tolist()
    assert found["changed"].tolist() == [True] * 4 + [False] + [True] * 4
    asked = len(live.asked)
    widget.sweep()
    assert len(live.asked) == asked  # the same thoughts are not asked again


def test_what_goes_wrong_in_the_callable_is_said(store):
    def broken(example, vectors):
        raise RuntimeError("out of <memory>")

    widget = Probe(store, broken)
    assert "No answer: out of &lt;memory&gt;." in widget.said_now.value
    widget.kind = "other"
    with pytest.raises(tr.TraitError, match="no example 'x' in this store"):
        widget.question = "x"
    with pytest.raises(tr.TraitError, match="step 9: give 0 to 3"):
        widget.step = 9
    with pytest.raises(tr.TraitError, match="axis 0: give 1 to 8"):
        widget.axis = 0
    with pytest.raises(RuntimeError, match="out of"):
        widget.ask()  # called by a program, it raises


def test_a_step_that_a_question_lacks_is_said():
    store = synthetic_store(9, masked=True)
    widget = Probe(store, Live())  # the first question has no last step
    widget.step = 3
    assert "has no thought 3: it has 3" in widget.said_now.value
    widget.question = "0001"
    assert "has no thought" not in widget.said_now.value


@pytest.mark.parametrize(
    ("stores", "words"),
    [
        (synthetic_store(4, steps=0), "no thoughts to move"),
        (synthetic_store(4).drop_vars("mask"), "cannot be shown"),
        (None, "This is a NoneType"),
    ],
)
def test_odd_stores_show_a_sentence(stores, words, tmp_path):
    widget = Probe(stores, Live())
    assert words in widget.to_html(tmp_path / "page.html").read_text()
    widget.close()


@pytest.mark.parametrize("store", [synthetic_store(1), synthetic_store(2, steps=1), synthetic_store(3, reasoning=0)])
def test_small_stores_are_shown(store, tmp_path):
    widget = Probe(store, Live())
    widget.amount = 0.5
    widget.to_html(tmp_path / "page.html")


def test_two_do_not_interfere_and_the_page_needs_no_network(store, tmp_path):
    one, other = Probe(store, Live()), Probe(store, Live())
    one.amount = 2.0
    assert other.amount == 0
    assert other.answers.empty
    text = one.to_html(tmp_path / "page.html").read_text()
    assert one.text in text
    assert fetched(text) == []
    shown = one.said_now.value
    one.close()
    one.amount = 1.0
    assert one.said_now.value == shown


def test_principal_axes_and_places_on_a_map():
    x = np.random.default_rng(1).normal(size=(50, 6)) * [5, 3, 1, 1, 1, 0.1]
    axes = principal_axes(x, 3)
    values = np.linalg.eigvalsh(np.cov(x.T))[::-1]
    assert np.square(axes).sum(1) == pytest.approx(values[:3])
    assert np.abs(axes[0] @ axes[1]) < 1e-9
    assert len(principal_axes(np.outer([1.0, 2, 3], [1.0, 0]), 2)) == 1
    points = pca(x).points
    np.testing.assert_allclose(placed(x, points, x[:5]), points[:5], atol=1e-8)
    middle = placed(x, points, (x[:1] + x[1:2]) / 2)
    np.testing.assert_allclose(middle, (points[:1] + points[1:2]) / 2, atol=1e-8)
    few = x[:4]  # fewer samples than features
    np.testing.assert_allclose(placed(few, pca(few).points, few), pca(few).points, atol=1e-8)
