"""Figures of means with intervals: response to a setting, dots by condition, accuracies."""

import re

import numpy as np
import pandas as pd
import pytest

from workbench.figures import accuracy, bars, response, style


def sweep(settings=(0, 1, 2, 4), lines=("soft_prompt", "lta_thinker"), **given):
    """Means by number of thoughts: shares that no two rows share."""
    table = pd.DataFrame([{"thoughts": x, "method": line} for line in lines for x in settings])
    table["mean"] = 0.3 + 0.5 * np.arange(len(table)) / len(table)
    return table.assign(low=table["mean"] - 0.02, high=table["mean"] + 0.03, n=500).assign(**given)


def differences(**given):
    """Ablations by domain."""
    table = pd.DataFrame(
        {"change": ["no focus", "one thought"] * 2, "domain": ["shift", "shift", "known", "known"]}
        | {"mean": [-0.02, -0.3, 0.001, -0.05]}
    )
    return table.assign(low=table["mean"] - 0.01, high=table["mean"] + 0.02, n=5).assign(**given)


def accuracies(**given):
    return pd.DataFrame(
        {"name": ["none", "soft_prompt", "lta_thinker"], "mean": [0.41, 0.5, 0.75]}
        | {"low": [0.37, 0.46, 0.71], "high": [0.45, 0.54, 0.79], "n": [500, 500, 500]}
        | given
    )


def words(text):
    """A text without its markup."""
    return re.sub("<[^>]*>", "", text)


def bounds(trace, error):
    """The ends of a trace's whiskers."""
    middle = np.array(trace.x if error == "error_x" else trace.y)
    return middle - np.array(trace[error].arrayminus), middle + np.array(trace[error].array)


# --------------------------------------------------------------------------------------------------------- response


def test_response_draws_each_line_in_the_order_of_its_settings():
    table = sweep()
    shuffled = table.sample(frac=1, random_state=0)
    before = shuffled.copy(deep=True)
    figure = response(shuffled, x="thoughts", color="method")
    assert {t.name for t in figure.data} == {"soft prompt", "lta thinker"}
    for trace in figure.data:
        part = table[table["method"] == trace.legendgroup]
        assert list(trace.x) == [0, 1, 2, 4]
        assert list(trace.y) == part["mean"].tolist()
        low, high = bounds(trace, "error_y")
        np.testing.assert_allclose(low, part["low"])
        np.testing.assert_allclose(high, part["high"])
        assert trace.marker.symbol == style(trace.legendgroup).symbol
    assert words(figure.layout.legend.title.text) == "method"
    assert figure.layout.title.text == "n = 500 questions, 95 % intervals"
    assert list(figure.layout.xaxis.tickvals) == [0, 1, 2, 4]
    pd.testing.assert_frame_equal(shuffled, before)


def test_response_draws_dense_lines_with_bands():
    table = sweep(np.linspace(0, 2, 20), ["only"])
    band, line = response(table, x="thoughts").data
    assert line.mode == "lines"
    assert line.error_y.array is None
    assert list(line.y) == table["mean"].tolist()
    assert list(band.y) == [*table["high"], *table["low"][::-1]]
    assert list(band.x) == [*table["thoughts"], *table["thoughts"][::-1]]
    assert len(response(table, x="thoughts", band=False).data) == 1
    assert len(response(sweep(lines=["only"]), x="thoughts", band=True).data) == 2


def test_response_panels_have_their_own_units_or_one_shared_axis():
    table = pd.concat([sweep(measure="kl"), sweep(measure="accuracy")], ignore_index=True)
    table.loc[table["measure"] == "kl", ["mean", "low", "high"]] *= 7
    own = response(
        table,
        x="thoughts",
        color="method",
        facet="measure",
        percent=["accuracy"],
        reference={"empty slot": {"accuracy": 0.408}, "prior": 1.5},
        y_title={"kl": "KL (nats)", "accuracy": "accuracy (%)"},
    )
    assert [a.text for a in own.layout.annotations] == ["KL (nats)", "accuracy (%)", "thoughts"]
    assert [t.y[0] for t in own.data] == pytest.approx([7 * 0.3, 7 * 0.55, 30, 55])
    assert own.layout.yaxis2.matches is None
    lines = [(s.name, s.yref, s.y0, s.showlegend) for s in own.layout.shapes]
    assert lines == [
        ("empty slot", "y2", pytest.approx(40.8), True),
        ("prior", "y", 1.5, True),
        ("prior", "y2", 150, False),
    ]
    shared = response(table, x="thoughts", color="method", facet="measure", y_title="value")
    assert shared.layout.yaxis2.matches == "y"
    assert [a.text for a in shared.layout.annotations] == ["kl", "accuracy", "thoughts"]
    assert len([t for t in shared.data if t.showlegend]) == 2  # one key for each line, whatever the panels


def test_response_ranges_hold_everything_drawn_and_end_where_shares_do():
    table = sweep(lines=["only"], low=0.0, high=1.0)
    figure = response(table, x="thoughts", percent=True, reference=0.1)
    least, most = figure.layout.yaxis.range  # whiskers end at 0 and 100: half of their caps' width beyond, no more
    assert -2 < least < 0
    assert 100 < most < 102
    figure = response(sweep(lines=["only"]), x="thoughts", reference={"far away": 7.0}, points=sweep(mean=-3.0))
    least, most = figure.layout.yaxis.range
    assert least < -3
    assert most > 7


def test_response_on_a_log_axis():
    figure = response(sweep([0.01, 0.1, 1, 10], ["only"]), x="thoughts", log_x=True)
    assert figure.layout.xaxis.type == "log"
    assert list(figure.layout.xaxis.ticktext) == ["0.01", "0.1", "1", "10"]
    least, most = figure.layout.xaxis.range
    assert least < -2
    assert most > 1
    assert figure.layout.scattermode is None  # plotly would shift the lines of a log axis unevenly
    assert list(figure.data[0].x) == [0.01, 0.1, 1, 10]


def test_lines_on_a_log_axis_stand_beside_each_other_and_say_their_setting():
    settings = [0.01, 0.1, 1, 10]
    table = sweep(settings, ["a", "b"])
    figure = response(table, x="thoughts", color="method", log_x=True, points=table)
    for name, side in (("a", -1), ("b", 1)):
        line, faint = (t for t in figure.data if t.offsetgroup == name)
        shift = np.log10(np.array(line.x)) - np.log10(settings)
        assert shift == pytest.approx(side * 0.006 * 3)  # of the three decades
        assert sorted(faint.x) == pytest.approx(sorted(line.x))
        assert list(line.text) == ["0.01", "0.1", "1", "10"]
        assert "%{text}" in line.hovertemplate


def test_response_shows_single_results_behind_the_means():
    table = sweep(lines=["a", "b"])
    single = pd.concat([table.assign(mean=table["mean"] + shift) for shift in (-0.01, 0.01)])
    figure = response(table, x="thoughts", color="method", points=single, percent=True, points_are="single runs")
    faint, line, *_ = figure.data
    assert sorted(faint.y) == pytest.approx(sorted(100 * single[single["method"] == "a"]["mean"]))
    assert faint.marker.opacity < 0.5
    assert line.name == "a"
    assert figure.layout.title.text.endswith("; faint points: single runs")


def test_a_mean_without_an_interval_is_a_point():
    table = sweep(lines=["only"])
    table.loc[1, ["low", "high"]] = np.nan
    (trace,) = response(table, x="thoughts").data
    low, high = bounds(trace, "error_y")
    assert np.isnan(low).tolist() == np.isnan(high).tolist() == [False, True, False, False]


def test_the_caption_says_how_many_and_how_sure():
    table = sweep(n=[100, 200, 300, 400] * 2)
    assert response(table, x="thoughts", color="method").layout.title.text == (
        "n = 100 to 400 questions, 95 % intervals"
    )
    given = response(table.drop(columns="n"), x="thoughts", color="method", n=5, of="seeds", level=0.9)
    bare = response(sweep(low=np.nan, high=np.nan), x="thoughts", color="method")
    assert bare.layout.title.text == "n = 500 questions"
    assert given.layout.title.text == "n = 5 seeds, 90 % intervals"


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda t: t.drop(columns="low"), {}, r"the table lacks low \(it has"),
        (lambda t: t, {"color": "nothing"}, "the table lacks nothing"),
        (lambda t: t.iloc[:0], {}, "no rows to draw"),
        (lambda t: t.assign(mean=np.nan), {}, "a mean or its thoughts is missing"),
        (lambda t: t.assign(low=0.9), {}, r"row 0 has the mean 0.3 and the interval \[0.9, 0.33\]: give low <= mean"),
        (lambda t: t, {"color": None}, "two means at thoughts = 0: give one row per setting"),
        (lambda t: pd.concat([t, t]), {}, "two means at thoughts = 0 of soft_prompt: .* belong into `points`"),
        (lambda t: t, {"log_x": True}, "thoughts is 0 somewhere, which a logarithmic axis cannot show: .*log_x=False"),
        (lambda t: t.drop(columns="n"), {}, "no column 'n' with the number of questions .* n=NUMBER"),
        (lambda t: t, {"level": 95}, "level is 95: give the level"),
        (lambda t: t, {"percent": ["accuracy"]}, r"percent=\['accuracy'\]: give True, False, or a list"),
        (lambda t: t, {"reference": {"prior": {"kl": 1}}}, "reference 'prior' is for panel 'kl', but the panels drawn"),
        (lambda t: t, {"points": pd.DataFrame({"thoughts": [1]})}, "the table lacks mean, method .*single results"),
    ],
)
def test_response_refuses(change, arguments, message):
    with pytest.raises(ValueError, match=message):
        response(change(sweep()), **{"x": "thoughts", "color": "method"} | arguments)


# ------------------------------------------------------------------------------------------------------------- bars


def test_bars_draw_each_row_at_a_height_of_its_own():
    table = differences()
    before = table.copy(deep=True)
    figure = bars(table, label="change", color="domain", reference=0, percent=True, of="seeds")
    for trace in figure.data:
        part = table[table["domain"] == trace.legendgroup]
        assert list(trace.x) == pytest.approx(100 * part["mean"])
        low, high = bounds(trace, "error_x")
        assert list(low) == pytest.approx(100 * part["low"])
        assert list(high) == pytest.approx(100 * part["high"])
        assert [c[0] for c in trace.customdata] == part["change"].tolist()
    assert list(figure.data[0].text) == ["−2.0", "−30.0"]
    assert list(figure.data[1].text) == ["+0.1", "−5.0"]
    assert sorted(y for t in figure.data for y in t.y) == [0, 1, 2.5, 3.5]
    assert list(figure.layout.yaxis.tickvals) == [0.5, 3]  # the label of two rows stands between them
    assert list(figure.layout.yaxis.ticktext) == ["no focus", "one thought"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # first row on top
    (line,) = figure.layout.shapes
    assert (line.x0, line.x1, line.showlegend) == (0, 0, False)
    assert figure.layout.title.text == "n = 5 seeds, 95 % intervals; numbers: means"
    pd.testing.assert_frame_equal(table, before)


def test_bars_stand_below_each_other_or_side_by_side():
    table = differences().iloc[:3]
    below = bars(table, label="change", facet="domain")
    assert below.layout.xaxis.matches == "x2"
    assert list(below.layout.yaxis2.ticktext) == ["no focus"]  # a panel has its own rows
    beside = bars(table, label="change", facet="domain", columns=2)
    assert list(beside.layout.yaxis2.ticktext) == ["no focus", "one thought"]
    assert beside.layout.height < below.layout.height
    units = bars(table, label="change", facet="domain", columns=2, x_title={"shift": "nats", "known": "points"})
    assert [a.text for a in units.layout.annotations][:2] == ["nats", "points"]
    assert units.layout.xaxis.range != units.layout.xaxis2.range
    one = bars(table, label="change", facet="domain", columns=2, width="column")
    assert one.layout.yaxis2.ticktext == ("no focus",)


def test_bars_wrap_long_labels_and_show_them_as_text():
    table = differences().iloc[:2].assign(change=["<b> & " + "long name " * 5, "b"])
    (text, _) = bars(table, label="change", width="column").layout.yaxis.ticktext
    assert text == "&lt;b&gt; &amp; long name long name<br>long name long name long<br>name"


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda t: t, {}, "rows share a name: 'no focus' stands twice; give each row its own, or tell rows apart by"),
        (lambda t: t.iloc[:0], {}, "no rows to draw"),
        (lambda t: t.iloc[:1].assign(mean=np.nan), {}, "the mean of 'no focus' is missing"),
        (
            lambda t: t.assign(high=-1.0),
            {"color": "domain"},
            r"mean -0.02 and the interval \[-0.03, -1\]",
        ),
        (lambda t: t, {"label": "row"}, "the table lacks row"),
        (lambda t: t, {"facet": "domain", "columns": 0}, "columns is 0: give the number of panels"),
    ],
)
def test_bars_refuse(change, arguments, message):
    with pytest.raises(ValueError, match=message):
        bars(change(differences()), **{"label": "change"} | arguments)


# --------------------------------------------------------------------------------------------------------- accuracy


def test_accuracy_draws_percent_with_the_interval_given():
    table = accuracies()
    before = table.copy(deep=True)
    (trace,) = accuracy(table).data
    assert list(trace.x) == pytest.approx([41, 50, 75])
    low, high = bounds(trace, "error_x")
    assert list(low) == pytest.approx([37, 46, 71])
    assert list(high) == pytest.approx([45, 54, 79])
    assert list(trace.text) == ["41.0", "50.0", "75.0"]
    assert accuracy(table).layout.yaxis.ticktext == ("none", "soft_prompt", "lta_thinker")
    assert accuracy(table).layout.title.text.startswith("n = 500 questions, 95 % intervals")
    pd.testing.assert_frame_equal(table, before)


def test_accuracy_separates_tasks_and_colours_only_what_it_is_told_to():
    table = accuracies(task=["arith-shift", "arith-shift", "arith"], method=["cot", "soft-prompt", "cot"])
    figure = accuracy(table)
    assert [a.text for a in figure.layout.annotations] == ["arith-shift", "arith"]
    assert [t.x for t in figure.data] == [pytest.approx((41, 50)), pytest.approx((75,))]
    assert len({t.marker.color for t in figure.data}) == 1
    colored = accuracy(table, color="method")
    assert {t.legendgroup: t.marker.color for t in colored.data} == {
        name: style(name).color for name in ("cot", "soft-prompt")
    }
    assert words(colored.layout.legend.title.text) == "method"


def test_accuracy_puts_differing_n_on_the_labels_and_reads_accuracy_table():
    assert accuracy(accuracies(n=[500, 400, 500])).layout.yaxis.ticktext[1] == "soft_prompt (n = 400)"
    scored = accuracies(store=["a", "a", "b"], measure=["mean", "vote", "mean"]).drop(columns="name")
    assert accuracy(scored).layout.yaxis.ticktext == ("a, mean", "a, vote", "b, mean")
    scored["measure"] = "mean"
    with pytest.raises(ValueError, match="rows share a name: 'a'"):
        accuracy(scored)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (accuracies(mean=[41, 50, 75]), "shares with 0 <= low <= mean <= high <= 1: divide percentages by 100"),
        (accuracies(low=[0.42, 0.46, np.nan]), "shares with 0 <= low"),
        (accuracies().iloc[:0], "no rows to draw"),
        (accuracies().drop(columns="n"), "the table lacks n "),
    ],
)
def test_accuracy_refuses(table, message):
    with pytest.raises(ValueError, match=message):
        accuracy(table)
