"""Stores joined along a dimension, and flattened: what is padded, matched, refused and kept."""

import json

import numpy as np
import pytest
import xarray as xr
from stores import synthetic_store

from workbench import store


def test_concat_pads_shorter_thoughts():
    a, b = synthetic_store(3), synthetic_store(2, steps=6, reasoning=5, start=3)
    found = store.concat([a, b])
    store.check(found)
    assert (found.sizes["step"], found.sizes["reasoning"], found.sizes["example"]) == (6, 5, 5)
    assert not found["mask"].isel(example=slice(3), step=slice(4, None)).any()
    assert (found["thought"].isel(example=slice(3), step=slice(4, None)) == 0).all()
    assert (found["token"].isel(example=slice(3), step=slice(4, None)) == -1).all()
    assert found["similarity_answer"].isel(example=slice(3), reasoning=slice(3, None)).isnull().all()
    assert (found["step_text"].isel(example=slice(3), reasoning=slice(3, None)) == "").all()
    assert {name: found[name].dtype.kind for name in a.data_vars} == {n: a[n].dtype.kind for n in a.data_vars}
    np.testing.assert_array_equal(store.flatten(found)[0], np.concatenate([store.flatten(x)[0] for x in (a, b)]))


def test_concat_with_no_steps_at_all_keeps_the_others():
    found = store.concat([synthetic_store(3, steps=0), synthetic_store(2, start=3)])
    assert found["mask"].sum() == 8


@pytest.mark.parametrize("dim", ["path", "draw"])
def test_concat_of_the_same_examples_matches_by_id(dim):
    whole = synthetic_store(6, 2, 4, 5, 2)
    parts = [whole.isel({dim: [0]}), whole.isel({dim: [1]})]
    found = store.concat([parts[0], parts[1].isel(example=slice(None, None, -1))], dim)
    xr.testing.assert_identical(found.drop_attrs(), whole.drop_attrs())


def test_what_cannot_be_joined():
    a = synthetic_store(4)
    with pytest.raises(ValueError, match="no stores to join"):
        store.concat([])
    with pytest.raises(ValueError, match="along 'step': use"):
        store.concat([a, a], "step")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="example id '0000' occurs more than once"):
        store.concat([a, a])
    with pytest.raises(ValueError, match=r"differ in method \('lta_thinker' and 'other'\)"):
        store.concat([a, synthetic_store(4, start=4, method="other")])
    with pytest.raises(ValueError, match=r"only some stores hold .*similarity_answer"):
        store.concat([a, synthetic_store(4, start=4, reasoning=0)])
    with pytest.raises(ValueError, match=r"different numbers of path \(1 and 2\)"):
        store.concat([a, synthetic_store(4, 2, start=4)])
    with pytest.raises(ValueError, match="along 'path' hold different examples"):
        store.concat([a, synthetic_store(4, start=1)], "path")
    with pytest.raises(ValueError, match="along 'draw' hold different thoughts: join them along 'path'"):
        store.concat([a, synthetic_store(4, seed=1)], "draw")


def test_attributes_that_differ_are_kept():
    a, b = synthetic_store(2), synthetic_store(2, start=2)
    b.attrs |= {"seed": 1, "created": "2027-01-01", "versions": json.dumps({"numpy": "9"}), "split": "test"}
    attrs = store.concat([a, b]).attrs
    assert (attrs["seed"], attrs["split"], attrs["created"], attrs["seconds"]) == (
        "0 | 1",
        "dev | test",
        "2027-01-01",
        3,
    )
    assert json.loads(attrs["versions"]) == [{"numpy": np.__version__}, {"numpy": "9"}]


def test_flatten_has_one_row_per_thought():
    given = synthetic_store(5, 2, 3, 4, 4, masked=True)
    vectors, table = store.flatten(given)
    assert vectors.dtype == np.float32
    assert len(table) == len(vectors) == int(given["mask"].sum())
    for row, vector in list(zip(table.itertuples(), vectors, strict=True))[::5]:
        place = {"path": row.path, "step": row.step}
        one = given.sel(example=row.example)
        np.testing.assert_array_equal(vector, one["thought"].isel(place))
        assert row.correct == one["correct"].isel(path=row.path).mean()
        assert (row.question, row.gold, row.label_shift) == (one["question"], one["gold"], one["label_shift"])
        assert row.signal_entropy == one["signal_entropy"].isel(place)
    assert set(table["method"]) == {"lta_thinker"}
    assert set(table["task"]) == {"arith-shift"}
