"""Compare, without a browser."""

import numpy as np
import pytest
import traitlets as tr
from kept_pages import pictures
from stores import synthetic_store

from workbench import scores
from workbench.widgets import Compare


def two() -> dict:
    return {"one": synthetic_store(examples=20, seed=1), "two": synthetic_store(examples=20, seed=1, accuracy=0.2)}


def test_agreement_is_counted_question_by_question():
    a, b = synthetic_store(examples=30, seed=2), synthetic_store(examples=20, seed=3, start=5)
    b = b.assign_coords(question=("example", a["question"].values[5:25]))
    x, y = a["correct"].values[5:25].ravel(), b["correct"].values.ravel()
    table = scores.agreement_table({"a": a, "b": b}).set_index(["first", "second"])
    assert table.loc[("a", "b"), "share"] == np.mean([one == other for one, other in zip(x, y, strict=True)])
    assert table.loc[("a", "b"), "n"] == 20
    assert table.loc[("a", "a"), "share"] == 1
    p, q = x.mean(), y.mean()
    assert table.loc[("b", "a"), "chance"] == pytest.approx(p * q + (1 - p) * (1 - q))
    with pytest.raises(ValueError, match="share no example"):
        scores.agreement_table({"a": a, "b": synthetic_store(start=100)})


def test_agreement_of_several_answers_is_that_of_two_drawn_at_random():
    a, b = synthetic_store(examples=3, draws=2, seed=2), synthetic_store(examples=3, draws=4, seed=2, accuracy=0.4)
    b = b.assign_coords(question=a["question"])
    pairs = [
        one == other
        for x, y in zip(a["correct"].values, b["correct"].values, strict=True)
        for one in x.ravel()
        for other in y.ravel()
    ]
    table = scores.agreement_table({"a": a, "b": b})
    assert table["share"][1] == pytest.approx(np.mean(pairs))


def test_questions_with_different_answers_are_listed():
    stores = two()
    compare = Compare(stores)
    right = {name: store["correct"].values.ravel() for name, store in stores.items()}
    differ = np.flatnonzero(right["one"] != right["two"])
    ids = stores["one"]["example"].values
    assert 0 < len(differ) < 20
    assert compare.table.frame["example"].tolist() == ids[differ].tolist()
    assert compare.table.frame["two"].tolist() == right["two"][differ].tolist()
    compare.only = "all"
    assert len(compare.table.frame) == 20
    compare.table.current = 3
    assert compare.question == ids[3]
    text = compare.detail.value
    for store in stores.values():
        assert str(store["text"].values[3, 0, 0]) in text
    compare.close()


def test_questions_that_another_run_fixes_and_breaks_are_listed():
    stores = two() | {"three": synthetic_store(examples=20, seed=1, accuracy=0.5)}
    compare = Compare(stores)
    right = {name: store["correct"].values.ravel() for name, store in stores.items()}
    others = np.stack([right["two"], right["three"]])
    ids = stores["one"]["example"].values
    for only, wanted in (
        ("fixed", others.any(axis=0) & ~right["one"]),
        ("broken", ~others.all(axis=0) & right["one"]),
    ):
        compare.only = only
        assert compare.table.frame["example"].tolist() == ids[wanted].tolist()
        assert f"{wanted.sum()} {only}" in compare.counted.value
    compare.only, compare.baseline = "fixed", "two"
    wanted = (right["one"] | right["three"]) & ~right["two"]
    assert wanted.any()
    assert compare.table.frame["example"].tolist() == ids[wanted].tolist()


def test_a_selection_on_one_map_is_one_of_questions_on_all():
    compare = Compare(two())
    ids = compare.questions["example"].tolist()
    compare.maps["one"].selection = (4, 9)  # thoughts 0 and 1 of the second and third question
    assert compare.selection == (ids[1], ids[2])
    assert compare.maps["one"].selection == compare.maps["two"].selection == tuple(range(4, 12))
    assert set(compare.table.frame["example"]) <= {ids[1], ids[2]}
    compare.step = 2
    assert compare.maps["two"].shown == tuple(range(2, 80, 4))
    assert list(compare.maps["two"].live.selection) == [6, 10]  # those of the selection that are drawn
    compare.selection = ()
    assert compare.maps["one"].selection == ()
    compare.maps["two"].selection = (0,)
    assert compare.question == ids[0]
    with pytest.raises(tr.TraitError, match="no example 'nobody'"):
        compare.selection = ("nobody",)


def test_maps_of_one_projection_have_one_extent():
    compare = Compare(two())
    drawn = np.concatenate([one.live.points[:, :2] for one in compare.maps.values()])
    raw = compare.points[["x", "y"]].to_numpy()
    for k in range(2):
        slope, start = np.polyfit(raw[:, k], drawn[:, k], 1)
        np.testing.assert_allclose(drawn[:, k], slope * raw[:, k] + start, atol=1e-5)


def test_differences_are_those_of_scores():
    stores = two()
    compare = Compare(stores)
    (row,) = compare.test_table().to_dict(orient="records")
    assert row["run"] == "two"
    expected = scores.compare(stores["two"], stores["one"]).iloc[0]
    assert (row["difference"], row["p"]) == (expected["difference"], expected["p"])
    assert f"{100 * row['difference']:+.1f}".replace("-", "−") in compare.tests.value
    compare.baseline = "two"
    assert compare.test_table()["run"].tolist() == ["one"]
    share = scores.agreement_table(stores)["share"].to_numpy().reshape(2, 2)
    np.testing.assert_allclose(np.array(compare.agreement.figure.data[0].z, float), 100 * share)


def test_the_page_says_what_the_widget_shows(tmp_path):
    compare = Compare(two())
    compare.table.current = 0
    page = compare.to_html(tmp_path / "compare.html").read_text(encoding="utf-8")
    assert compare.question in page
    assert pictures(page) == 4  # accuracies, agreement, two maps


def test_stores_that_are_no_comparison_are_told_so(tmp_path):
    one = synthetic_store()
    for given, words in [
        ({}, "no store to show"),
        ({"only": one}, "needs two stores or more, and 1 store can be shown"),
        ({"a": one, "b": one.drop_vars("thought")}, "and 1 store can be shown"),
    ]:
        compare = Compare(given)
        assert words in compare.box.children[0].value
        assert words in compare.to_html(tmp_path / "no.html").read_text(encoding="utf-8")
    compare = Compare({"a": one, "b": synthetic_store(start=100), "c": synthetic_store(feature=6, start=100)})
    assert "share no example" in compare.tests.value
    assert any("There is no common map" in remark for remark in compare.remarks)
    assert len(compare.maps) == 3
    bare = Compare({"a": one, "none": synthetic_store(steps=0), "few": synthetic_store(examples=12, steps=1)})
    assert set(bare.maps) == {"a", "few"}
    bare.only = "all"
    bare.table.current = 0
    assert "This question has no thoughts here." in bare.detail.value
    compare.to_html(tmp_path / "odd.html")
