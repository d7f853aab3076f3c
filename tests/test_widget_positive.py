"""Positive steps without a browser: what is shown is what the loss sees; traits, filters, odd stores, the page."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import traitlets as tr
from kept_pages import fetched, pictures
from stores import synthetic_store

import workbench as wb
from workbench import diagnostics as d
from workbench.methods.lta_thinker import LTAThinkerConfig
from workbench.widgets import PositiveSteps

LABELLED = ("answer", "middle", "last", "random", "oracle")


@pytest.fixture(scope="module")
def examples():
    """Questions with one to several worked steps."""
    return wb.load_task("arith-shift").examples("dev", 8)


@pytest.mark.parametrize("positive", LABELLED)
@pytest.mark.parametrize("published", [False, True])
@torch.no_grad()
def test_the_scores_shown_are_the_training_losss(tiny, examples, positive, published):
    config = LTAThinkerConfig.reference() if published else LTAThinkerConfig()
    config = replace(config, positive=positive, temperature=0.3)
    task = wb.load_task("arith-shift")
    method = wb.build("lta-thinker", tiny(), config)
    widget = PositiveSteps(wb.collect(method, task, examples))
    assert widget.temperature == 0.3
    assert widget.rule == ("critical" if positive == "oracle" else positive)  # those the run was trained with
    widget.show = "all"
    losses = widget.questions.set_index("example")["loss"]
    prompts = {example.id: method.render(example, task) for example in examples}
    for name, prompt in prompts.items():
        widget.question = name
        ((_, row),) = widget.steps[widget.steps["positive"]].iterrows()
        focus = float(method.loss([prompt]).parts["focus"])
        assert -np.log(row["weight"]) == pytest.approx(focus, abs=1e-5)
        assert losses[name] == pytest.approx(focus, abs=1e-5)
        near = method.step_similarities([prompt])
        assert widget.steps["answer"].to_numpy() == pytest.approx(near["answer"][0].numpy(), abs=1e-5)
        assert widget.steps["question"].to_numpy() == pytest.approx(near["question"][0].numpy(), abs=1e-5)
    together = float(method.loss(list(prompts.values())).parts["focus"])
    assert losses.mean() == pytest.approx(together, abs=1e-5)


def test_questions_are_walked_in_the_order_of_the_table():
    widget = PositiveSteps(synthetic_store(30))
    ids = widget.questions["example"].tolist()
    assert widget.question == ids[0]
    widget.walk(2)
    assert widget.question == ids[2]
    widget.walk(-5)
    assert widget.question == ids[0]
    widget.table.sort, widget.table.descending = "loss", True
    by_loss = widget.questions.sort_values("loss", ascending=False, kind="stable")["example"].tolist()
    widget.question = by_loss[0]
    widget.walk(1)
    assert widget.question == by_loss[1]
    widget.table.current = 4  # what the page sets when an arrow key is pressed
    assert widget.question == ids[4]
    assert ids[4] in widget.head.value


def test_stores_of_different_questions_and_labels():
    unlabelled = synthetic_store(8, start=50).drop_vars("label_critical_step")
    widget = PositiveSteps({"a": synthetic_store(20), "b": unlabelled})
    assert "critical" not in widget.rules()  # not in all of them
    assert widget.question.startswith("005")
    widget.store = "a"
    assert widget.question == widget.questions["example"].iloc[0]
    widget.show, widget.small = "small margin", 0.0
    widget.store = "b"  # where no question passes, and the one shown is not
    assert "No question passes" in widget.head.value
    assert widget.figure() is None
    assert "No question passes" in "".join(map(str, widget.pieces()))


def test_filters_and_rules():
    store = synthetic_store(40)
    widget = PositiveSteps(store)
    assert (widget.questions["candidates"] > 1).all()
    widget.show = "wrong choice"
    assert widget.questions.empty  # the critical step of these stores is the one most like the answer
    assert "No question passes" in widget.head.value
    widget.rule = "last"
    wrong = widget.questions
    assert len(wrong)
    assert (wrong["critical"] != wrong["positive"]).all()
    widget.show, widget.small = "small margin", 0.2
    assert (widget.questions["margin"].abs() < 0.2).all()
    widget.show = "all"
    assert len(widget.questions) == 40
    picked = d.chosen_steps(store, "last")
    changed = (picked != d.chosen_steps(store, "answer")).sum()
    assert f"{changed} of " in widget.change.value
    one = widget.steps
    place = store["example"].values.tolist().index(widget.question)
    assert one["step"][one["positive"]].tolist() == [picked[place]]


def test_the_picture_shows_questions_or_training():
    before, after = synthetic_store(30), synthetic_store(30)
    after["similarity_question"] = after["similarity_question"] / 2
    widget = PositiveSteps({0: before, 50: after}, question="0007")
    assert widget.store == 50
    heat = widget.figure().data[0]
    assert len(heat.z) == 16
    widget.picture, widget.score = "training", "question"
    heat = widget.figure().data[0]
    assert "n = 2 snapshots of question 0007" in widget.figure().layout.title.text
    expected = before["similarity_question"].sel(example="0007").values
    shown = np.array([[np.nan if cell is None else cell for cell in row] for row in heat.z], dtype=float)
    np.testing.assert_allclose(shown[0], expected[: shown.shape[1]], rtol=1e-6)
    np.testing.assert_allclose(shown[1], expected[: shown.shape[1]] / 2, rtol=1e-6)
    widget.store = 0
    assert widget.steps["question"].tolist() == pytest.approx(expected[~np.isnan(expected)].tolist())


def test_what_is_not_there_is_said():
    widget = PositiveSteps(synthetic_store(10))
    with pytest.raises(tr.TraitError, match="no example 'x' in this store"):
        widget.question = "x"
    with pytest.raises(tr.TraitError, match="no store 'x'"):
        widget.store = "x"
    with pytest.raises(tr.TraitError, match=r"temperature 0\.0: give 0\.001 to 10"):
        widget.temperature = 0.0
    unlabelled = PositiveSteps(synthetic_store(10).drop_vars("label_critical_step"))
    with pytest.raises(tr.TraitError, match="no label critical_step"):
        unlabelled.rule = "critical"
    with pytest.raises(tr.TraitError, match="no choice can be called wrong"):
        unlabelled.show = "wrong choice"
    assert "picks the critical step" not in unlabelled.change.value


@pytest.mark.parametrize(
    ("stores", "words"),
    [
        ({}, "no store to show"),
        (synthetic_store(4, reasoning=0), "no similarities of gold steps"),
        (synthetic_store(4).drop_vars("mask"), "cannot be shown"),
        ({"a": synthetic_store(4), "b": 3}, "b: this is a int"),
    ],
)
def test_odd_stores_show_a_sentence(stores, words, tmp_path):
    widget = PositiveSteps(stores)
    assert words in widget.to_html(tmp_path / "page.html").read_text()
    assert any(words in getattr(child, "value", "") for child in widget.box.children)
    widget.close()


@pytest.mark.parametrize("change", ["one question", "one step", "nan", "no steps at all"])
def test_small_stores_are_shown(change, tmp_path):
    store = synthetic_store(1 if change == "one question" else 5, reasoning=1 if change == "one step" else 3)
    if change == "nan":
        store["thought"][0] = np.nan
    if change == "no steps at all":
        for name in ("similarity_answer", "similarity_question"):
            store[name] = store[name] * np.nan
    widget = PositiveSteps(store)
    for rule in widget.rules():
        widget.rule = rule
    widget.to_html(tmp_path / "page.html")
    if change == "nan":
        assert "left out" in widget.box.children[0].value


def test_markup_and_length_of_texts_do_no_harm(tmp_path):
    store = synthetic_store(6)
    store["question"] = ("example", np.array(["<script>alert(1)</script>" + "x" * 20_000] * 6))
    store["step_text"] = store["step_text"].astype(object).where(False, "<b>bold</b>").astype(str)
    page = PositiveSteps(store).to_html(tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;b&gt;bold&lt;/b&gt;" in page


def test_two_widgets_do_not_interfere_and_closing_frees():
    store = synthetic_store(20)
    one, other = PositiveSteps(store), PositiveSteps(store)
    before = other.question
    one.walk(3)
    one.rule = "last"
    assert (other.question, other.rule) == (before, "answer")
    shown = one.head.value
    one.close()
    one.question = before
    assert one.head.value == shown  # nobody watches any more
    other.walk(1)
    assert other.question != before


def test_the_page_needs_no_network(tmp_path):
    widget = PositiveSteps({0: synthetic_store(20), 9: synthetic_store(20)})
    text = widget.to_html(tmp_path / "page.html").read_text()
    assert widget.question in text
    assert pictures(text)
    assert fetched(text) == []
    with pytest.raises(ValueError, match=r"does not end in .\.html"):
        widget.to_html(tmp_path / "page.txt")
