"""However prefixes are read, losses and gradients are those of reading them anew; what is kept stays in its budget."""

import dataclasses

import pytest
import torch
from test_backbone import prompts, words

from workbench.methods import Thoughts, build
from workbench.prefixes import Prefixes
from workbench.tasks import load_task
from workbench.train import TrainConfig, train

FAMILIES = ("qwen3", "llama", "gpt2")


def loss_and_gradient(backbone, given, paths=1):
    vectors = backbone.embed(words(backbone, len(given) * paths * 4, 5)).detach().view(len(given), paths, 4, -1)
    vectors = vectors.clone().requires_grad_()
    mask = torch.ones(vectors.shape[:-1], dtype=torch.bool)
    mask[0, :, 1] = False
    losses = build("cot", backbone).likelihood(given, Thoughts(vectors, mask))
    weights = torch.arange(1.0, len(given) + 1)
    return losses, torch.autograd.grad((losses * weights).sum(), vectors)[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("common", [0, 3])
@pytest.mark.parametrize("paths", [1, 2])
def test_every_mode_gives_the_plain_losses_and_gradients(tiny, family, common, paths):
    backbone = tiny(family)
    backbone.model.double()
    start = words(backbone, common, 77)
    given = [dataclasses.replace(p, before=torch.cat([start, p.before])) for p in prompts(backbone)]
    orders = (given, given[::-1], given)  # read, then from what is kept
    backbone.prefixes, backbone.full_logits = Prefixes("off"), True
    plain = [loss_and_gradient(backbone, order, paths) for order in orders]
    assert float(plain[0][1].abs().max()) > 1e-3
    backbone.full_logits = False
    for mode in ("off", "constant", "full"):
        backbone.prefixes = Prefixes(mode)
        for order, wanted in zip(orders, plain, strict=True):
            found = loss_and_gradient(backbone, order, paths)
            torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-6)  # losses are float32


def test_the_common_start_is_read_once_for_one_row(tiny, monkeypatch):
    backbone, shapes = tiny("qwen3"), []
    run = type(backbone).run
    monkeypatch.setattr(
        type(backbone), "run", lambda self, e, *a, **k: shapes.append(e.shape[:2]) or run(self, e, *a, **k)
    )
    start = words(backbone, 6, 7)
    rows = [torch.cat([start, words(backbone, n, n)]) for n in (4, 2, 3)]
    prefixes = Prefixes("constant")
    prefixes.read(backbone, rows)
    assert [tuple(shape) for shape in shapes] == [(1, 6), (3, 4)]
    prefixes.read(backbone, rows[1:])
    assert [tuple(shape) for shape in shapes[2:]] == [(2, 3)]
    prefixes.read(backbone, [start[:5], rows[0]])  # shares less, and of each row something is left to read
    assert [tuple(shape) for shape in shapes[3:]] == [(1, 4), (2, 6)]
    assert prefixes.common == tuple(start[:4].tolist())
    prefixes.read(backbone, [words(backbone, 3, 1), rows[0]])
    assert [tuple(shape) for shape in shapes[5:]] == [(2, 10)]
    assert prefixes.common == ()


def test_full_reads_each_prefix_once_and_keeps_within_its_budget(tiny, monkeypatch):
    backbone, shapes = tiny("qwen3"), []
    run = type(backbone).run
    monkeypatch.setattr(
        type(backbone), "run", lambda self, e, *a, **k: shapes.append(e.shape[:2]) or run(self, e, *a, **k)
    )
    rows = [words(backbone, n, n) for n in (4, 6, 5)]
    prefixes = Prefixes("full")
    cache, mask = prefixes.read(backbone, rows[:2])
    assert mask.tolist() == [[False] * 2 + [True] * 4, [True] * 6]
    assert prefixes.bytes == sum(layer.keys[0, :, 0].numel() * 2 * 4 * 10 for layer in cache.layers)  # float32
    prefixes.read(backbone, rows)
    prefixes.read(backbone, rows[::-1])
    assert [tuple(shape) for shape in shapes] == [(2, 6), (1, 5)]
    small = Prefixes("full", prefixes.bytes / 2**30 / 2)
    for _ in range(2):
        small.read(backbone, rows)
    assert 0 < small.bytes <= prefixes.bytes / 2
    assert len(small.kept) == 1
    assert small.said.startswith("the prefix cache holds 1 prefixes in its ")
    assert small.said.endswith("read again in every epoch. Give more with --training.prefix_cache_gib")


def test_a_backbone_that_is_trained_reads_with_gradients(tiny):
    backbone = tiny("qwen3")
    backbone.model.requires_grad_(True)
    for mode in ("off", "constant", "full"):
        backbone.prefixes = Prefixes(mode)
        cache, _ = backbone.prefixes.read(backbone, [words(backbone, 4, 1)])
        assert cache.layers[0].keys.requires_grad
        assert not backbone.prefixes.kept


def test_training_says_when_the_cache_is_full_and_ends_at_the_same_weights(tiny, tmp_path):
    task, found = load_task("arith"), {}
    config = TrainConfig(examples=16, epochs=2, batch_size=8, probe_examples=4)
    settings = {
        "plain": {"prefix_cache": "off", "full_logits": True},
        "full": {"prefix_cache": "full"},
        "little": {"prefix_cache": "full", "prefix_cache_gib": 1e-5},
    }
    for name, setting in settings.items():
        method = build("soft-prompt", tiny("qwen3"))
        train(method, task, dataclasses.replace(config, **setting), tmp_path / name)
        found[name] = method.vectors.detach()
        said = "the prefix cache holds" in (tmp_path / name / "metrics.jsonl").read_text()
        assert said == (name == "little")
    torch.testing.assert_close(found["full"], found["plain"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["little"], found["plain"], atol=1e-5, rtol=1e-4)
