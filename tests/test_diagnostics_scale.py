"""Stores larger than memory: what is read in blocks says what everything at once says."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from stores import synthetic_store
from threadpoolctl import threadpool_info

from workbench import diagnostics as d
from workbench import store as stores_module
from workbench.diagnostics import blocks, cloud_sums, resampling, streamed, tables

CLOUD = [
    *("effective_rank", "participation_ratio", "anisotropy", "cosine", "centred_cosine"),
    *("neighbour_ratio", "intrinsic_dimension", "gaussian_kl"),
]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks smaller than the data, so that there are several of each kind."""
    monkeypatch.setattr(blocks, "BLOCK", 300)
    monkeypatch.setattr(blocks, "SPAN", 2)
    monkeypatch.setattr(cloud_sums, "ROWS", 16)


def both(store: xr.Dataset, **options) -> tuple[pd.DataFrame, pd.DataFrame]:
    return d.describe(store, stream=True, **options), d.describe(store, stream=False, **options)


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Equal but for rounding, and for intervals of clouds, which blocks do not give."""
    one, other = one.copy(), other.copy()
    no_interval = one["statistic"].isin(CLOUD)
    assert one.loc[no_interval, ["low", "high"]].isna().all(axis=None)
    other.loc[no_interval, ["low", "high"]] = np.nan
    pd.testing.assert_frame_equal(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "store",
    [
        synthetic_store(60, 1, 3, 8),
        synthetic_store(60, 3, 3, 8, masked=True),
        synthetic_store(30, 2, 2, 48, masked=True),  # fewer samples than features
        synthetic_store(60, 1, 1, 8, reference=0),
        synthetic_store(60, 1, 2, 8, state="merged"),
        synthetic_store(60, 1, 2, 8, state="collapsed"),
        synthetic_store(19, 2, 2, 8),  # too few for a jackknife
    ],
    ids=["plain", "masked", "wide", "one step", "merged", "collapsed", "few"],
)
def test_blocks_say_what_everything_at_once_says(store):
    before = store.copy(deep=True)
    path = store.sizes["path"] - 1
    same(*both(store, path=path))
    same(*both(store, path=path, level=None))
    assert store.identical(before)


def test_a_step_that_hardly_anyone_has():
    store = synthetic_store(60, 2, 4, 8)
    mask = store["mask"].values.copy()
    mask[1:, :, 2] = mask[:, :, 3] = mask[5:9] = False
    store["mask"] = store["mask"].dims, mask
    store["thought"] = store["thought"].where(store["mask"], np.float16(np.nan))  # masked: whatever is there
    same(*both(store))


def test_copies_count_once():
    store = synthetic_store(60, 1, 2, 8)
    thoughts = store["thought"].values.copy()
    thoughts[40:] = thoughts[:20]
    thoughts[50:, :, 1] = thoughts[0, :, 1]
    store["thought"] = store["thought"].dims, thoughts
    same(*both(store))
    thoughts[2:30] = thoughts[0]  # half of the questions have one thought
    blocks, plain = both(store.assign(thought=(store["thought"].dims, thoughts)))
    same(blocks, plain)
    assert blocks["meaning"].iloc[-1].startswith("drifting: 3")
    thoughts[:] = thoughts[0]
    same(*both(store.assign(thought=(store["thought"].dims, thoughts))))
    thoughts[::2] = thoughts[1] + 1  # two different vectors have no dimension
    same(*both(store.assign(thought=(store["thought"].dims, thoughts))))


def test_far_from_zero_digits_are_kept():
    store = synthetic_store(60, 2, 3, 8)
    store["thought"] = (store["thought"] + 100).astype(np.float32)
    same(*both(store))


@pytest.mark.parametrize("shape", [(400, 1, 2, 96), (90, 1, 2, 200)])
def test_features_of_very_different_size(shape):
    """As hidden states have them: one feature holds most of the variance, another most of the mean."""
    store = synthetic_store(*shape, state="merged")
    scale = np.exp(np.random.default_rng(0).normal(size=shape[-1]))
    scale[3] = 200
    thoughts = store["thought"].values * scale.astype(np.float16)
    thoughts[..., 7] += 500
    same(*both(store.assign(thought=(store["thought"].dims, thoughts))))


@pytest.mark.parametrize("steps", [1, 3])
def test_what_is_masked_stays_as_it_is(steps):
    store = synthetic_store(60, 1, steps, 8)
    store["mask"][::7] = False
    before = store.copy(deep=True)
    same(*both(store))
    assert store.identical(before)


def test_the_number_of_threads_changes_nothing(monkeypatch):
    store = synthetic_store(60, 2, 3, 8, masked=True)
    tables = []
    for count in (1, 2, 5, 100):
        found = [{"user_api": "openmp", "num_threads": 64}, {"user_api": "blas", "num_threads": count}]
        monkeypatch.setattr(blocks, "threadpool_info", lambda found=found: found)
        with blocks.working() as workers:
            assert workers.threads == min(count, blocks.THREADS)
        tables.append(d.describe(store, stream=True))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)


def test_products_use_their_threads_again():
    before = [(found["filepath"], found["num_threads"]) for found in threadpool_info()]
    d.describe(synthetic_store(20, 1, 2, 8), stream=True)
    assert [(found["filepath"], found["num_threads"]) for found in threadpool_info()] == before


@pytest.mark.parametrize("floating", [0, 10**9])
def test_resamples_are_taken_in_pieces(monkeypatch, floating):
    monkeypatch.setattr(resampling, "FLOATING", floating)
    rng, draws = np.random.default_rng(0), resampling.resamples(3000, 4)
    assert draws.dtype == (float if floating else np.uint16)
    assert (draws.sum(axis=1) == 3000).all()
    top, below = rng.random(3000), rng.random(3000)
    found = resampling.ratio_bootstrap(top, below, draws, 0.9)
    ratios = (draws.astype(float) @ top) / (draws.astype(float) @ below)
    assert (found.low, found.high) == pytest.approx(np.quantile(ratios, [0.05, 0.95]), rel=1e-12)


def test_neighbours_are_those_of_a_sample_among_all(monkeypatch):
    store = synthetic_store(200, 1, 1, 6)
    found = streamed.streamed(store, 0, d.Thresholds(), None, 3, sample=50).found
    x = store["thought"].values[:, 0, 0].astype(float)
    chosen = np.random.default_rng(3).permutation(200)[:50]
    distances = np.linalg.norm(x[chosen, None] - x, axis=-1)
    near = np.sort(distances, axis=1)[:, 1:3]
    expected = (near[:, 0] / (distances.sum(axis=1) / 199)).mean()
    assert found["neighbour_ratio", "all"].value == pytest.approx(expected, rel=1e-6)
    logs = np.sort(np.log(near[:, 1] / near[:, 0]))
    dimension = 44 / (logs[:45].sum() + 5 * logs[44])
    assert found["intrinsic_dimension", "0"].value == pytest.approx(dimension, rel=1e-6)
    assert found["effective_rank", "0"].value == pytest.approx(d.effective_rank(x), rel=1e-6)
    thin = streamed.streamed(store, 0, d.Thresholds(), None, 3, sample=1).found  # a dimension needs three
    assert np.isnan(thin["intrinsic_dimension", "0"].value)
    monkeypatch.setattr(tables, "IN_MEMORY", 1)  # what is too large is read in blocks unasked
    pd.testing.assert_frame_equal(d.describe(store), d.describe(store, stream=True))


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 2**31])
def test_a_lazily_opened_store_is_described_as_a_loaded_one(tmp_path, monkeypatch, kept):
    monkeypatch.setattr(blocks, "KEPT", kept)
    parts = [synthetic_store(count, 2, 3, 8, masked=True, start=1000 * count) for count in (23, 5)]
    files = [stores_module.save(part, tmp_path / f"{k}.nc") for k, part in enumerate(parts)]
    lazy = stores_module.load(files)
    assert lazy["thought"].chunks is not None
    table = d.describe(lazy, path=1, stream=True)
    assert lazy["thought"].chunks is not None  # nothing was kept
    loaded = stores_module.concat([stores_module.load(file) for file in files])
    pd.testing.assert_frame_equal(table, d.describe(loaded, path=1, stream=True), rtol=1e-9, atol=1e-9)
    same(table, d.describe(loaded, path=1, stream=False))
    same(*both(lazy, by="label_shift"))


def test_gaussian_kl_from_moments():
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(50, 6)) * np.arange(1, 7), rng.normal(size=(9, 6)) + 1
    moments = p.mean(axis=0), np.cov(p.T, bias=True)
    for rows in (q, q[:4]):  # more than features, and fewer
        for shrinkage in (0.1, 0.7, 1.0):
            found = d.divergences.gaussian_kl_shrunk(*moments, rows, shrinkage=shrinkage)
            assert found == pytest.approx(d.gaussian_kl(p, rows, shrinkage=shrinkage), rel=1e-9)
    assert d.divergences.gaussian_kl_shrunk(*moments, q, shrinkage=0) == pytest.approx(d.gaussian_kl(p, q, shrinkage=0))
    with pytest.raises(ValueError, match="singular"):
        d.divergences.gaussian_kl_shrunk(*moments, q[:4], shrinkage=0)
    with pytest.raises(ValueError, match="all samples of q are equal"):
        d.divergences.gaussian_kl_shrunk(*moments, q[:1].repeat(3, axis=0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda store: store.isel(example=[0]), "give at least 2 examples"),
        (lambda store: store.assign(thought=store["thought"] * np.nan), "holds NaN or infinite values: mask or drop"),
        (lambda store: store.assign_coords(reference=store["reference"] * 0), "all reference rows are zero|are equal"),
    ],
)
def test_one_clear_sentence(change, message):
    store = change(synthetic_store(20, 1, 2, 8))
    for stream in (True, False):
        with pytest.raises(ValueError, match=message) as error:
            d.describe(store, stream=stream)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="path 1 of a store with 1 paths"):
        d.describe(store, path=1, stream=True)
