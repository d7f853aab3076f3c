"""The quickstart, small: everything it promises is there, and starting it again starts over."""

import json
from dataclasses import replace

import pytest

from workbench import store
from workbench.experiments.quickstart import ARMS, quickstart, quickstart_made
from workbench.runs import snapshot_steps

NAMES = {f"quickstart_{name}" for name in ("accuracy", "thoughts", "losses", "collapse")}
pytestmark = pytest.mark.filterwarnings("ignore:no Chromium:UserWarning")


@pytest.mark.slow
def test_quickstart_writes_what_it_promises_and_can_be_repeated(tmp_path, capsys):
    arms = {
        name: replace(arm, training=arm.training and replace(arm.training, examples=64, epochs=1, probe_examples=8))
        for name, arm in ARMS.items()
    }
    result = quickstart(tmp_path, seed=1, questions=24, arms=arms)
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["seconds"] > 0
    assert written["versions"]["torch"]
    for name in ("none", "soft_prompt", "lta_thinker"):
        interval = written["accuracy"][name]
        assert 0 <= interval["low"] <= interval["mean"] <= interval["high"] <= 1
        assert interval["n"] == 24
        found = store.load(tmp_path / "cells" / f"{name}_seed1" / "shift.nc")
        assert float(found["correct"].mean()) == pytest.approx(interval["mean"])
    assert written["accuracy"] == result["accuracy"]
    assert {p.stem for p in (tmp_path / "figures").glob("*.html")} == NAMES
    shown = capsys.readouterr().out
    assert "00_tour.ipynb" in shown
    assert "workbench report " in shown
    made = quickstart_made(tmp_path)
    assert made.yours
    assert "lens_token" in store.load(made.stores["own thoughts"])
    assert len(snapshot_steps(made.run)) == 2  # before and after
    assert "LTA-Thinker minus empty slot" in shown
    again = quickstart(tmp_path, seed=1, questions=24, arms=arms)
    assert again["accuracy"] == result["accuracy"]
