"""The collapse verdict on models that its lines were not drawn on: undecided, until a counter-test decides."""

import json

import numpy as np
import pytest
import xarray as xr
from stores import synthetic_store

from workbench import store as stores
from workbench.analysis.diagnostics import STATES, collapse, describe, glance, settled
from workbench.analysis.diagnostics.verdict import Swapped, swapped_of
from workbench.evidence.counter import UNCHANGED, counter, counter_table
from workbench.methods import build
from workbench.tasks import load_task


def thoughts(spread, examples=64, width=32, seed=0):
    """[example, step, feature] with a relative spread between questions of about so much, alike otherwise."""
    numbers = np.random.default_rng(seed)
    common, own = numbers.normal(size=(2, width)), numbers.normal(size=(examples, 2, width))
    return (1 - spread) ** 0.5 * common + spread**0.5 * own


def said(lost, low, high, backbone="smollm2"):
    return {
        "backbone": backbone,
        "counter": json.dumps({"shuffled": {"lost": lost, "low": low, "high": high, "n": 200}}),
    }


def test_little_spread_is_a_verdict_on_the_shipped_model_alone():
    """The fault: thoughts of SmolLM2 that differ this little can carry the answer."""
    found = collapse(thoughts(0.002))
    assert found.state == "collapsed"
    assert settled(found, {"backbone": "data/backbones/nano"}) == found
    other = settled(found, {"backbone": "smollm2"})
    assert other.state == "undecided"
    assert other.evidence[0] == found.evidence[0]
    assert "a counter-test decides (workbench counter)" in other.evidence[-1]
    assert settled(collapse(thoughts(0.06)), {"backbone": "smollm2"}).state == "undecided"  # "drifting" there


@pytest.mark.parametrize(
    ("spread", "counted", "state"),
    [
        (0.002, (0.29, 0.22, 0.36), "healthy"),  # what SmolLM2's linear generator did
        (0.002, (0.01, -0.01, 0.03), "collapsed"),
        (0.002, (0.03, -0.02, 0.08), "undecided"),  # too few questions to know
        (0.5, (0.29, 0.22, 0.36), "healthy"),
        (0.5, (0.0, -0.02, 0.02), "drifting"),  # they differ, and nothing hangs on it
        (0.5, (0.03, -0.02, 0.08), "healthy"),
    ],
)
def test_a_counter_test_decides(spread, counted, state):
    found = settled(collapse(thoughts(spread)), said(*counted))
    assert found.state == state
    assert found.evidence[0].startswith(f"another question's thoughts cost {100 * counted[0]:.1f} points")
    assert found.evidence[0].endswith("on 200 questions")


def test_on_the_shipped_model_a_counter_test_weighs_more_than_a_line():
    found = settled(collapse(thoughts(0.002)), said(0.29, 0.22, 0.36, "nano"))
    assert found.state == "drifting"
    assert settled(collapse(thoughts(0.5)), said(0.29, 0.22, 0.36, "nano")).state == "healthy"


def test_what_cannot_be_otherwise_is_collapsed_on_any_model():
    """A soft prompt, and thoughts that most questions share."""
    same = np.broadcast_to(thoughts(0.5)[:1], (64, 2, 32))
    assert settled(collapse(same), {"backbone": "smollm2"}).state == "collapsed"
    most = thoughts(0.5)
    most[:60] = most[0]
    assert settled(collapse(most), {"backbone": "smollm2"}).state == "collapsed"
    assert settled(collapse(thoughts(0.5)), {"backbone": "smollm2"}).state == "healthy"


def test_a_look_while_training_knows_the_model():
    values = {"relative_spread": 0.002, "slot_cosine": 0.1}
    assert glance(values).state == "collapsed"
    assert glance(values, backbone="smollm2").state == "undecided"
    assert glance({"relative_spread": 0.0}, backbone="smollm2").state == "collapsed"


def test_a_table_of_a_store_says_it():
    store = synthetic_store(state="collapsed", examples=40)
    rows = {name: describe(store.assign_attrs(about), level=None).iloc[-1] for name, about in {
        "home": {}, "elsewhere": {"backbone": "smollm2"}, "counted": said(0.29, 0.22, 0.36),
    }.items()}  # fmt: skip
    assert {name: STATES[int(row["value"])] for name, row in rows.items()} == {
        "home": "collapsed", "elsewhere": "undecided", "counted": "healthy",
    }  # fmt: skip
    grouped = describe(store.assign_attrs(said(0.29, 0.22, 0.36)), by="label_shift", level=None)
    assert set(grouped[grouped["statistic"] == "verdict"]["value"]) == {3.0}  # what all questions lose is not theirs


def test_counter_tests_are_remembered_by_the_store(tiny, tmp_path):
    task = load_task("arith")
    names = (UNCHANGED, "shuffled")
    out = {name: tmp_path / f"{name}.nc" for name in names}
    found = counter(build("soft-prompt", tiny()), task, task.examples("dev", 4), changes=("shuffled",), out=out)
    row = counter_table(found).iloc[0]
    swapped = swapped_of(stores.load(out[UNCHANGED]).attrs)
    assert swapped == Swapped(row["difference"], row["low"], row["high"], 4)
    assert swapped_of(found["shuffled"].attrs) is None
    assert swapped_of({"counter": "nonsense"}) is None
    assert isinstance(found[UNCHANGED], xr.Dataset)
