"""Inspector, without a browser: its traits are set and read, its controls follow."""

import json

import ipywidgets as ipw
import numpy as np
import pandas as pd
import pytest
import traitlets as tr
import xarray as xr
from ipywidgets.widgets.widget import _instances
from kept_pages import pictures
from stores import synthetic_store

from workbench import projection
from workbench.analysis.projection import pca
from workbench.widgets import Inspector


def control(inspector: Inspector, kind: type, words: str) -> ipw.Widget:
    """The control of a kind whose description holds these words."""

    def inside(widget: ipw.Widget):
        yield widget
        for one in getattr(widget, "children", ()):
            yield from inside(one)

    found = [one for one in inside(inspector.box) if isinstance(one, kind) and words in one.description]
    assert len(found) == 1
    return found[0]


def test_a_selection_is_rows_ids_or_a_table_and_is_listed():
    inspector = Inspector(synthetic_store(examples=10, steps=3))
    inspector.selection = (7, 0, 1, 7)
    assert inspector.selection == (0, 1, 7)
    assert inspector.map.selection == (0, 1, 7)
    assert inspector.table.frame["example"].tolist() == ["0000", "0002"]
    inspector.selection = ("0004",)
    assert inspector.selection == (12, 13, 14)
    inspector.select(inspector.points.query("step == 2 and example < '0002'"))
    assert inspector.selection == (2, 5)
    assert inspector.selected["example"].tolist() == ["0000", "0001"]
    for wrong, words in (
        (("9999",), "no thought of an example '9999'"),
        ((30,), "rows of `inspector.points`, 0 to 29"),
    ):
        with pytest.raises(tr.TraitError, match=words):
            inspector.selection = wrong
    assert inspector.selection == (2, 5)
    inspector.selection = ()
    assert len(inspector.table.frame) == 10


def test_what_the_map_selects_is_the_selection():
    inspector = Inspector(synthetic_store(examples=10, steps=3))
    inspector.map.live.selection = np.array([4, 2], np.uint32)  # as the page does
    assert inspector.selection == (2, 4)
    inspector.map.live.selection = np.array([8], np.uint32)
    assert (inspector.thought, inspector.question) == (8, 2)
    grey = len(inspector.map.live.color) - 1
    codes = inspector.map.live.points[:, 2]
    assert np.flatnonzero(codes != grey).tolist() == [8]


def test_step_path_filters_and_words_cut_what_is_shown():
    data = synthetic_store(examples=12, paths=2, steps=3)
    inspector = Inspector(data)
    points = inspector.points
    inspector.step = 1
    assert inspector.map.shown == tuple(np.flatnonzero(points["step"] == 1))
    inspector.path = 0
    inspector.filters = {"label_shift": (1,)}
    wanted = (points["step"] == 1) & (points["path"] == 0) & (points["label_shift"] == 1)
    assert inspector.shown().tolist() == wanted.tolist()
    inspector.find = "ANN has"
    wanted &= points["question"].str.contains("Ann has")
    assert wanted.sum() > 0
    assert inspector.map.shown == tuple(np.flatnonzero(wanted))
    assert list(inspector.map.live.filter) == np.flatnonzero(wanted).tolist()
    inspector.select_shown()
    assert inspector.selection == tuple(np.flatnonzero(wanted))
    inspector.step = None
    assert inspector.selection == tuple(np.flatnonzero(wanted))  # what is selected stays so
    for name, value, words in [("step", 7, "no step 7 here"), ("color", "mood", "no column 'mood' to colour by")]:
        with pytest.raises(tr.TraitError, match=words):
            setattr(inspector, name, value)
    with pytest.raises(tr.TraitError, match="no column 'mood' to filter by"):
        inspector.filters = {"mood": (1,)}


def test_controls_and_traits_follow_each_other():
    inspector = Inspector(synthetic_store(examples=12, steps=3))
    slider, color = control(inspector, ipw.SelectionSlider, "slot"), control(inspector, ipw.Dropdown, "colour")
    slider.index = 2
    assert inspector.step == 1
    inspector.step = None
    assert slider.label == "all"
    color.value = "label_shift"
    assert (inspector.color, inspector.map.color) == ("label_shift", "label_shift")
    column, values = control(inspector, ipw.Dropdown, "only where"), control(inspector, ipw.SelectMultiple, "is")
    column.value = "label_shift"
    values.value = (1,)
    column.value = "label_operations"
    assert values.value == ()
    assert inspector.filters == {"label_shift": (1,)}
    column.value = "label_shift"
    assert values.value == (1,)
    control(inspector, ipw.Button, "Show all").click()
    assert (inspector.filters, values.value, inspector.map.shown) == ({}, (), None)
    control(inspector, ipw.Button, "Select all shown").click()
    assert len(inspector.selection) == 36
    control(inspector, ipw.Button, "Select none").click()
    control(inspector, ipw.Button, "Export").click()
    assert "nothing is selected" in inspector.said.value
    control(inspector, ipw.Button, "Load").click()
    assert "no file at selection.csv" in inspector.said.value


def test_a_question_is_told_with_all_the_store_knows():
    data = synthetic_store(examples=8, steps=2, draws=2)
    shape, rank = data["mask"].shape, 2
    words = np.array(["plus", " <b>"])
    data["lens_token"] = (("example", "path", "step", "rank"), np.broadcast_to(words, (*shape, rank)))
    data["lens_id"] = (("example", "path", "step", "rank"), np.zeros((*shape, rank), int))
    data["lens_probability"] = (("example", "path", "step", "rank"), np.full((*shape, rank), 0.25))
    inspector = Inspector(data)
    inspector.table.current = 3
    text = inspector.detail.value
    assert inspector.question == 3
    assert str(data["question"].values[3]) in text
    for answer in data["text"].values[3, 0]:
        assert answer in text
    assert "plus 0.25, &lt;b&gt; 0.25" in text
    assert '<th class="wb-number">entropy</th>' in text
    assert f'<td class="wb-number wb-plain">{data["signal_entropy"].values[3, 0, 1]:.3g}</td>' in text
    assert inspector.which.options == (("slot 0", 6), ("slot 1", 7))
    inspector.which.value = 7
    assert inspector.thought == 7
    near = inspector.near.frame
    vectors = data["thought"].values.astype(np.float64).reshape(16, -1)
    distances = np.linalg.norm(vectors - vectors[7], axis=1)
    distances[[6, 7]] = np.inf  # of the same question
    assert near.index.tolist() == np.argsort(distances)[: len(near)].tolist()
    np.testing.assert_allclose(near["distance"], np.sort(distances)[: len(near)], rtol=1e-5)
    inspector.near.current = 0
    assert inspector.thought == near.index[0]
    assert inspector.question == near.index[0] // 2


def test_a_store_without_steps_or_readout_says_what_would_show_them():
    inspector = Inspector(synthetic_store(reasoning=0))
    inspector.question = 0
    assert "holds no gold steps" in inspector.detail.value
    assert "collect with readout=5" in inspector.detail.value


def test_selections_are_kept_saved_and_found_again(tmp_path):
    data = synthetic_store(examples=10, steps=3)
    inspector = Inspector(data)
    inspector.selection = (4, 20)
    inspector.keep("odd ones")
    path = inspector.save_selections(tmp_path / "kept.json")
    fewer = Inspector(data.isel(example=slice(1, 6)))  # the rows have other numbers there
    assert fewer.load_selections(path) == 1
    assert fewer.kept == {"odd ones": (1,)}
    assert fewer.points.iloc[1][["example", "step"]].tolist() == ["0001", 1]
    with pytest.raises(ValueError, match="nothing is selected"):
        fewer.keep("none")
    with pytest.raises(ValueError, match="needs a name"):
        inspector.keep(" ")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ValueError, match="holds no selections"):
        inspector.load_selections(tmp_path / "other.json")


def test_the_selection_is_exported_as_a_table(tmp_path):
    inspector = Inspector(synthetic_store(examples=10, steps=3))
    with pytest.raises(ValueError, match="nothing is selected"):
        inspector.export(tmp_path / "none.csv")
    inspector.selection = (1, 5)
    table = pd.read_csv(inspector.export(tmp_path / "rows.csv"), dtype={"example": str})
    assert table["example"].tolist() == ["0000", "0001"]
    lines = inspector.export(tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    with pytest.raises(ValueError, match=r"neither in \.csv nor in \.jsonl"):
        inspector.export(tmp_path / "rows.xlsx")


def test_umap_is_made_on_request_and_moves_the_same_points(monkeypatch):
    inspector = Inspector(synthetic_store(examples=10, steps=3))
    inspector.selection = (3,)
    waited = []

    def turned(vectors, *rest, **named):
        waited.append(inspector.status.value)
        found = pca(vectors)
        return type(found)(found.points[:, ::-1], (), 0.9, 0.9, 5, len(vectors), "umap")

    monkeypatch.setattr(projection, "umap", turned)
    before = inspector.map.live.points[:, :2].copy()
    inspector.how = "umap"
    assert "wb-wait" in waited[0]
    np.testing.assert_allclose(inspector.map.live.points[:, :2], before[:, ::-1], atol=1e-6)
    assert "UMAP 1" in inspector.status.value
    assert inspector.selection == (3,)
    inspector.how = "pca"
    np.testing.assert_allclose(inspector.map.live.points[:, :2], before, atol=1e-6)

    def refused(*args, **named):
        raise ValueError("no map today")

    monkeypatch.setattr(projection, "umap", refused)
    inspector.how = "umap"
    assert inspector.how == "pca"
    assert "no map today" in inspector.said.value


def test_several_stores_are_one_map():
    stores = {"a": synthetic_store(examples=5, steps=2), "b": synthetic_store(examples=5, steps=2, seed=1)}
    inspector = Inspector(stores, color="store")
    inspector.filters = {"store": ("b",)}
    inspector.select_shown()
    assert inspector.selected["store"].unique().tolist() == ["b"]
    inspector.table.current = 1
    assert str(stores["b"]["text"].values[1, 0, 0]) in inspector.detail.value
    assert inspector.points.iloc[inspector.thought]["store"] == "b"


def broken(data: xr.Dataset) -> xr.Dataset:
    thought = data["thought"].values.copy()
    thought[0] = np.nan
    return data.assign(thought=(data["thought"].dims, thought))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "no store to show"),
        (synthetic_store().drop_vars("correct"), "lacks the variable &#x27;correct&#x27;"),
        (synthetic_store(steps=0), "There is no map: no thoughts in lta_thinker"),
        (synthetic_store(examples=1, steps=1), "There is no map: 1 thought vectors given"),
        (synthetic_store(examples=2, steps=1), "There is no map: 2 thought vectors given"),
        (broken(synthetic_store()), "1 of 12 examples have NaN or infinite thoughts and are left out"),
        (broken(synthetic_store(examples=1)), "the thoughts of all 1 examples are NaN or infinite"),
        ({"a": synthetic_store(), "b": synthetic_store(feature=5)}, "vectors of different width"),
    ],
    ids=["none", "missing", "empty", "one point", "two points", "nan", "all nan", "widths"],
)
def test_an_odd_store_gets_a_sentence_and_what_can_be_shown_is(given, words, tmp_path):
    before = set(_instances)
    inspector = Inspector(given)
    assert words in inspector.box.children[0].value
    for place in range(len(inspector.questions)):
        inspector.question = place
        assert str(inspector.questions["question"][place]) in inspector.detail.value
    if len(inspector.points):
        inspector.selection = (0,)
    assert words in inspector.to_html(tmp_path / "odd.html").read_text(encoding="utf-8")
    inspector.close()
    assert set(_instances) == before


def test_one_step_needs_no_slider():
    inspector = Inspector(synthetic_store(steps=1))
    with pytest.raises(AssertionError):
        control(inspector, ipw.SelectionSlider, "slot")
    inspector.find = "nobody"  # nothing is shown
    assert inspector.map.shown == ()
    assert len(inspector.table.frame) == 0


def test_the_page_is_the_current_view(tmp_path):
    inspector = Inspector(synthetic_store(examples=10, steps=3), color="step")
    inspector.selection = (0, 4, 7)
    inspector.question = 1
    page = inspector.to_html(tmp_path / "view.html").read_text(encoding="utf-8")
    assert "selected: <b>3</b> of the thoughts, 3 of the questions" in page
    assert pictures(page) == 1
    assert "Nearest thoughts of other questions to slot 1" in page
    inspector.filters = {"label_shift": (5,)}
    assert "No thought passes the filters." in inspector.to_html(tmp_path / "none.html").read_text(encoding="utf-8")


def test_two_widgets_do_not_meet_and_closing_frees_them():
    before = set(_instances)
    data = synthetic_store(examples=10, steps=3)
    first, second = Inspector(data), Inspector(data)
    first.step, first.color, first.selection = 1, "step", (1, 4)
    assert (second.step, second.color, second.selection) == (None, "correct", ())
    first.close()
    second.step = 2
    second.table.current = 0
    assert second.question == 0
    second.close()
    assert set(_instances) == before
    assert second._repr_mimebundle_() == {"text/plain": "Inspector (closed)"}


def test_a_hundred_thousand_thoughts_are_shown():
    data = synthetic_store(examples=25_000, steps=4, feature=4, reasoning=0)
    inspector = Inspector(data)
    assert len(inspector.points) == 100_000
    inspector.step = 3
    inspector.select_shown()
    assert len(inspector.selection) == 25_000
    assert inspector.table.shown["note"].startswith("200 of 25000 rows")
    inspector.close()
