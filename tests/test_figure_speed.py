"""Results of the benchmark as they are read back, and the figure of them. No time is judged."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_figure_means import bounds, words
from test_figure_print import CHROMIUM, complaints
from test_figure_print import texts as boxes  # noqa: F401  (a fixture)

from workbench.bench import load, parts, ratio_table, shipped, ways
from workbench.figures import redraw, save, speed, template

MACHINE = {"device": "cpu", "name": "A <fast> one", "cores": 2, "threads": 1, "torch": "2.13.0"}

ROOT = Path(__file__).parents[1]


def rung(median, **ratios):
    return {"median": median, "low": median - 0.25, "high": median + 0.5, **ratios}


def results():
    """What `bench` returns, with numbers that one can follow; the plain ways are the slow ones."""
    training = {
        "speedup": 4.0,
        "over_floor": 2.0,
        "timer": "cpu",
        "repeats": 5,
        "batch_size": 32,
        "shape": {"question": 26},
        "rungs": {
            "reference": rung(8.0, speedup=1.0, floor=1.0, over_floor=8.0),
            "batched": rung(4.0, speedup=2.0, floor=1.0, over_floor=4.0),
            "constant": rung(2.0, speedup=4.0, floor=1.0, over_floor=12.4),
        },
    }
    generation = {
        "speedup_draws10": 3.0,
        "prefill": rung(1.0),
        "timer": "cpu",
        "repeats": 3,
        "shape": {"prompt": 300, "draws": 10},
        "rungs": {
            "separate": rung(9.0, speedup=1.0, floor=2.0, over_floor=4.5),
            "shared": rung(3.0, speedup=3.0, floor=0.5, over_floor=6.0),
        },
        "queue": {
            "speedup_queue": 1.5,
            "repeats": 3,
            "rungs": {"plain": rung(3.0, speedup=1.0), "queue": rung(2.0, speedup=1.5)},
        },
    }
    diagnostics = {"seconds": 3.0, "floor": 1.5, "over_floor": 2.0, "peak_gb": 2.5, "shape": {"width": 64}}
    diagnostics |= {"parts": {"read": 1.0, "rest": 4.5}, "machine": MACHINE | {"name": "its processor"}}
    collected = {"over_generate": 1.25, "examples": 256, "repeats": 3}
    collected["rungs"] = {"generate": rung(4.0), "collect": rung(5.0)}
    return {
        "machine": MACHINE,
        "training": training | {"mid_size": training},
        "generation": generation,
        "collect": collected,
        "diagnostics": diagnostics,
        "commit": "abc123",
        "created": "2026-11-21T10:00:00+00:00",
    }


def caption(figure):
    return words(figure.layout.title.text.replace("<br>", " "))


def texts(figure):
    (trace,) = [t for t in figure.data if t.name == "ratios"]
    return list(trace.text)


# ---------------------------------------------------------------------------------------------------------- the figure


def test_the_ways_stand_in_order_with_quartiles_floors_and_ratios():
    table = ways(results(), "training")
    before = table.copy(deep=True)
    figure = speed(table)
    bars, marks, text = figure.data
    assert list(bars.x) == [8.0, 4.0, 2.0]
    assert list(bars.y) == list(figure.layout.yaxis.tickvals) == [0, 1, 2]
    assert list(figure.layout.yaxis.ticktext) == ["reference", "batched", "constant"]
    bottom, top = figure.layout.yaxis.range
    assert bottom > 2 > 0 > top  # downwards
    low, high = bounds(bars, "error_x")
    assert list(low) == [7.75, 3.75, 1.75]
    assert list(high) == [8.5, 4.5, 2.5]
    assert (list(marks.x), list(marks.y)) == ([1.0, 1.0, 1.0], [0, 1, 2])
    assert list(text.text) == [
        "8 s, 8.00× the floor",  # nothing is faster than itself
        "4 s, 2.00× as fast, 4.00× the floor",
        "2 s, 4.00× as fast, 12× the floor",
    ]
    assert all(above < at for above, at in zip(text.y, bars.y, strict=True))
    assert figure.layout.xaxis.range[0] == 0
    assert figure.layout.xaxis.range[1] > 8.5  # the longest whisker
    assert len(set(bars.marker.color)) == 2
    assert bars.marker.color[0] not in bars.marker.color[1:]  # the plain way
    pd.testing.assert_frame_equal(table, before)
    assert table.attrs == before.attrs


@pytest.mark.parametrize("width", ["column", "page"])
@pytest.mark.parametrize("part", parts(results()))
def test_it_has_the_look_and_says_what_was_measured_where(part, width):
    figure = speed(ways(results(), part), width=width)
    assert figure.layout.template == template()
    assert figure.layout.width == round({"column": 85, "page": 175}[width] / 25.4 * 96)
    assert figure.layout.height < 220 / 25.4 * 96
    assert caption(figure).startswith("n = ")
    name = "its processor" if part == "diagnostics" else "A &lt;fast&gt; one"  # a tag would be lost
    assert f"{name} (cpu, 2 cores, 1 thread), torch 2.13.0; commit abc123, 2026-11-21" in caption(figure)
    (heading,) = figure.layout.annotations
    assert heading.text == part.replace(" mid_size", ", mid-size").replace(" queue", ", queue")


def test_the_caption_says_how_often_and_what_the_marks_are():
    said = caption(speed(ways(results(), "generation")))
    assert said.startswith("n = 3 repeats, bars: medians, whiskers: quartiles, black marks: the floor; ")
    assert "floor and its ratio: of the steps, without the prefill; prompt 300, draws 10. " in said
    said = caption(speed(ways(results(), "training mid_size")))
    assert said.startswith("n = 5 repeats")
    assert "prefill" not in said
    assert "batch size 32, question 26. " in said


def test_units_say_which_clock():
    found = results()
    units = {part: speed(ways(found, part)).layout.xaxis.title.text for part in parts(found)}
    assert units["training"] == units["training mid_size"] == "CPU seconds per step"
    assert units["generation"] == units["generation queue"] == units["collect"] == "CPU seconds"
    assert units["diagnostics"] == "seconds"
    found["training"]["timer"] = found["generation"]["timer"] = "wall"
    assert speed(ways(found, "training")).layout.xaxis.title.text == "seconds per step"
    assert speed(ways(found, "generation queue")).layout.xaxis.title.text == "seconds"


def test_ways_without_a_floor_have_no_mark():
    figure = speed(ways(results(), "generation queue"))
    assert list(figure.data[1].x) == []
    assert "floor" not in caption(figure)
    assert texts(figure) == ["3 s", "2 s, 1.50× as fast"]
    figure = speed(ways(results(), "collect"))
    assert texts(figure) == ["4 s", "5 s, 1.25× writing alone"]


def test_diagnostics_are_drawn_as_the_whole_then_its_parts():
    figure = speed(ways(results(), "diagnostics"), width="column")
    bars, marks, _ = figure.data
    assert list(figure.layout.yaxis.ticktext) == ["in all (wall clock)", "read", "rest"]
    assert list(bars.x) == [3.0, 1.0, 4.5]
    assert bars.error_x.array is None
    assert (list(marks.x), list(marks.y)) == ([1.5], [0])
    assert texts(figure) == ["3 s, 2.00× the floor", "1 s", "4.5 s"]
    said = caption(figure)
    assert said.startswith("n = 1 run, black marks: the floor; parts: CPU seconds over all cores; peak memory 2.5 GB")
    assert "whiskers" not in said


def test_a_way_without_quartiles_has_no_whisker():
    table = ways(results(), "training")
    table.loc[1, ["low", "high"]] = np.nan
    bars = speed(table).data[0]
    assert list(bars.x) == [8.0, 4.0, 2.0]
    assert np.isnan(bars.error_x.array).tolist() == [False, True, False]
    assert [", quartiles " in said for said in bars.customdata] == [True, False, True]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium found (Debian: apt-get install chromium)")
@pytest.mark.parametrize("width", ["column", "page"])
def test_no_text_runs_into_another_or_over_the_edge(width, boxes):  # noqa: F811
    for part in parts(results()):
        figure = speed(ways(results(), part), width=width)
        assert complaints(boxes(figure), figure.layout.width, figure.layout.height) == [], part


def test_it_is_saved_with_a_sidecar_that_redraws_it(tmp_path):
    for part in parts(results()):
        figure = speed(ways(results(), part))
        (path,) = save(figure, "speed", tmp_path, {"benchmark": "here"}, formats=[])
        assert redraw(path).to_plotly_json()["layout"] == figure.to_plotly_json()["layout"]
        assert list(redraw(path).data[0].x) == list(figure.data[0].x)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda t: t.drop(columns="floor"), r"the table lacks floor .*: give what bench.ways"),
        (lambda t: t.iloc[:0], "no rows to draw: give one row per way"),
        (lambda t: t.assign(median=[8.0, np.nan, 2.0]), "'batched' took nan seconds: give 0 or more"),
        (lambda t: t.assign(median=[8.0, 4.0, -2.0]), "'constant' took -2.0 seconds: give 0 or more"),
        (lambda t: t.assign(low=9.0), "'reference' took 8 seconds, outside its quartiles 9 and 8.5"),
    ],
)
def test_what_cannot_be_drawn_is_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        speed(change(ways(results(), "training")))


def test_a_table_that_does_not_say_where_it_is_from_is_refused():
    table = ways(results(), "training")
    del table.attrs["machine"], table.attrs["commit"]
    with pytest.raises(ValueError, match=r"the table's attrs lack machine, commit: give what bench.ways"):
        speed(table)


@pytest.mark.slow
def test_drawing_needs_no_torch():
    code = "import sys, workbench.figures.speed; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --------------------------------------------------------------------------------------------------------- the results


def test_results_come_back_from_their_file(tmp_path):
    path = tmp_path / "some-machine.json"
    path.write_text(json.dumps(results()), encoding="utf-8")
    assert load(path) == results()
    (tmp_path / "README.md").write_text("not a result")
    assert shipped(tmp_path) == {"some-machine": results()}
    assert shipped(tmp_path / "nothing") == {}


def test_a_missing_or_foreign_file_is_refused_with_one_sentence(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"no results at .*none.json': write one with workbench bench all --out"
    ):
        load(tmp_path / "none.json")
    without_times = {"rungs": {"a": {"low": 1}}}
    foreign = ["no JSON", "[1]", "{}", '{"machine": {}}', json.dumps({"training": without_times})]
    foreign += [json.dumps(results() | {"training": without_times}), json.dumps(results() | {"machine": {"x": 1}})]
    foreign += [json.dumps({"training": {"speedup": 2, "rungs": {}}})]
    for number, text in enumerate(foreign):
        path = tmp_path / f"{number}.json"
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=r"json' holds no results of workbench bench: write one with"):
            load(path)


def test_an_unknown_part_is_named():
    with pytest.raises(ValueError, match="no part 'reading' in these results: it has collect, diagnostics, gen"):
        ways(results(), "reading")


def test_the_ratios_of_each_machine_stand_side_by_side():
    other = results()
    other["training"]["speedup"] = 7.0
    del other["collect"]
    other["training"]["speedup_some_way"] = 5.0
    table = ratio_table({"one": results(), "two": other})
    assert list(table) == ["one", "two"]
    assert table.loc[("training", "times as fast as the reference")].tolist() == [4.0, 7.0]
    assert table.loc[("training, mid-size", "times as fast as the reference")].tolist() == [4.0, 4.0]
    assert table.loc[("training", "times the floor")].tolist() == [2.0, 2.0]
    assert table.loc[("generation", "times as fast, 10 draws")].tolist() == [3.0, 3.0]
    assert table.loc[("generation, queue", "times as fast, from a queue")].tolist() == [1.5, 1.5]
    assert table.loc[("diagnostics", "seconds")].tolist() == [3.0, 3.0]
    assert table.loc[("diagnostics", "GB at most")].tolist() == [2.5, 2.5]
    one, two = table.loc[("collect", "times writing alone")]
    assert one == 1.25
    assert np.isnan(two)
    assert table.loc[("training", "times as fast, some way"), "two"] == 5.0
    assert len(table) == 11  # nothing else, such as repeats
    assert ratio_table({}).empty


def test_the_numbers_in_the_readme_are_those_kept():
    readme, kept = (ROOT / "workbench/bench/README.md").read_text(encoding="utf-8"), shipped()["cpu-2-cores"]
    training, writing, diagnostics = (kept[part] for part in ("training", "generation", "diagnostics"))
    rows = {
        "training step, times as fast as the reference": [part["speedup"] for part in (training, training["mid_size"])],
        "from the second epoch on": [part["speedup_full"] for part in (training, training["mid_size"])],
        "training step over the floor": [part["over_floor"] for part in (training, training["mid_size"])],
        "with `--training.compile true` instead": [
            part["speedup_compiled"] for part in (training, training["mid_size"])
        ],
        "the same over the floor, without reading the question": [
            part["over_floor"] for part in (writing, writing["mid_size"])
        ],
        "times as fast as ten calls": [part["speedup_draws10"] for part in (writing, writing["mid_size"])],
        "over writing the answers alone": [
            part["over_generate"] for part in (kept["collect"], kept["collect"]["mid_size"])
        ],
    }
    for row, numbers in rows.items():
        assert re.search(re.escape(row) + "".join(rf" \| {number:.1f}" for number in numbers), readme), row
    assert f"takes {diagnostics['seconds']:.0f} seconds and {diagnostics['peak_gb']:.1f} GB" in readme
