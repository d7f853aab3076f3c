"""Tables of positive steps: which step each rule picks, how often rules agree, whether the choice stays."""

import numpy as np
import pytest
from stores import synthetic_store

from workbench import diagnostics as d

nan = np.nan


def store_of(answer, question, critical=None):
    """A store whose gold steps have these similarities."""
    store = synthetic_store(len(answer), reasoning=len(answer[0]))
    for name, values in (("similarity_answer", answer), ("similarity_question", question)):
        store[name] = (("example", "reasoning"), np.array(values, dtype=np.float32))
    return store.assign_coords(label_critical_step=("example", critical or [0] * len(answer)))


ANSWER = [[0.9, 0.1, nan], [0.2, 0.3, 0.7], [0.5, nan, nan], [nan, nan, nan]]
QUESTION = [[0.4, 0.6, nan], [0.1, 0.2, 0.8], [0.5, nan, nan], [nan, nan, nan]]


def test_positive_steps_of_a_store():
    store = synthetic_store(20)
    table = d.positive_steps(store)
    assert list(table["example"]) == list(store["example"].values)
    expected = np.nanargmax(store["similarity_answer"].values, axis=1)
    assert table["chosen"].tolist() == expected.tolist()
    assert table["text"].tolist() == [f"{k} + 1 = {k + 1}" for k in expected]
    assert table["agrees"].isna().tolist() == [True] + [False] * 19  # the first has no known critical step
    assert table["agrees"].iloc[1:].all()
    question = d.positive_steps(store.transpose("reasoning", ...), by="question")
    assert question["chosen"].tolist() == np.nanargmax(store["similarity_question"].values, axis=1).tolist()
    assert question["agrees"].mean() < 1
    assert "agrees" not in d.positive_steps(store.drop_vars("label_critical_step"))


def test_a_row_per_gold_step():
    store = store_of(ANSWER, QUESTION, critical=[1, 2, 0, -1])
    table = d.step_table(store)
    assert table["example"].tolist() == ["0000"] * 2 + ["0001"] * 3 + ["0002"]
    assert table["step"].tolist() == [0, 1, 0, 1, 2, 0]
    assert table["similarity"].tolist() == pytest.approx([0.9, 0.1, 0.2, 0.3, 0.7, 0.5])
    assert table["chosen"].tolist() == [True, False, False, False, True, True]
    assert table["critical"].tolist() == [False, True, False, False, True, True]
    asked = d.step_table(store, by="question", examples=["0001", "0000"])
    assert asked["example"].tolist() == ["0001"] * 3 + ["0000"] * 2
    assert asked["chosen"].tolist() == [False, False, True, False, True]
    assert d.step_table(store, examples=1)["example"].tolist() == ["0000"] * 2
    assert "critical" not in d.step_table(store.drop_vars("label_critical_step"))
    assert not d.step_table(synthetic_store(), examples=3)["text"].eq("").any()


def test_the_step_of_each_rule():
    table = d.step_choices(store_of(ANSWER, QUESTION, critical=[1, 2, 0, -1])).set_index("example")
    assert table["candidates"].tolist() == [2, 3, 1, 0]
    assert table["answer"].tolist() == [0, 2, 0, -1]
    assert table["question"].tolist() == [1, 2, 0, -1]
    assert table["middle"].tolist() == [1, 1, 0, -1]  # the later of two
    assert table["last"].tolist() == [1, 2, 0, -1]
    assert table["critical"].tolist() == [1, 2, 0, -1]


def test_middle_and_last_are_those_of_the_method():
    """The rules' names mean what the method's option `positive` means."""
    import torch

    from workbench.methods import Prompt
    from workbench.methods.lta_thinker import positive_step
    from workbench.tasks import Example

    none = torch.zeros(0, dtype=torch.long)
    choices = d.step_choices(synthetic_store(30))
    for _, row in choices.iterrows():
        prompt = Prompt(Example("x", "", (), ""), none, none, none, none, (none,) * row["candidates"], none)
        assert (row["middle"], row["last"]) == (positive_step(prompt, "middle"), positive_step(prompt, "last"))


def test_agreement_of_rules():
    store = synthetic_store(200)
    table = d.rule_agreement(store)
    assert not table.duplicated(["rule", "other"]).any()
    choices = d.step_choices(store)
    several = choices[choices["candidates"] > 1]
    for _, row in table.iterrows():
        known = several[(several[row["rule"]] >= 0) & (several[row["other"]] >= 0)]
        assert row["share"] == pytest.approx((known[row["rule"]] == known[row["other"]]).mean())
        assert row["chance"] == pytest.approx((1 / known["candidates"]).mean())
        assert row["n"] == len(known)
    found = table.set_index(["rule", "other"])
    assert found.loc[("answer", "critical"), "share"] == 1  # planted
    free = found.loc[("answer", "question")]  # independent draws
    assert free["low"] < free["chance"] < free["high"]
    assert set(d.rule_agreement({"a": store, "b": store})["store"]) == {"a", "b"}


def test_stability_of_choices_by_hand():
    before, last = d.choice_stability([[0, 1, 2, -1], [0, 1, 1, -1], [0, 2, 1, -1]])
    np.testing.assert_allclose(before, [nan, 2 / 3, 2 / 3])
    np.testing.assert_allclose(last, [1 / 3, 2 / 3, 1])
    before, last = d.choice_stability([[-1], [-1]])
    assert np.isnan([*before, *last]).all()
    before, last = d.choice_stability([[3, 0, -1]])
    assert np.isnan(before).all()
    assert last.tolist() == [1]


def test_stability_over_stores():
    stores = {step: synthetic_store(40, seed=0) for step in (0, 5, 9)}
    rng = np.random.default_rng(1)
    present = ~np.isnan(stores[0]["similarity_question"].values)
    for store in stores.values():
        store["similarity_question"] = (
            ("example", "reasoning"), np.where(present, rng.random(present.shape), nan).astype(np.float32)
        )  # fmt: skip
    stores[5] = stores[5].isel(example=rng.permutation(40))  # matched by id
    table = d.stability_table(stores, by="question").set_index(["store", "since"])
    several = present.sum(1) > 1
    choices = [
        np.nanargmax(store.sortby("example")["similarity_question"].values[several], axis=1)
        for store in stores.values()
    ]
    assert table.loc[(5, "previous"), "share"] == pytest.approx((choices[1] == choices[0]).mean())
    assert table.loc[(9, "previous"), "share"] == pytest.approx((choices[2] == choices[1]).mean())
    assert table.loc[(0, "last"), "share"] == pytest.approx((choices[0] == choices[2]).mean())
    assert table.loc[(9, "last"), "share"] == 1
    assert (0, "previous") not in table.index
    assert set(table["n"]) == {several.sum()}
    inner = table[table["share"] < 1]
    assert ((inner["low"] < inner["share"]) & (inner["share"] < inner["high"])).all()
    assert (d.stability_table(stores)["share"] == 1).all()  # by answer: the same in all three


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: d.positive_steps(synthetic_store(reasoning=0)), "this store holds no 'similarity_answer': collect it"),
        (lambda: d.positive_steps(synthetic_store(), by="gold"), "similarity to 'gold'"),  # pyright: ignore
        (lambda: d.step_table(synthetic_store(), examples=["x"]), "no example 'x' in this store: give ids of its exam"),
        (lambda: d.stability_table({0: synthetic_store()}), "stability is between stores: give two or more by name"),
        (
            lambda: d.stability_table({0: synthetic_store(), 1: synthetic_store(start=50)}),
            "these stores share no example: collect the same questions",
        ),
        (
            lambda: d.stability_table({0: synthetic_store(reasoning=1), 1: synthetic_store(reasoning=1)}),
            "no question has several gold steps",
        ),
        (lambda: d.choice_stability([1, 2]), r"choices of shape \(2,\), int64: give step numbers \[time, example\]"),
        (lambda: d.choice_stability([[0.5]]), "float64: give step numbers"),
    ],
)
def test_one_clear_sentence(call, message):
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_weights_are_a_softmax_over_the_steps_there_are():
    weights = d.focus_weights([[0.2, 0.4, nan], [nan, 0.3, nan], [nan, nan, nan]], temperature=0.1)
    share = 1 / (1 + np.exp(2))
    np.testing.assert_allclose(weights, [[share, 1 - share, nan], [nan, 1, nan], [nan, nan, nan]])
    np.testing.assert_allclose(d.focus_weights([[50.0, -50.0]], 0.001), [[1, 0]], atol=1e-300)
    assert d.focus_weights(np.zeros((2, 0))).shape == (2, 0)
    with pytest.raises(ValueError, match="temperature 0: give a number above 0"):
        d.focus_weights([[0.1]], 0)
    with pytest.raises(ValueError, match="give \\[example, reasoning\\]"):
        d.focus_weights([0.1])


def test_the_random_rule_is_that_of_the_method():
    import torch

    from workbench.methods import Prompt
    from workbench.methods.lta_thinker import positive_step
    from workbench.tasks import Example

    none = torch.zeros(0, dtype=torch.long)
    store = synthetic_store(40)
    counts, picked = d.step_choices(store)["candidates"], d.chosen_steps(store, "random")
    for name, count, step in zip(store["example"].values, counts, picked, strict=True):
        prompt = Prompt(Example(str(name), "", (), ""), none, none, none, none, (none,) * count, none)
        assert step == positive_step(prompt, "random")
    assert len(set(picked.tolist())) > 1


def test_what_the_focus_loss_sees_of_each_step():
    store = store_of(ANSWER, QUESTION, critical=[1, 2, 0, -1])
    table = d.step_scores(store, "last", temperature=0.5)
    assert table["answer"].tolist() == pytest.approx([0.9, 0.1, 0.2, 0.3, 0.7, 0.5])
    assert table["question"].tolist() == pytest.approx([0.4, 0.6, 0.1, 0.2, 0.8, 0.5])
    assert table["positive"].tolist() == [False, True, False, False, True, True]
    assert table["critical"].tolist() == [False, True, False, False, True, True]
    assert table.groupby("example")["weight"].sum().tolist() == pytest.approx([1, 1, 1])
    assert table["weight"].iloc[1] == pytest.approx(np.exp(1.2) / (np.exp(1.2) + np.exp(0.8)))
    one = d.step_scores(store.sel(example=["0001"]), "answer", temperature=0.5)
    assert one["weight"].tolist() == pytest.approx(table["weight"].iloc[2:5].tolist())


def test_the_focus_loss_of_each_question():
    store = store_of(ANSWER, QUESTION, critical=[1, 2, 0, -1])
    table = d.focus_table(store, "middle", temperature=0.5)
    assert table["positive"].tolist() == [1, 1, 0, -1]
    assert table["margin"].tolist() == pytest.approx([-0.8, -0.4, nan, nan], nan_ok=True)
    total = np.exp([0.2, 0.4, 1.6]).sum()
    assert table["loss"].tolist() == pytest.approx(
        [-np.log(np.exp(1.2) / (np.exp(1.2) + np.exp(0.8))), -np.log(np.exp(0.4) / total), 0, nan], nan_ok=True
    )
    assert table["agrees"].tolist()[:3] == [True, False, True]
    assert table["agrees"].isna().tolist() == [False, False, False, True]
    assert "agrees" not in d.focus_table(store.drop_vars("label_critical_step"))
    with pytest.raises(ValueError, match="rule 'critical' and this store has no label critical_step: use answer"):
        d.focus_table(store.drop_vars("label_critical_step"), "critical")
    with pytest.raises(ValueError, match="rule 'frist': use"):
        d.chosen_steps(store, "frist")


def test_what_other_rules_would_change():
    store = store_of(ANSWER, QUESTION, critical=[1, 2, 0, -1])
    table = d.rule_table(store, "answer", temperature=0.5).set_index("rule")
    assert table.loc[["answer", "middle", "last", "critical"], "changed"].tolist() == [0, 2, 1, 1]
    assert table["n"].tolist() == [2] * 5
    assert table.loc["answer", "margin"] == pytest.approx((0.8 + 0.4) / 2)
    assert table.loc["answer", "critical"] == 0.5  # of the two with several steps
    assert table.loc["last", "critical"] == 1
    assert table.loc["middle", "loss"] == pytest.approx(
        d.focus_table(store, "middle", temperature=0.5)["loss"][:2].mean()
    )
    assert "critical" not in d.rule_table(store.drop_vars("label_critical_step"))
