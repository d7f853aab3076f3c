"""Figures of clouds of thoughts: spectra, distances beside a Gaussian's, thoughts in motion."""

import numpy as np
import pandas as pd
import pytest
from stores import synthetic_store
from test_figure_means import words

from workbench.analysis.diagnostics import mahalanobis_qq, spectrum_table
from workbench.analysis.projection import project
from workbench.figures import distance_qq, redraw, save, spectrum, style, thought_motion

# ---------------------------------------------------------------------------------------------------------- spectrum


def test_spectrum_draws_the_eigenvalues_and_the_variance_up_to_each():
    table = spectrum_table(synthetic_store(40))
    before = table.copy(deep=True)
    figure = spectrum(table.sample(frac=1, random_state=0), color="step")
    for trace in figure.data:
        rows = table[table["step"] == trace.legendgroup]
        assert list(trace.x) == rows["direction"].tolist()
        found = rows["eigenvalue"] if trace.yaxis == "y" else 100 * rows["cumulative"]
        np.testing.assert_allclose(trace.y, found)
        assert trace.line.color == style(trace.legendgroup).color
    assert len(figure.data) == 8
    assert figure.layout.yaxis.type == "log"
    assert list(figure.layout.yaxis2.range) == [0, 100]
    assert words(figure.layout.title.text) == "n = 40 thoughts"
    pd.testing.assert_frame_equal(table, before)


def test_eigenvalues_that_are_rounding_are_left_out_and_the_caption_says_so():
    values = np.array([1.0, 1e-3, 1e-6, 1e-12])
    table = pd.DataFrame(
        {"direction": [1, 2, 3, 4], "eigenvalue": values, "cumulative": values.cumsum() / values.sum()}
    )
    figure = spectrum(table, n=9)
    assert list(figure.data[0].y) == [1.0, 1e-3, 1e-6]
    assert len(figure.data[1].y) == 4
    assert words(figure.layout.title.text).endswith("left out: 1 below 10⁻⁸ of the largest eigenvalue")
    assert list(figure.layout.yaxis.ticktext) == ["10⁻⁶", "10⁻⁴", "10⁻²", "1"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.assign(eigenvalue=0.0), "no eigenvalue above 0"),
        (lambda t: t.assign(eigenvalue=-t["eigenvalue"] + t["eigenvalue"].max() - 1), "give eigenvalues of 0 or more"),
        (lambda t: t.assign(cumulative=2.0), "shares between 0 and 1"),
        (lambda t: pd.concat([t, t]), "direction 1 stands twice: give one spectrum a line"),
        (lambda t: t.drop(columns="direction"), "the table lacks direction"),
    ],
)
def test_spectrum_refuses(change, message):
    table = spectrum_table(synthetic_store(40)).query("step == '0'")
    with pytest.raises(ValueError, match=message):
        spectrum(change(table))


# ---------------------------------------------------------------------------------------------------- QQ of distances


def quantiles(n=300, seed=0):
    expected, observed = mahalanobis_qq(np.random.default_rng(seed).normal(size=(n, 3)))
    return pd.DataFrame({"expected": expected, "observed": observed})


def test_distance_qq_draws_each_pair_beside_the_diagonal():
    table = pd.concat([quantiles().assign(cloud="a"), quantiles(seed=1).assign(cloud="b")])
    before = table.copy(deep=True)
    figure = distance_qq(table, facet="cloud")
    for trace, name in zip(figure.data, ("a", "b"), strict=True):
        rows = table[table["cloud"] == name]
        assert list(trace.x) == rows["expected"].tolist()
        assert list(trace.y) == rows["observed"].tolist()
    assert all(line.x0 == line.y0 == 0 and line.x1 == line.y1 for line in figure.layout.shapes)
    assert words(figure.layout.title.text) == "n = 300 thoughts; on the line: as a Gaussian's"
    pd.testing.assert_frame_equal(table, before)


def test_very_many_quantiles_are_thinned_but_not_at_the_ends():
    table = quantiles(30_000)
    (trace,) = distance_qq(table).data
    assert len(trace.x) == 20_000
    assert {trace.x[0], trace.x[-1]} == {table["expected"].min(), table["expected"].max()}
    assert set(zip(trace.x, trace.y, strict=True)) <= set(table.itertuples(index=False, name=None))


def test_distance_qq_refuses():
    with pytest.raises(ValueError, match="no rows to draw"):
        distance_qq(quantiles().iloc[:0])
    with pytest.raises(ValueError, match="distance is missing or infinite"):
        distance_qq(quantiles().assign(observed=np.nan))


# ------------------------------------------------------------------------------------------------------------ motion


def snapshots(examples=12, **given):
    """The map of one run at three training steps, which share their examples."""
    return project({step: synthetic_store(examples, steps=2, seed=step, **given) for step in (0, 50, 400)})


def test_motion_has_a_frame_for_each_training_step_with_its_points():
    table = snapshots()
    before = table.copy(deep=True)
    figure = thought_motion(table.sample(frac=1, random_state=0).sort_values("store"))
    assert [frame.name for frame in figure.frames] == ["0", "50", "400"]
    for frame in figure.frames:
        rows = table[table["store"] == int(frame.name)]
        expected = {f"{r.example}/{r.path}/{r.step}": (r.x, r.y, 1 - r.correct) for r in rows.itertuples()}
        (data,) = frame.data
        found = zip(data.x, data.y, data.marker.color, strict=True)
        assert dict(zip(data.ids, found, strict=True)) == expected
        assert tuple(frame.traces) == (0,)
    assert list(figure.data[0].x) == list(figure.frames[0].data[0].x)
    assert {t.name for t in figure.data[1:]} == {"correct", "wrong"}
    pd.testing.assert_frame_equal(table, before)


def test_a_thought_has_the_same_place_in_every_frame_so_that_it_moves():
    ids = [frame.data[0].ids for frame in thought_motion(snapshots()).frames]
    assert ids[0] == ids[1] == ids[2]
    assert len(set(ids[0])) == 24


def test_the_axes_hold_every_frame_and_the_slider_names_each():
    table = snapshots()
    figure = thought_motion(table, "label_operations")
    for axis, name in ((figure.layout.xaxis, "x"), (figure.layout.yaxis, "y")):
        assert axis.range[0] < table[name].min()
        assert table[name].max() < axis.range[1]
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == ["0", "50", "400"]
    assert [tuple(step.args[0]) for step in slider.steps] == [("0",), ("50",), ("400",)]
    assert slider.currentvalue.prefix == "training step: "
    assert thought_motion(table.assign(epoch=table["store"]), over="epoch").layout.sliders[0].currentvalue.prefix == (
        "epoch: "
    )


def test_motion_with_numbers_has_one_scale_for_all_frames():
    table = snapshots()
    figure = thought_motion(table, "signal_entropy")
    assert figure.layout.coloraxis.colorbar.title.text == "entropy"
    assert {frame.data[0].marker.coloraxis for frame in figure.frames} == {"coloraxis"}


def test_motion_comes_back_from_its_sidecar_and_does_not_start_by_itself(tmp_path):
    figure = thought_motion(snapshots())
    html, sidecar = save(figure, "motion", tmp_path, formats=["html"])
    again = redraw(sidecar)
    assert [list(f.data[0].x) for f in again.frames] == [list(f.data[0].x) for f in figure.frames]
    text = html.read_text(encoding="utf-8")
    assert "Plotly.addFrames" in text
    assert "Plotly.animate" not in text.split("Plotly.addFrames")[1]


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda t: t.query("store == 0"), {}, "store is .*0.* alone: motion needs at least two; project"),
        (lambda t: pd.concat([t, t]), {}, r"example '0000', path 0, step 0 stands twice in store"),
        (lambda t: t.iloc[:0], {}, "no points to draw"),
        (lambda t: t.drop(columns="path"), {}, "the table lacks path"),
        (lambda t: t, {"color": "nothing"}, "the table lacks nothing"),
        (lambda t: pd.concat([t] * 1400), {}, "100800 points: at most 100000 can be shown in motion"),
    ],
)
def test_motion_refuses(change, arguments, message):
    with pytest.raises(ValueError, match=message):
        thought_motion(change(snapshots()), **arguments)
