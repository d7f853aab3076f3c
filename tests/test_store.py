"""The store: what is valid, what comes back, and what is said when something is wrong."""

import errno
import os
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from stores import synthetic_store

from workbench import store
from workbench.files import visible
from workbench.store import sealed

KINDS = [
    {},
    {"paths": 2, "draws": 3, "masked": True},
    {"steps": 0},
    {"reasoning": 0, "reference": 0},
    {"examples": 1, "steps": 1, "feature": 1},
]


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_is_identical(tmp_path, kind):
    given = synthetic_store(**kind)
    before = given.copy(deep=True)
    found = store.load(store.save(given, tmp_path / "deep" / "a.nc"))
    xr.testing.assert_identical(found, given)
    xr.testing.assert_identical(given, before)
    assert {k: type(v) for k, v in found.attrs.items()} == {k: type(v) for k, v in given.attrs.items()}
    assert found["thought"].dtype == np.float16
    assert os.listdir(tmp_path / "deep") == ["a.nc"]


@pytest.mark.slow
def test_plain_xarray_opens_a_file_where_there_is_no_workbench(tmp_path):
    given = synthetic_store(paths=2, masked=True)
    path = store.save(given, tmp_path / "a.nc")
    code = f"""
import sys
sys.modules["workbench"] = sys.modules["torch"] = None  # importing either would fail
import xarray as xr
found = xr.open_dataset({str(path)!r})
print(found.attrs["schema"], found["thought"].dtype, *found["thought"].dims, found["question"].values[0])
print(float(found["thought"].astype("float64").sum()), int(found["correct"].sum()), *found["mask"].values.ravel())
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    first, second = shown.stdout.splitlines()
    dims, thought = ("example", "path", "step", "feature"), given["thought"].where(given["mask"], 0)
    assert first == " ".join([store.SCHEMA, "float16", *dims, str(given["question"].values[0])])
    total, right, *mask = second.split()
    assert float(total) == pytest.approx(float(thought.astype("float64").sum()), rel=1e-6)
    assert int(right) == int(given["correct"].sum())
    assert mask == [str(value) for value in given["mask"].values.ravel()]


@settings(max_examples=15, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=2, max_size=2), st.text(max_size=5))
def test_any_text_survives(tmp_path_factory, texts, attribute):
    given = synthetic_store(examples=2)
    given["text"] = given["text"].copy(data=np.array(texts, dtype=object).reshape(2, 1, 1))
    given.attrs["method"] = attribute = attribute.replace("\0", "") or "m"
    found = store.load(store.save(given, tmp_path_factory.mktemp("text") / "a.nc"))
    assert found["text"].values.ravel().tolist() == [text.replace("\0", "\ufffd") for text in texts]
    assert found.attrs["method"] == attribute


def test_text_that_netcdf_cannot_hold(tmp_path):
    given = synthetic_store(examples=2)
    given["text"] = given["text"].copy(data=np.array(["a\0b", "a\ud800b"]).reshape(2, 1, 1))
    assert store.load(store.save(given, tmp_path / "a.nc"))["text"].values.ravel().tolist() == ["a\ufffdb", "a?b"]


def test_large_values_are_kept_as_float32(tmp_path):
    given = synthetic_store()
    given["thought"] = given["thought"].astype(np.float32) * 0 + 1e6
    found = store.load(store.save(given, tmp_path / "a.nc"))
    assert found["thought"].dtype == np.float32
    assert (found["thought"] == 1e6).all()


def test_padding_may_hold_anything_and_is_written_as_zero(tmp_path):
    given = synthetic_store(masked=True)
    given["thought"] = given["thought"].where(given["mask"], np.nan)
    found = store.load(store.save(given, tmp_path / "a.nc"))
    xr.testing.assert_identical(found["thought"], given["thought"].fillna(0))


def test_order_of_dimensions_never_matters(tmp_path):
    given = synthetic_store(paths=2, draws=3, masked=True)
    turned = given.transpose(*reversed(store.DIMENSIONS), missing_dims="ignore")
    store.check(turned)
    xr.testing.assert_identical(store.load(store.save(turned, tmp_path / "a.nc")), given)
    vectors, table = store.flatten(turned)
    expected, expected_table = store.flatten(given)
    np.testing.assert_array_equal(vectors, expected)
    assert table.equals(expected_table)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(errno.ENOSPC, "No space left on device")])
def test_a_save_that_fails_leaves_the_old_file(tmp_path, monkeypatch, failure):
    path = store.save(synthetic_store(), tmp_path / "a.nc")
    old = path.read_bytes()

    def broken(_):
        raise failure

    monkeypatch.setattr(sealed.os, "fsync", broken)
    with pytest.raises((KeyboardInterrupt, OSError)) as error:
        store.save(synthetic_store(seed=1), path)
    if isinstance(failure, OSError):
        assert "a.nc' cannot be written (No space left on device): make room or give" in str(error.value)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["a.nc"]


def _without_attribute(d):
    del d.attrs["commit"]
    return d


def _attribute(**new):
    return lambda d: d.assign_attrs(new)


def _nan(d):
    d["thought"][3, 0, 1, 2] = np.nan
    return d


VIOLATIONS = {
    "other schema": (_attribute(schema="workbench-store-9"), "schema 'workbench-store-9' .* reads 'workbench-store-1'"),
    "no schema": (lambda d: d.drop_attrs(), "schema None .* reads 'workbench-store-1'"),
    "attribute missing": (_without_attribute, "lacks the attribute 'commit'"),
    "attribute list": (_attribute(note=[1]), "'note' is a list: attributes are text or numbers"),
    "attribute number": (_attribute(method=3), "'method' is 3: it must be text"),
    "versions": (_attribute(versions="numpy 2"), "'versions' is 'numpy 2': it must be JSON"),
    "created": (_attribute(created="today"), "'created' is 'today': it must be an ISO time"),
    "variable missing": (
        lambda d: d.drop_vars("mask"),
        r"lacks the variable 'mask': add it with .*example, path, step",
    ),
    "coordinate missing": (lambda d: d.drop_vars("gold"), "lacks the coordinate 'gold'"),
    "ids missing": (lambda d: d.drop_vars("example"), "lacks the coordinate 'example'"),
    "unknown variable": (lambda d: d.assign(entropy=d["signal_entropy"]), "unknown variable 'entropy'.*signal_<name>"),
    "unknown coordinate": (lambda d: d.assign_coords(level=d["gold"]), "unknown coordinate 'level'.*label_<name>"),
    "dimensions": (
        lambda d: d.assign(correct=d["correct"].isel(draw=0)),
        r"'correct' has dimensions \(example, path\): it must have \(example, path, draw\), in any order",
    ),
    "dtype": (lambda d: d.assign(correct=d["correct"] * 1.0), "'correct' has dtype float64: it must be bool"),
    "number ids": (lambda d: d.assign_coords(example=np.arange(12)), "'example' has dtype int64: it must be text"),
    "equal ids": (lambda d: d.assign_coords(example=["a"] * 12), "example id 'a' occurs more than once"),
    "no examples": (lambda d: d.isel(example=slice(0)), "dimension 'example' has length 0"),
    "nan": (_nan, "1 of 12 examples have NaN or infinite thoughts .first: '0003'."),
    "reference": (lambda d: d.assign_coords(reference=d["reference"] * np.inf), "'reference' holds NaN or infinite"),
    "unread but right": (
        lambda d: d.assign(correct=d["correct"] | True, prediction=d["prediction"].where(False, "")),
        "'correct' is True where 'prediction' is empty",
    ),
    "length": (lambda d: d.assign(length=-d["length"]), "'length' holds negative values"),
    "mixed text": (
        lambda d: d.assign_coords(label_x=("example", np.array(["a"] * 11 + [None], dtype=object))),
        "'label_x' mixes text with other values",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_each_violation_is_one_sentence(name, tmp_path):
    damage, message = VIOLATIONS[name]
    damaged = damage(synthetic_store())
    with pytest.raises(ValueError, match=message) as error:
        store.check(damaged)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=message):
        store.save(damaged, tmp_path / "a.nc")
    assert not os.listdir(tmp_path)


def test_numbered_dimensions_are_allowed(tmp_path):
    given = synthetic_store().assign_coords(step=np.arange(4))
    store.check(given)
    xr.testing.assert_identical(store.load(store.save(given, tmp_path / "a.nc")), given)


def test_values_can_be_left_unread():
    store.check(_nan(synthetic_store()), values=False)


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no store at .*none.nc.*workbench collect"):
        store.load(tmp_path / "none.nc")
    with pytest.raises(FileNotFoundError, match=r"give a \.nc file, a folder or glob"):
        store.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no store in"):
        store.load(str(tmp_path / "*.nc"))
    (tmp_path / "b.nc").write_text("not a store")
    with pytest.raises(ValueError, match="is no netCDF file"):
        store.load(tmp_path / "b.nc")
    with pytest.raises(ValueError, match=r"does not end in '\.nc'"):
        store.save(synthetic_store(), tmp_path / "a.txt")
    xr.Dataset({"x": ("n", [1.0])}).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="schema None"):
        store.load(tmp_path / "c.nc")


DAMAGE = {
    "a flipped bit": lambda b, at: b[:at] + bytes([b[at] ^ 16]) + b[at + 1 :],
    "zeros": lambda b, at: b[:at] + bytes(len(b[at : at + 512])) + b[at + 512 :],
    "cut off": lambda b, at: b[:at],
    "another end": lambda b, at: b[:-40] + bytes(40),
    "something appended": lambda b, at: b + b"more",
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_whatever_is_damaged(kind, tmp_path):
    path = store.save(synthetic_store(4), tmp_path / "a.nc")
    whole = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole) - 600, 10).tolist():
        path.write_bytes(DAMAGE[kind](whole, at))
        if path.read_bytes() == whole:  # zeros where zeros were
            continue
        for read in (path, tmp_path):
            with pytest.raises(
                ValueError, match=r"a\.nc' is (damaged|no netCDF file) ?.*: collect again, or take it"
            ) as error:
                store.load(read)
            assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # HDF5 cannot close such files
def test_files_without_a_checksum_are_read_and_named_where_that_fails(tmp_path):
    given = synthetic_store(4)
    path = store.save(given, tmp_path / "a.nc")
    content = path.read_bytes()
    path.write_bytes(content[: content.index(sealed.SEAL)])
    xr.testing.assert_identical(store.load(path), given)
    plain, said = path.read_bytes(), []
    for at in range(48, 1600, 311):  # names and types stand there
        path.write_bytes(plain[:at] + bytes(24) + plain[at + 24 :])
        try:
            store.load(path)
        except ValueError as error:
            said.append(str(error))
    assert said
    assert not any("\n" in sentence for sentence in said)


def test_one_long_text_does_not_make_the_others_long(tmp_path):
    given = synthetic_store(200, draws=4)
    texts = given["text"].astype(object)
    texts[3, 0, 1] = "so " * 30_000
    path = store.save(given.assign(text=texts), tmp_path / "a.nc")
    one = store.load(path)
    parts = store.concat([one, store.load(tmp_path).assign_coords(example=[f"b{k}" for k in range(200)])])
    for found in (one, parts):
        assert {found[name].dtype.kind for name in ("text", "prediction", "question", "gold", "step_text")} == {"O"}
        assert found["text"].values[3, 0, 1] == "so " * 30_000


def test_text_of_which_there_is_none_stays_text(tmp_path):
    """Gold steps of questions without any; and files of the time when such became numbers."""
    given = synthetic_store(4, reasoning=0)
    given["step_text"] = (("example", "reasoning"), np.zeros((4, 0), dtype=object))
    store.load(store.save(given, tmp_path / "a.nc"))
    given["step_text"] = given["step_text"].astype(float)
    given.to_netcdf(tmp_path / "old.nc", engine="h5netcdf")
    assert store.load(tmp_path / "old.nc")["step_text"].dtype.kind in "UO"


def test_hidden_files_are_no_parts(tmp_path):
    given = synthetic_store(3)
    store.save(given, tmp_path / "a.nc")
    (tmp_path / "._a.nc").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    (tmp_path / "a.nc.parts").write_bytes(b"")
    for path in (tmp_path, str(tmp_path / "*.nc"), str(tmp_path / ".*.nc")[:-5] + "*a.nc"):
        xr.testing.assert_identical(store.load(path).compute(), given)
    assert visible(tmp_path, "*") == [tmp_path / "a.nc", tmp_path / "a.nc.parts"]


def test_where_nothing_can_be_written_is_known_before(tmp_path):
    (tmp_path / "folder.nc").mkdir()
    (tmp_path / "file").write_text("")
    for path, said in (
        (tmp_path / "folder.nc", "is a folder: name a file"),
        (tmp_path / "file" / "deep" / "a.nc", "cannot be written"),
        (tmp_path / f"{'n' * 250}.nc", "cannot be written"),
        (tmp_path / "a\0b.nc", "cannot be written"),
        (tmp_path / "a.txt", "does not end in '.nc'"),
    ):
        with pytest.raises((ValueError, OSError), match=said) as error:
            store.writable(path)
        assert len(str(error.value)) < 400
    assert store.writable(tmp_path / "new" / "deep" / "a.nc") == tmp_path / "new" / "deep" / "a.nc"
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.nc"]


def _parts(tmp_path):
    whole = synthetic_store(10, 2, 4, 6, masked=True, reasoning=3)
    for k, part in enumerate((whole.isel(example=slice(6)), whole.isel(example=slice(6, None)))):
        store.save(part, tmp_path / f"part-{k}.nc")
    return whole


def test_parts_are_loaded_lazily_and_joined(tmp_path):
    whole = _parts(tmp_path)
    files = sorted(tmp_path.glob("*.nc"))
    for path in (tmp_path, str(tmp_path / "part-*.nc"), files):
        found = store.load(path)
        assert found["thought"].chunks is not None
        store.check(found)
        assert found.attrs == whole.attrs | {"seconds": 3.0}
        xr.testing.assert_identical(found.drop_attrs().compute(), whole.drop_attrs())
    xr.testing.assert_identical(store.load([files[0]]).compute(), store.load(files[0]))


def test_a_name_with_brackets_is_a_file_where_there_is_one(tmp_path):
    given = synthetic_store(2)
    xr.testing.assert_identical(store.load(store.save(given, tmp_path / "run[1].nc")), given)


def test_parts_without_thoughts(tmp_path):
    for k in range(2):
        store.save(synthetic_store(4, steps=0, start=4 * k), tmp_path / f"{k}.nc")
    found = store.load(tmp_path)
    assert found.sizes["example"] == 8
    assert found.sizes["step"] == 0
    assert store.flatten(found)[0].shape == (0, 8)


@pytest.mark.slow
def test_the_readers_of_stores_do_not_import_torch():
    code = (
        "import sys, workbench.store, workbench.analysis.scores, workbench.analysis.diagnostics;"
        "print([name for name in ('torch', 'transformers', 'plotly') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
