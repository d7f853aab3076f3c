"""Counter-tests: planted cases get their verdict, and a live method is answered for with every change."""

import numpy as np
import pytest
from stores import synthetic_store

from workbench.evidence.counter import CHANGES, UNCHANGED, counter, counter_table, verdict
from workbench.methods import build
from workbench.tasks import load_task


def planted(shares: dict[str, float]):
    """Stores of the same 200 questions in which a share of them is right."""
    made = {}
    for name, share in shares.items():
        store = synthetic_store(examples=200, seed=1)
        right = np.arange(200).reshape(-1, 1, 1) < 200 * share
        store["prediction"] = store["prediction"].where(store["prediction"] != "", "1")
        made[name] = store.assign(correct=(store["correct"].dims, right))
    return made


@pytest.mark.parametrize(
    ("shuffled", "dropped", "words"),
    [
        (0.4, 0.4, "What the thoughts say about their question matters: shuffled costs 40.0 points"),
        (0.8, 0.4, "Thoughts help, but any question's do: dropped costs 40.0 points"),
        (0.8, 0.8, "The thoughts make no sure difference"),
        (0.8, 0.95, "The thoughts do harm: dropped costs -15.0 points"),
    ],
)
def test_planted_cases_get_their_verdict(shuffled, dropped, words):
    table = counter_table(planted({UNCHANGED: 0.8, "shuffled": shuffled, "dropped": dropped}))
    row = table.set_index("change").loc["shuffled"]
    assert row["accuracy"] == pytest.approx(shuffled)
    assert row["difference"] == pytest.approx(0.8 - shuffled)
    assert row["low"] <= row["difference"] <= row["high"]
    assert verdict(table).startswith(words)


def test_a_floor_or_a_ceiling_is_no_finding():
    for share, word in ((0.0, "wrong"), (1.0, "right")):
        said = verdict(counter_table(planted({UNCHANGED: share, "shuffled": share, "dropped": share})))
        assert said.startswith(f"Every answer is {word}")
        assert "no sure difference" not in said


def test_what_is_missing_is_said():
    with pytest.raises(ValueError, match="no store called 'unchanged' among dropped"):
        counter_table(planted({"dropped": 0.5}))
    with pytest.raises(ValueError, match="needs the changes dropped and shuffled"):
        verdict(counter_table(planted({UNCHANGED: 0.5, "dropped": 0.5})))


def test_a_method_is_answered_for_with_every_change(tiny):
    task = load_task("arith")
    stores = counter(build("soft-prompt", tiny()), task, task.examples("dev", 4), changes=(*CHANGES, "truncated:1"))
    assert list(stores) == [UNCHANGED, *CHANGES, "truncated:1"]
    assert [store.attrs["changed"] for store in stores.values()] == ["", *CHANGES, "truncated:1"]
    assert (stores["dropped"].sizes["step"], stores["truncated:1"].sizes["step"]) == (0, 1)
    same = stores["shuffled"]["text"]  # a soft prompt says the same about every question
    assert same.equals(stores[UNCHANGED]["text"])
    assert set(counter_table(stores)["change"]) == {*CHANGES, "truncated:1"}
