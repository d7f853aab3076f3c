"""However prefixes are read, losses and gradients are those of reading them anew; what is kept stays in its budget."""

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from test_backbone import prompts, words

from workbench.backbone import prefixes as prefix_module
from workbench.backbone.checkpointing import checkpointed
from workbench.backbone.prefixes import Prefixes
from workbench.methods import Thoughts, build
from workbench.tasks import load_task
from workbench.training.loop import TrainConfig, train

FAMILIES = ("qwen3", "llama", "gpt2")


def loss_and_gradient(backbone, given, paths=1):
    vectors = backbone.embed(words(backbone, len(given) * paths * 4, 5)).detach().view(len(given), paths, 4, -1)
    vectors = vectors.clone().requires_grad_()
    mask = torch.ones(vectors.shape[:-1], dtype=torch.bool)
    mask[0, :, 1] = False
    losses = build("cot", backbone).likelihood(given, Thoughts(vectors, mask))
    weights = torch.arange(1.0, len(given) + 1)
    return losses, torch.autograd.grad((losses * weights).sum(), vectors)[0]


@pytest.mark.slow
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


@pytest.fixture
def lengths(monkeypatch) -> list[list[int]]:
    """Of each reading, how long the rows are."""
    found: list[list[int]] = []
    read = prefix_module.read_rows

    def told(model, rows, before):
        found.append([len(row) for row in rows])
        return read(model, rows, before)

    monkeypatch.setattr(prefix_module, "read_rows", told)
    return found


def test_the_common_start_is_read_once_for_one_row(tiny, lengths):
    backbone = tiny("qwen3")
    start = words(backbone, 6, 7)
    rows = [torch.cat([start, words(backbone, n, n)]) for n in (4, 2, 3)]
    prefixes = Prefixes("constant")
    prefixes.read(backbone, rows)
    assert lengths == [[6], [4, 2, 3]]
    prefixes.read(backbone, rows[1:])
    assert lengths[2:] == [[2, 3]]
    prefixes.read(backbone, [start[:5], rows[0]])  # shares less, and of each row something is left to read
    assert lengths[3:] == [[4], [1, 6]]
    assert prefixes.common == tuple(start[:4].tolist())
    prefixes.read(backbone, [words(backbone, 3, 1), rows[0]])
    assert lengths[5:] == [[3, 10]]
    assert prefixes.common == ()


def test_full_reads_each_prefix_once_and_keeps_within_its_budget(tiny, lengths):
    backbone = tiny("qwen3")
    rows = [words(backbone, n, n) for n in (4, 6, 5)]
    prefixes = Prefixes("full")
    first = prefixes.read(backbone, rows[:2])
    sizes = [[keys.shape[2] for layers in read for keys, _ in layers] for read in first]
    assert sizes == [[4, 4], [6, 6]]  # of two layers
    assert prefixes.bytes == sum(keys.nbytes + values.nbytes for read in first for keys, values in read[0])
    prefixes.read(backbone, rows)
    again = prefixes.read(backbone, rows[1::-1])
    assert lengths == [[4, 6], [5]]
    for one, other in zip(first, again[::-1], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    small = Prefixes("full", prefixes.bytes / 2**30 / 2)
    for _ in range(2):
        small.read(backbone, rows)
    assert 0 < small.bytes <= prefixes.bytes / 2
    assert len(small.kept) == 1
    assert small.said.startswith("the prefix cache is full with 1 of the prefixes in ")
    assert small.said.endswith("read again in every epoch. Give more with --training.prefix_cache_gib")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backbone_that_is_trained_reads_with_gradients(tiny, family):
    """Those of whole padded rows, in all of its weights."""
    backbone = tiny(family).double()
    backbone.model.requires_grad_(True)
    backbone.model.get_output_embeddings().requires_grad_(False)
    trained = [p for p in backbone.model.parameters() if p.requires_grad]
    given, found = prompts(backbone), {}
    for mode in ("plain", "off", "constant", "full"):
        backbone.padded, backbone.prefixes = mode == "plain", Prefixes("off" if mode == "plain" else mode)
        embeds = backbone.embed(words(backbone, 12, 5)).detach().view(3, 1, 4, -1)
        thoughts = Thoughts(embeds, torch.ones(3, 1, 4, dtype=torch.bool))
        for way in ("kept", "computed again"):
            with checkpointed(backbone.model) if way == "computed again" else nullcontext():
                losses = build("cot", backbone).likelihood(given, thoughts)
                found[mode, way] = torch.autograd.grad(losses.sum(), trained, allow_unused=True)
    wanted = found["plain", "kept"]
    assert sum(gradient is not None for gradient in wanted) > 10
    for gradients in found.values():
        for one, other in zip(gradients, wanted, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-6)


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
        said = "the prefix cache is full" in (tmp_path / name / "metrics.jsonl").read_text()
        assert said == (name == "little")
    torch.testing.assert_close(found["full"], found["plain"], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found["little"], found["plain"], atol=1e-5, rtol=1e-4)
