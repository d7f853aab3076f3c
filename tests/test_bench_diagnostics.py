"""The benchmark of describing a store: what it returns, on a small one. No time is judged."""

from importlib import import_module

import pytest

from workbench import diagnostics as d
from workbench import store
from workbench.bench import tables

bench = import_module("workbench.bench.diagnostics")  # the package has a function of this name


@pytest.mark.slow
def test_a_store_is_described_in_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "PART", 30)
    found = bench.diagnostics(70, 2, 32, reference=20, level=None, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert found["bytes"] == 2 * 70 * 2 * 32
    assert found["flops"] == 2 * 70 * 2 * 32**2
    assert found["floor"] == pytest.approx(found["bytes"] / found["copy_rate"] + found["flops"] / found["matrix_rate"])
    assert found["over_floor"] == found["seconds"] / found["floor"]
    assert 0.05 < found["peak_gb"] < 4  # an interpreter with numpy, and no more than what was asked for
    assert set(found["parts"]) == {*bench.PARTS, "rest"}
    assert sum(found["parts"].values()) == pytest.approx(found["cpu_seconds"])
    assert all(found["parts"][name] > 0 for name in ("read", "covariance", "spectrum", "neighbours", "gaussian_kl"))
    assert found["rows"] > 20
    assert found["seconds"] > 0
    said = tables({"machine": {"device": "cpu"}, "diagnostics": found})
    for name, seconds in found["parts"].items():
        assert f"  {name:20}{seconds:8.1f} CPU s" in said


def test_the_random_store_is_a_store(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "PART", 30)
    written = bench.random_store(tmp_path, 70, 2, 32, 20)
    files = sorted(tmp_path.iterdir())
    assert [store.load(file).sizes["example"] for file in files] == [30, 30, 10]  # checked as they are loaded
    assert written == sum(file.stat().st_size for file in files)
    whole = store.load(tmp_path)
    assert whole["thought"].dtype == "float16"
    table = d.describe(whole, level=None)
    assert table["meaning"].iloc[-1].startswith("healthy: ")
    assert table.loc[table["statistic"] == "effective_rank", "value"].min() > 10


@pytest.mark.slow
def test_what_fails_is_said(tmp_path):
    with pytest.raises(RuntimeError, match=r"describing 1 x 2 thoughts of 8 failed: .*give at least 2 examples"):
        bench.diagnostics(1, 2, 8, reference=4, folder=tmp_path)
