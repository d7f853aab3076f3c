"""Room for texts in the font that will draw them, figures that are the same twice, and names that tell runs apart."""

import re
from pathlib import Path

import pandas as pd
import pytest

from workbench.commands.looking import _named
from workbench.figures import export, fonts, loss_curves, style
from workbench.figures.export import save
from workbench.figures.gallery import GALLERY
from workbench.figures.look import TEXT, beside


@pytest.fixture
def family(monkeypatch, tmp_path):
    """family(name): a machine whose fontconfig gives this font."""

    def use(name: str) -> None:
        program = tmp_path / "fc-match"
        program.write_text(f"#!/bin/sh\nprintf '%s' '{name}'\n")
        program.chmod(0o755)
        monkeypatch.setattr(fonts.shutil, "which", lambda wanted: str(program))
        fonts.widening.cache_clear()

    yield use
    fonts.widening.cache_clear()


def test_texts_are_measured_in_the_font_that_will_be_used(family):
    family("Liberation Sans")
    plain = fonts.written("accuracy (%)", TEXT)
    narrow = beside(["soft-thinking"], "column")[1]
    family("DejaVu Sans,DejaVu Sans Condensed")
    assert fonts.written("accuracy (%)", TEXT) == pytest.approx(1.2 * plain)
    assert beside(["soft-thinking"], "column")[1] > narrow + 5  # more room for the labels at the left


def test_the_measure_is_where_the_figures_take_it_from():
    assert export.template().layout.font.family == fonts.FAMILIES


@pytest.mark.parametrize("form", ["svg", "pdf"])
def test_a_figure_saved_twice_is_the_same_bytes(form, tmp_path):
    (first, _), (second, _) = (
        save(GALLERY["losses"].draw("column"), "losses", tmp_path / str(k), formats=[form]) for k in range(2)
    )
    if first.suffix != f".{form}":
        pytest.skip("no Chromium found: install it to draw SVG and PDF")
    assert first.read_bytes() == second.read_bytes()


def test_a_date_and_chance_names_are_taken_out():
    """Drawn within one second, two PDFs have one date: here they have not."""
    one, other = (b"<</CreationDate (D:202601020304%02d+00'00')>>" % second for second in (5, 6))
    assert export._same(one, "pdf") == export._same(other, "pdf")
    assert len(export._same(one, "pdf")) == len(one)


def test_runs_are_named_by_what_tells_them_apart():
    named = _named([Path("A/x.nc"), Path("B/x.nc"), Path("far/away/C/y.nc")])
    assert list(named) == ["A/x", "B/x", "y"]
    assert list(_named([Path("a/run.1"), Path("a/run.2")])) == ["run.1", "run.2"]
    assert list(_named([Path("a/b/x.nc"), Path("c/b/x.nc"), Path("a/b/x.nc")])) == ["a/b/x", "c/b/x"]


def test_the_yardstick_is_in_the_legend_where_the_first_run_lacks_it():
    rows = pd.DataFrame(
        {"step": [1, 2], "loss": [2.0, 1.0], "loss_focus": [0.5, 0.4], "loss_focus_log_steps": [1.0, 1.1]}
    )
    first = rows[["step", "loss"]]
    figure = loss_curves({"without": first, "with": rows})
    dotted = [trace for trace in figure.data if trace.line.dash == "dot" and trace.line.color == style("none").color]
    assert [trace.showlegend for trace in dotted if trace.x] == [True]
    assert sum(bool(trace.showlegend) for trace in dotted) == 1


def test_the_modebar_stands_beside_the_legend():
    assert export.template().layout.modebar.orientation == "v"
    assert re.search("sendChartToCloud", str(export.template().layout.modebar.remove))
