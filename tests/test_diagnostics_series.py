"""Stores over training and beside sets of vectors: drift, gold steps, Gaussianity, information."""

import numpy as np
import pytest
from stores import synthetic_store

from workbench import diagnostics as d
from workbench import figures


def moved(store, by, seed=0):
    """The store with its thoughts moved by noise of this size."""
    noise = by * np.random.default_rng(seed).normal(size=store["thought"].shape)
    return store.assign(thought=store["thought"].astype(float) + noise)


def test_drift_over_training():
    first = synthetic_store(50, 1, 3, 16, masked=True)
    stores = {"step 0": first, "step 4": moved(first, 0.1), "step 8": moved(first, 0.5, seed=1)}
    shuffled = stores | {"step 4": stores["step 4"].isel(example=np.random.default_rng(0).permutation(50))}
    table = d.drift_table(shuffled)
    assert not table.duplicated(["store", "since", "statistic", "step"]).any()
    found = table.set_index(["store", "since", "statistic", "step"])
    assert set(table["store"]) == {"step 4", "step 8"}
    x = {name: store["thought"].values[:, 0].astype(float) for name, store in stores.items()}
    mask = first["mask"].values[:, 0]
    for store, since, before in (
        ("step 4", "first", "step 0"), ("step 4", "previous", "step 0"),
        ("step 8", "first", "step 0"), ("step 8", "previous", "step 4"),
    ):  # fmt: skip
        for step, rows in (("1", mask & (np.arange(3) == 1)), ("2", mask & (np.arange(3) == 2)), ("all", mask)):
            expected = d.drift(x[before][rows], x[store][rows])
            assert found.loc[(store, since, "relative", step), "value"] == pytest.approx(expected.relative)
            assert found.loc[(store, since, "cosine", step), "value"] == pytest.approx(expected.cosine)
    assert found.loc[("step 4", "first", "relative", "2"), "n"] == mask[:, 2].sum()
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    still = d.drift_table({0: first, 1: first}).set_index("statistic")["value"]
    assert still["relative"].tolist() == [0] * 8
    assert still["cosine"].tolist() == pytest.approx([1] * 8)


def test_drift_intervals_are_those_of_a_mean():
    first = synthetic_store(300, 1, 1, 8)
    last = moved(first, 0.3)
    row = d.drift_table({0: first, 1: last}).set_index(["since", "statistic", "step"]).loc[("first", "relative", "0")]
    a, b = (store["thought"].values[:, 0, 0].astype(float) for store in (first, last))
    each = np.linalg.norm(b - a, axis=1) / np.linalg.norm(a, axis=1)
    half = 1.96 * each.std() / np.sqrt(300)
    assert (row["low"], row["high"]) == pytest.approx((each.mean() - half, each.mean() + half), abs=0.005)


def test_divergences_from_the_gold_steps():
    store = synthetic_store(30, 1, 2, 8)
    vectors = np.random.default_rng(0).normal(size=(30, 3, 8))
    vectors[::2, 2] = np.nan  # fewer steps
    store["step_vector"] = (("example", "reasoning", "feature"), vectors)
    table = d.divergence_table(store, "gold steps").set_index(["first", "second", "step", "divergence"])
    rows = vectors[np.isfinite(vectors).all(-1)]
    assert len(rows) == 75
    found = table.loc[("lta_thinker", "gold steps", "0", "gaussian_kl")]
    expected = d.gaussian_kl(store["thought"].values[:, 0, 0].astype(float), rows)
    assert (found["value"], found["n_second"]) == (pytest.approx(expected), 75)


def test_gaussianity_of_stores():
    rng = np.random.default_rng(0)
    store = synthetic_store(300, 1, 2, 8)
    store["thought"][:, 0, 0] = rng.normal(size=(300, 8))
    store["thought"][:, 0, 1] = rng.exponential(size=(300, 8))
    table = d.gaussianity_table({"a": store}, components=8).set_index("step")
    for step in (0, 1):
        cloud = store["thought"].values[:, 0, step].astype(float)
        shape, test = d.mardia(cloud), d.henze_zirkler(cloud)  # affine: principal components change nothing
        assert table.loc[str(step), "skewness"] == pytest.approx(shape.skewness)
        assert table.loc[str(step), "kurtosis_p"] == pytest.approx(shape.kurtosis_p, abs=1e-9)
        assert table.loc[str(step), "henze_zirkler"] == pytest.approx(test.statistic)
    assert table.loc["0", "henze_zirkler_p"] > 0.01 > 1e-6 > table.loc["1", "henze_zirkler_p"]
    few = d.gaussianity_table(store, components=3)
    assert set(few["components"]) == {3}
    assert set(few["step"]) == {"0", "1", "all"}
    still = store.assign(thought=store["thought"].isel(example=0).broadcast_like(store["thought"]))
    row = d.gaussianity_table(still).iloc[0]
    assert np.isnan(row["skewness"])
    assert "do not fill their" in row["note"]


def test_distances_beside_a_gaussians_of_stores():
    rng = np.random.default_rng(0)
    store = synthetic_store(300, 1, 3, 8)
    store["thought"][:, 0, 0] = rng.normal(size=(300, 8))
    store["thought"][:, 0, 1] = rng.standard_t(2, size=(300, 8))
    store["thought"][:, 0, 2] = 1  # the same for all questions: no cloud
    table = d.qq_table({"a": store}, components=8)
    assert list(dict.fromkeys(table["step"])) == ["0", "1", "all"]
    for step in (0, 1):
        found = table[table["step"] == str(step)]
        expected, observed = d.mahalanobis_qq(store["thought"].values[:, 0, step].astype(float))
        np.testing.assert_allclose(found["expected"], expected)
        np.testing.assert_allclose(found["observed"], observed, rtol=1e-4)  # affine: components change nothing
    figure = figures.distance_qq(table[table["step"] != "all"], facet="step")
    assert [a.text for a in figure.layout.annotations][:2] == ["slot 0", "slot 1"]
    np.testing.assert_allclose(figure.data[1].y, table.loc[table["step"] == "1", "observed"])
    with pytest.raises(ValueError, match="no cloud with enough different thoughts: give more examples"):
        d.qq_table(store.isel(step=[2]))


def test_information_of_several_stores():
    stores = {0: synthetic_store(80, 1, 1, 4), 7: synthetic_store(80, 1, 1, 4, seed=1), 8: synthetic_store(steps=0)}
    table = d.information_table(stores, "label_shift")
    assert table.columns[0] == "store"
    alone = d.information_table(stores[7], "label_shift")
    assert table[table["store"] == 7].drop(columns="store").reset_index(drop=True).equals(alone)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.drift_table({0: synthetic_store()}), "drift is between stores: give two or more by name"),
        (
            lambda: d.drift_table({0: synthetic_store(steps=0), 1: synthetic_store()}),
            "stores share no thought: drift is",
        ),
        (lambda: d.drift_table(synthetic_store()), "drift is between stores"),  # pyright: ignore
        (
            lambda: d.drift_table({0: synthetic_store(), 1: synthetic_store(start=99)}),
            "two of these stores share no exam",
        ),
        (lambda: d.drift_table({0: synthetic_store(), 1: synthetic_store(feature=4)}), "thoughts of 8 and 4 features"),
        (
            lambda: d.divergence_table(synthetic_store(), "gold steps"),
            "this store holds no gold steps: collect it on a",
        ),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
