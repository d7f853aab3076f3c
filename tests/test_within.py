"""Thoughts within answers, from a method in one notebook cell to the store, the map and the widgets."""

from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr

import workbench as wb
from workbench import within
from workbench.evidence.counter import counter
from workbench.experiments import compare
from workbench.experiments.grid import Cell, Done
from workbench.methods import METHODS
from workbench.store import check, concat, flatten, load, save
from workbench.widgets.detail import answers_html, detail_html, thought_rows

CELL = """
from dataclasses import dataclass

import torch

import workbench as wb


class Marked(wb.LatentMethod):                    # likely words are thought instead of said, by half the time
    name = "marked"
    trained = False

    @dataclass(frozen=True)
    class Config:
        before: int = 0
        every: int = 3

    def think(self, prompts, *, paths=1):         # so many zeros before the answer
        vectors = torch.zeros(len(prompts), paths, self.config.before, self.backbone.width)
        return wb.Thoughts(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool))

    def writing(self, prompts, decoding):         # a word that wins is a mark where its id says so
        def step(state):
            word = wb.pick(state.logits, decoding, state.chance, state.written)
            thinks = word % self.config.every == 0
            p = state.logits.softmax(-1)
            z = 0.5 * state.hidden + 0.5 * p.to(state.hidden.dtype) @ self.backbone.table
            signals = {"entropy": torch.special.entr(p).sum(-1)}
            return wb.Made(z, token=word, signals=signals, words=word.masked_fill(thinks, -1))

        return step
"""


@pytest.fixture(scope="module")
def marked_class():
    exec(CELL, {"__name__": "__main__"})
    yield METHODS["marked"]
    METHODS.pop("marked", None)


@pytest.fixture(scope="module")
def made(marked_class, tiny) -> SimpleNamespace:
    """A store of sampled answers with thoughts within them, two of each of two paths, and what was asked."""
    task = wb.load_task("arith-shift")
    method = wb.build("marked", tiny(), marked_class.Config(before=1))
    decoding = wb.Decoding(10, temperature=1.5)
    asked = {"decoding": decoding, "paths": 2, "draws": 2, "readout": 2, "seed": 3}
    store = wb.collect(method, task, task.examples("dev", 6), batch_size=4, **asked)
    return SimpleNamespace(store=store, method=method, task=task, asked=asked)


def test_a_store_says_where_each_thought_stands(made):
    store, method = made.store, made.method
    check(store)
    prompts = [method.render(example, made.task) for example in made.task.examples("dev", 6)]
    counts = set()
    for k, prompt in enumerate(prompts):
        thoughts = method.think([prompt], paths=2)
        answers = method.answer([prompt], thoughts, made.asked["decoding"], draws=2, seed=3)[0]
        for path in range(2):
            one = store.isel(example=k, path=path)
            there, draws = one["mask"].values, one["thought_draw"].values
            assert (draws[there] == sorted(draws[there])).all()
            assert (draws == -1).sum() - (~there).sum() == 1
            for draw, answer in enumerate(answers[path]):
                own = there & (draws == draw)
                counts.add(own.sum())
                assert one["text"].values[draw] == answer.text
                assert one["thought_place"].values[own].tolist() == answer.thoughts.places[0, 0].tolist()
                np.testing.assert_allclose(
                    one["thought"].transpose("step", "feature").values[own], answer.thoughts.vectors[0, 0], atol=1e-4
                )
                np.testing.assert_array_equal(one["token"].values[own], answer.thoughts.tokens[0, 0])
                assert np.isfinite(one["signal_entropy"].values[own]).all()
    assert len(counts) > 2
    assert store["signal_entropy"].isnull().sum() > (~store["mask"]).sum()  # those before the answer have none
    assert (store["lens_token"].isel(rank=0).values[store["mask"].values] != "").all()


def test_it_is_saved_joined_and_flattened_like_any_other(made, tmp_path):
    back = load(save(made.store, tmp_path / "one.nc"))
    xr.testing.assert_equal(back["thought_place"], made.store["thought_place"])
    vectors, table = flatten(back)
    assert len(vectors) == len(table) == int(back["mask"].sum())
    own = table[table["draw"] >= 0].iloc[0]
    expected = back["correct"].sel(example=own["example"]).values[own["path"], own["draw"]]
    assert own["correct"] == float(expected)
    halves = [made.store.isel(example=slice(3)), made.store.isel(example=slice(3, None))]
    xr.testing.assert_equal(concat(halves)["thought_draw"], made.store["thought_draw"])
    with pytest.raises(ValueError, match="thoughts within their answers cannot be joined along 'draw'"):
        concat([made.store, made.store], "draw")
    wrong = made.store.assign(thought_draw=made.store["thought_draw"].where(made.store["thought_draw"] < 1, 7))
    with pytest.raises(ValueError, match=r"'thought_draw' goes from -1 to 7: it must be -1 \(before all ans"):
        check(wrong)


def test_batches_change_nothing(made):
    again = wb.collect(made.method, made.task, made.task.examples("dev", 6), batch_size=1, **made.asked)
    xr.testing.assert_allclose(again.drop_attrs(), made.store.drop_attrs(), atol=1e-3)


def test_one_answer_of_each_path_and_what_stands_before(made):
    one = within.of_draw(made.store, 1)
    check(one)
    assert one.sizes["draw"] == 1
    assert set(np.unique(one["thought_draw"].values[one["mask"].values])) == {-1, 0}
    for k in range(6):
        for path in range(2):
            whole, part = made.store.isel(example=k, path=path), one.isel(example=k, path=path)
            chosen = whole["mask"].values & np.isin(whole["thought_draw"].values, (-1, 1))
            count = chosen.sum()
            assert part["mask"].values.tolist() == [True] * count + [False] * (one.sizes["step"] - count)
            for name in ("thought", "lens_token", "thought_place", "signal_entropy"):
                a, b = (s[name].transpose("step", ...).values for s in (whole, part))
                np.testing.assert_array_equal(a[chosen], b[:count])
    before = within.before_answers(made.store)
    check(before)
    assert before.sizes["step"] == 1
    assert "thought_draw" not in before
    with pytest.raises(ValueError, match="draw 2: the store has 2 answers of each path, from 0 on"):
        within.of_draw(made.store, 2)


def test_thoughts_within_answers_have_no_counter_test(made, marked_class, tiny, tmp_path):
    """No change reaches them, so that none is said to make no difference."""
    assert not within.only_within(made.store)  # one stands before
    method = wb.build("marked", tiny(), marked_class.Config(before=0))
    with pytest.raises(ValueError, match=r"^all thoughts of 'marked' stand within its answers, and a change is of"):
        counter(method, made.task, made.task.examples("dev", 3), changes=["dropped"], decoding=wb.Decoding(8))
    store = wb.collect(method, made.task, made.task.examples("dev", 3), decoding=wb.Decoding(8))
    assert within.only_within(store)
    done = []
    for seed in (0, 1):
        done.append(
            Done(Cell("marked", seed, condition={"task": "arith-shift", "method": "marked"}), tmp_path / f"{seed}")
        )
        done[-1].folder.mkdir()
        save(store, done[-1].folder / "test.nc")
    rows, said = compare._counter_tests(done)
    assert rows.empty
    assert said == ["marked on arith-shift: its thoughts stand within its answers, where none are shuffled or dropped"]


def test_the_text_of_an_answer_shows_where_its_thoughts_are(made):
    shown = 0
    for example in made.store["example"].values.tolist():
        one = made.store.sel(example=example).isel(path=0)
        text, steps = one["text"].values[1], np.flatnonzero(one["mask"].values & (one["thought_draw"].values == 1))
        found = within.marked(made.store, example, 0, 1, mark="[{}]")
        shown += len(steps)
        for step in steps:
            assert found.count(f"[{step}]") == 1
            found = found.replace(f"[{step}]", "")
        assert found == text
        assert all(f"⟨{step}⟩" in answers_html(made.store, example) for step in steps)
    assert shown > 3


def test_analysis_and_widgets_take_it_as_it_is(made):
    one = within.of_draw(made.store, 0)
    table = wb.describe(one)
    assert {"spread", "effective_rank"} <= set(table["statistic"])
    assert table["value"].notna().any()
    points = wb.project(made.store)
    assert len(points) == int(made.store["mask"].sum())
    assert {"draw", "place"} <= set(points.columns)
    example = made.store["example"].values[0]
    found = thought_rows(made.store, example)
    assert found["stands"].iloc[0] == "before the answers"
    assert found["stands"].str.match(r"answer \d, behind \d+ tokens")[1:].all()
    assert "behind" in detail_html(made.store, example)
    inspector = wb.widgets.Inspector(made.store)
    inspector.step = int(points["step"].max())
    wb.widgets.Probe(made.store, lambda example, vectors: str(vectors.shape))


def test_answers_without_any_thought_among_others_are_fine(made, marked_class, tiny):
    """Marks that are seldom: some paths have no thought at all, and so may all of them."""
    for every, some in ((11, True), (10_000, False)):
        method = wb.build("marked", tiny(), marked_class.Config(every=every))
        store = wb.collect(method, made.task, made.task.examples("dev", 6), decoding=wb.Decoding(6, temperature=2.0))
        there = store["mask"].values.any(-1)
        assert there.any() == some
        assert not there.all()
        assert detail_html(store, store["example"].values[int(np.argmin(there[:, 0]))])
