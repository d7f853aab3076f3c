"""The gallery: one list makes the page, the pictures and the notebook; its numbers are invented and say so."""

import ast
import json
from pathlib import Path

import pytest
from test_figure_means import words

import workbench
from workbench.figures import GALLERY, gallery, redraw, write_gallery

FIGURES = Path(__file__).parents[1] / "figures"


def test_the_page_is_what_the_list_would_write():
    assert (FIGURES / "README.md").read_text(encoding="utf-8") == gallery.page(), (
        "write it again: workbench figures --gallery --formats '[png]' --out figures"
    )


def test_each_picture_on_the_page_is_there_and_small():
    kept = {path.name for path in (FIGURES / "gallery").iterdir() if path.suffix != ".html"}
    assert kept == {f"{name}.{ending}" for name in GALLERY for ending in ("png", "json")}
    for name in GALLERY:
        picture = FIGURES / "gallery" / f"{name}.png"
        assert f"](gallery/{name}.png)" in gallery.page()
        assert picture.read_bytes()[:4] == b"\x89PNG"
        assert picture.stat().st_size <= 80_000, name


@pytest.mark.parametrize("name", GALLERY)
def test_a_kept_picture_is_the_figure_of_the_list(name):
    """Its sidecar, that is: the names, the axes and how much is drawn (numbers may differ in their last digits)."""
    kept, drawn = redraw(FIGURES / "gallery" / f"{name}.json"), gallery.marked(GALLERY[name].draw("column"))
    assert [t.name for t in kept.data] == [t.name for t in drawn.data]
    assert [t.type for t in kept.data] == [t.type for t in drawn.data]
    sizes = [len(t.y if t.y is not None else t.z) for t in drawn.data]
    assert [len(t.y if t.y is not None else t.z) for t in kept.data] == sizes
    assert (kept.layout.width, kept.layout.height) == (drawn.layout.width, drawn.layout.height)
    assert kept.layout.title.text == drawn.layout.title.text
    assert [a.text for a in kept.layout.annotations] == [a.text for a in drawn.layout.annotations]


@pytest.mark.slow
@pytest.mark.parametrize("name", GALLERY)
def test_every_figure_says_that_its_numbers_are_invented(name):
    plain, marked = GALLERY[name].draw("column"), gallery.marked(GALLERY[name].draw("column"))
    caption = words(marked.layout.title.text.replace("<br>", " "))
    assert caption == words(plain.layout.title.text.replace("<br>", " ")) + " (invented numbers)"
    assert marked.layout.height >= plain.layout.height
    more = marked.layout.height - plain.layout.height
    assert marked.layout.margin.b - plain.layout.margin.b == pytest.approx(more, abs=1)


@pytest.mark.parametrize("name", GALLERY)
def test_the_call_of_each_figure_names_what_there_is(name):
    """Functions and their arguments exist under the names that a notebook would use."""
    tree = ast.parse(GALLERY[name].call)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            path = ast.unparse(node.func).split(".")
            assert path[0] == "wb"
            function = workbench
            for part in path[1:]:
                function = getattr(function, part)
            known = function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount]
            assert {keyword.arg for keyword in node.keywords} <= set(known)


@pytest.mark.slow
def test_write_gallery_writes_the_page_beside_the_folder_of_pictures(tmp_path):
    paths = write_gallery(tmp_path, formats=[])
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        *(f"gallery/{name}.json" for name in GALLERY),
        "README.md",
    ]
    assert "](gallery/" not in paths[-1].read_text(encoding="utf-8")  # no pictures were asked for
    assert json.loads(paths[0].read_text(encoding="utf-8"))["source"] == {"gallery": next(iter(GALLERY))}
