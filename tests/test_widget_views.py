"""What the widgets share, without a browser: tables, text, pages, and what is said about odd stores."""

import json
import re

import ipywidgets as ipw
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from ipywidgets.widgets.widget import _instances
from kept_pages import fetched, pictures
from stores import synthetic_store

from workbench.analysis.diagnostics.neighbours import nearest_rows
from workbench.widgets.views import Picture, Table, checked, close_all, escaped, said, table_html, write_page

ODD = "<script>alert('1')</script>"


def frame() -> pd.DataFrame:
    return pd.DataFrame({"n": [2.0, np.nan, 1.5], "ok": [True, False, True], "text": ["b", ODD, "a"]}, index=[7, 8, 9])


def test_a_table_sorts_all_rows_and_keeps_its_frame():
    table = Table(frame(), label="numbers")
    assert table.shown["rows"] == [["2", "✓", "b"], ["", "✗", ODD], ["1.5", "✓", "a"]]
    assert table.shown["kinds"] == ["number", "truth", "text"]
    table.sort = "n"
    assert table.shown["ids"] == [2, 0, 1]  # what is missing comes last, whatever the direction
    table.descending = True
    assert table.shown["ids"] == [0, 2, 1]
    table.sort = "nothing"
    assert table.shown["ids"] == [0, 1, 2]


def test_a_long_table_shows_its_first_rows_and_always_the_chosen_one():
    table = Table(pd.DataFrame({"k": range(1000)}))
    assert (len(table.shown["rows"]), table.shown["note"]) == (200, "200 of 1000 rows are shown; sort to see others.")
    table.current = 999
    assert table.shown["ids"][-1] == 999
    table.current = 1000
    assert table.current == -1
    table.replace(pd.DataFrame({"k": [1]}))
    assert (table.current, table.shown["note"]) == (-1, "")


def test_text_of_a_store_is_never_markup():
    assert escaped("a < b\n&") == "a &lt; b<br>&amp;"
    assert ODD not in table_html(frame())
    assert ODD not in said([ODD])
    assert said([]) == ""


def test_a_picture_sends_its_figure_and_plotly_when_asked(monkeypatch):
    picture = Picture(go.Figure(go.Scatter(y=[1, 2])))
    assert picture.content["data"][0]["type"] == "scatter"
    picture.show(go.Figure([go.Bar(y=[3]), go.Bar(y=np.array([4.0]))]).update_layout(title_text="two"))
    assert [trace["type"] for trace in picture.content["data"]] == ["bar", "bar"]
    assert picture.content["layout"]["title"]["text"] == "two"
    picture.show(None)
    assert picture.content == {}
    sent = []
    monkeypatch.setattr(picture, "send", lambda message, buffers=None: sent.append((message, buffers)))
    picture._handle_custom_msg("something", [])
    assert sent == []
    picture._handle_custom_msg({"type": "library"}, [])
    ((message, (script,)),) = sent
    assert message == {"library": "plotly"}
    assert b"plotly.js v" in script[:200]


def test_a_page_holds_all_it_needs_and_nothing_that_loads(tmp_path):
    figure = go.Figure(go.Scatter(y=[1]))
    path = write_page(tmp_path / "page.html", ODD, ["<p>words</p>", frame(), figure, figure])
    page = path.read_text(encoding="utf-8")
    assert ODD not in page
    assert fetched(page) == []
    assert fetched(page + '<script src="https://a/b.js"></script>') == ["script https://a/b.js"]
    assert page.count("plotly.js v") == 1  # the library, once for both
    assert pictures(page) == 2
    outside = re.sub(r"<script type=\"text/javascript\">/\*\*.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", outside)
    with pytest.raises(ValueError, match=r"does not end in '\.html'"):
        write_page(tmp_path / "page.pdf", "x", [])


def test_closing_closes_everything_inside():
    before = set(_instances)
    box = ipw.VBox([ipw.HBox([ipw.IntSlider(), Table(frame())]), Picture(go.Figure())])
    assert len(_instances) > len(before) + 5  # with layouts and styles
    close_all(box)
    assert set(_instances) == before


def test_stores_that_cannot_be_shown_get_a_sentence():
    good = synthetic_store()
    assert checked(good) == ({good.attrs["method"]: good}, [])
    for given, words in [
        ({}, "There is no store to show"),
        ([good], "This is a list: give a store"),
        ({"a": 3}, "a: this is a int, give a store"),
        (good.drop_vars("thought"), "lacks the variable 'thought'"),
        (good.drop_vars("gold"), "lacks the coordinate 'gold'"),
        (good.assign_attrs(schema="old"), "this dataset has schema 'old'"),
    ]:
        stores, (remark,) = checked(given)
        assert stores == {}
        assert words in remark
    stores, (remark,) = checked({"a": good, "b": good, "c": good}, most=2)
    assert list(stores) == ["a", "b"]
    assert "3 stores are given and the first 2" in remark


def test_examples_with_broken_thoughts_are_left_out():
    odd = synthetic_store(examples=5)
    thought = odd["thought"].values.copy()
    thought[2, 0, 1, 0] = np.nan
    odd = odd.assign(thought=(odd["thought"].dims, thought))
    stores, (remark,) = checked({"odd": odd})
    assert stores["odd"].sizes["example"] == 4
    assert remark == "odd: 1 of 5 examples have NaN or infinite thoughts and are left out."
    thought[:] = np.inf
    stores, (remark,) = checked({"odd": odd.assign(thought=(odd["thought"].dims, thought))})
    assert stores == {}
    assert "the thoughts of all 5 examples are NaN or infinite" in remark


def test_nearest_rows_are_those_that_sorting_all_distances_gives():
    rng = np.random.default_rng(0)
    x = rng.integers(-2, 3, (60, 3)).astype(np.float32)  # with ties
    found, distances = nearest_rows(x, x[5], 7)
    plain = [sum((float(a) - float(b)) ** 2 for a, b in zip(row, x[5], strict=True)) ** 0.5 for row in x]
    assert found.tolist() == sorted(range(60), key=lambda k: (plain[k], k))[:7]
    np.testing.assert_allclose(distances, sorted(plain)[:7])
    assert nearest_rows(x[:3], x[0], 9)[0].shape == (3,)


def test_what_a_table_sends_is_plain_json():
    table = Table(frame().assign(more=[np.int64(3), np.int64(4), np.int64(5)]))
    assert json.loads(json.dumps(table.shown)) == table.shown
