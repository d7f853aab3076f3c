"""Thoughts read as words: what a store keeps of it, and what is computed with the live model."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from sklearn.metrics.pairwise import cosine_similarity

from workbench import diagnostics as d
from workbench import figures, lens
from workbench.__main__ import main
from workbench.backbone import Backbone, Decoding
from workbench.evidence.collect import collect
from workbench.methods import build
from workbench.store import concat, load, save
from workbench.tasks import load_task

SHORT = Decoding(max_new_tokens=2)


@pytest.fixture(scope="module")
def task():
    return load_task("arith-shift")


@pytest.fixture(scope="module")
def made(tiny, task):
    """A method and its store with the four first words of each thought."""
    method = build("lta-thinker", tiny("llama"), seed=1)
    return method, collect(method, task, task.examples("dev", 6), split="dev", decoding=SHORT, readout=4)


def probabilities(backbone, vectors):
    """Final norm, head, softmax: from the model's own parts."""
    with torch.no_grad():
        states = backbone.model.model.norm(torch.tensor(vectors, dtype=torch.float32))
        return softmax(backbone.model.lm_head(states).double().numpy(), axis=-1)


def test_a_store_keeps_the_first_words(made):
    method, store = made
    x = store["thought"].values
    p = probabilities(method.backbone, x)
    order = np.argsort(-p, axis=-1, kind="stable")[..., :4]
    np.testing.assert_array_equal(store["lens_id"].values, order)
    np.testing.assert_allclose(store["lens_probability"].values, np.take_along_axis(p, order, -1), rtol=1e-4)
    np.testing.assert_allclose(store["signal_lens_entropy"].values, stats.entropy(p, axis=-1), rtol=1e-4)
    np.testing.assert_allclose(store["signal_lens_mass"].values, store["lens_probability"].values.sum(-1), rtol=1e-6)
    table = method.backbone.table.detach().numpy()
    cosines = cosine_similarity(x.reshape(-1, x.shape[-1]), table).reshape(p.shape)
    np.testing.assert_array_equal(store["near_id"].values, np.argsort(-cosines, axis=-1, kind="stable")[..., :4])
    np.testing.assert_allclose(store["near_cosine"].values, -np.sort(-cosines, axis=-1)[..., :4], atol=1e-5)
    for name in ("lens", "near"):
        ids, texts = store[f"{name}_id"].values.ravel(), store[f"{name}_token"].values.ravel()
        assert [method.backbone.tokenizer.decode([i]) for i in ids] == texts.tolist()


def test_the_embedding_of_a_word_is_read_as_that_word(tiny):
    backbone = tiny()
    ids = [3, 50, 7]
    vectors = backbone.table.detach()[ids].numpy()[None, None]
    found = lens.words(backbone, vectors, np.ones((1, 1, 3), dtype=bool), 2)
    assert found["near_id"][0, 0, :, 0].tolist() == ids
    np.testing.assert_allclose(found["near_cosine"][0, 0, :, 0], 1, rtol=1e-6)


def test_where_there_is_no_thought_nothing_is_read(tiny):
    backbone = tiny()
    mask = np.array([[[True, False], [True, True]]])
    found = lens.words(backbone, np.ones((1, 2, 2, backbone.width), dtype=np.float32), mask, 3)
    assert (found["lens_id"][~mask] == -1).all()
    assert (found["near_token"][~mask] == "").all()
    assert np.isnan(found["lens_probability"][~mask]).all()
    assert np.isfinite(found["signal_lens_entropy"][mask]).all()
    assert lens.words(backbone, np.ones((1, 2, 0, 32)), np.ones((1, 2, 0), dtype=bool), 3)["lens_id"].shape == (
        1,
        2,
        0,
        3,
    )


def test_blocks_change_nothing(made, monkeypatch):
    method, store = made
    monkeypatch.setattr("workbench.backbone.model.HELD", 1)
    found = lens.words(method.backbone, store["thought"].values, store["mask"].values, 4)
    for name in ("lens_id", "near_id", "lens_token"):
        np.testing.assert_array_equal(found[name], store[name].values)
    np.testing.assert_allclose(found["lens_probability"], store["lens_probability"].values, rtol=1e-5)


def test_a_read_out_survives_the_file_and_joining(made, task, tmp_path):
    method, store = made
    again = load(save(store, tmp_path / "a.nc"))
    for name in ("lens_id", "lens_token", "lens_probability", "near_cosine"):
        np.testing.assert_array_equal(again[name].values, store[name].values)
    more = collect(method, task, task.examples("dev", 9)[6:], split="dev", decoding=SHORT, readout=4)
    assert concat([store, more])["lens_token"].shape == (9, 1, 4, 4)
    fewer = collect(method, task, task.examples("dev", 9)[6:], split="dev", decoding=SHORT, readout=2)
    with pytest.raises(ValueError, match=r"different numbers of rank \(4 and 2\)"):
        concat([store, fewer])
    without = collect(method, task, task.examples("dev", 2), split="dev", decoding=SHORT)
    assert not [name for name in without.variables if "lens" in str(name) or "near" in str(name)]
    for name in ("thought", "text", "similarity_answer"):
        np.testing.assert_array_equal(without[name].values, store[name].values[:2, ..., : without[name].shape[-1]])


def test_the_table_of_a_read_out(made):
    _, store = made
    table = d.readout_table(store, examples=2)
    assert len(table) == 2 * 4 * 4
    first = table[table["thought"] == f"{store['example'].values[1]}, slot 2"]
    assert first["rank"].tolist() == [1, 2, 3, 4]
    assert first["id"].tolist() == store["lens_id"].values[1, 0, 2].tolist()
    assert first["token"].tolist() == store["lens_token"].values[1, 0, 2].tolist()
    assert first["score"].tolist() == pytest.approx(store["lens_probability"].values[1, 0, 2].tolist())
    near = d.readout_table(store, "near", examples=[str(store["example"].values[3])])
    assert near["score"].tolist() == pytest.approx(store["near_cosine"].values[3].ravel().tolist())
    masked = store.assign(mask=store["mask"] & (store["step"] != 1))
    assert set(d.readout_table(masked)["step"]) == {0, 2, 3}
    assert len(figures.readout(table).data) == 1
    with pytest.raises(ValueError, match="collect it with readout=5 or so"):
        d.readout_table(store.drop_vars("lens_id"))
    with pytest.raises(ValueError, match="read-out by 'far'"):
        d.readout_table(store, "far")  # pyright: ignore[reportArgumentType]


# --------------------------------------------------------------------------------------------------- whole vocabularies


def test_divergences_over_the_vocabulary(tiny, made, task):
    method, store = made
    other = collect(build("lta-thinker", tiny("llama"), seed=2), task, task.examples("dev", 6), decoding=SHORT)
    shuffled = other.isel(example=[3, 1, 5, 0, 2])  # one question less, in another order
    table = lens.vocabulary_table(method.backbone, {"a": store, "b": shuffled})
    found = table.set_index(["first", "second", "step", "divergence"])
    ids = [name for name in store["example"].values if name in shuffled["example"].values]
    p, q = (probabilities(method.backbone, s["thought"].sel(example=ids).values[:, 0]) for s in (store, other))
    for step, a, b in (("0", p[:, 0], q[:, 0]), ("3", p[:, 3], q[:, 3]), ("all", p, q)):
        forward, back = rel_entr(a, b).sum(-1).mean(), rel_entr(b, a).sum(-1).mean()
        assert found.loc[("a", "b", step, "vocabulary_kl"), "value"] == pytest.approx(forward, rel=1e-4)
        assert found.loc[("b", "a", step, "vocabulary_kl"), "value"] == pytest.approx(back, rel=1e-4)
        between = np.square(jensenshannon(a, b, axis=-1)).mean()
        assert found.loc[("a", "b", step, "vocabulary_js"), "value"] == pytest.approx(between, rel=1e-4)
    assert set(table["n_first"]) == {5}
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert set(table) == set(d.divergence_table(store))
    same = lens.vocabulary_table(method.backbone, {"a": store, "b": store})
    assert same["value"].tolist() == pytest.approx([0] * len(same), abs=1e-6)
    with pytest.raises(ValueError, match="divergences are between stores: give two or more by name"):
        lens.vocabulary_table(method.backbone, {"a": store})
    renamed = store.assign_coords(example=[f"{name}-other" for name in store["example"].values])
    with pytest.raises(ValueError, match="two of these stores share no example"):
        lens.vocabulary_table(method.backbone, {"a": store, "b": renamed})


def steps_of(method, task, question):
    """The ids of its worked steps, as training shows them."""
    return torch.cat(method.render(question, task).steps).tolist()


def test_compression_of_worked_steps(made, task):
    method, store = made
    questions = task.examples("dev", 6)
    table = lens.compression_table(method.backbone, {"a": store}, (1, 20, 10_000)).set_index("k")
    p = probabilities(method.backbone, store["thought"].values[:, 0])
    for k in (1, 20):
        expected = []
        for question, thoughts in zip(questions, p, strict=True):
            path = steps_of(method, task, question)
            hits = 0
            for t in range(4):
                top = set(np.argsort(-thoughts[t], kind="stable")[:k].tolist())
                hits += sum(path[j] in top for j in range(t * len(path) // 4, (t + 1) * len(path) // 4))
            expected.append(hits / 4)
        assert table.loc[k, "value"] == pytest.approx(np.mean(expected))
        assert table.loc[k, "low"] <= table.loc[k, "value"] <= table.loc[k, "high"]
    assert table.loc[10_000, "value"] == pytest.approx(table.loc[10_000, "most"])  # every token is among so many
    assert (set(table["n"]), set(table["store"])) == ({6}, {"a"})
    figure = figures.response(table.reset_index(), x="k", y="value", color="store", log_x=True, reference=1.0)
    assert figure.data[-1].x == (1, 20, 10_000)


def test_explicit_paths_are_the_gold_steps_and_what_else_was_written(made, task):
    _, store = made
    texts = np.array([[["1 + 1 = 2\n#### 2", "1 +  1 = 2 \n#### 3", "2\n\n#### 4", "#### 5"]]] * 6)
    gold = np.array([["1 + 1 = 3", "3 - 1 = 2"]] * 5 + [["1 + 1 = 2", ""]])
    right = np.array([[[False, True, False, True]]] * 6)
    plain = store.drop_vars(["step_text", "text", "correct"]).drop_dims(["draw", "reasoning"])
    written = plain.assign(step_text=(("example", "reasoning"), gold)).assign(
        {name: (("example", "path", "draw"), values) for name, values in (("text", texts), ("correct", right))}
    )
    found = lens.explicit_paths(written, task)
    first, last = (found[name] for name in store["example"].values[[0, 5]])
    assert first == ["1 + 1 = 3\n3 - 1 = 2", "1 + 1 = 2", "2"]  # an answer alone is no path
    assert last == ["1 + 1 = 2", "2"]
    assert lens.explicit_paths(written, task, only_right=True)[store["example"].values[0]] == [
        "1 + 1 = 3\n3 - 1 = 2",
        "1 +  1 = 2",
    ]
    with pytest.raises(ValueError, match="holds no worked steps: collect it on a task"):
        lens.explicit_paths(plain, task)


def test_how_many_paths_thoughts_cover(made, task):
    method, store = made
    questions = task.examples("dev", 6)
    others = ["7 - 5 = 2", "7 + 5 = 12\n12 + 1 = 13"]
    paths = {question.id: ["\n".join(question.steps), *others] for question in questions}
    table = lens.parallelism_table(method.backbone, {"a": store}, paths, k=30)
    p = probabilities(method.backbone, store["thought"].values[:, 0])
    n_eff, runner_up = [], []
    for question, thoughts in zip(questions, p, strict=True):
        scores = []
        for text in paths[question.id]:
            ids = [int(k) for line in text.split("\n") for k in method.backbone.ids(line + "\n")]
            logs = 0.0
            for t in range(4):
                part = set(ids[t * len(ids) // 4 : (t + 1) * len(ids) // 4])
                top = set(np.argsort(-thoughts[t], kind="stable")[:30].tolist())
                logs += np.log(sum(thoughts[t][v] for v in part & top) + 1e-12)
            scores.append(logs / 4)
        weights = softmax(scores)
        n_eff.append(np.exp(stats.entropy(weights)))
        runner_up.append(np.sort(weights)[-2] / weights.max())
    found = table.set_index("statistic")
    assert found.loc["n_eff", "value"] == pytest.approx(np.mean(n_eff), rel=1e-3)
    assert found.loc["n_eff_share", "value"] == pytest.approx(np.mean(n_eff) / 3, rel=1e-3)
    assert found.loc["runner_up", "value"] == pytest.approx(np.mean(runner_up), rel=1e-3)
    assert 1 <= found.loc["n_eff_naive", "value"] <= 3
    assert (set(found["paths"]), set(found["n"])) == ({3}, {6})
    assert list(table["statistic"]) == list(lens.PARALLELISM)
    # matched: with parts that are the thoughts in another order, each is found in its own
    order = [2, 0, 3, 1]
    parts = {
        str(name): [store["thought"].values[i, 0][order] for _ in range(3)]
        for i, name in enumerate(store["example"].values)
    }
    matched = lens.parallelism_table(method.backbone, {"a": store}, paths, references=parts, k=30).set_index(
        "statistic"
    )
    assigned = [np.argsort(order)] * 3
    wanted = [
        lens.parallelism(
            own,
            [
                np.array([int(k) for line in t.split("\n") for k in method.backbone.ids(line + "\n")])
                for t in paths[q.id]
            ],
            k=30,
            assignments=assigned,
        ).n_eff
        for q, own in zip(questions, p, strict=True)
    ]
    assert matched.loc["n_eff", "value"] == pytest.approx(np.mean(wanted), rel=1e-3)
    with pytest.raises(ValueError, match=r"^1 questions of 'lta-thinker' with thoughts and two explicit paths"):
        lens.parallelism_table(method.backbone, store, {questions[0].id: others})


def test_a_mixture_says_itself_which_words_it_holds(tiny, task):
    backbone = tiny("llama")
    method = build("soft-thinking", backbone)
    store = collect(method, task, task.examples("dev", 3), split="dev", decoding=SHORT)
    for i, p in lens._distributions(backbone, store, 0):
        tokens, weights = (store[f"mixture_{name}"].values[i, 0] for name in ("token", "weight"))
        assert p.shape == (int(store["mask"].values[i].sum()), len(backbone.table))
        for step, row in enumerate(p):
            expected = {int(k): w for k, w in zip(tokens[step], weights[step], strict=True) if k >= 0}
            assert {int(k): row[k] for k in np.flatnonzero(row)} == pytest.approx(expected, rel=1e-3)
    assert len(lens.compression_table(backbone, store, (1, 5))) == 2


def test_a_store_is_read_by_its_own_backbone(tiny, made, task):
    method, store = made
    narrow = store.isel(feature=slice(8))
    with pytest.raises(ValueError, match=r"thoughts of width 8 cannot be read by .* load the backbone of the store"):
        lens.compression_table(method.backbone, narrow)
    with pytest.raises(ValueError, match="path 3 of a store with 1 paths"):
        lens.compression_table(method.backbone, store, path=3)
    empty = collect(build("cot", method.backbone), task, task.examples("dev", 3), decoding=SHORT)
    with pytest.raises(ValueError, match="0 questions of 'cot' with thoughts and worked steps: give at least 2"):
        lens.compression_table(method.backbone, {"cot": empty})


# -------------------------------------------------------------------------------------------------------------- errors


def test_one_clear_sentence_before_anything_is_answered(tiny, task, tmp_path, capsys):
    backbone: Backbone = tiny()
    method = build("soft-prompt", backbone)
    for k in (-1, 10_000):
        with pytest.raises(ValueError, match=rf"^readout={k}: .* has \d+ tokens, give 1 to that many, or 0$"):
            collect(method, task, task.examples("dev", 2), readout=k)
    out = tmp_path / "a.nc"
    line = ["collect", "--backbone", backbone.name, "--method", "soft-prompt", "--count", "2", "--out", str(out)]
    assert main([*line, "--decoding.max_new_tokens", "2", "--readout", "3"]) == 0
    assert load(out).sizes["rank"] == 3
    capsys.readouterr()
