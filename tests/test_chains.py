"""Tables of chains of thoughts, of thoughts and difficulty, and what a live model sees along its answers."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from stores import synthetic_store

from workbench.analysis.diagnostics import (
    along_table,
    chain_table,
    difficulty,
    difficulty_correlation,
    difficulty_table,
    distance_ratio,
    thought_counts,
)
from workbench.backbone import Decoding
from workbench.backbone.writing import write
from workbench.evidence.along import along_answers
from workbench.methods import build
from workbench.methods.lt_tuning import LTTuningConfig
from workbench.tasks import load_task


def chains(spreads: tuple[float, ...], n: int = 60):
    """A store whose thoughts at a step lie around one point, as far apart as `spreads` says."""
    rng = np.random.default_rng(0)
    store = synthetic_store(n, steps=len(spreads)).isel(path=[0])
    width = store.sizes["feature"]
    point = np.full(width, 3 / np.sqrt(width))
    x = np.stack([point + spread * rng.standard_normal((n, width)) for spread in spreads], 1)[:, None]
    there = np.ones(x.shape[:-1], bool)
    return store.assign(thought=(("example", "path", "step", "feature"), x), mask=(("example", "path", "step"), there))


def test_a_chain_that_draws_together_is_seen_by_every_number():
    store = chains((1.0, 0.3, 0.0))
    table = chain_table({"a": store}).set_index(["statistic", "step"])
    assert {name for name, _ in table.index} == {
        "cosine",
        "centred_cosine",
        "effective_rank",
        "distance_ratio",
        "length",
    }
    cosine, apart = table["mean"]["cosine"], table["mean"]["distance_ratio"]
    assert cosine[0] < cosine[1] < cosine[2] == pytest.approx(1)
    assert apart[0] > apart[1] > apart[2] == pytest.approx(0, abs=1e-6)
    x = store["thought"].values[:, 0]
    unit = x / np.linalg.norm(x, axis=-1, keepdims=True)
    pairs = [float(unit[i, 0] @ unit[j, 0]) for i in range(60) for j in range(i)]
    assert cosine[0] == pytest.approx(np.mean(pairs))
    distances = [np.linalg.norm(x[i, 1] - x[j, 1]) for i in range(60) for j in range(i)]
    assert apart[1] == pytest.approx(np.mean(distances) / np.linalg.norm(x[:, 1], axis=-1).mean())
    assert np.isnan(table["mean"]["effective_rank"][2])  # rounding has no rank
    centred = x - x.reshape(-1, x.shape[-1]).mean(0)
    unit = centred / np.linalg.norm(centred, axis=-1, keepdims=True)
    pairs = [float(unit[i, 0] @ unit[j, 0]) for i in range(60) for j in range(i)]
    assert table["mean"]["centred_cosine"][0] == pytest.approx(np.mean(pairs))
    assert (table["low"]["cosine"][0], table["high"]["cosine"][0]) != (cosine[0], cosine[0])
    assert set(table["n"]) == {60}


def test_what_the_fusion_adds_is_told_where_the_store_knows_it():
    store, step = chains((1.0, 1.0)), ("example", "path", "step")
    shape = store["mask"].shape
    store = store.assign(signal_word_norm=(step, np.full(shape, 0.5)), signal_state_norm=(step, np.full(shape, 2.0)))
    table = chain_table(store, level=None)
    assert table[table["statistic"] == "word_to_state"]["mean"].tolist() == [0.25, 0.25]
    assert table["low"].isna().all()
    with pytest.raises(ValueError, match="no thought before its answers"):
        chain_table(store.assign(mask=(step, np.zeros(shape, bool))))
    with pytest.raises(ValueError, match="at least two samples"):
        distance_ratio(np.zeros((1, 3)))


def thinking(counts: list[int], wrong: list[int]):
    """A store with so many thoughts within the answers of each question, of three draws of which so many are wrong."""
    store = synthetic_store(len(counts), steps=max(counts), draws=3).isel(path=[0])
    mask = np.arange(max(counts)) < np.array(counts)[:, None]
    step = ("example", "path", "step")
    place = np.broadcast_to(np.arange(max(counts)) % 3, mask.shape)[:, None].astype(np.int32)
    right = (np.arange(3) >= np.array(wrong)[:, None])[:, None]
    return store.assign(
        mask=(step, mask[:, None]), thought_draw=(step, place), correct=(("example", "path", "draw"), right)
    )


def test_thoughts_are_counted_per_answer():
    store = thinking([3, 0, 6], [0, 0, 0])
    assert thought_counts(store).tolist() == [1, 0, 2]
    before = store.assign(thought_draw=store["thought_draw"] * 0 - 1)
    assert thought_counts(before).tolist() == [3, 0, 6]
    assert thought_counts(store.drop_vars("thought_draw")).tolist() == [3, 0, 6]


def test_thoughts_against_difficulty():
    rng = np.random.default_rng(1)
    wrong = rng.integers(0, 4, 80).tolist()
    counts = [3 * w + int(rng.integers(0, 4)) for w in wrong]
    store = thinking(counts, wrong)
    assert difficulty(store, "wrong").tolist() == wrong
    table = difficulty_table(store, "wrong")
    assert table["difficulty"].tolist() == [0, 1, 2, 3]
    assert table["n"].tolist() == np.bincount(wrong).tolist()
    assert table["mean"][2] == pytest.approx(np.mean([c / 3 for c, w in zip(counts, wrong, strict=True) if w == 2]))
    (row,) = difficulty_correlation(store, "wrong").to_dict("records")
    assert row["spearman"] == pytest.approx(stats.spearmanr(counts, wrong).statistic)
    assert row["low"] < row["spearman"] < row["high"]
    elsewhere = difficulty_correlation(store, "wrong", answers=store.isel(example=slice(None, None, -1)))
    assert elsewhere["spearman"][0] == pytest.approx(row["spearman"])  # questions are matched by id
    (none,) = difficulty_correlation(thinking([3] * 20, wrong[:20]), "wrong").to_dict("records")
    assert np.isnan(none["spearman"])
    labelled = store.assign_coords(label_operations=("example", np.array(wrong)))
    assert difficulty(labelled, "operations").tolist() == wrong
    with pytest.raises(ValueError, match="no label 'size' in this store: it has none; or give 'wrong'"):
        difficulty(labelled.drop_vars([c for c in store.coords if str(c).startswith("label_")]), "size")
    with pytest.raises(ValueError, match="lacks example"):
        difficulty(store, "wrong", store.isel(example=slice(1, None)))


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_along_an_answer_the_model_is_what_it_was_when_writing(tiny, family):
    """Entropies are those that the loop saw; mass is what attention lays on thoughts, taken from a plain pass."""
    task = load_task("arith")
    method = build(
        "lt-tuning", tiny(family), LTTuningConfig(forced_thoughts=2, max_consecutive_thoughts=2), seed=1
    ).eval()
    examples, decoding = task.examples("test", 3), Decoding(12)
    with torch.no_grad():
        head = method.backbone.model.get_output_embeddings().weight
        first = method.answer(prompts := [method.render(e, task) for e in examples], method.think(prompts), decoding)
        words = torch.tensor([word for ((one,),) in first for word in one.tokens])
        head[method.mark] = 1.05 * head[words.mode().values]  # a mark that is often written
    rows = along_answers(method, task, examples, decoding)
    assert rows["thought"].sum() > 0
    assert (~rows["thought"]).sum() > 0
    for prompt, example in zip(prompts, examples, strict=True):
        own = rows[rows["example"] == example.id]
        thoughts, seen = method.think([prompt]), []
        make = method.writing([prompt], decoding)

        def watched(state, make=make, seen=seen):
            seen.append(torch.special.entr(state.logits.softmax(-1)).sum(-1).item())
            return make(state)

        row = torch.cat([method.backbone.embed(prompt.before), thoughts.vectors[0, 0]])
        with torch.no_grad():
            write(method.backbone, [row], watched, 12, layers=method.layers)
        assert own["entropy"].tolist() == pytest.approx(seen, abs=1e-4)
        assert own["place"].tolist() == list(range(len(own)))
        assert own["share"].iloc[0] == pytest.approx(2 / len(row))
        assert ((own["mass"] > 0) & (own["mass"] < 1)).all()
        assert (own["over_share"] * own["share"]).tolist() == pytest.approx(own["mass"].tolist())
        model = method.backbone.model
        model.config._attn_implementation = "eager"
        with torch.no_grad():
            attention = model(inputs_embeds=row[None], output_attentions=True).attentions[-1][0]
        model.config._attn_implementation = "sdpa"
        assert own["mass"].iloc[0] == pytest.approx(attention[:, -1, -2:].sum(-1).mean().item(), abs=1e-5)


def test_means_along_answers_are_of_those_still_going_on():
    lengths = {"a": 3, "b": 2, "c": 2}
    rows = pd.DataFrame(
        [
            {
                "example": e,
                "place": k,
                "thought": False,
                "entropy": float(k + len(e)),
                "mass": 0.1,
                "share": 0.0,
                "over_share": np.nan,
            }
            for e, count in lengths.items()
            for k in range(count)
        ]
    )
    table = along_table(pd.concat([rows.assign(store="x"), rows.assign(store="y", entropy=2.0)]), least=2)
    assert set(table["quantity"]) == {"entropy", "mass", "share"}  # no thoughts: nothing to divide by
    one = table[(table["store"] == "x") & (table["quantity"] == "entropy")]
    assert one["place"].tolist() == [0, 1]
    assert one["n"].tolist() == [3, 3]
    assert one["mean"].tolist() == [1.0, 2.0]
    assert along_table(rows, most=1, least=1)["place"].max() == 0
