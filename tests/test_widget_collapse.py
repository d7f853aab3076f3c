"""Collapse without a browser: verdicts follow the thresholds, map and spectrum the slider and the slot; odd stores."""

import numpy as np
import pytest
import traitlets as tr
from kept_pages import fetched, pictures
from stores import synthetic_store

from workbench import diagnostics as d
from workbench.widgets import Collapse


def training(seed=0):
    """A run that begins collapsed and ends healthy."""
    states = {0: "collapsed", 10: "merged", 20: "healthy"}
    return {step: synthetic_store(20, steps=3, seed=seed, state=state) for step, state in states.items()}


def vectors(store):
    return store["thought"].isel(path=0).values, store["mask"].isel(path=0).values


def test_verdicts_are_those_of_the_diagnostics_and_follow_the_thresholds():
    run = training()
    widget = Collapse(run)
    assert widget.checkpoints == [0, 10, 20]
    assert widget.checkpoint == 20
    (found,) = widget.verdicts.values()
    for step, store in run.items():
        assert found[step] == d.collapse(*vectors(store))
    assert [found[step].state for step in run] == ["collapsed", "collapsed", "healthy"]
    widget.low_spread = 0.99
    lines = d.Thresholds(low_spread=0.99)
    (found,) = widget.verdicts.values()
    assert found[20] == d.collapse(*vectors(run[20]), lines)
    assert found[20].state == "drifting"
    assert "is below 0.99" in widget.judged.value
    widget.reset()
    assert widget.thresholds == d.Thresholds()
    assert "is below 0.99" not in widget.judged.value


def test_the_slider_moves_map_and_spectrum_in_one_frame():
    widget = Collapse({"a": training(0), "b": training(1)})
    points = widget.points()
    assert len(points) == 2 * 3 * 20 * 3
    widget.color = "correct"
    ranges = []
    for step in widget.checkpoints:
        widget.checkpoint = step
        found = widget.figures()
        ranges.append((found["map"].layout.xaxis.range, found["map"].layout.yaxis.range))
        here = points[(points["checkpoint"] == step) & (points["store"] == "a")]
        drawn = [x for trace in found["map"].data if trace.xaxis in (None, "x") for x in trace.x if x is not None]
        assert sorted(drawn) == pytest.approx(sorted(here["x"]))
        table = d.spectrum_table(widget.shown)
        first = table[(table["step"] == "0") & (table["store"] == "a")]
        assert list(found["spectrum"].data[0].y[:3]) == pytest.approx(first["relative"].head(3).tolist())
    assert ranges[0] == ranges[1] == ranges[2]
    widget.slot = "2"
    drawn = [x for trace in widget.figures()["map"].data for x in trace.x if x is not None]
    here = points[(points["checkpoint"] == 20) & (points["step"] == 2)]
    assert sorted(drawn) == pytest.approx(sorted(here["x"]))


def test_runs_have_the_same_colours_everywhere():
    widget = Collapse({"a": training(0), "b": training(1)})
    found = widget.figures()
    colours = {}
    for figure in (found["spectrum"], found["statistics"]):
        for trace in figure.data:
            if trace.name in ("a", "b"):
                colours.setdefault(trace.name, set()).add(trace.line.color)
    for name in "ab":
        colours[name] |= {trace.marker.color for trace in found["map"].data if trace.name == name}
        assert len(colours[name]) == 1, name
        assert colours[name].pop() in widget.judged.value


def test_statistics_over_training_and_over_slots():
    run = training()
    widget = Collapse(run)
    (curve,) = [t for t in widget.figures()["statistics"].data if t.xaxis in (None, "x") and t.y is not None][:1]
    assert list(curve.x) == [0, 10, 20]
    expected = [d.collapse(*vectors(store)).values["relative_spread"] for store in run.values()]
    assert list(curve.y) == pytest.approx(expected)
    widget.view = "slots"
    curve = widget.figures()["statistics"].data[0]
    table = d.describe(run[20], level=None)
    table = table[(table["statistic"] == "relative_spread") & (table["step"] != "all")]
    assert list(curve.y) == pytest.approx(table["value"].tolist())


def test_a_run_without_the_checkpoint_shows_its_last_before():
    short = {step: store for step, store in training().items() if step < 20}
    widget = Collapse({"long": training(), "short": short})
    assert widget.shown["short"] is short[10] or widget.shown["short"].equals(short[10])
    assert "at training step 10" in widget.judged.value


def test_what_is_not_there_is_said():
    widget = Collapse(training())
    with pytest.raises(tr.TraitError, match="no checkpoint 5: there are 0, 10, 20"):
        widget.checkpoint = 5
    with pytest.raises(tr.TraitError, match="no slot '7'"):
        widget.slot = "7"
    with pytest.raises(tr.TraitError, match="path 1 of stores with 1 paths"):
        widget.path = 1


@pytest.mark.parametrize(
    ("stores", "words"),
    [
        ({}, "no store to show"),
        (3, "This is a int"),
        (synthetic_store(4).drop_vars("thought"), "cannot be shown"),
        ({"a": {0: 5}}, "this is a int"),
        (synthetic_store(4, steps=0), "there are no thoughts"),
        (synthetic_store(1), "give at least 2 examples"),
        (synthetic_store(1, steps=1), "give at least 2 examples"),
        (synthetic_store(3, steps=1), "No map"),
        ({"a": synthetic_store(9), "b": synthetic_store(9, feature=4)}, "different width"),
    ],
)
def test_odd_stores_show_a_sentence(stores, words, tmp_path):
    widget = Collapse(stores)
    page = widget.to_html(tmp_path / "page.html").read_text()
    assert words in page
    widget.close()


def test_thoughts_that_are_not_finite_are_left_out():
    store = synthetic_store(9)
    store["thought"] = store["thought"].astype(np.float32)
    store["thought"][0] = np.nan
    widget = Collapse(store)
    assert "1 of 9 examples have NaN" in widget.box.children[0].value
    (found,) = widget.verdicts.values()
    assert found[None] == d.collapse(*vectors(store.isel(example=slice(1, None))))


def test_large_stores_are_sampled():
    stores = {step: synthetic_store(700, steps=1, feature=3, seed=step) for step in (0, 1)}
    widget = Collapse(stores)
    assert "500 of 700 questions" in widget.box.children[0].value
    ids = [store["example"].values.tolist() for run in widget.runs.values() for store in run.values()]
    assert len(ids[0]) == 500
    assert ids[0] == ids[1]  # the same at every checkpoint


def test_two_do_not_interfere_and_the_page_needs_no_network(tmp_path):
    one, other = Collapse(training()), Collapse(training())
    one.checkpoint, one.dead_spread = 0, 0.1
    assert (other.checkpoint, other.dead_spread) == (20, d.Thresholds.dead_spread)
    text = one.to_html(tmp_path / "page.html").read_text()
    assert fetched(text) == []
    assert pictures(text) == 3
    shown = one.judged.value
    one.close()
    one.low_spread = 0.9
    assert one.judged.value == shown
