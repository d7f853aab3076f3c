"""What `collect` keeps beside thoughts and answers, and that how it is cut into batches changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from workbench.backbone import Backbone, Completion, Decoding
from workbench.evidence.collect import collect
from workbench.methods import Thoughts, build
from workbench.tasks import load_task

TASK = load_task("arith")
SAMPLED = Decoding(5, temperature=1.0, top_k=8)


def test_a_steps_vector_is_the_mean_of_its_words_embeddings(tiny):
    """Of unequal lengths, of examples with more, fewer and no steps, over several batches, in the examples' order."""
    backbone = tiny("gpt2")
    assert backbone.table[0].any()  # of padding: it must not be in the mean
    examples = TASK.examples("test", 5)
    examples.append(replace(examples[0], id="stepless", steps=()))
    assert len({len(e.steps) for e in examples}) > 2
    found = collect(build("cot", backbone), TASK, examples, decoding=Decoding(1), batch_size=4)
    for vectors, example in zip(found["step_vector"].values, examples, strict=True):
        for vector, step in zip(vectors, example.steps, strict=False):
            expected = backbone.table[backbone.ids(step + "\n")].mean(0)
            np.testing.assert_allclose(vector, expected.numpy(), atol=1e-6)
        assert np.isnan(vectors[len(example.steps) :]).all()


def test_examples_without_steps_are_collected_without_them(tiny):
    bare = [replace(example, steps=()) for example in TASK.examples("test", 3)]
    found = collect(build("cot", tiny()), TASK, bare, decoding=Decoding(1), batch_size=2)
    assert "step_vector" not in found
    assert found.sizes["example"] == 3


def test_batches_paths_and_draws_are_where_they_were_asked(tiny):
    """Answers of an example are those that the method gives it alone, whatever was beside it."""
    method, examples = build("soft-prompt", tiny()), TASK.examples("test", 5)
    found = collect(method, TASK, examples, decoding=SAMPLED, paths=2, draws=3, batch_size=2, seed=4)
    assert found["text"].dims == ("example", "path", "draw")
    for k, example in enumerate(examples):
        prompt = method.render(example, TASK)
        alone = method.answer([prompt], method.think([prompt], paths=2), SAMPLED, draws=3, seed=4)[0]
        assert found["text"].values[k].tolist() == [[c.text for c in path] for path in alone]
    assert len(set(found["text"].values.flatten().tolist())) > 3


def test_the_noise_of_a_change_is_the_same_whatever_the_batches(tiny):
    """Batches are of like lengths, so places in a batch and in the list of examples differ."""
    method, examples = build("soft-prompt", tiny()), TASK.examples("test", 6)
    lengths = [len(method.render(example, TASK).before) for example in examples]
    assert lengths != sorted(lengths)
    stores = [
        collect(method, TASK, examples, decoding=Decoding(1), change="noised:1", batch_size=size) for size in (1, 2, 6)
    ]
    noise = stores[0]["thought"].values - method.think([method.render(examples[0], TASK)]).vectors.detach().numpy()
    assert len({row.tobytes() for row in noise}) == 6  # each question has its own
    for other in stores[1:]:
        np.testing.assert_array_equal(other["thought"].values, stores[0]["thought"].values)


def test_each_path_is_answered_behind_its_own_thoughts(tiny, monkeypatch):
    """Rows are [before | the thoughts that are there | after], example by example and path by path."""
    backbone = tiny()
    method = build("soft-prompt", backbone)
    prompts = [method.render(example, TASK) for example in TASK.examples("test", 3)]
    prompts = [replace(prompt, after=prompt.after[k:]) for k, prompt in enumerate(prompts)]  # else all are the same
    thoughts = method.think(prompts, paths=2)
    chance = torch.Generator().manual_seed(0)
    vectors = torch.randn(thoughts.vectors.shape, generator=chance)
    mask = torch.rand(thoughts.mask.shape, generator=chance) < 0.5
    assert len(set(mask.sum(-1).flatten().tolist())) > 1
    read = []

    def generate(self, rows, decoding, **rest):
        read.extend(rows)
        return [[Completion("", (), True)]] * len(rows)

    monkeypatch.setattr(Backbone, "generate", generate)
    answers = method.answer(prompts, Thoughts(vectors, mask), Decoding(1))
    assert [len(paths) for paths in answers] == [2, 2, 2]
    for k, row in enumerate(read):
        i, path = divmod(k, 2)
        own = vectors[i, path][mask[i, path]]
        pieces = [backbone.embed(prompts[i].before), own, backbone.embed(prompts[i].after)]
        torch.testing.assert_close(row, torch.cat(pieces), rtol=0, atol=0)


def test_a_store_says_the_code_of_its_own_time(tiny, monkeypatch):
    """A notebook may load changed code again: what was asked once is not what a later store comes from."""
    commits, task = iter(["abc", "def"]), load_task("arith")
    monkeypatch.setattr("workbench.runs.origin.commit", lambda: next(commits))
    method = build("cot", tiny())
    stores = [collect(method, task, task.examples("dev", 1), decoding=Decoding(1)) for _ in range(2)]
    assert [store.attrs["commit"] for store in stores] == ["abc", "def"]


def test_nothing_to_collect_is_one_sentence(tiny):
    with pytest.raises(ValueError, match="no examples to collect; give at least one"):
        collect(build("cot", tiny()), TASK, [])
