"""Figures: what is drawn is what was given, in one look, and comes back from its sidecar."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from stores import synthetic_store
from test_figure_means import accuracies, differences, sweep, words

from workbench import figures
from workbench.analysis.diagnostics import describe
from workbench.analysis.projection import project
from workbench.figures import (
    GALLERY,
    accuracy,
    bars,
    collapse_along,
    collapse_by_step,
    loss_curves,
    response,
    style,
    template,
    thought_map,
)


def points(**given):
    return project(synthetic_store(20, **given))


def metrics(seed=0, steps=60):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"step": np.arange(1, steps + 1)})
    table["loss_likelihood"], table["loss_focus"] = 1 + rng.random(steps), 0.5 + rng.random(steps)
    table["loss"] = table["loss_likelihood"] + table["loss_focus"]
    for name in ("spread", "relative_spread", "effective_rank", "cosine", "slot_cosine", "rms"):
        table[f"probe_{name}"] = np.where(table["step"] % 20 == 0, rng.random(steps), np.nan)
    return table


def drawn(figure, **chosen):
    """All (x, y) of the traces with these properties, sorted; legend keys have none."""
    traces = [t for t in figure.data if all(t[name] == value for name, value in chosen.items())]
    return sorted((x, y) for t in traces for x, y in zip(t.x, t.y, strict=True) if x is not None)


def headings(figure):
    """What stands above the panels."""
    return [a.text for a in figure.layout.annotations if a.name != "x title"]


EVERY = {
    "thought_map": (lambda **k: thought_map(points(), **k), "PC 1 ("),
    "thought_map by step": (lambda **k: thought_map(points(draws=3), "correct", "step", **k), "PC 1 ("),
    "collapse_by_step": (lambda **k: collapse_by_step({"a": metrics(), "b": metrics(1)}, **k), "training step"),
    "loss_curves": (lambda **k: loss_curves(metrics(), **k), "training step"),
    "loss_curves of runs": (lambda **k: loss_curves({"a": metrics(), "b": metrics(1)}, log=True, **k), "training step"),
    "response": (lambda **k: response(sweep(), x="thoughts", color="method", **k), "thoughts"),
    "bars": (lambda **k: bars(differences(), label="change", facet="domain", reference=0, **k), "mean"),
    "accuracy": (lambda **k: accuracy(accuracies(), **k), "accuracy (%)"),
}


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize("name", EVERY)
def test_every_figure_has_the_look_the_size_named_axes_and_its_n(name, width):
    make, axis = EVERY[name]
    figure = make(width=width)
    assert figure.layout.template == template()
    assert figure.layout.width == round({"column": 85, "page": 175}[width] / 25.4 * 96)
    titles = [a.title.text for a in figure.select_xaxes() if a.title.text]
    titles += [a.text for a in figure.layout.annotations if a.name == "x title"]
    (title,) = titles  # said once, whatever the number of panels
    assert title.startswith(axis)
    assert "n = " in figure.layout.title.text
    # upload button: as part of the figure, so that notebooks and widgets lack it too
    assert "sendChartToCloud" in figure.layout.template.layout.modebar.remove


@pytest.mark.slow
@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize("name", GALLERY)
def test_every_figure_of_the_gallery_has_the_look_a_size_and_its_n(name, width):
    figure = GALLERY[name].draw(width)
    assert figure.layout.template == template()
    assert figure.layout.width == round({"column": 85, "page": 175}[width] / 25.4 * 96)
    assert figure.layout.height < 220 / 25.4 * 96  # fits on a page, with a caption
    assert "n = " in figure.layout.title.text
    again = GALLERY[name].draw(width)
    assert again == figure  # no chance in it


@pytest.mark.parametrize("name", EVERY)
def test_an_unknown_width_is_refused(name):
    with pytest.raises(ValueError, match="unknown width 'wide': use 'column' or 'page'"):
        EVERY[name][0](width="wide")


# ------------------------------------------------------------------------------------------------------------- maps


def test_thought_map_draws_every_point_once_under_its_label():
    table = points()
    before = table.copy(deep=True)
    figure = thought_map(table)
    for label, right in (("correct", 1), ("wrong", 0)):
        part = table[table["correct"] == right]
        assert drawn(figure, name=label) == sorted(zip(part["x"], part["y"], strict=True))
        assert {t.marker.color for t in figure.data if t.name == label} == {style(label).color}
    assert [t.name for t in figure.data if t.showlegend] == ["correct", "wrong"]
    assert f"n = {len(table)} thoughts of 20 questions; trustworthiness" in words(figure.layout.title.text)
    pd.testing.assert_frame_equal(table, before)
    assert table.attrs == before.attrs


def test_thought_map_panels_split_by_step_and_share_axes():
    table = points(steps=3)
    figure = thought_map(table, "label_operations", "step")
    for step in range(3):
        part = table[table["step"] == step]
        assert drawn(figure, xaxis=f"x{step + 1 if step else ''}") == sorted(zip(part["x"], part["y"], strict=True))
    assert headings(figure) == [f"slot {step} (n = 20)" for step in range(3)]
    assert figure.layout.xaxis2.matches == "x"
    assert {t.name for t in figure.data if t.showlegend} == {str(k) for k in set(table["label_operations"])}
    assert words(figure.layout.legend.title.text) == "operations"


def test_shares_of_several_draws_and_signals_get_a_colour_scale():
    table = points(draws=3)
    figure = thought_map(table)
    colors = sorted(c for t in figure.data for c in t.marker.color)
    assert colors == sorted(table["correct"])
    assert (figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax) == (0, 1)
    assert figure.layout.coloraxis.colorscale[0][1] == style("wrong").color
    assert figure.layout.coloraxis.colorscale[-1][1] == style("correct").color
    assert thought_map(table, "signal_entropy").layout.coloraxis.colorbar.title.text == "entropy"


def test_labels_that_are_missing_are_shown_as_unknown():
    table = points()
    table["label_kind"] = pd.Series(["a", None] * (len(table) // 2))
    assert {t.name for t in thought_map(table, "label_kind").data} == {"a", "unknown"}


def test_hover_tells_question_gold_and_prediction_as_text_not_markup():
    table = points()
    table["question"] = "Is 1 < 2 & <b>bold</b>? " + "word " * 40
    texts = [text for t in thought_map(table).data for text in t.hovertext or ()]
    assert len(texts) == len(table)
    assert "Is 1 &lt; 2 &amp; &lt;b&gt;bold&lt;/b&gt;?" in texts[0]
    for fact in ("gold: ", "prediction: ", "example: ", "slot: ", "answer: "):
        assert fact in texts[0]


def test_no_label_is_always_drawn_last():
    """Else it would hide the others where thoughts coincide."""
    table = points(steps=3)
    both = pd.concat([table] * 3, ignore_index=True)
    figure = thought_map(both, "step")
    drawn_order = [t.name for t in figure.data if not t.showlegend]
    assert len(set(drawn_order[-9::3])) == 3  # each label ends one of the last three layers
    assert [t.name for t in thought_map(both, "step").data] == [t.name for t in figure.data]  # and never by chance
    rare = table[(table["step"] > 0) | (table["example"] < "0010")]  # half of slot 0
    sizes = {t.name: t.marker.size for t in thought_map(rare, "step").data if not t.showlegend}
    assert sizes["0"] > sizes["1"] == sizes["2"]  # a rarer label has a rim


def test_many_points_are_drawn_with_webgl_and_very_many_are_thinned():
    table = points()
    assert {t.type for t in thought_map(table).data} == {"scatter"}
    many = pd.concat([table] * 70, ignore_index=True)
    figure = thought_map(many)
    (cloud,) = [t for t in figure.data if t.type == "scattergl"]
    assert drawn(figure, type="scattergl") == sorted(zip(many["x"], many["y"], strict=True))
    shown = {(x, y, int(c)) for x, y, c in zip(cloud.x, cloud.y, cloud.marker.color, strict=True)}
    assert shown == {(x, y, 1 - int(c)) for x, y, c in zip(many["x"], many["y"], many["correct"], strict=True)}
    colors = [color for _, color in cloud.marker.colorscale]  # steps: correct is 0, wrong is 1
    assert colors == [style("correct").color] * 2 + [style("wrong").color] * 2
    assert (cloud.marker.cmin, cloud.marker.cmax) == (-0.5, 1.5)
    assert "gold: " in cloud.hovertext[0]
    assert figure.layout.legend.itemclick is False  # a key would hide nothing
    very = pd.concat([table] * 1300, ignore_index=True)
    figure = thought_map(very)
    assert len(drawn(figure, type="scattergl")) == 100_000
    assert "n = 104000 thoughts of 20 questions, of which 100000 are drawn" in words(figure.layout.title.text)
    assert set(drawn(figure)) <= set(zip(table["x"], table["y"], strict=True))
    assert "gold: " not in figure.data[0].hovertext[0]


def test_numbers_of_both_signs_get_a_scale_that_is_grey_at_zero():
    table = points()
    table["signal_gain"] = np.linspace(-1, 3, len(table))
    scale = thought_map(table, "signal_gain").layout.coloraxis
    assert (scale.cmin, scale.cmax) == (-3, 3)
    assert scale.colorscale[1] == (0.5, "#BDBDBD")
    assert thought_map(table, "signal_entropy").layout.coloraxis.cmin is None


def test_a_map_of_a_run_at_several_training_steps_has_a_panel_for_each():
    stores = {step: synthetic_store(20, steps=2, seed=step) for step in (0, 50, 400)}
    table = project(stores)
    figure = thought_map(table, "label_operations", "store")
    assert headings(figure) == [f"training step {step} (n = 40)" for step in stores]
    part = table[table["store"] == 400]
    assert drawn(figure, xaxis="x3") == sorted(zip(part["x"], part["y"], strict=True))


def test_axes_and_captions_say_how_a_map_was_made():
    table = points()
    caption = words(thought_map(table).layout.title.text)
    trust, continuity = table.attrs["trustworthiness"], table.attrs["continuity"]
    assert caption.endswith(f"; trustworthiness {trust:.2f}, continuity {continuity:.2f} (15 neighbours)")
    table.attrs["how"] = "densmap"
    assert thought_map(table).layout.xaxis.title.text == "densMAP 1 (arbitrary units)"
    table.attrs["how"] = "identity"
    figure = thought_map(table)
    assert figure.layout.yaxis.title.text == "feature 2 (units of the vectors)"
    assert "trust" not in figure.layout.title.text


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda t: t.drop(columns="x"), {}, r"the table lacks x \(it has y, .*\): give what projection.project"),
        (lambda t: t, {"color": "colour"}, "the table lacks colour"),
        (lambda t: t.iloc[:0], {}, "no points to draw"),
        (lambda t: t, {"color": "example"}, "color='example' has too many values: at most 16"),
        (lambda t: t, {"facet": "signal_entropy"}, "facet='signal_entropy' has too many values"),
    ],
)
def test_thought_map_refuses(change, arguments, message):
    with pytest.raises(ValueError, match=message):
        thought_map(change(points()), **arguments)


# ----------------------------------------------------------------------------------------------------------- curves


def test_collapse_by_step_draws_each_probe_of_each_run_without_the_gaps():
    runs = {"lta_thinker": metrics(), "mine": metrics(1)}
    before = runs["mine"].copy(deep=True)
    figure = collapse_by_step(runs)
    assert len(figure.data) == 12
    panels = headings(figure)
    assert panels[:2] == ["relative spread (share)", "effective rank (directions)"]
    for name, table in runs.items():
        found = table.dropna(subset="probe_relative_spread")
        expected = sorted(zip(found["step"], found["probe_relative_spread"], strict=True))
        assert drawn(figure, name=name, xaxis="x") == expected
        assert len(expected) == 3
    assert {t.line.color for t in figure.data if t.name == "mine"} == {style("mine").color}
    assert [t.name for t in figure.data if t.showlegend] == list(runs)
    pd.testing.assert_frame_equal(runs["mine"], before)


def test_collapse_along_draws_the_numbers_of_describe_slot_by_slot():
    stores = {"ours": synthetic_store(30), "theirs": synthetic_store(30, seed=1)}
    table = describe(stores)
    before = table.copy(deep=True)
    figure = collapse_along(table, show=["relative_spread", "cosine", "unknown"])
    assert headings(figure) == ["relative spread (share)", "question cosine"]
    for k, statistic in enumerate(("relative_spread", "cosine")):
        for name in stores:
            part = table.query(f"store == {name!r} and statistic == {statistic!r} and step != 'all'")
            (line,) = [t for t in figure.data if t.name == name and t.xaxis == ("x", "x2")[k]]
            assert list(line.x) == [0, 1, 2, 3] == part["step"].astype(int).tolist()
            assert list(line.y) == part["value"].tolist()
            np.testing.assert_allclose(np.array(line.y) + line.error_y.array, part["high"])
    pd.testing.assert_frame_equal(table, before)


def test_collapse_along_draws_them_over_training():
    table = describe({step: synthetic_store(30, seed=step) for step in (0, 20, 40)})
    figure = collapse_along(table, "store")
    assert [a.text for a in figure.layout.annotations if a.name == "x title"] == ["training step"]
    (line,) = [t for t in figure.data if t.xaxis == "x"]
    expected = table.query("statistic == 'relative_spread' and step == 'all'")
    assert list(line.x) == [0, 20, 40]
    assert list(line.y) == expected["value"].tolist()
    with pytest.raises(ValueError, match=r"stores without training steps: give diagnostics.describe\(\{step"):
        collapse_along(describe({"a": synthetic_store(30)}), "store")
    with pytest.raises(ValueError, match="none of nothing in this table"):
        collapse_along(table, show=["nothing"])


def test_collapse_by_step_shows_the_probes_there_are():
    one = metrics().drop(columns=["probe_slot_cosine", "probe_rms"])
    assert len(collapse_by_step(one).data) == 4
    with pytest.raises(ValueError, match="no probe values in these metrics: a run must log one of probe_"):
        collapse_by_step(metrics()[["step", "loss"]])


def test_loss_curves_have_a_panel_for_the_total_and_each_part():
    table = metrics()
    table["loss_off"] = np.nan
    figure = loss_curves(table)
    assert headings(figure) == ["total", "likelihood", "focus"]
    assert not figure.layout.showlegend
    for trace, column in zip(figure.data, ("loss", "loss_likelihood", "loss_focus"), strict=True):
        assert list(trace.x) == table["step"].tolist()
        assert list(trace.y) == table[column].tolist()
    assert {a.type for a in loss_curves(table, log=True).select_yaxes()} == {"log"}


def test_what_a_part_is_held_against_stands_in_its_panel():
    table = metrics().assign(loss_focus_log_steps=1.1)
    for runs in (table, {"a": table, "b": metrics(1)}):
        figure = loss_curves(runs)
        assert headings(figure) == ["total", "likelihood", "focus"]
        dotted = [t for t in figure.data if t.line.dash == "dot"]
        assert {(t.name, t.xaxis, t.mode) for t in dotted} >= {("log of the number of steps", "x3", "lines")}
        assert sum(t.showlegend for t in dotted if t.name.startswith("log of")) == 1
        assert {t.xaxis for t in dotted if t.name.startswith("log of")} == {"x3"}


def test_loss_curves_of_several_runs_have_a_line_for_each():
    figure = loss_curves({"a": metrics(), "b": metrics(1)})
    assert headings(figure) == ["total", "likelihood", "focus"]
    assert drawn(figure, name="b", xaxis="x3") == list(zip(range(1, 61), metrics(1)["loss_focus"], strict=True))
    assert [t.name for t in figure.data if t.showlegend] == ["a", "b"]


def test_no_cosine_axis_goes_beyond_one():
    for table in (metrics(), metrics().assign(probe_cosine=1.0)):
        figure = collapse_by_step(table)
        for title, axis in zip(headings(figure), figure.select_yaxes(), strict=True):
            if title.endswith("cosine"):
                least, most = axis.range
                assert most == 1
                assert least < min(
                    y for t in figure.data for y in t.y if t.yaxis == axis.plotly_name.replace("axis", "")
                )
            else:
                assert axis.rangemode == "tozero"


@pytest.mark.parametrize(
    ("given", "arguments", "message"),
    [
        (
            metrics().assign(loss_focus=0.0),
            {"log": True},
            "loss_focus of this run is 0 or less .*: draw it with log=False",
        ),
        (metrics().iloc[:0], {}, "no logged steps to draw"),
        ({}, {}, "no logged steps to draw"),
        (metrics().drop(columns="step"), {}, "the table lacks step"),
        (metrics().drop(columns="loss"), {}, "the table lacks loss "),
    ],
)
def test_loss_curves_refuse(given, arguments, message):
    with pytest.raises(ValueError, match=message):
        loss_curves(given, **arguments)


# ------------------------------------------------------------------------------------------------------------- look


def test_a_label_has_one_colour_and_numbers_have_theirs_for_good():
    assert style("some new run") == style("some new run")
    assert style("some new run") != style("another run")
    assert len({style(k).color for k in range(8)}) == 8
    assert style(np.int64(3)) == style(3) == style("3")
    assert style("lta-thinker") == style("lta_thinker")
    assert style("correct").color != style("wrong").color


def test_labels_are_text_not_markup():
    figure = loss_curves({"<i>a</i>": metrics(), "b": metrics(1)})
    assert figure.data[0].name == "&lt;i&gt;a&lt;/i&gt;"
    table = accuracies(name=["<pause>", "a", "b"])
    assert accuracy(table).layout.yaxis.ticktext[0] == "&lt;pause&gt;"


@pytest.mark.slow
def test_import_is_light():
    code = (
        "import sys, workbench.figures, workbench.analysis.projection\n"
        "print([m for m in ('torch', 'transformers', 'umap', 'kaleido', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_public_names_are_documented():
    for name in figures.__all__:
        assert getattr(figures, name).__doc__
