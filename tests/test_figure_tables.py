"""Figures of cells and shares: matrices, divergences, gold steps, read-outs, what a whole is made of."""

import numpy as np
import pandas as pd
import pytest
from stores import synthetic_store
from test_figure_means import words

from workbench.analysis.diagnostics import divergence_table, variance_table
from workbench.analysis.diagnostics.steps import step_table
from workbench.figures import divergences, matrix, readout, shares, step_similarity, style
from workbench.figures.look import NOTHING


def square(values=((0.0, 2.5), (-1.0, np.nan))):
    return pd.DataFrame(values, index=pd.Index(["a", "b"]), columns=pd.Index(["c_d", "e"]))


def given_matrix(table=None, **more):
    return matrix(square() if table is None else table, **{"name": "difference (nats)", "caption": "n = 7"} | more)


# ------------------------------------------------------------------------------------------------------------ matrix


def test_matrix_writes_each_number_into_its_cell():
    table = square()
    before = table.copy(deep=True)
    figure = given_matrix(table)
    (cells,) = figure.data
    assert [list(row) for row in cells.z] == [[0.0, 2.5], [-1.0, None]]
    assert [list(row) for row in cells.text] == [["0.00", "2.50"], ["−1.00", "–"]]
    assert list(figure.layout.yaxis.ticktext) == ["a", "b"]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]  # first row on top
    assert list(figure.layout.xaxis.ticktext) == ["c d", "e"]
    assert figure.layout.annotations[0].text == "difference (nats)"
    pd.testing.assert_frame_equal(table, before)


def test_a_matrix_with_both_signs_is_grey_at_zero_and_one_without_starts_there():
    axis = given_matrix().layout.coloraxis
    assert (axis.cmin, axis.cmax) == (-2.5, 2.5)
    assert axis.colorscale[1] == (0.5, NOTHING)
    axis = given_matrix(square(((0.5, 2.5), (1.0, 2.0)))).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (0, 2.5)
    axis = given_matrix(limits=(0, 10)).layout.coloraxis
    assert (axis.cmin, axis.cmax) == (0, 10)


def test_numbers_without_room_become_a_colour_bar():
    wide = pd.DataFrame(np.eye(40), [f"row {k}" for k in range(40)], [f"column {k}" for k in range(40)])
    figure = given_matrix(wide, width="column")
    assert figure.data[0].text is None
    assert figure.layout.coloraxis.showscale
    assert not given_matrix().layout.coloraxis.showscale


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame(), "no number to draw"),
        (square(((np.nan, np.nan), (np.nan, np.nan))), "no number to draw"),
        (pd.DataFrame(np.zeros((201, 1))), "201 rows: at most 200"),
    ],
)
def test_matrix_refuses(table, message):
    with pytest.raises(ValueError, match=message):
        given_matrix(table)


# ------------------------------------------------------------------------------------------------------- divergences


def test_divergences_are_those_of_the_table_with_zero_on_the_diagonal():
    stores = {"ours": synthetic_store(40), "theirs": synthetic_store(40, seed=1)}
    table = divergence_table(stores)
    before = table.copy(deep=True)
    figure = divergences(table, "gaussian_kl")
    names = list(figure.layout.yaxis.ticktext)
    assert names == list(figure.layout.xaxis.ticktext) == ["ours", "theirs", "token embeddings"]
    rows = table[(table["divergence"] == "gaussian_kl") & (table["step"] == "all")]
    assert len(rows) == 6
    for first, second, value in zip(rows["first"], rows["second"], rows["value"], strict=True):
        assert figure.data[0].z[names.index(first)][names.index(second)] == value
    assert [figure.data[0].z[k][k] for k in range(3)] == [0, 0, 0]
    assert figure.layout.annotations[0].text == "Gaussian KL(row ‖ column) (nats)"
    assert words(figure.layout.title.text) == "n = 32 to 40 each; all thoughts"
    pd.testing.assert_frame_equal(table, before)


def test_a_symmetric_divergence_fills_both_halves():
    table = divergence_table({0: synthetic_store(40), 50: synthetic_store(40, seed=1)})
    (cells,) = divergences(table, "frechet_distance", step="1").data
    assert cells.z[0][1] == cells.z[1][0] > 0


def test_divergences_refuse_what_the_table_lacks():
    table = divergence_table({"a": synthetic_store(20), "b": synthetic_store(20, seed=1)})
    with pytest.raises(ValueError, match=r"no 'kl' at step 'all' in this table: it has .*gaussian_kl"):
        divergences(table, "kl")
    with pytest.raises(ValueError, match="no 'gaussian_kl' at step '9'"):
        divergences(table, "gaussian_kl", step="9")
    with pytest.raises(ValueError, match="the table lacks first"):
        divergences(square(), "gaussian_kl")


# -------------------------------------------------------------------------------------------------------- gold steps


def test_step_similarity_draws_each_step_once_with_its_marks():
    table = step_table(synthetic_store(8))
    before = table.copy(deep=True)
    figure = step_similarity(table)
    cells, chosen, critical = figure.data
    examples = list(dict.fromkeys(table["example"]))
    expected = {(r.example, r.step): r.similarity for r in table.itertuples()}
    found = {
        (examples[i], k): value for i, row in enumerate(cells.z) for k, value in enumerate(row) if value is not None
    }
    assert found == expected
    for trace, column in ((chosen, "chosen"), (critical, "critical")):
        marked = {(r.example, r.step) for r in table[table[column]].itertuples()}
        assert {(examples[int(y)], int(x)) for x, y in zip(trace.x, trace.y, strict=True)} == marked
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="chosen"), "the table lacks chosen"),
        (lambda t: t.iloc[:0], "no rows to draw: give one row per example and gold step"),
        (lambda t: pd.concat([t, t]), "steps count from 0, and each stands once"),
        (lambda t: t.assign(step=t["step"] - 1), "steps count from 0"),
    ],
)
def test_step_similarity_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        step_similarity(change(step_table(synthetic_store(8))))


# ----------------------------------------------------------------------------------------------------------- readout


def tokens(**given):
    rows = [{"thought": f"q{i}", "rank": k + 1, "token": f" t{i}{k}", "score": 0.5 / (k + 1)} for i in (0, 1)
            for k in range(3)]  # fmt: skip
    return pd.DataFrame(rows).assign(**given)


def test_readout_shows_each_token_at_its_rank():
    table = tokens()
    before = table.copy(deep=True)
    (cells,) = readout(table.sample(frac=1, random_state=1)).data
    order = list(dict.fromkeys(table.sample(frac=1, random_state=1)["thought"]))
    for row, thought in enumerate(order):
        assert list(cells.text[row]) == [f"␣t{thought[1]}{k}" for k in range(3)]
        assert list(cells.z[row]) == [0.5, 0.25, 0.5 / 3]
    pd.testing.assert_frame_equal(table, before)


def test_readout_shows_blanks_as_signs_and_cuts_long_tokens_but_not_what_hovering_says():
    long = "Ġan_extremely_long_token_that_no_cell_holds_whatever_its_width"
    (cells,) = readout(tokens(token=["\n", long, "<b>"] * 2), width="column").data
    assert cells.text[0][0] == "⏎"
    assert cells.text[0][1].startswith("␣an")
    assert cells.text[0][1].endswith("…")
    assert cells.text[0][2] == "&lt;b&gt;"
    assert f"␣{long[1:]}" in cells.customdata[0][1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="score"), "the table lacks score"),
        (lambda t: t.iloc[:0], "no rows to draw: give one row per thought and rank"),
        (lambda t: t.assign(rank=1), "ranks count from 1, and each stands once"),
    ],
)
def test_readout_refuses(change, message):
    with pytest.raises(ValueError, match=message):
        readout(change(tokens()))


# ------------------------------------------------------------------------------------------------------------ shares


def test_shares_are_the_parts_of_the_variance_in_percent():
    table = variance_table({"ours": synthetic_store(30, paths=2), "theirs": synthetic_store(30, seed=1)})
    before = table.copy(deep=True)
    figure = shares(table)
    assert {t.name for t in figure.data} == {str(part).replace("_", " ") for part in table["part"]}
    for trace in figure.data:
        rows = table[table["part"] == trace.legendgroup]
        assert dict(zip(trace.y, trace.x, strict=True)) == pytest.approx(
            {"ours": 0, "theirs": 0} | dict(zip(rows["store"], 100 * rows["share"], strict=True))
        )
        assert trace.marker.color == style(trace.legendgroup).color
    assert len({t.marker.pattern.shape for t in figure.data}) == len(figure.data)  # not by colour alone
    assert words(figure.layout.title.text) == "n = 120 to 240 thoughts"
    pd.testing.assert_frame_equal(table, before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.iloc[:0], "no rows to draw"),
        (lambda t: t.assign(share=-0.1), "shares down to -0.1"),
        (lambda t: pd.concat([t, t]), "appears twice in one store"),
        (lambda t: t.iloc[1:], r"the parts of 'lta_thinker' add up to .*, not 1"),
        (lambda t: t.drop(columns="part"), "the table lacks part"),
    ],
)
def test_shares_refuse(change, message):
    with pytest.raises(ValueError, match=message):
        shares(change(variance_table(synthetic_store(20))))
