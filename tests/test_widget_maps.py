"""Maps under a slider: axes of a slot's own, extents, counts, selections, and points on top of each other."""

import numpy as np
import pytest
from stores import synthetic_store

from workbench.analysis import projection
from workbench.figures import thought_map
from workbench.widgets import Inspector
from workbench.widgets.scatter import Points, same_place


def far_slots():
    """Slots a thousand times further apart than their questions: on common axes a slot is a speck."""
    store = synthetic_store(examples=30, steps=3, seed=4)
    away = 1000 * np.arange(3)[None, None, :, None] * np.eye(store.sizes["feature"])[0]
    return store.assign(thought=(store["thought"].dims, (store["thought"].values + away).astype(np.float32)))


def extent(inspector, step):
    drawn = inspector.map.live.points[(inspector.points["step"] == step).to_numpy(), :2]
    return np.ptp(drawn, axis=0).max()


def test_a_slot_has_axes_of_its_own_and_a_button_for_the_common_ones():
    store = far_slots()
    inspector = Inspector(store)
    common = inspector.points[["x", "y"]].to_numpy()
    assert extent(inspector, 1) < 0.05
    inspector.step = 1
    assert extent(inspector, 1) < 0.05
    inspector.axes = "own"
    rows = (inspector.points["step"] == 1).to_numpy()
    alone = projection.project(store.isel(step=[1]))
    np.testing.assert_allclose(
        np.abs(inspector.points[["x", "y"]][rows]), np.abs(alone[["x", "y"]]), rtol=1e-3, atol=1e-3
    )
    assert inspector.points.attrs["explained"] == pytest.approx(alone.attrs["explained"], rel=1e-3)
    assert extent(inspector, 1) == pytest.approx(1.88, abs=0.01)  # the whole map
    inspector.axes = "common"
    np.testing.assert_array_equal(inspector.points[["x", "y"]], common)
    assert extent(inspector, 1) < 0.05


def test_a_slider_counts_what_is_shown_and_keeps_no_hidden_selection():
    store = synthetic_store(examples=30, steps=3, seed=4)
    inspector = Inspector(store)
    right = int((inspector.points["correct"] == 1).sum())
    assert f"correct ({right})" in inspector.map.legend.value
    inspector.selection = (0, 1, 2, 4)
    inspector.step = 1
    assert f"correct ({right // 3})" in inspector.map.legend.value
    assert inspector.selection == (1, 4)
    inspector.step = None
    assert inspector.selection == (1, 4)


def test_a_map_keeps_distances():
    table = projection.project(far_slots())
    drawn, raw = Points(table).live.points[:, :2], table[["x", "y"]].to_numpy()
    apart = np.linalg.norm(drawn[0] - drawn[1:], axis=1) / np.linalg.norm(raw[0] - raw[1:], axis=1)
    np.testing.assert_allclose(apart, apart[0], rtol=1e-3)
    figure = thought_map(table, facet="step")
    assert [axis.scaleanchor for axis in figure.select_yaxes()] == ["x", "x2", "x3"]


def test_equal_points_say_how_many_they_are():
    table = projection.project(synthetic_store(examples=10, steps=1, seed=4))
    table.loc[:3, ["x", "y"]] = (0.5, 0.5)
    assert same_place(table).tolist() == [4] * 4 + [1] * 6
    points = Points(table)
    assert "up to 4 at one place" in points.legend.value
    points.live.hovering = 2
    assert "at this place <b>4 thoughts</b>" in points.card.value
    points.live.hovering = 7
    assert "at this place" not in points.card.value
    points.shown = (2, 7)
    assert "at one place" not in points.legend.value
