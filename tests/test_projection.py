"""Projections: PCA against numpy's SVD up to sign, UMAP by its trustworthiness, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.manifold import trustworthiness
from stores import synthetic_store

from workbench import projection
from workbench.projection import pca, project
from workbench.store import flatten


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def cloud(n=60, feature=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n, feature)) * np.arange(1, feature + 1)


# from the covariance in one batch, several and uneven ones; from the vectors, few (full) and many (arpack)
@pytest.mark.parametrize(
    ("n", "feature", "batch"), [(60, 7, 10_000), (60, 7, 7), (60, 7, 1), (1001, 200, 500), (5, 40, 9), (1002, 1003, 9)]
)
def test_pca_is_the_svd_of_the_centred_vectors_up_to_sign(n, feature, batch):
    x = cloud(n, feature)
    found = pca(x, 3, batch=batch)
    u, s, v = np.linalg.svd(x - x.mean(0), full_matrices=False)
    signs = np.sign(v[np.arange(3), np.abs(v[:3]).argmax(1)])  # largest loading positive
    np.testing.assert_allclose(found.points, (u * s)[:, :3] * signs, atol=1e-6 * s[0])
    np.testing.assert_allclose(found.explained, (s**2 / (s**2).sum())[:3], rtol=1e-6)
    assert found.method == "pca"


def test_pca_keeps_distances_of_vectors_in_a_plane_and_its_sign():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 9)) + 5
    found = pca(plane)
    distances = np.linalg.norm(plane[:, None] - plane, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(found.points[:, None] - found.points, axis=-1), distances, atol=1e-9)
    assert sum(found.explained) == pytest.approx(1)
    assert found.trustworthiness == pytest.approx(1)
    np.testing.assert_allclose(pca(plane[::-1].copy()).points[::-1], found.points, atol=1e-9)


def misplaced(data, seen, k):
    """1 - the normalised sum, over the k neighbours of each point in `seen`, of how far beyond k they rank in `data`
    (Venna and Kaski 2001)."""
    n = len(data)
    far = [np.linalg.norm(space[:, None] - space, axis=-1) for space in (data, seen)]
    total = 0
    for i in range(n):
        rank = {j: place for place, j in enumerate(np.argsort(far[0][i], kind="stable"))}  # itself: 0
        near = [j for j in np.argsort(far[1][i], kind="stable") if j != i][:k]
        total += sum(max(0, rank[j] - k) for j in near)
    return 1 - 2 / (n * k * (2 * n - 3 * k - 1)) * total


def test_continuity_is_trustworthiness_with_the_spaces_exchanged():
    x = cloud(40)
    found = pca(x, neighbours=6)
    assert found.trustworthiness == pytest.approx(misplaced(x, found.points, 6))
    assert found.continuity == pytest.approx(misplaced(found.points, x, 6))
    assert found.trustworthiness != pytest.approx(found.continuity, abs=1e-4)


def test_a_map_that_tears_is_trustworthy_but_not_continuous():
    """And one that folds is the other way round."""
    ring = np.stack([np.cos(turn := np.linspace(0, 2 * np.pi, 60, endpoint=False)), np.sin(turn)], axis=1)
    cut, fold = turn[:, None], ring[:, :1]
    torn = projection._trust(ring, cut, 5)
    folded = projection._trust(ring, fold, 5)
    assert torn[0] > 0.99 > 0.98 > torn[1]
    assert folded[1] > 0.95 > 0.8 > folded[0]


def test_neighbours_by_cosine_are_those_of_unit_vectors():
    x = cloud(40) + 3
    seen = cloud(40, 2, seed=5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(projection._trust(x, seen, 6, "cosine")[:2], projection._trust(unit, seen, 6)[:2])
    assert projection._trust(x, seen, 6, "cosine")[1] != projection._trust(x, seen, 6)[1]


def test_trustworthiness_is_sklearns_and_is_sampled_beyond_2000_rows():
    x = cloud(50)
    found = pca(x, neighbours=5)
    assert found.trustworthiness == pytest.approx(trustworthiness(x, found.points, n_neighbors=5))
    assert (found.neighbours, found.checked_rows) == (5, 50)
    many = pca(cloud(2100))
    assert many.checked_rows == 2000
    assert many.trustworthiness == pca(cloud(2100)).trustworthiness
    assert pca(cloud(4)).neighbours == 1  # scikit-learn wants fewer than half of the rows


@pytest.mark.slow
def test_umap_keeps_neighbours_is_seeded_and_is_computed_once(cache, monkeypatch):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(30, 6)) + 8 * k for k in range(3)]).astype(np.float32)
    before = x.copy()
    found = projection.umap(x, seed=1, neighbours=10)
    assert found.points.shape == (90, 2)
    assert found.explained == ()
    assert found.trustworthiness > 0.9
    np.testing.assert_array_equal(x, before)
    computed = []
    real = projection._fit_umap

    def counted(*given):
        computed.append(given)
        return real(*given)

    monkeypatch.setattr(projection, "_fit_umap", counted)
    np.testing.assert_array_equal(projection.umap(x, seed=1, neighbours=10).points, found.points)
    assert not computed
    (file,) = (cache / "umap").iterdir()
    file.write_bytes(file.read_bytes()[:50])  # damaged: computed again, the same by its seed
    np.testing.assert_array_equal(projection.umap(x, seed=1, neighbours=10).points, found.points)
    assert len(computed) == 1
    assert not np.array_equal(projection.umap(x, seed=2, neighbours=10).points, found.points)
    assert [p.suffix for p in (cache / "umap").iterdir()] == [".npy", ".npy"]
    table = project({"a": synthetic_store(5), "b": synthetic_store(3)}, "umap")  # and few points without a warning
    assert table.attrs["how"] == "umap"
    assert table.shape[0] == 32


@pytest.mark.slow
def test_densmap_keeps_how_dense_the_data_are():
    """Two clusters of which one is ten times as wide: on UMAP's map they are alike, on densMAP's not."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(size=(60, 5)), 10 * rng.normal(size=(60, 5)) + 100]).astype(np.float32)

    def widths(found):
        return [np.linalg.norm(part - part.mean(0), axis=1).mean() for part in np.split(found.points, 2)]

    plain, dense = projection.umap(x), projection.umap(x, density=True)
    assert dense.method == "densmap"
    assert widths(dense)[1] / widths(dense)[0] > 2 * widths(plain)[1] / widths(plain)[0]
    np.testing.assert_array_equal(projection.umap(x, density=True).points, dense.points)
    assert project({"a": synthetic_store(8)}, "densmap").attrs["how"] == "densmap"


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(projection, "_fit_umap", lambda wide, *_: wide[:, :2].astype(float))
    with pytest.warns(UserWarning, match="UMAP points were not kept in .*: set WORKBENCH_CACHE"):
        assert projection.umap(cloud()).points.shape == (60, 2)


def test_project_labels_every_thought_and_fits_the_union():
    a, b = synthetic_store(12, masked=True), synthetic_store(9, seed=1, method="soft_prompt", draws=2, reasoning=0)
    kept = a.copy(deep=True)
    table = project({"first": a, "second": b})
    vectors = np.concatenate([flatten(a)[0], flatten(b)[0]])
    np.testing.assert_array_equal(table[["x", "y"]], pca(vectors).points)
    assert table.columns[:2].tolist() == ["x", "y"]
    assert table["store"].tolist() == ["first"] * len(flatten(a)[0]) + ["second"] * len(flatten(b)[0])
    assert table["correct"].tolist() == [*flatten(a)[1]["correct"], *flatten(b)[1]["correct"]]
    assert {"question", "gold", "label_operations", "method", "task", "signal_entropy"} <= set(table)
    assert table.attrs == {
        "how": "pca",
        "explained": list(pca(vectors).explained),
        "trustworthiness": pca(vectors).trustworthiness,
        "continuity": pca(vectors).continuity,
        "neighbours": 15,
        "checked_rows": len(vectors),
    }
    assert a.identical(kept)


def test_project_names_a_single_store_and_joins_differing_answers():
    store = synthetic_store(6, paths=2, draws=2)
    store["prediction"][0, 1] = ["7", ""]
    store["prediction"][1, 0] = ["5", "5"]
    table = project(store, dimensions=3)
    assert table.columns[:3].tolist() == ["x", "y", "z"]
    assert set(table["store"]) == {"lta_thinker"}
    assert set(table[(table["example"] == "0000") & (table["path"] == 1)]["prediction"]) == {"7 | (no answer)"}
    assert set(table[(table["example"] == "0001") & (table["path"] == 0)]["prediction"]) == {"5"}


def test_stores_of_several_training_steps_share_one_map_and_their_examples():
    stores = {step: synthetic_store(7, seed=step) for step in (0, 40, 80)}
    table = project(stores)
    assert table["store"].tolist() == [0] * 28 + [40] * 28 + [80] * 28
    keys = [list(part[["example", "path", "step"]].itertuples(index=False)) for _, part in table.groupby("store")]
    assert keys[0] == keys[1] == keys[2]
    assert not table.duplicated(["store", "example", "path", "step"]).any()
    np.testing.assert_array_equal(
        table[["x", "y"]], pca(np.concatenate([flatten(store)[0] for store in stores.values()])).points
    )


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("how", ["pca", "umap"])
def test_vectors_of_as_many_features_as_axes_are_their_own_map(dimensions, how):
    store = synthetic_store(6, feature=dimensions)
    table = project(store, how, dimensions)
    np.testing.assert_array_equal(table[["x", "y", "z"][:dimensions]], flatten(store)[0])
    assert table.attrs["how"] == "identity"
    assert table.attrs["trustworthiness"] == table.attrs["continuity"] == 1
    assert table.attrs["explained"] == []


def test_project_tells_what_each_thought_led_to():
    store = synthetic_store(3, draws=2)
    store["text"][0, 0] = ["one\nanswer", "another"]
    assert project(store)["text"].tolist()[:4] == ["one\nanswer | another"] * 4


def test_float32_and_float16_vectors_are_not_copied_needlessly_and_give_the_same_map():
    x = cloud(40).astype(np.float16)
    np.testing.assert_allclose(pca(x).points, pca(x.astype(np.float64)).points, atol=1e-9)
    np.testing.assert_allclose(pca(x.astype(np.float32)).points, pca(x.astype(np.float64)).points, atol=1e-9)
    assert projection._checked(x32 := x.astype(np.float32), 2) is x32


def test_project_leaves_out_stores_without_thoughts():
    both = project({"thinker": synthetic_store(8), "direct": synthetic_store(8, steps=0, method="direct")})
    alone = project({"thinker": synthetic_store(8)})
    pd.testing.assert_frame_equal(both, alone)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (cloud(3), "3 thought vectors given: a projection needs at least 4; collect more examples"),
        (np.zeros((2, 3, 4)), r"vectors have shape \(2, 3, 4\): a projection takes \[n, feature\]"),
        (np.where(np.arange(30).reshape(6, 5) == 12, np.nan, cloud(6, 5)), r"1 of 6 .* NaN .*first: row 2.*drop"),
        (np.full((8, 3), 0.1) + 1e-9 * cloud(8, 3), "all 8 thought vectors are the same vector: .* have collapsed"),
        (np.zeros((8, 3)), "all 8 thought vectors are the same vector"),
        (cloud(8, 1), "dimensions is 2: 8 vectors of width 1 allow 1 to 1"),
    ],
)
@pytest.mark.parametrize("how", ["pca", "umap"])
def test_refusals_say_what_was_given_and_what_to_do(vectors, message, how):
    with pytest.raises(ValueError, match=message):
        getattr(projection, how)(vectors)


def test_a_nearly_collapsed_cloud_is_still_projected():
    assert pca(np.ones((9, 4)) + 1e-3 * cloud(9, 4)).explained[0] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stores": {}}, "no stores to project"),
        ({"stores": synthetic_store(4), "how": "tsne"}, "unknown projection 'tsne': use 'pca', 'umap', 'densmap'"),
        ({"stores": synthetic_store(4), "dimensions": 4}, "dimensions is 4: a map has 1 to 3"),
        ({"stores": synthetic_store(4, steps=0, method="direct")}, "no thoughts in direct: a map needs a method"),
        (
            {"stores": {"a": synthetic_store(4), "b": synthetic_store(4, feature=6)}},
            "stores have vectors of different width {'a': 8, 'b': 6}: project them one by one",
        ),
    ],
)
def test_project_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        project(**arguments)


def test_identity_refuses_wide_vectors_and_pca_an_empty_batch():
    with pytest.raises(ValueError, match="vectors of width 4 cannot be drawn as they are"):
        projection.identity(cloud(9, 4))
    with pytest.raises(ValueError, match="batch is 0: give the number of rows"):
        pca(cloud(9), batch=0)


def test_umap_refuses_one_neighbour():
    with pytest.raises(ValueError, match="neighbours is 1: UMAP needs at least 2"):
        projection.umap(cloud(), neighbours=1)
