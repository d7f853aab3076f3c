"""Stores of Soft Thinking: mixtures are kept, vectors are given."""

import re

import numpy as np
import pytest
import torch
import xarray as xr
from test_soft_thinking import soft

from workbench import store
from workbench.__main__ import main
from workbench.backbone import Decoding
from workbench.evidence.collect import collect
from workbench.methods.soft_thinking import SoftThinking
from workbench.tasks import load_task


@pytest.fixture(scope="module")
def collected(tiny) -> tuple[SoftThinking, xr.Dataset]:
    method, task = soft(tiny(), max_thoughts=7, noise="gumbel"), load_task("arith")
    return method, collect(method, task, task.examples("dev", 6), decoding=Decoding(4), paths=2, batch_size=4)


def test_a_store_holds_mixtures_and_gives_vectors(collected, tmp_path):
    """Those the method made, to rounding; the file has none."""
    method, found = collected
    task = load_task("arith")
    thoughts = method.think([method.render(example, task) for example in task.examples("dev", 6)], paths=2)
    vectors = found["thought"].transpose(*store.STEP, "feature").values
    torch.testing.assert_close(torch.tensor(vectors), thoughts.vectors, atol=1e-4, rtol=1e-3)
    assert found["mixture_token"].sizes["component"] == 10
    sums = found["mixture_weight"].sum("component").values
    np.testing.assert_allclose(sums, found["mask"].values, atol=1e-5)
    path = store.save(found, tmp_path / "soft.nc")
    with xr.open_dataset(path) as raw:
        assert "thought" not in raw
    again = store.load(path)
    store.check(again)
    np.testing.assert_allclose(again["thought"].transpose(*store.STEP, "feature").values, vectors, atol=2e-3)
    flat, table = store.flatten(again)
    assert len(flat) == len(table) == int(found["mask"].sum())
    assert {"signal_entropy", "signal_top_weight", "signal_exit"} <= set(table)
    assert again.attrs["remark"] == found.attrs["remark"] == method.remark([thoughts])


def test_stores_of_mixtures_can_be_joined(collected, tmp_path):
    _, found = collected
    for k, part in enumerate((slice(0, 2), slice(2, 6))):
        piece = found.isel(example=part)
        used = np.unique(piece["mixture_token"].values)
        piece = piece.sel(vocabulary=used[used >= 0])
        store.save(piece.isel(step=slice(0, 4 + 3 * k)), tmp_path / f"part{k}.nc")
    parts = [store.load(path) for path in sorted(tmp_path.glob("*.nc"))]
    assert not np.array_equal(parts[0]["vocabulary"].values, parts[1]["vocabulary"].values)
    joined = store.load(tmp_path)
    expected = found["thought"].where(found["mask"], 0).transpose(*store.STEP, "feature").values.copy()
    expected[:2, :, 4:] = 0
    np.testing.assert_allclose(
        joined["thought"].where(joined["mask"], 0).transpose(*store.STEP, "feature").values, expected, atol=2e-3
    )
    again = store.load(store.save(joined, tmp_path / "all" / "joined.nc"))
    np.testing.assert_allclose(
        again["thought"].where(again["mask"], 0).transpose(*store.STEP, "feature").values, expected, atol=2e-3
    )


def test_changed_thoughts_are_vectors(tiny):
    method, task = soft(tiny(), max_thoughts=4), load_task("arith")
    changed = collect(method, task, task.examples("dev", 3), decoding=Decoding(3), change="noised:0.5")
    assert "mixture_token" not in changed
    store.check(changed)


def test_broken_weights_are_found(collected):
    _, found = collected
    broken = found.copy(deep=True)
    broken["mixture_weight"][2, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="1 of 6 examples have NaN or infinite thoughts"):
        store.check(broken)


def test_the_command_says_how_soft_it_was(tiny_folder, tmp_path, capsys):
    options = ["--backbone", str(tiny_folder()), "--method", "soft-thinking", "--options.max_thoughts", "4"]
    rest = ["--count", "3", "--decoding.max_new_tokens", "3", "--out", str(tmp_path / "soft.nc")]
    assert main(["collect", *options, *rest]) == 0
    assert re.search(r"^in [\d.]+ % of \d+ thoughts the likeliest word weighs more", capsys.readouterr().out, re.M)
