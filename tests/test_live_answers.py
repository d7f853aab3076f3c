"""A live method that answers with any thoughts: unchanged ones as the store was, others in the same place."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.methods.lta_thinker import LTAThinkerConfig


@pytest.fixture(scope="module")
def task():
    return wb.load_task("arith-shift")


@pytest.fixture(scope="module")
def method(tiny, task):
    return wb.build("lta-thinker", tiny(), LTAThinkerConfig(thoughts=2))


@pytest.fixture(scope="module")
def store(method, task):
    decoding = wb.Decoding(max_new_tokens=6)
    return wb.collect(method, task, task.examples("dev", 4), decoding=decoding)


def test_unchanged_thoughts_are_answered_as_in_the_store(method, task, store):
    answer = wb.answering(method, store, task=task)
    for name in store["example"].values.tolist():
        one = store.sel(example=name).isel(path=0)
        assert answer(name, one["thought"].values) == one["text"].item()


def test_a_row_is_before_thoughts_after(method, task, store):
    name = str(store["example"].values[0])
    example = next(example for example in task.examples("dev", 4) if example.id == name)
    prompt = method.render(example, task)
    backbone = method.backbone
    words = torch.tensor([5, 9, 11])
    answer = wb.answering(method, store, task=task)
    for thoughts in (words, words[:0]):  # thoughts that are words; none
        row = torch.cat([prompt.before, thoughts, prompt.after])
        written = backbone.generate([backbone.embed(row)], wb.Decoding(max_new_tokens=6))
        assert answer(name, backbone.embed(thoughts).detach().numpy()) == written[0][0].text


def test_it_is_made_from_a_runs_folder(tiny_folder, tmp_path, store, method, task):
    settings = wb.TrainConfig(epochs=1, examples=4, batch_size=4, probe_examples=2)
    run = wb.train(
        wb.build("lta-thinker", wb.Backbone.load(str(tiny_folder())), method.config), task, settings, tmp_path
    )
    trained = wb.load_method(run)
    found = wb.collect(trained, task, task.examples("dev", 2), decoding=wb.Decoding(max_new_tokens=4))
    answer = wb.answering(run, found)
    for name in found["example"].values.tolist():
        one = found.sel(example=name).isel(path=0)
        assert answer(name, one["thought"].values) == one["text"].item()


def test_words_have_embeddings(method, task, store):
    answer = wb.answering(method, store, task=task)
    ids = method.backbone.ids("7 + 2")
    expected = method.backbone.embed(ids).mean(0).detach().numpy()
    np.testing.assert_allclose(answer.embedding("7 + 2"), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="no word to embed"):
        answer.embedding("")


def test_what_does_not_fit_is_one_sentence(method, task, store):
    answer = wb.answering(method, store, task=task)
    name = str(store["example"].values[0])
    with pytest.raises(ValueError, match="no example 'x' here"):
        answer("x", np.zeros((1, 32)))
    with pytest.raises(ValueError, match=r"thoughts of shape \(1, 3\): give finite vectors \[step, 32\]"):
        answer(name, np.zeros((1, 3)))
    with pytest.raises(ValueError, match="finite"):
        answer(name, np.full((1, 32), np.nan))
    with pytest.raises(ValueError, match="give task="):
        wb.answering(method, store)
    with pytest.raises(ValueError, match="give the run that the store was collected from"):
        wb.answering(method, store.assign_attrs(method="coconut"), task=task)
