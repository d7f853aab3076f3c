"""The quickstart that is shipped: small, with all that the notebooks open, and given way to one of the reader's own."""

import json
import shutil
from pathlib import Path

import pytest

import workbench.experiments.quickstart as quickstart
from workbench import runs, store
from workbench.experiments.quickstart import quickstart_made
from workbench.places import EXAMPLE


def test_it_holds_what_the_notebooks_open():
    made = quickstart_made(EXAMPLE)
    assert not made.yours
    stores = {name: store.load(path) for name, path in made.stores.items()}
    own = stores["own thoughts"]
    assert {"lens_token", "near_token", "similarity_answer"} <= set(own)
    assert runs.snapshot_steps(made.run) == [0, 126, 252, 378]
    assert own.attrs["training_step"] == 378
    said = json.loads((EXAMPLE / "result.json").read_text())["accuracy"]
    for name, arm in (("empty slot", "none"), ("own thoughts", "lta_thinker")):
        assert float(stores[name]["correct"].mean()) == pytest.approx(said[arm]["mean"])
    assert float(own["correct"].mean()) > float(stores["another question's thoughts"]["correct"].mean()) + 0.2


def test_it_is_small_and_its_page_says_its_numbers():
    assert sum(path.stat().st_size for path in EXAMPLE.rglob("*") if path.is_file()) < 7_000_000
    card = (EXAMPLE / "README.md").read_text()
    for arm in json.loads((EXAMPLE / "result.json").read_text())["accuracy"].values():
        row = f"{100 * arm['mean']:.1f} | {100 * arm['low']:.1f} to {100 * arm['high']:.1f} |"
        assert row in card or arm["mean"] > 0.9  # known words are in result.json alone


def test_yours_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(quickstart, "QUICKSTART", tmp_path / "mine")
    assert quickstart_made().run.is_relative_to(EXAMPLE)
    shutil.copytree(EXAMPLE, tmp_path / "mine")
    assert quickstart_made().run.is_relative_to(tmp_path)
    assert quickstart_made().yours
    shutil.rmtree(tmp_path / "mine" / "cells" / "lta_thinker_seed0" / "snapshots")  # made by an earlier version
    assert quickstart_made().run.is_relative_to(EXAMPLE)
    with pytest.raises(ValueError, match=r"no finished quickstart in .*nowhere: run `workbench quickstart` first"):
        quickstart_made(tmp_path / "nowhere")
