"""The tables of stores agree with the functions of arrays."""

import numpy as np
import pandas as pd
import pytest
from stores import synthetic_store

from workbench import diagnostics as d
from workbench import figures
from workbench import store as stores_module
from workbench.analysis.diagnostics import meanings


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.describe(synthetic_store(), path=1), "path 1 of a store with 1 paths"),
        (lambda: d.describe(synthetic_store(examples=1)), "give at least 2 examples"),
        (
            lambda: d.describe(synthetic_store(), by="label_x"),
            "no label 'label_x' in this store: it has correct, gold, ",
        ),
        (
            lambda: d.describe(synthetic_store(), level=2),
            "level 2: give a confidence level between 0 and 1, such as 0.95",
        ),
        (lambda: d.describe({}), "no stores: give at least one"),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def values(table):
    return table.set_index(["statistic", "step"])["value"]


def test_describe_agrees_with_the_functions():
    store = synthetic_store(30, 2, 3, 8, masked=True)
    before = store.copy(deep=True)
    table = d.describe(store, path=1)
    assert store.identical(before)
    assert not table.duplicated(["statistic", "step"]).any()
    assert set(table["statistic"]) == set(d.MEANINGS)
    found = values(table)
    x, mask = store["thought"].values[:, 1].astype(float), store["mask"].values[:, 1]
    for s in range(3):
        step = x[mask[:, s], s]
        assert found["spread", str(s)] == pytest.approx(d.spread(step))
        assert found["relative_spread", str(s)] == pytest.approx(d.relative_spread(step))
        assert found["effective_rank", str(s)] == pytest.approx(d.effective_rank(step))
        assert found["participation_ratio", str(s)] == pytest.approx(d.participation_ratio(step))
        assert found["cosine", str(s)] == pytest.approx(d.mean_cosine(step))
        for name in ("anisotropy", "active_units", "neighbour_ratio", "intrinsic_dimension"):
            assert found[name, str(s)] == pytest.approx(getattr(d, name)(step)), name
        assert found["total_spread", str(s)] == pytest.approx(d.spread(step, total=True))
        assert found["centred_cosine", str(s)] == pytest.approx(d.mean_cosine(step, centred=True))
        assert found["norm_ratio", str(s)] == pytest.approx(d.norm_ratio(step, store["reference"].values))
    for name, value in d.probe(x, mask).items():
        assert name == "rms" or found[name, "all"] == pytest.approx(value), name
    assert found["norm_ratio", "all"] == pytest.approx(d.norm_ratio(x[mask], store["reference"].values))
    assert found["gaussian_kl", "all"] == pytest.approx(d.gaussian_kl(x[mask], store["reference"].values))
    for name in ("anisotropy", "active_units", "neighbour_ratio", "intrinsic_dimension"):
        assert found[name, "all"] == pytest.approx(np.mean([found[name, str(s)] for s in range(3)])), name
    for name, part in d.variance_parts(store["thought"].values, store["mask"].values).items():
        assert name == "total" or found[f"variance_{name}", "all"] == pytest.approx(part.share), name
    kl = [d.feature_softmax_kl(x[i, mask[i]].mean(0), x[i, mask[i]]) for i in range(30)]
    assert found["slot_softmax_kl", "all"] == pytest.approx(np.mean(kl))
    assert found["verdict", "all"] == 0
    meaning = table.set_index("statistic").loc["variance_question", "meaning"]
    # 30 x 2 x 3 thoughts, 20 of them masked: 29 of 159 degrees of freedom
    assert meaning == "of the variance: questions differ, alike in all steps (noise: 0.18)"
    bounded = table.dropna(subset="low")
    assert set(table["statistic"]) - set(bounded["statistic"]) == {"active_units", "verdict"}
    assert ((bounded["low"] < bounded["value"]) & (bounded["value"] < bounded["high"])).all()
    quick = d.describe(store, path=1, level=None)
    assert quick["low"].isna().all()
    same = [name for name in table if name not in ("low", "high")]
    pd.testing.assert_frame_equal(quick[same], table[same])


def test_intervals_of_what_is_no_mean_leave_groups_out():
    store = synthetic_store(60, 1, 2, 8)
    table = d.describe(store, level=0.9).set_index(["statistic", "step"])
    x = store["thought"].values[:, 0].astype(float)
    for name in ("effective_rank", "participation_ratio", "anisotropy", "neighbour_ratio", "intrinsic_dimension"):
        expected = d.jackknife(getattr(d, name), x[:, 1], level=0.9, groups=10)
        assert tuple(table.loc[(name, "1"), ["low", "high"]]) == pytest.approx((expected.low, expected.high)), name

    def over_steps(clouds):
        return float(np.mean([d.mean_cosine(clouds[:, s]) for s in range(2)]))

    expected = d.jackknife(over_steps, x, level=0.9, groups=10)
    assert tuple(table.loc[("cosine", "all"), ["low", "high"]]) == pytest.approx((expected.low, expected.high))
    expected = d.jackknife(lambda part: d.variance_parts(part)["question"].share, x[:, None], level=0.9, groups=10)
    assert tuple(table.loc[("variance_question", "all"), ["low", "high"]]) == pytest.approx(
        (expected.low, expected.high)
    )
    few = d.describe(synthetic_store(19, 1, 2, 8)).set_index("statistic")
    assert few.loc["cosine", "low"].isna().all()
    assert few.loc["spread", "low"].notna().all()


def test_a_slot_that_differs_by_rounding_alone_has_no_rank():
    rng = np.random.default_rng(0)
    store = synthetic_store(60, 1, 3, 64)
    thoughts = store["thought"].values.astype(np.float32)
    copies = np.broadcast_to(thoughts[0, 0, 1], thoughts[:, 0, 1].shape)
    for noise in (0.0, 1e-4, 1e-3):  # of the values: stored in float16, 1e-4 is rounding and 1e-3 is not
        thoughts[:, 0, 1] = copies * (1 + noise * rng.normal(size=copies.shape))
        store["thought"] = store["thought"].dims, thoughts.astype(np.float16)
        found = d.describe(store).set_index(["statistic", "step"])
        ranks = found["value"]["effective_rank"]
        assert np.isnan(ranks["1"]) == (noise < 1e-3)
        assert ranks["all"] == pytest.approx(np.nanmean([ranks["0"], ranks["1"], ranks["2"]]))
        assert np.isfinite(found.loc[("effective_rank", "all"), ["low", "high"]].astype(float)).all()
        assert d.probe(thoughts.astype(np.float16)[:, 0])["effective_rank"] == pytest.approx(ranks["all"])
    assert d.probe(np.broadcast_to(copies[:1, None], (60, 2, 64)))["effective_rank"] == 0
    assert np.isfinite(found["value"]["effective_rank"]["1"])
    thoughts[:, 0, 1] = copies
    store["thought"] = store["thought"].dims, thoughts
    figure = figures.collapse_along(d.describe(store), show=["effective_rank"])  # draws what there is
    assert figure.data[0].x == (0, 2)
    assert figure.layout.title.text.endswith("; no point where thoughts do not differ")


def test_intervals_end_where_a_statistic_does():
    """Of a few questions, one of them far away: without an end these would reach below 0 and above 1."""
    store = synthetic_store(20, 1, 2, 8)
    thoughts = store["thought"].values.astype(np.float32)
    thoughts[0, :, :, 0] += 30
    store["thought"] = store["thought"].dims, thoughts
    table = d.describe(store).dropna(subset="low")
    raw = d.jackknife(d.effective_rank, thoughts[:, 0, 0].astype(float), groups=10)
    assert raw.low < 0
    rank = table[(table["statistic"] == "effective_rank") & (table["step"] == "0")].iloc[0]
    assert (rank["low"], rank["high"]) == (0, pytest.approx(raw.high))
    for unit, (least, most) in meanings.LIMITS.items():
        part = table[table["unit"] == unit]
        assert (part["low"] >= least - 1e-9).all(), unit
        assert (part["high"] <= most + 1e-9).all(), unit
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()


def test_describe_by_group_is_that_of_its_questions():
    store = synthetic_store(40, 2, 2, 8)
    for by, values in (("label_operations", store["label_operations"].values), ("gold", store["gold"].values)):
        table = d.describe(store, path=1, by=by, level=None)
        counts = pd.Series(values).value_counts()
        assert set(table[by]) == set(counts[counts > 1].index)
        for value in counts[counts > 1].index[:3]:
            alone = d.describe(store.isel(example=np.flatnonzero(values == value)), path=1, level=None)
            part = table[table[by] == value].drop(columns=by).reset_index(drop=True)
            pd.testing.assert_frame_equal(part, alone)
    assert list(d.describe(store, by="correct", level=None))[:3] == ["correct", "statistic", "step"]
    paths = d.describe(store, by="path", level=None)
    alone = d.describe(store.isel(path=[1]), level=None)
    pd.testing.assert_frame_equal(paths[paths["path"] == 1].drop(columns="path").reset_index(drop=True), alone)
    unique = store.assign_coords(label_own=("example", np.arange(40)))
    with pytest.raises(ValueError, match="no two questions have the same 'label_own': give a label that questions"):
        d.describe(unique, by="label_own")


def test_describe_several_stores_and_with_other_thresholds():
    stores = {0: synthetic_store(), 10: synthetic_store(seed=1), 20: synthetic_store(steps=0)}
    table = d.describe(stores)
    assert set(table["store"]) == {0, 10}  # the last has no thoughts
    alone = d.describe(stores[10])
    pd.testing.assert_frame_equal(table[table["store"] == 10].drop(columns="store").reset_index(drop=True), alone)
    both = d.describe(stores, by="label_shift", level=None)
    assert list(both)[:3] == ["store", "label_shift", "statistic"]
    strict = d.describe(stores[0], thresholds=d.Thresholds(low_spread=0.9)).set_index("statistic").loc["verdict"]
    assert strict["value"] == 1
    assert strict["meaning"].endswith("is below 0.9")


def test_tables_that_are_drawn():
    stores = {"a": synthetic_store(30, 2, 3, 8, masked=True), "b": synthetic_store(30, 2, 3, 8, seed=1)}
    x, mask = stores["a"]["thought"].values[:, 0].astype(float), stores["a"]["mask"].values[:, 0]
    spectrum = d.spectrum_table(stores).set_index(["store", "step"])
    last = spectrum.loc[("a", "2")]
    assert last["eigenvalue"].to_numpy() == pytest.approx(d.covariance_eigenvalues(x[mask[:, 2], 2]))
    assert last["cumulative"].to_numpy() == pytest.approx(last["eigenvalue"].cumsum() / last["eigenvalue"].sum())
    assert last["direction"].tolist() == list(range(1, 9))
    assert last["relative"].sum() == pytest.approx(d.relative_spread(x[mask[:, 2], 2]))
    assert set(last["n"]) == {20}
    features = d.feature_table(stores).set_index(["store", "step"]).loc[("a", "2")]
    assert features["variance"].to_numpy() == pytest.approx(d.feature_variances(x[mask[:, 2], 2]))
    parts = d.variance_table(stores)
    assert parts.groupby("store")["share"].sum().tolist() == pytest.approx([1, 1])
    expected = d.variance_parts(stores["b"]["thought"].values, stores["b"]["mask"].values)
    for _, row in parts[parts["store"] == "b"].iterrows():
        assert (row["value"], row["share"], row["chance"]) == expected[row["part"]][:3]
    assert set(d.variance_table(stores["a"])["store"]) == {"lta_thinker"}
    assert set(parts.loc[parts["store"] == "a", "n"]) == {30 * 2 * 3 - 10 * 2}
    whole = d.variance_table(stores, of="square")
    assert whole.groupby("store")["share"].sum().tolist() == pytest.approx([1, 1])
    kept = whole.set_index(["store", "part"])
    every = stores["a"]["thought"].values[stores["a"]["mask"].values].astype(float)
    constant = np.square(every.mean(0)).mean()
    assert kept.loc[("a", "constant"), "value"] == pytest.approx(constant)
    assert kept.loc[("a", "constant"), "share"] == pytest.approx(constant / np.square(every).mean())
    assert kept.loc[("a", "slot"), "value"] == parts.set_index(["store", "part"]).loc[("a", "slot"), "value"]
    with pytest.raises(ValueError, match="shares of the 'mean': use 'variance' or 'square'"):
        d.variance_table(stores, of="mean")  # pyright: ignore[reportArgumentType]


def test_intervals_of_describe_are_those_of_a_mean():
    store = synthetic_store(300, 1, 2, 8)
    cosines = d.slot_cosines(store["thought"].values[:, 0])
    row = d.describe(store).set_index("statistic").loc["slot_cosine"]
    half = 1.96 * cosines.std() / np.sqrt(300)
    assert (row["low"], row["high"]) == pytest.approx((cosines.mean() - half, cosines.mean() + half), abs=0.01)


@pytest.mark.parametrize(("state", "code"), [("healthy", 0), ("merged", 2), ("collapsed", 2)])
def test_describe_says_the_verdict(state, code):
    row = d.describe(synthetic_store(state=state)).set_index("statistic").loc["verdict"]
    assert row["value"] == code
    assert row["meaning"].startswith(("healthy: ", "drifting: ", "collapsed: ")[code])


def test_describe_copes_with_every_kind_of_store():
    assert list(d.describe(synthetic_store(steps=0))) == list(d.describe(synthetic_store()))
    assert d.describe(synthetic_store(steps=0)).empty
    one = d.describe(synthetic_store(steps=1, reference=0))
    assert not {"slot_cosine", "norm_ratio", "gaussian_kl", "variance_slot", "variance_path"} & set(one["statistic"])
    assert values(one)["variance_question", "all"] == pytest.approx(1)  # one step, one path: nothing else differs
    constant = synthetic_store(steps=1)  # a soft prompt: the same vector for every question
    constant["thought"] = constant["thought"].isel(example=0).broadcast_like(constant["thought"])
    found = values(d.describe(constant))
    assert (found["relative_spread", "all"], found["gaussian_kl", "all"], found["verdict", "all"]) == (0, np.inf, 2)
    for name in ("intrinsic_dimension", "effective_rank", "participation_ratio", "anisotropy", "centred_cosine"):
        assert np.isnan(found[name, "all"]), name
    assert found["neighbour_ratio", "all"] == found["variance_question", "all"] == 0
    store = synthetic_store(masked=True)
    turned = d.describe(store.transpose(*reversed(stores_module.DIMENSIONS), missing_dims="ignore"))
    pd.testing.assert_frame_equal(turned, d.describe(store))


# --------------------------------------------------------------------------------------- stores beside each other


def test_divergences_of_a_store_from_its_token_embeddings():
    store = synthetic_store(60, 1, 2, 8, masked=True, reference=40)
    before = store.copy(deep=True)
    table = d.divergence_table(store)
    assert store.identical(before)
    assert not table.duplicated(["first", "second", "step", "divergence"]).any()
    assert set(zip(table["first"], table["second"], strict=True)) == {
        ("lta_thinker", "token embeddings"),
        ("token embeddings", "lta_thinker"),
    }
    found = table.set_index(["first", "step", "divergence"])["value"]
    reference = store["reference"].values
    x, mask = store["thought"].values[:, 0].astype(float), store["mask"].values[:, 0]
    for step, cloud in (("0", x[:, 0]), ("1", x[mask[:, 1], 1]), ("all", x[mask])):
        assert found["lta_thinker", step, "gaussian_kl"] == pytest.approx(d.gaussian_kl(cloud, reference))
        assert found["token embeddings", step, "gaussian_kl"] == pytest.approx(d.gaussian_kl(reference, cloud))
        assert found["lta_thinker", step, "knn_kl"] == pytest.approx(d.knn_kl(cloud, reference))
        assert found["lta_thinker", step, "frechet_distance"] == pytest.approx(d.frechet_distance(cloud, reference))
        assert found["lta_thinker", step, "mmd"] == pytest.approx(d.mmd(cloud, reference))
        assert ("token embeddings", step, "mmd") not in found.index
    p = table[table["divergence"] == "mmd"].set_index("step")["p"]
    assert p["0"] == pytest.approx(d.mmd_test(x[:, 0], reference).p_value)
    assert np.isnan(p["all"])  # several thoughts of one question are not independent
    rows = table[table["divergence"] != "mmd"]
    assert ((rows["low"] < rows["value"]) & (rows["value"] < rows["high"])).all()
    counts = table.set_index(["first", "step"]).sort_index()
    assert set(counts.loc[("lta_thinker", "1"), "n_first"]) == {40}
    assert set(counts["n_second"]) == {60, 40}
    assert list(table["unit"]) == [d.DIVERGENCES[name][0] for name in table["divergence"]]


def test_divergences_between_stores_pair_the_same_questions():
    first, second = synthetic_store(30, 1, 2, 6, reference=0), synthetic_store(30, 1, 2, 6, reference=0, seed=1)
    shuffled = second.isel(example=np.random.default_rng(0).permutation(30))
    table = d.divergence_table({"a": first, "b": shuffled}, groups=3)
    pd.testing.assert_frame_equal(table, d.divergence_table({"a": first, "b": second}, groups=3))
    found = table.set_index(["first", "step", "divergence"])["value"]
    x, y = (store["thought"].values[:, 0].astype(float) for store in (first, second))
    for step, a, b in (("0", x[:, 0], y[:, 0]), ("all", x, y)):
        assert found["a", step, "feature_softmax_kl"] == pytest.approx(d.feature_softmax_kl(a, b))
        assert found["b", step, "feature_softmax_kl"] == pytest.approx(d.feature_softmax_kl(b, a))
    other = d.divergence_table({"a": first, "b": synthetic_store(30, 1, 1, 6, reference=0, start=100)}, groups=3)
    assert "feature_softmax_kl" not in set(other["divergence"])
    assert set(other["step"]) == {"0", "all"}  # steps both have
    three = d.divergence_table({"a": first, "b": second, "c": first}, reference=x[:, 0] + 1, groups=3)
    pairs = {frozenset(pair) for pair in zip(three["first"], three["second"], strict=True)}
    assert len(pairs) == 6  # each of three with each, and with the reference
    same = three[(three["first"] == "a") & (three["second"] == "c") & (three["divergence"] == "gaussian_kl")]
    assert same["value"].tolist() == pytest.approx([0, 0, 0], abs=1e-9)


def test_divergences_say_why_one_does_not_exist():
    store = synthetic_store(20, 1, 1, 6, reference=30)
    store["thought"] = store["thought"].isel(example=0).broadcast_like(store["thought"])  # a soft prompt
    table = d.divergence_table(store).set_index(["first", "step", "divergence"])
    forward = table.loc[("lta_thinker", "0", "knn_kl")]
    assert np.isnan(forward["value"])
    assert forward["note"].startswith("20 of 20 samples of p occur 6 times or more in p")
    assert table.loc[("lta_thinker", "0", "gaussian_kl"), "value"] == np.inf
    assert np.isnan(table.loc[("lta_thinker", "0", "gaussian_kl"), "low"])
    assert table.loc[("token embeddings", "0", "gaussian_kl"), "note"].startswith("all samples of q are equal")
    assert np.isfinite(table.loc[("lta_thinker", "0", "frechet_distance"), "high"])


def test_divergences_take_so_many_examples_and_components():
    store = synthetic_store(50, 1, 1, 12, reference=40)
    table = d.divergence_table(store, examples=30, components=2)
    assert set(table["n_first"]) == {30}
    whole = d.divergence_table(store, components=2).set_index(["first", "step", "divergence"])["value"]
    x, reference = store["thought"].values[:, 0, 0].astype(float), store["reference"].values.astype(float)
    shown = d.principal_components(np.concatenate([x, reference]), 2)
    assert whole["lta_thinker", "0", "knn_kl"] == pytest.approx(d.knn_kl(shown[:50], shown[50:]))
    with pytest.raises(ValueError, match="one store without token embeddings: give a second store"):
        d.divergence_table(synthetic_store(reference=0))
    with pytest.raises(ValueError, match="'a' has 8 features and 'reference' 3: compare thoughts of one width"):
        d.divergence_table({"a": store.isel(feature=slice(8))}, np.eye(3))
    with pytest.raises(ValueError, match="store 'a' holds no thoughts: leave it out"):
        d.divergence_table({"a": synthetic_store(steps=0)})


def test_information_of_a_store():
    store = synthetic_store(200, 1, 2, 8)
    store["thought"][..., 0] += (3 * store["correct"].mean("draw")).astype(store["thought"].dtype)
    table = d.information_table(store)
    assert list(table["step"]) == ["0", "0", "1", "1", "all", "all"]
    assert set(table["label"]) == {"correct"}
    right = store["correct"].values[:, 0, 0]
    x = store["thought"].values[:, 0].astype(float)
    found = table.set_index(["estimate", "step"])
    one = d.classifier_information(x[:, 1], right)
    expected = (one.nats, one.floor, one.p_value, one.entropy, one.samples, one.classes)
    assert tuple(found.loc[("classifier", "1")][["nats", "floor", "p", "entropy", "n", "classes"]]) == expected
    near = d.knn_information(d.principal_components(x.reshape(200, -1), 5), right)
    assert found.loc[("neighbours", "all"), "nats"] == near.nats
    assert (table["nats"] > 0.3).all()  # planted: correctness moves the first feature by 5 standard deviations
    assert (table["nats"] > table["floor"] + 0.2).all()
    unrelated = d.information_table(store, "label_shift")
    assert (unrelated["nats"].abs() < 0.1).all()
    with pytest.raises(ValueError, match="no label 'label_x' in this store: it has correct, gold, label_"):
        d.information_table(store, "label_x")
    assert d.information_table(synthetic_store(steps=0)).empty


def test_which_way_is_healthy_is_said_and_true_of_planted_thoughts():
    """Thoughts that all questions share, beside those that differ: every direction that is named holds."""
    store = synthetic_store(40, 1, 3, 8)
    rng = np.random.default_rng(0)
    shape = store["thought"].shape
    flat = np.broadcast_to(rng.normal(size=shape[-1]), shape) + 0.001 * rng.normal(size=shape)
    live = rng.normal(size=shape)
    tables = [
        d.describe(store.assign(thought=(store["thought"].dims, vectors.astype(np.float32))), level=None)
        for vectors in (flat, live)
    ]
    ways = dict(zip(tables[0]["statistic"], tables[0]["healthy"], strict=True))
    assert set(ways.values()) <= {"higher", "lower", "near 1", "not by itself"}
    dead, well = ({s: v for (s, at), v in values(table).items() if at == "all"} for table in tables)
    told = [name for name, way in ways.items() if way in ("higher", "lower") and name in dead]
    assert {"relative_spread", "slot_cosine", "cosine"} <= set(told)
    for name in told:
        assert (well[name] - dead[name]) * (1 if ways[name] == "higher" else -1) > 0, name
    assert ways["effective_rank"] == "not by itself"  # here both have noise in all directions
